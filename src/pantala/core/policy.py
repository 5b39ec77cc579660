"""The whole difference between one kind of task and another.

No function or class exists once per kind; code asks this table instead. A row for a kind that
this version does not serve would be a promise, so there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pantala.errors import FeatureOff
from pantala.model.pieces import LEAST_PIECE_LENGTH, MIN_PIECE_LENGTH
from pantala.model.task import Kind


class Medium(StrEnum):
    """Where the bytes of a kind live."""

    MEMORY = "memory"
    DISK = "disk"


@dataclass(frozen=True, slots=True)
class Policy:
    """One row.

    Attributes:
        medium: Which store holds content and metadata.
        request_tag: Vortex tag of a piece request; the answer's is the next one.
        from_source: The engine may fall back to the origin.
        imported: It comes to be by import of a file, and not by download: its id names it, and
            schedulers know what it is. They write down who keeps it.
        revalidates: What is here is compared with the origin when it is asked for again.
        least_piece: Bytes in its shortest pieces, see
            :func:`~pantala.model.pieces.piece_length_for`.
        overflow: The kind as which a download is carried out for which there is no room, where
            the operator wants that.
    """

    medium: Medium
    request_tag: int
    from_source: bool
    revalidates: bool
    imported: bool = False
    least_piece: int = MIN_PIECE_LENGTH
    overflow: Kind | None = None


POLICIES: Final = {
    Kind.STANDARD: Policy(
        medium=Medium.DISK,
        request_tag=0,
        from_source=True,
        revalidates=True,
    ),
    Kind.PERSISTENT_CACHE: Policy(
        medium=Medium.DISK,
        request_tag=4,
        from_source=False,
        revalidates=False,
        imported=True,
    ),
    Kind.CACHE: Policy(
        medium=Medium.MEMORY,
        request_tag=6,
        from_source=True,
        # Its identity is its id: whoever wants a changed file names it otherwise, or deletes it.
        revalidates=False,
        # Nobody but pantala has served this kind yet, so nobody expects longer ones (ADR 32).
        least_piece=LEAST_PIECE_LENGTH,
        overflow=Kind.STANDARD,
    ),
}

KIND_OF_TAG: Final = {policy.request_tag: kind for kind, policy in POLICIES.items()}


def policy_of(kind: Kind) -> Policy:
    """The row of *kind*.

    Raises:
        FeatureOff: This version does not serve that kind.
    """
    try:
        return POLICIES[kind]
    except KeyError:
        served = ", ".join(k.name for k in POLICIES)
        raise FeatureOff(f"{kind.name} tasks are not served; this version has {served}") from None
