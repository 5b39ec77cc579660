"""core/policy.py: the rows, written out a second time."""

from __future__ import annotations

import pytest

from pantala.core.policy import KIND_OF_TAG, POLICIES, Medium, Policy, policy_of
from pantala.errors import FeatureOff
from pantala.model.task import Kind
from pantala.wire.vortex import REQUESTS


def test_the_rows() -> None:
    """No row more, no row less."""
    assert {
        Kind.STANDARD: Policy(Medium.DISK, request_tag=0, from_source=True, revalidates=True),
        Kind.PERSISTENT_CACHE: Policy(
            Medium.DISK, request_tag=4, from_source=False, revalidates=False, imported=True
        ),
        Kind.CACHE: Policy(
            Medium.MEMORY,
            request_tag=6,
            from_source=True,
            revalidates=False,
            least_piece=1 << 20,
            overflow=Kind.STANDARD,
        ),
    } == POLICIES


@pytest.mark.parametrize("kind", POLICIES)
def test_each_row_has_a_request_of_its_own(kind: Kind) -> None:
    """A tag on the wire says which kind is meant."""
    assert policy_of(kind) is POLICIES[kind]
    assert POLICIES[kind].request_tag in REQUESTS
    assert KIND_OF_TAG[POLICIES[kind].request_tag] is kind


@pytest.mark.parametrize("kind", sorted(set(Kind) - set(POLICIES)))
def test_other_kinds_are_refused_by_name(kind: Kind) -> None:
    """The message says what is served instead."""
    with pytest.raises(FeatureOff, match=f"{kind.name} tasks are not served.* CACHE"):
        policy_of(kind)
