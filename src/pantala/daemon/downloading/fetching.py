"""Carries pieces from parents and the origin into their places, verified, for one flight."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import aclosing
from typing import Any, Final, Protocol, cast

import structlog

from pantala.core.pace import Fetching, Pace
from pantala.core.policy import policy_of
from pantala.core.transfer import Closed, Event, Fetch, Lost, Offered, Stored
from pantala.daemon.node import Node
from pantala.errors import (
    Busy,
    DragonflyError,
    InvalidRequest,
    NoProvider,
    NotFound,
    RemoteProtocolError,
    SourceChanged,
    SourceFailed,
    StoreFailed,
    TaskDeleted,
)
from pantala.model.announce import Candidate
from pantala.model.exchange import Copy, Exchanged, Offer, Offering
from pantala.model.numbers import bits_of_numbers, runs_of
from pantala.model.task import READING, PieceRecord, Traffic
from pantala.net.piece_client import Address, PieceFetch, TimeLimits
from pantala.ports import MemorySink
from pantala.storage.holding import Holding
from pantala.wire.vortex import PieceRequest, Tag

from .means import Means
from .origin import Origin, SourceFetch
from .race import Fill, Place, Race
from .reading import NO_VERSION, OutOfTurn
from .wants import Wants

logger = structlog.get_logger(__name__)

#: Seconds that a whole piece may take from a parent, besides the demand for a least rate.
PIECE_LIMIT: Final = 360.0  # as Dragonfly's client

#: How often a parent is asked what it has that has too many children; a second apart, more or less.
_BUSY_TRIES: Final = 5

#: Seconds by which a parent's clock may be misjudged. A piece that it got later than it offered it
#: is of a copy that was made since, perhaps of another version.
_CLOCK_SLACK: Final = 1.0


class Owner(Protocol):
    """The flight, as its fetches see it."""

    holding: Holding

    @property
    def is_prefetch(self) -> bool:
        """Nobody waits for it but for prefetching."""

    @property
    def room(self) -> int:
        """So many more pieces it would fetch of parents at once."""

    def on(self, event: Event) -> None:
        """Something happened that the transfer must decide upon."""

    def on_plain(self, name: str) -> None:
        """A parent does not exchange, so that it says nothing of its host besides."""

    def on_piece(self, piece: PieceRecord) -> None:
        """A piece was published; called before the event."""

    def on_source_failed(self, origin: Origin, error: DragonflyError) -> None:
        """The origin failed for good; called before the event."""

    def on_outvoted(self) -> None:
        """More hosts hold another version of the content than the one that is fetched."""

    def origin(self) -> Origin:
        """The origin to ask now."""


class Fetcher:
    """The hands of a flight. Every method is a coroutine that the flight runs and cancels.

    What a method raises, as StoreFailed when bytes cannot be kept, ends the flight.

    Args:
        node: What all rooms share.
        means: What all downloads share.
        owner: The flight.
        task_id: Of what.
        certain: The origin has said which version the content has.
        avoid: Versions that are known to lead nowhere.
    """

    def __init__(
        self,
        node: Node,
        means: Means,
        owner: Owner,
        task_id: str,
        *,
        certain: bool = False,
        avoid: frozenset[str] = frozenset(),
    ) -> None:
        self._node = node
        self._means = means
        self._owner = owner
        self._task_id = task_id
        self._kind = owner.holding.kind
        self._tag = Tag(policy_of(self._kind).request_tag)
        #: Everybody the scheduler ever proposed.
        self.candidates: dict[str, Candidate] = {}
        self._offers: dict[tuple[str, int], Offer] = {}
        #: Where those who exchange serve pieces.
        self._places: dict[str, tuple[str, int]] = {}
        self._certain = certain
        self._avoid = avoid
        #: By host, the version that it holds, if that is another than ours.
        self.others: dict[str, str] = {}
        #: Hosts that hold ours, we included if some of it is here.
        self._same = {node.config.host_id} if owner.holding.pieces else set()
        #: What those of ours hash to who have all of it.
        self._digests: set[str] = set()
        #: What the parents that exchange are told of what is wanted here.
        self._wants: dict[str, Wants] = {}
        #: Who says what, and how fast pieces come.
        self.pace = Pace()
        self._races: dict[int, Race] = {}
        #: What is received from parents now; True for the second fetch of a piece.
        self._jobs: dict[tuple[int, bool], tuple[str, PieceFetch]] = {}
        download = node.config.download
        self._limits = TimeLimits(
            request=download.piece_timeout, stall=download.piece_stall_timeout, piece=PIECE_LIMIT
        )

    def fetches(self) -> dict[tuple[int, bool], Fetching]:
        """What is received from parents now, and how much of it is here."""
        return {
            key: Fetching(parent, job.received, self._races[key[0]].claim.piece.length)
            for key, (parent, job) in self._jobs.items()
        }

    # -- who has what --------------------------------------------------------------------------

    async def follow(self, name: str, numbers: frozenset[int]) -> None:
        """Collect what a parent offers until it offers no more."""
        holding, host = self._owner.holding, self.candidates[name].host.id
        now = self._node.stores.now()
        bad = self._means.suspects.is_suspect((holding.kind, holding.id), host, now)
        if bad:
            logger.info("parent left out", parent=name, why="what it gave was not as it should be")
            self._owner.on(Closed(name, bad=True))
            return
        try:
            for _ in range(_BUSY_TRIES):
                with contextlib.suppress(Busy):
                    found = await self._exchange(self.candidates[name], numbers)
                    if found is None:
                        self._owner.on_plain(name)
                        found = await self._collect(self.candidates[name], numbers)
                    bad = found
                    break
                await asyncio.sleep(self._means.rng.uniform(0.5, 1.5))
        except DragonflyError as error:
            logger.info("parent offers no more", task=self._task_id, parent=name, why=str(error))
        self._owner.on(Closed(name, bad=bad))

    async def _exchange(self, parent: Candidate, numbers: frozenset[int]) -> bool | None:
        """Report what a parent would have us fetch; whether it is no use at all.

        Returns:
            None if it does not exchange.
        """
        lacks = bits_of_numbers(numbers) & ~bits_of_numbers(self._races)
        wants = self._wants[parent.peer_id] = Wants(lacks, self._owner.room)
        gap = self._node.config.download.collected_piece_timeout
        link = self._means.parents
        said: bool | None = None
        try:
            stream = cast("Any", link.exchange(parent, self._kind, self._task_id, wants, gap=gap))
            async with aclosing(stream) as offers:
                async for offer in offers:
                    said = False
                    if self._is_of_no_use(parent, offer):
                        return True
        finally:
            if self._wants.get(parent.peer_id) is wants:
                del self._wants[parent.peer_id]
        return said

    def _is_of_no_use(self, parent: Candidate, said: Copy | Exchanged | Offering) -> bool:
        """Take what a parent says; whether it shows that nothing of it can be used."""
        now = asyncio.get_running_loop().time()
        self.pace.host_heard(parent.peer_id, now)
        match said:
            case Copy():
                if not self._may_give(parent, said):
                    why = "it holds another version of the content"
                    logger.info("parent left out", parent=parent.peer_id, why=why)
                    return True
            case Exchanged(total, length):
                record = self._owner.holding.record
                if (total, length) != (record.content_length, record.piece_length):
                    why = f"it cuts the content otherwise: {total} bytes into pieces of {length}"
                    logger.warning("parent left out", parent=parent.peer_id, why=why)
                    return True
                self._places[parent.peer_id] = said.ip, said.port
            case Offering(pieces, at):  # pragma: no branch  there is no other
                if pieces:
                    self.pace.heard(parent.peer_id, now)
                self._note_offers(parent.peer_id, pieces, at)
        return False

    def _note_offers(self, name: str, pieces: int, at: float | None) -> None:
        ip, port = self._places[name]
        here = self._owner.holding.pieces
        for first, count in runs_of(pieces):
            for number in range(first, first + count):
                if number not in here:
                    piece = self._owner.holding.piece(number)
                    offer = Offer(number, piece.offset, piece.length, ip, port, at)
                    self._offers[name, number] = offer
                    self._owner.on(Offered(name, number))

    def tell_begun(self, number: int, parent: str | None) -> None:
        """A piece is fetched now: those who exchange need not offer it, but for *parent*."""
        for name, wants in self._wants.items():
            if name != parent:
                wants.has(number)

    def tell_lacking(self, number: int) -> None:
        """A fetch has failed: whoever has the piece may offer it again."""
        for wants in self._wants.values():
            wants.lacks(number)

    def tell_room(self) -> None:
        """Those who exchange shall know how much would be fetched at once now."""
        room = self._owner.room
        for wants in self._wants.values():
            wants.has_room(room)

    async def _collect(self, parent: Candidate, numbers: frozenset[int]) -> bool:
        """Report offers; whether the parent is no use at all."""
        gap = self._node.config.download.collected_piece_timeout
        waiting = set(numbers)
        stream = cast(
            "Any",
            self._means.parents.offers(parent, self._kind, self._task_id, numbers, gap=gap),
        )
        async with aclosing(stream) as offers:
            async for offer in offers:
                self.pace.heard(parent.peer_id, asyncio.get_running_loop().time())
                if isinstance(offer, Copy):
                    if not self._may_give(parent, offer):
                        why = "it holds another version of the content"
                        logger.info("parent left out", parent=parent.peer_id, why=why)
                        return True
                    continue
                if offer.number not in waiting:  # without end, it would keep us waiting so
                    raise RemoteProtocolError(f"offered unasked, or twice: {offer}")
                waiting.discard(offer.number)
                piece = self._owner.holding.piece(offer.number)
                if (offer.offset, offer.length) != (piece.offset, piece.length):
                    why = f"it cuts the content otherwise: {offer}, not {piece}"
                    logger.warning("parent left out", parent=parent.peer_id, why=why)
                    return True
                self._offers[parent.peer_id, offer.number] = offer
                self._owner.on(Offered(parent.peer_id, offer.number))
        return False

    def _may_give(self, parent: Candidate, copy: Copy) -> bool:
        """Whether what a parent has may be joined with what we have.

        The first to name a version decides which it is, until the origin or most hosts say
        otherwise. A daemon that is none of ours names none, and is taken at its task's id; but
        never where the origin names none, either.
        """
        if copy.version in self._avoid:
            return False
        holding = self._owner.holding
        if not copy.version:
            holding.learn_version("")
            return not holding.record.version.startswith(READING)
        if self._is_same_version(copy.version) or copy.digests in self._digests - {""}:
            self._same.add(parent.host.id)
            self._digests.add(copy.digests)
            return True
        self.others[parent.host.id] = copy.version
        votes = sum(1 for version in self.others.values() if version == copy.version)
        if votes > len(self._same) and not self._certain:
            self._owner.on_outvoted()
        return False

    def _is_same_version(self, version: str) -> bool:
        """Whether what has *version* may be joined with what is here, which may have none yet."""
        holding = self._owner.holding
        if version.startswith(READING) and holding.pieces and not holding.record.version:
            return False
        holding.learn_version(version)
        return version == holding.record.version

    # -- pieces --------------------------------------------------------------------------------

    async def fetch(self, what: Fetch) -> None:
        """Bring one piece, and report how it went. Never raises but when cancelled.

        When another fetch of the piece was quicker, this is cancelled, and reports nothing.
        """
        number, second = what.number, what.second
        race = self._races.get(number)
        if race is None:
            try:
                race = self._races[number] = Race(self._owner.holding.claim(number))
            except TaskDeleted:
                return  # the flight is told by the holding itself
        if race.decided:
            return
        try:
            with race.run(second=second):
                if second:
                    async with self._means.spare.borrow(race.claim.piece.length) as view:
                        place = Place(race.claim.piece, MemorySink(view), beside=view)
                        event = await self._bring(what, place)
                else:
                    event = await self._bring(what, Place(race.claim.piece, race.claim.sink))
        finally:
            if race.is_over:
                del self._races[number]
        # Only now: the answer to a loss may be to fetch the piece again.
        if event is not None:
            self._owner.on(event)

    async def _bring(self, what: Fetch, place: Place) -> Event | None:
        if self._owner.is_prefetch:
            await self._means.bandwidth.prefetch.take(place.piece.length)
        if what.parent is None:
            return await self._from_source(place, what)
        return await self._from_parent(place, what, what.parent)

    async def _from_parent(self, place: Place, what: Fetch, name: str) -> Event | None:
        number = place.piece.number
        try:
            await self._means.bandwidth.download.take(place.piece.length)
            digest = await self._transfer(place, what, self.candidates[name], name)
        except StoreFailed:
            raise  # for others, too, there is no place here
        except DragonflyError as error:
            logger.info("piece lost", task=self._task_id, piece=number, parent=name, why=str(error))
            # Whoever evicted a piece may still have others; every other failure is the parent's.
            return Lost(number, blame=not isinstance(error, NotFound), second=what.second)
        return await self._publish(place, what, digest, name, Traffic.REMOTE_PEER)

    async def _transfer(self, place: Place, what: Fetch, parent: Candidate, name: str) -> str:
        offer = self._offers[name, place.piece.number]
        if offer.port is None:
            data, digest = await self._means.parents.fetch(
                parent, self._kind, self._task_id, offer, limit=self._limits.piece
            )
            await self._node.threads.helpers.run(Fill(place.sink, data))
            return digest
        request = PieceRequest(self._tag, self._task_id, place.piece.number)
        job = PieceFetch(
            self._means.connections,
            Address(offer.ip, offer.port),
            request,
            place.piece,
            place.sink,
            limits=self._limits,
            not_after=None if offer.at is None else offer.at + _CLOCK_SLACK,
        )
        key = what.number, what.second
        self._jobs[key] = name, job
        try:
            digest = await self._node.threads.receivers.run(job)
        finally:
            del self._jobs[key]
        self.pace.took(name, place.piece.length, job.seconds)
        return digest

    async def _from_source(self, place: Place, what: Fetch) -> Event | None:
        lost = Lost(what.number, second=what.second)
        try:
            origin = self._owner.origin()
        except NoProvider:  # those who let us ask have just left
            return lost
        try:
            await self._means.bandwidth.source.take(place.piece.length)
            await self._means.bandwidth.download.take(place.piece.length)
            if origin.reading is not None and not self._is_same_version(origin.version):
                raise _other_than_the_peers(origin)
            job = SourceFetch(origin, place.piece, place.sink)
            digest = await self._node.threads.readers.run(origin.url, job)
            if not self._is_same_version(origin.version):
                raise _other_than_the_peers(origin)
            self._certain = True
        except OutOfTurn:
            return lost
        except (SourceFailed, InvalidRequest) as error:
            logger.warning("origin failed", task=self._task_id, why=str(error))
            self._owner.on_source_failed(origin, error)
            return lost
        return await self._publish(place, what, digest, None, Traffic.BACK_TO_SOURCE)

    async def _publish(
        self, place: Place, what: Fetch, digest: str, parent: str | None, traffic: Traffic
    ) -> Event | None:
        race = self._races[what.number]
        _, slower = self._jobs.get((what.number, not what.second), (None, None))
        try:
            await race.win(self._node.threads.helpers, place.beside)
            piece = race.publish(digest, parent_id=parent, traffic=traffic)
            await race.claim.kept()
        except TaskDeleted:
            return None  # the flight is told by the holding itself
        if parent is not None:
            self._owner.holding.givers.add(self.candidates[parent].host.id)
        if slower is not None:
            self._node.metrics.received_in_vain(slower.received or 0)
        self._node.metrics.piece_traffic(traffic, piece.length)
        self._owner.on_piece(piece)
        return Stored(piece, what.second)


def _other_than_the_peers(origin: Origin) -> SourceChanged:
    if origin.reading is not None:
        return SourceChanged(NO_VERSION)
    return SourceChanged(
        f"the origin's content ({origin.version}) is not the one that peers hold",
        version=origin.version,
    )
