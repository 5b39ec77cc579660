"""Carries pieces from parents and the origin into their places, verified, for one flight."""

from __future__ import annotations

from typing import Final, Protocol

import structlog

from pantala.core.pace import Fetching
from pantala.core.policy import policy_of
from pantala.core.transfer import Event, Fetch, Lost, Stored
from pantala.daemon.node import Node
from pantala.errors import (
    DragonflyError,
    InvalidRequest,
    NoProvider,
    NotFound,
    OriginError,
    SourceChanged,
    StoreFailed,
    TaskDeleted,
)
from pantala.model.announce import Candidate
from pantala.model.task import PieceRecord, Traffic
from pantala.net.piece_client import Address, PieceFetch, TimeLimits
from pantala.ports import MemorySink
from pantala.storage.holding import Holding
from pantala.wire.vortex import PieceRequest, Tag

from .digests import PieceDigests
from .following import Following
from .means import Means
from .origin import Origin, SourceFetch
from .race import Fill, Place, Race
from .reading import NO_VERSION, OutOfTurn

logger = structlog.get_logger(__name__)

#: Seconds that a whole piece may take from a parent, besides the demand for a least rate.
PIECE_LIMIT: Final = 360.0  # as Dragonfly's client

#: Seconds by which a parent's clock may be misjudged. A piece that it got later than it offered it
#: is of a copy that was made since, perhaps of another version.
_CLOCK_SLACK: Final = 1.0


class Owner(Protocol):
    """The flight, as its fetches see it."""

    holding: Holding

    @property
    def is_prefetch(self) -> bool:
        """Nobody waits for it but for prefetching."""

    def on(self, event: Event) -> None:
        """Something happened that the transfer must decide upon."""

    def on_piece(self, piece: PieceRecord) -> None:
        """A piece was published; called before the event."""

    def on_source_failed(self, origin: Origin, error: DragonflyError) -> None:
        """The origin failed for good; called before the event."""

    def origin(self) -> Origin:
        """The origin to ask now."""


class Fetcher:
    """The hands of a flight. Every method is a coroutine that the flight runs and cancels.

    What a method raises, as StoreFailed when bytes cannot be kept, ends the flight.

    Args:
        node: What all rooms share.
        means: What all downloads share.
        owner: The flight.
        following: Who has what.
        digests: What pieces must be.
    """

    def __init__(
        self,
        node: Node,
        means: Means,
        owner: Owner,
        following: Following,
        digests: PieceDigests,
    ) -> None:
        self._node = node
        self._means = means
        self._owner = owner
        self._task_id = owner.holding.id
        self._kind = owner.holding.kind
        self._tag = Tag(policy_of(self._kind).request_tag)
        self.following = following
        self._digests = digests
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
            digest = await self._transfer(place, what, self.following.candidates[name], name)
            await self._digests.check(number, digest, name)
        except StoreFailed:
            raise  # for others, too, there is no place here
        except DragonflyError as error:
            logger.info("piece lost", task=self._task_id, piece=number, parent=name, why=str(error))
            # Whoever evicted a piece may still have others; every other failure is the parent's.
            return Lost(number, blame=not isinstance(error, NotFound), second=what.second)
        return await self._publish(place, what, digest, name, Traffic.REMOTE_PEER)

    async def _transfer(self, place: Place, what: Fetch, parent: Candidate, name: str) -> str:
        offer = self.following.offers[name, place.piece.number]
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
        self.following.pace.took(name, place.piece.length, job.seconds)
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
            if origin.reading is not None and not self.following.is_same_version(origin.version):
                raise _other_than_the_peers(origin)
            job = SourceFetch(origin, place.piece, place.sink)
            digest = await self._node.threads.readers.run(origin.url, job)
            if not self.following.is_same_version(origin.version):
                raise _other_than_the_peers(origin)
            self.following.certain = True
            await self._digests.check_origin(what.number, digest)
        except OutOfTurn:
            return lost
        except (OriginError, InvalidRequest) as error:
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
            self._owner.holding.given_by(self.following.candidates[parent].host.id)
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
