"""Data centres: what crosses the lines between them, counted by who gave whom each piece."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from pantala.core.sched.centres import ENOUGH
from pantala.daemon.app import Daemon
from pantala.testing import inside
from pantala.testing.content import Pattern
from pantala.testing.origin import Origin

PIECE = 4 << 20
PIECES = 24
CENTRES = "ab"
HOSTS = 6

#: Bytes a second that a host sends. Without a limit, all would be there before anybody can say
#: what he has: the lines here are not thinner than those within a data centre.
RATE = "32MiB"


@pytest.fixture
async def daemons(tmp_path: Path) -> AsyncIterator[list[Daemon]]:
    """Some in each data centre, whose name is spelt in two ways; and their scheduler."""
    async with AsyncExitStack() as stack:
        scheduler = await stack.enter_async_context(inside.scheduler())
        yield [
            await stack.enter_async_context(
                inside.daemon(
                    tmp_path,
                    f"{CENTRES[number % 2]}{number}",
                    port=scheduler.port,
                    host__idc=(CENTRES, CENTRES.upper())[number // 2 % 2][number % 2],
                    upload__bandwidthLimit=RATE,
                    storage__cacheCapacity="128MiB",
                )
            )
            for number in range(2 * HOSTS)
        ]


def from_afar(daemons: list[Daemon], centre: str) -> Counter[str]:
    """How many pieces each host of a data centre got of hosts of the other, if it got any."""
    pieces: Counter[str] = Counter()
    for daemon in daemons:
        if (daemon.config.host.idc or "").lower() != centre:
            continue
        (holding,) = daemon.stores
        assert len(holding.pieces) == PIECES
        givers = [each.parent_id for each in holding.pieces.values() if each.parent_id]
        pieces[daemon.config.host.hostname] += sum(
            not giver.startswith(f"127.0.0.1-{centre}") for giver in givers
        )
    return +pieces


async def test_each_piece_comes_to_a_data_centre_about_once(
    daemons: list[Daemon], origin: Origin
) -> None:
    """All begin at the same moment. Of each data centre three go out, and share what they bring.

    If it were all the same, every other piece would come from the other data centre: to six hosts
    three copies.
    """
    content = Pattern(PIECES * PIECE, seed=1)
    origin.put("/f", content)
    got = await asyncio.gather(
        *(inside.get(daemon, origin.url("/f"), piece_length=PIECE) for daemon in daemons)
    )
    assert all(each == content.read() for each in got)
    assert origin.sent("/f") < content.size + PIECE
    came = [from_afar(daemons, centre) for centre in CENTRES]
    assert all(len(pieces) <= ENOUGH for pieces in came)
    # Two may begin the same piece before either hears of the other's: more here than on a line. If
    # they heard nothing, it would be two copies.
    assert all(pieces.total() <= 1.75 * PIECES for pieces in came)
    assert any(pieces.total() >= PIECES for pieces in came)
