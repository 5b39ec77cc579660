"""daemon/downloading/callers.py: who wants what, and who may ask the origin for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from pantala.core.transfer import Wanted
from pantala.daemon.downloading.callers import Callers, credentials
from pantala.daemon.downloading.download import Download
from pantala.errors import DragonflyError, NoProvider, OriginError
from pantala.model.ids import Identity
from pantala.model.pieces import ByteRange
from pantala.model.task import Delivery, DownloadRequest, Kind, TaskRecord
from pantala.storage.holding import Holding
from pantala.storage.journal import NullJournal
from pantala.storage.memory import MemoryMedium
from pantala.storage.store import Store

REQUEST = DownloadRequest(kind=Kind.CACHE, url="http://origin/f")


@pytest.fixture
def holding() -> Iterator[Holding]:
    """Ten pieces of 100 bytes, none of which is here."""
    holdings = Store(MemoryMedium(1 << 20), NullJournal(), clock=lambda: 0.0)
    yield holdings.open(
        TaskRecord(
            kind=Kind.CACHE,
            id="t",
            url="u",
            created_at=0.0,
            updated_at=0.0,
            content_length=1000,
            piece_length=100,
        )
    )
    holdings.close()


def caller(holding: Holding, first: int, count: int, **wishes: object) -> Download:
    """Somebody who wants pieces."""
    part = ByteRange(first * 100, count * 100)
    request = replace(REQUEST, range=part, **wishes)  # type: ignore[arg-type]  # names are checked there
    download = Download(request, Delivery(), Identity("t", "f"), "peer")
    download.begin(holding)
    return download


async def failure(download: Download) -> DragonflyError | None:
    """What it was told; None if it still waits."""
    if not download.over:
        return None
    try:
        async for _ in download:
            pass
    except DragonflyError as error:
        return error
    return None


async def test_what_is_wanted(holding: Holding) -> None:
    """By anybody; the origin may be asked where one of them may ask it."""
    callers = Callers(caller(holding, 0, 3))
    callers.add(caller(holding, 2, 3, disable_back_to_source=True))

    assert callers.wanted() == Wanted({0: True, 1: True, 2: True, 3: False, 4: False})
    assert len(callers) == 2


async def test_who_has_ended_wants_nothing(holding: Holding) -> None:
    """Nor is it a sponsor; it is forgotten when the next one joins."""
    first, second = caller(holding, 0, 1), caller(holding, 5, 1)
    callers = Callers(first)
    callers.add(second)
    first.fail(NoProvider("x"))

    assert callers.active() == [second]
    assert callers.wanted() == Wanted({5: True})
    callers.add(caller(holding, 7, 1))
    assert len(callers) == 2


async def test_failing_everybody(holding: Holding) -> None:
    """Whatever they want."""
    everybody = [caller(holding, 0, 1), caller(holding, 5, 1)]
    callers = Callers(everybody[0])
    callers.add(everybody[1])
    callers.fail(NoProvider("gone"))

    assert [str(await failure(each)) for each in everybody] == ["gone", "gone"]
    assert callers.active() == []
    assert callers.sponsor() is None


async def test_refusing_pieces(holding: Holding) -> None:
    """Those who do not want them go on."""
    first, second = caller(holding, 0, 3), caller(holding, 2, 3)
    callers = Callers(first)
    callers.add(second)
    callers.refuse(frozenset({3, 9}), NoProvider("nobody has it"))

    assert await failure(first) is None
    assert str(await failure(second)) == "nobody has it"


async def test_the_sponsor(holding: Holding) -> None:
    """The first who may ask and still waits."""
    forbidden = caller(holding, 0, 1, disable_back_to_source=True)
    first, second = caller(holding, 1, 1, tag="a"), caller(holding, 2, 1, tag="b")
    callers = Callers(forbidden)
    assert callers.sponsor() is None
    callers.add(first)
    callers.add(second)
    assert callers.sponsor() is first.request
    first.fail(NoProvider("x"))
    assert callers.sponsor() is second.request
    callers.close_source()
    assert callers.sponsor() is None
    assert callers.wanted() == Wanted({0: False, 2: False})


async def test_an_origin_that_refused_one_callers_credentials(holding: Holding) -> None:
    """Those who ask with the same fail with it, and nobody else does."""
    mine, same, other, forbidden = (
        caller(holding, 0, 1, request_header={"Authorization": "mine"}),
        caller(holding, 1, 1, request_header={"Authorization": "mine", "Range": "bytes=1-2"}),
        caller(holding, 0, 1, request_header={"Authorization": "other"}),
        caller(
            holding,
            0,
            1,
            request_header={"Authorization": "mine"},
            disable_back_to_source=True,
        ),
    )
    callers = Callers(mine)
    for each in (same, other, forbidden):
        callers.add(each)
    callers.fail_sponsored(credentials(mine.request), OriginError("403 Forbidden"))

    assert str(await failure(mine)) == str(await failure(same)) == "403 Forbidden"
    assert callers.active() == [other, forbidden]


def test_credentials() -> None:
    """URL and headers, in any order; which part is wanted is not among them."""
    one = replace(REQUEST, request_header={"A": "1", "B": "2"})
    assert credentials(one) == credentials(
        replace(REQUEST, request_header={"B": "2", "RANGE": "bytes=0-1", "A": "1"})
    )
    assert credentials(one) != credentials(replace(one, url="http://other/f"))
    assert credentials(one) != credentials(replace(one, request_header={"A": "1"}))


async def test_only_prefetching(holding: Holding) -> None:
    """Until somebody is in earnest."""
    prefetch = caller(holding, 0, 10, is_prefetch=True)
    callers = Callers(prefetch)
    assert callers.is_prefetch
    callers.add(caller(holding, 0, 1))
    assert not callers.is_prefetch


async def test_is_anybody_there(holding: Holding) -> None:
    """Who has left needs nothing more, whether it has it or not."""
    first, second = caller(holding, 0, 1), caller(holding, 0, 1)
    callers = Callers(first)
    callers.add(second)
    first.close()
    assert callers.is_waited_for
    second.close()
    assert not callers.is_waited_for


async def test_only_peers_sponsors_nothing(holding: Holding) -> None:
    """A priority that allows only peers is as good as a word; whoever joins may do more."""
    first = caller(holding, 0, 2, priority=2)
    callers = Callers(first)
    assert callers.sponsor() is None
    second = caller(holding, 1, 1, priority=6)
    callers.add(second)
    assert callers.sponsor() is second.request
    assert callers.wanted() == Wanted({0: False, 1: True})
