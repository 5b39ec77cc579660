"""daemon/downloading/fetching.py: what it makes of parents played from a script, real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from pantala.background import Tasks
from pantala.core.digests import DigestRun
from pantala.core.pace import Pace
from pantala.core.transfer import Closed, Event, Fetch, Lost, Offered, Stored
from pantala.daemon.downloading.digests import PieceDigests
from pantala.daemon.downloading.fetching import Fetcher
from pantala.daemon.downloading.following import Following
from pantala.daemon.downloading.origin import Origin
from pantala.errors import Busy, NoProvider, OriginError, PieceNotFound, StoreFailed, TaskNotFound
from pantala.model.announce import Candidate, HostFacts
from pantala.model.digest import crc32, piece_digest
from pantala.model.task import Kind, PieceRecord, TaskRecord
from pantala.pb import common_pb2, dfdaemon_pb2
from pantala.rpc.parent_link import DIGESTS_KEY, VERSION_KEY
from pantala.rpc.service import add_service, sends_headers
from pantala.storage.holding import Holding
from pantala.storage.home import Reason
from pantala.testing import inside
from pantala.testing.sinks import NarrowSink

TASK = "a" * 64
PIECE = 100
DATA = b"x" * PIECE
ALL = frozenset(range(4))


class Parent:
    """A parent that says what it is told to, and then does not end its stream."""

    def __init__(self) -> None:
        self.version = self.digests = ""
        self.offers: list[tuple[int, int, int]] = []
        self.error: Exception | None = None
        self.data = DATA
        self.asked = 0

    @sends_headers
    async def SyncCachePieces(self, _: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802  the contract's name
        """Offer what was prepared."""
        self.asked += 1
        hello = ((VERSION_KEY, self.version), (DIGESTS_KEY, self.digests))
        await context.send_initial_metadata(hello)
        for number, offset, length in self.offers:
            yield dfdaemon_pb2.SyncCachePiecesResponse(number=number, offset=offset, length=length)
        if self.error is not None:
            raise self.error
        await asyncio.Event().wait()

    async def DownloadCachePiece(self, request: Any, _: Any) -> Any:  # noqa: N802  the contract's name
        """Bring a piece."""
        if self.error is not None:
            raise self.error
        number = request.piece_number
        piece = common_pb2.Piece(
            number=number,
            offset=number * PIECE,
            length=PIECE,
            digest=piece_digest(crc32(DATA)),
            content=self.data,
        )
        return dfdaemon_pb2.DownloadCachePieceResponse(piece=piece)


class Owner:
    """A flight that writes down what it is told."""

    is_prefetch = False
    room = 4

    def __init__(self, holding: Holding) -> None:
        self.holding = holding
        self.plain: list[str] = []
        self.events: list[Event] = []
        self.pieces: list[PieceRecord] = []
        self.outvoted = 0

    def on(self, event: Event) -> None:
        """Write it down."""
        self.events.append(event)

    def on_plain(self, name: str) -> None:
        """Write it down."""
        self.plain.append(name)

    def on_piece(self, piece: PieceRecord) -> None:
        """Write it down; its event is yet to come."""
        assert Stored(piece) not in self.events
        self.pieces.append(piece)

    def on_source_failed(self, origin: Origin, error: OriginError) -> None:
        """There is no origin here."""
        raise AssertionError((origin, error))

    def on_outvoted(self) -> None:
        """Write it down."""
        self.outvoted += 1

    def origin(self) -> Origin:
        """There is no origin here."""
        raise NoProvider("nobody may ask")

    wanted = frozenset(range(4))

    def may_be(self, version: str) -> bool:
        """It is this one."""
        return bool(version)

    async def ask(self) -> None:
        """Nobody can be asked."""


@pytest.fixture
def parent() -> Parent:
    """One parent."""
    return Parent()


@pytest.fixture
async def owner(tmp_path: Path, stack: AsyncExitStack) -> Owner:
    """Four pieces are wanted; the daemon is attached for :func:`fetcher`."""
    daemon = await stack.enter_async_context(inside.daemon(tmp_path))
    holding = daemon.stores[Kind.CACHE].open(
        TaskRecord(
            kind=Kind.CACHE,
            id=TASK,
            url="u",
            created_at=0.0,
            updated_at=0.0,
            content_length=4 * PIECE,
            piece_length=PIECE,
        )
    )
    holding.reserve(range(4))
    owner = Owner(holding)
    owner.daemon = daemon  # type: ignore[attr-defined]  # for the next fixture alone
    return owner


@pytest.fixture
async def fetcher(owner: Any, parent: Parent, stack: AsyncExitStack) -> Fetcher:
    """Whose one candidate is the parent."""
    server = grpc.aio.server()
    add_service(server, "dfdaemon.v2.DfdaemonUpload", parent)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stack.push_async_callback(server.stop, None)
    node, means = owner.daemon.node, owner.daemon.engine.means
    following = Following(node, means, owner, owner.holding, Pace())
    digests = owner.digests = PieceDigests(owner.holding, owner, Tasks(), owner.ask)
    fetcher = Fetcher(node, means, owner, following, digests)
    following.candidates["p"] = Candidate("p", HostFacts("h", "h", "127.0.0.1", port))
    return fetcher


def whole(number: int) -> tuple[int, int, int]:
    """A piece as it should be offered."""
    return number, number * PIECE, PIECE


async def follow(fetcher: Fetcher) -> None:
    """Until the parent offers no more, which must be soon."""
    async with asyncio.timeout(20):
        await fetcher.following.follow("p", ALL)


# -- offers --------------------------------------------------------------------------------------


async def test_offers_are_reported(fetcher: Fetcher, owner: Owner, parent: Parent) -> None:
    """As they come; then that there are no more, and why does not matter."""
    parent.offers = [whole(2), whole(0)]
    parent.error = TaskNotFound(TASK)
    await follow(fetcher)
    assert owner.events == [Offered("p", 2), Offered("p", 0), Closed("p")]
    assert owner.plain == ["p"]


@pytest.mark.parametrize(
    "offers",
    [
        pytest.param([whole(1), whole(1)], id="twice"),
        pytest.param([whole(1), whole(9)], id="unasked"),
    ],
)
async def test_offers_out_of_turn(
    fetcher: Fetcher, owner: Owner, parent: Parent, offers: list[tuple[int, int, int]]
) -> None:
    """Whoever may go on with them for ever keeps nobody waiting."""
    parent.offers = offers
    await follow(fetcher)
    assert owner.events == [Offered("p", 1), Closed("p")]


@pytest.mark.parametrize("offer", [(1, 0, PIECE), (1, PIECE, 50)])
async def test_a_parent_that_cuts_otherwise(
    fetcher: Fetcher, owner: Owner, parent: Parent, offer: tuple[int, int, int]
) -> None:
    """It holds another version; nothing of it is wanted."""
    parent.offers = [whole(0), offer]
    await follow(fetcher)
    assert owner.events == [Offered("p", 0), Closed("p", bad=True)]


async def test_a_parent_of_another_version(fetcher: Fetcher, owner: Owner, parent: Parent) -> None:
    """Not one of its pieces is taken."""
    owner.holding.learn_version("1")
    parent.version, parent.offers = "2", [whole(0)]
    await follow(fetcher)
    assert owner.events == [Closed("p", bad=True)]


@pytest.mark.parametrize("version", ["", "1"])
async def test_a_parent_that_may_be_right(
    fetcher: Fetcher, owner: Owner, parent: Parent, version: str
) -> None:
    """It says the same, or nothing; and the first to say something decides."""
    parent.version, parent.offers, parent.error = version, [whole(0)], TaskNotFound(TASK)
    await follow(fetcher)
    assert owner.events == [Offered("p", 0), Closed("p")]
    assert owner.holding.record.version == version


async def test_a_parent_that_is_busy(fetcher: Fetcher, owner: Owner, parent: Parent) -> None:
    """It is asked again, and only a few times."""
    parent.error = Busy("too many")
    await follow(fetcher)
    assert parent.asked == 5
    assert owner.events == [Closed("p")]


async def test_a_stranger_where_the_origin_names_no_version(
    fetcher: Fetcher, owner: Owner, parent: Parent
) -> None:
    """Who says nothing has nothing that could be shown to be of our reading."""
    owner.holding.learn_version("reading:1")
    parent.version, parent.offers = "", [whole(0)]
    await follow(fetcher)
    assert owner.events == [Closed("p", bad=True)]


async def test_two_readings_of_the_same_bytes(
    fetcher: Fetcher, owner: Owner, parent: Parent
) -> None:
    """Their digests show it."""
    parent.version, parent.digests, parent.offers = "reading:1", "d", [whole(0)]
    parent.error = TaskNotFound(TASK)
    await follow(fetcher)
    parent.version, parent.offers = "reading:2", [whole(1)]
    await follow(fetcher)
    parent.digests = "e"
    await follow(fetcher)
    assert owner.events == [
        *(Offered("p", 0), Closed("p"), Offered("p", 1), Closed("p"), Closed("p", bad=True))
    ]


async def test_the_majority(fetcher: Fetcher, owner: Owner, parent: Parent) -> None:
    """As many hosts as hold ours change nothing; one more does."""
    peers = {f"p{n}": f"h{n}" for n in range(4)}
    for peer, host in peers.items():
        candidates = fetcher.following.candidates
        first = candidates["p"]
        candidates[peer] = replace(first, peer_id=peer, host=replace(first.host, id=host))
    parent.error = TaskNotFound(TASK)
    for number, (version, outvoted) in enumerate([("1", 0), ("2", 0), ("3", 0), ("2", 1)]):
        parent.version = version
        await fetcher.following.follow(f"p{number}", ALL)
        assert owner.outvoted == outvoted


# -- pieces --------------------------------------------------------------------------------------


@pytest.fixture
async def offered(fetcher: Fetcher, owner: Owner, parent: Parent) -> Fetcher:
    """Piece 1 has been offered."""
    parent.offers, parent.error = [whole(1)], TaskNotFound(TASK)
    await follow(fetcher)
    parent.error = None
    owner.events.clear()
    return fetcher


async def test_a_piece_comes(offered: Fetcher, owner: Owner) -> None:
    """It is published first and reported then."""
    await offered.fetch(Fetch(1, "p"))
    assert owner.events == [Stored(owner.pieces[0])]
    assert [piece.parent_id for piece in owner.pieces] == ["p"]
    assert owner.holding.pieces[1] is owner.pieces[0]


async def test_a_piece_that_is_wrong(offered: Fetcher, owner: Owner, parent: Parent) -> None:
    """The parent is to blame, and another can claim it at once."""
    parent.data = b"y" * PIECE
    await offered.fetch(Fetch(1, "p"))
    assert owner.events == [Lost(1)]
    assert not owner.holding.pieces
    owner.holding.claim(1).abandon()


async def test_a_piece_that_is_another(offered: Fetcher, owner: Any) -> None:
    """It is what its parent says, but not what was read at the origin."""
    owner.digests.take("v", [DigestRun(1, [crc32(DATA) ^ 1])])
    await offered.fetch(Fetch(1, "p"))
    assert owner.events == [Lost(1)]
    assert not owner.holding.pieces


async def test_a_piece_that_is_there_no_longer(
    offered: Fetcher, owner: Owner, parent: Parent
) -> None:
    """Nobody is to blame."""
    parent.error = PieceNotFound(TASK, 1)
    await offered.fetch(Fetch(1, "p"))
    assert owner.events == [Lost(1, blame=False)]


async def test_a_task_that_is_there_no_longer(offered: Fetcher, owner: Owner) -> None:
    """The holding itself tells the flight."""
    lease, claim = owner.holding.lease(), owner.holding.claim(0)
    owner.holding._home.drop(Kind.CACHE, owner.holding.id, Reason.DELETED)
    await offered.fetch(Fetch(1, "p"))
    assert owner.events == []
    claim.abandon()
    lease.end()


async def test_an_origin_that_nobody_may_ask_any_more(fetcher: Fetcher, owner: Owner) -> None:
    """Those who could have just left."""
    await fetcher.fetch(Fetch(1, None))
    assert owner.events == [Lost(1)]


async def test_a_store_that_fails(
    fetcher: Fetcher, owner: Owner, parent: Parent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends the flight, and nobody is blamed."""
    parent.offers = [whole(1)]
    parent.error = TaskNotFound(TASK)
    await follow(fetcher)
    parent.error = None
    owner.events.clear()
    claim = owner.holding.claim(1)
    claim.sink = NarrowSink(PIECE, 10, room=50)
    monkeypatch.setattr(owner.holding, "claim", lambda _number: claim)
    with pytest.raises(StoreFailed, match="no space left"):
        await fetcher.fetch(Fetch(1, "p"))
    assert not owner.events
    assert not owner.pieces
    assert claim.over.is_set()
