"""The pytest plugin, which pytest finds by itself: a daemon and an origin for a test to use.

It is imported whenever pytest starts, so all that it needs is imported when a test asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .playground import Playground, Swarm


@pytest.fixture(scope="session")
def _pantala_playground() -> Iterator[Playground]:
    """What the tests of a session share."""
    from .playground import Playground  # noqa: PLC0415  most sessions never need it

    with Playground() as playground:
        yield playground


@pytest.fixture
def pantala_swarm(_pantala_playground: Playground) -> Iterator[Swarm]:
    """A daemon that holds nothing, and an HTTP origin of the test's own.

    While the test runs ``$PANTALA_ENDPOINT`` names that daemon, so that it is also what the
    functions of :mod:`pantala`, and clients that name no other, ask.
    """
    with _pantala_playground.swarm() as swarm:
        yield swarm
