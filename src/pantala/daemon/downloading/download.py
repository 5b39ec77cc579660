"""One caller's download, as the caller sees it: a stream of events and the right to the bytes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from pantala.core.policy import policy_of
from pantala.errors import DragonflyError, InvalidRequest, TimedOut
from pantala.model.ids import Identity
from pantala.model.notation import parse_digest
from pantala.model.pieces import ByteRange, Piece, parse_range, pieces_for, resolve_range
from pantala.model.task import Delivery, DownloadRequest, Kind, PieceRecord, Traffic
from pantala.model.urls import public_url
from pantala.storage.holding import Holding
from pantala.storage.leases import Lease

logger = structlog.get_logger(__name__)

#: Seconds between two events that tell of pieces, but for the last: on a fast link a piece comes in
#: less than it takes to tell of it.
_BETWEEN: Final = 0.005


@dataclass(frozen=True, slots=True)
class Growing:
    """The origin does not say how long the content is; this many bytes of it are here."""

    received: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """There is no room now; it begins when there is room for this many bytes."""

    need: int


@dataclass(frozen=True, slots=True)
class Started:
    """Length and place of what was asked for are known.

    Attributes:
        part: The part asked for, resolved against the content's length.
        pieces: The pieces that cover it.
        finished: Every piece of the content was here before.
    """

    content_length: int
    piece_length: int
    part: ByteRange
    pieces: tuple[Piece, ...]
    response_header: Mapping[str, str]
    finished: bool


@dataclass(frozen=True, slots=True)
class Arrived:
    """Pieces that are here, and how each came to be here for this caller."""

    pieces: tuple[tuple[PieceRecord, Traffic], ...]


@dataclass(frozen=True, slots=True)
class Anew:
    """What came before is void: all of it comes again, from the beginning."""


@dataclass(frozen=True, slots=True)
class Overflowed:
    """There is no room for it as what it was asked for: it goes on as a task of another kind.

    Attributes:
        kind: Of the task; the download's names are that task's from here on.
        why: What there was no room for, in words.
    """

    kind: Kind
    why: str


@dataclass(frozen=True, slots=True)
class Coming:
    """So many bytes are here of pieces that are not whole, and have not been told of."""

    received: int


Event = Waiting | Growing | Started | Arrived | Anew | Overflowed | Coming


class Download:
    """What a caller asked for, on its way.

    Made by the engine. The front end iterates over what happens to it; the flight (if one is
    needed) calls the rest. While it is open, :attr:`holding` keeps the bytes where they are.

    Args:
        request: What was asked.
        delivery: How the caller wants it.
        identity: Of what.
        peer_id: This node's name for this attempt.
        events: Makes the iterator: :meth:`until_here`, or what goes on from there.

    Raises:
        InvalidRequest: The request contradicts itself.
    """

    def __init__(
        self,
        request: DownloadRequest,
        delivery: Delivery,
        identity: Identity,
        peer_id: str,
        events: Callable[[Download], AsyncGenerator[Event, None]] | None = None,
    ) -> None:
        self.request = request
        self.delivery = delivery
        self.patient = delivery.attended and delivery.patient
        self.task_id, self.fingerprint = identity
        self.peer_id = peer_id
        self.digest = parse_digest(delivery.digest) if delivery.digest else None
        if self.digest and asks_for_range(request):
            raise InvalidRequest("a digest covers the whole content; it cannot go with a range")
        if delivery.refresh:
            _check_refresh(request)
        #: Set once the content is known.
        self.holding: Holding | None = None
        self.part = ByteRange(0, 0)
        #: Numbers of the pieces still missing.
        self.missing: set[int] = set()
        #: Bytes of the pieces that it was told of, by where they came from.
        self.came: Counter[Traffic] = Counter()
        self.over = False
        #: All of it was here when the caller came.
        self.was_here = False
        self._lease: Lease | None = None
        #: On room that was set aside for it, until it has begun.
        self._kept: Lease | None = None
        #: While it waits for room: since when, for how many bytes, and who can say who has it.
        self._waits: tuple[float, int, Callable[[], str]] | None = None
        #: The caller has left.
        self.closed = False
        self._saw_it_grow = False
        #: It was not what its digest says, and the origin was read for it again.
        self.afresh = False
        #: The front end has been told where bytes are.
        self._handed = False
        #: An ``Arrived`` of none in it stands for all that have come by the time that it is taken.
        self._queue: asyncio.Queue[Event | DragonflyError | None] = asyncio.Queue()
        self._arrived: list[tuple[PieceRecord, Traffic]] = []
        self._told_at = 0.0
        #: When it was asked for, on the loop's clock.
        self.came_at = asyncio.get_running_loop().time()
        self._deadline = None if delivery.timeout is None else self.came_at + delivery.timeout
        self._events = self.until_here() if events is None else events(self)

    @property
    def may_use_source(self) -> bool:
        """The origin may be asked on this caller's behalf."""
        return not self.request.only_peers

    def wanted(self, total: int) -> ByteRange:
        """The part that it asks for of a file of *total* bytes.

        Raises:
            RangeNotSatisfiable: The content has no such part.
        """
        wanted = _wanted_range(self.request, total)
        return ByteRange(0, total) if wanted is None else wanted

    # -- for the flight ------------------------------------------------------------------------

    def begin(self, holding: Holding, *, others_wait: bool = False) -> None:
        """The content is known: make room for what is missing, and tell what is here already.

        Args:
            holding: The content.
            others_wait: For room; they come first.

        Raises:
            RangeNotSatisfiable: The content has no such part.
            NoRoom: There is no room now. It holds nothing, and has told nothing.
            TaskDeleted: It was deleted just now.
        """
        record = holding.record
        total, piece_length = holding.total, record.piece_length or 1
        wanted = _wanted_range(self.request, total)
        self.part = ByteRange(0, total) if wanted is None else wanted
        holding.check_fits(self.part.length)
        pieces = pieces_for(wanted, content_length=total, piece_length=piece_length)
        have = holding.pieces
        self.missing = {p.number for p in pieces if p.number not in have}
        if self.missing:
            if others_wait and (need := holding.lacks(self.missing)):
                raise holding.no_room(need)
            holding.reserve(self.missing, early=self.delivery.early)
        if not self.closed:  # the caller may have left while the content was looked for
            self._lease = holding.lease()
        self.keep(None)
        self._waits = None
        self.holding = holding
        self._queue.put_nowait(
            Started(
                content_length=total,
                piece_length=piece_length,
                part=self.part,
                pieces=tuple(pieces),
                response_header=record.response_header,
                finished=holding.complete,
            )
        )
        self.was_here = not self.missing
        if record.peer_id:  # the name that schedulers know, whoever asks for it here
            self.peer_id = record.peer_id
        here = [have[p.number] for p in pieces if p.number in have]
        if here:
            # What came while this caller waited for the content's end came for it.
            own = Traffic.LOCAL_PEER
            self._arrived += [(p, p.traffic if self._saw_it_grow else own) for p in here]
            self._queue.put_nowait(Arrived(()))
        self._end_if_whole()

    def wait_for_room(self, need: int, holders: Callable[[], str]) -> None:
        """There is no room for *need* bytes now; *holders* says where, and who has it."""
        if self._waits is None and not self.over:
            self._waits = asyncio.get_running_loop().time(), need, holders
            self._queue.put_nowait(Waiting(need))

    def room_report(self) -> str:
        """For how long it has waited for room, and who has it."""
        if self._waits is None:
            return "there was room"
        since, need, holders = self._waits
        seconds = asyncio.get_running_loop().time() - since
        return f"waited {seconds:.1f} s for room for {need} bytes {holders()}"

    def keep(self, lease: Lease | None) -> None:
        """Keep what was set aside for it, until it has begun."""
        old, self._kept = self._kept, lease
        if old is not None:
            old.end()

    @property
    def can_begin_again(self) -> bool:
        """The caller has been given no bytes that it cannot let go of."""
        delivery = self.delivery
        reads_on = delivery.early or delivery.need_piece_content
        return delivery.again or not (self._handed and reads_on)

    def begin_again(self) -> None:
        """What came of it belongs to no content that there is: let go of it."""
        self._forget()
        self._queue.put_nowait(Anew())

    def overflow(self, request: DownloadRequest, identity: Identity, why: str) -> None:
        """From here on it is a download of another task, of which it knows nothing yet."""
        self._forget()
        self.request = request
        self.task_id, self.fingerprint = identity
        self._queue.put_nowait(Overflowed(request.kind, why))

    def _forget(self) -> None:
        self._drop_lease()
        self.holding, self.missing, self.over = None, set(), False
        self.came.clear()
        self.was_here = self._saw_it_grow = False
        self._arrived = []
        while not self._queue.empty():
            self._queue.get_nowait()

    def grown(self, received: int) -> None:
        """More of a file of unknown length is here."""
        self._waits = None
        if not self.over:
            self._saw_it_grow = True
            self._queue.put_nowait(Growing(received))

    def arrived(self, pieces: Iterable[PieceRecord]) -> None:
        """These pieces were published: tell the caller of those that he wants, and has not got."""
        mine = [p for p in pieces if p.number in self.missing]
        if mine and not self.over:
            self.missing.difference_update(p.number for p in mine)
            if not self._arrived:
                self._queue.put_nowait(Arrived(()))
            self._arrived += [(piece, piece.traffic) for piece in mine]
            self._end_if_whole()

    def fail(self, error: DragonflyError) -> None:
        """What is missing will not come: the caller is told *error*, once."""
        self.keep(None)
        if not self.over:
            self.over = True
            self._queue.put_nowait(error)

    def _end_if_whole(self) -> None:
        if not self.missing:
            self.over = True
            self._queue.put_nowait(None)

    # -- for the front end ---------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events

    async def with_progress(self, pause: float) -> AsyncGenerator[Event, None]:
        """What happens, and what of pieces has come whenever nothing has for *pause* seconds.

        Raises as :meth:`until_here` does, and what its events raise besides.
        """
        told: int | None = 0
        following: asyncio.Future[Event] | None = None
        try:
            while True:
                following = following or asyncio.ensure_future(anext(self._events))
                if not (await asyncio.wait((following,), timeout=pause))[0]:
                    here = 0 if self.holding is None else self.holding.received(self.missing)
                    if here != told:
                        told = here
                        yield Coming(here)
                    continue
                done, following, told = following, None, None
                try:
                    event = done.result()
                except StopAsyncIteration:
                    return
                yield event
        finally:
            if following is not None:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)

    async def stop(self) -> None:
        """No more is heard of it."""
        await self._events.aclose()

    async def until_here(self) -> AsyncGenerator[Event, None]:
        """What happens, until all of the part is here. The digest is the engine's to check.

        Raises:
            TimedOut: The caller's time is over.
            DragonflyError: It cannot be had.
        """
        while (event := await self._next()) is not None:
            if isinstance(event, DragonflyError):
                raise event
            if isinstance(event, Arrived):
                for piece, traffic in event.pieces:
                    self.came[traffic] += piece.length
            yield event

    async def _next(self) -> Event | DragonflyError | None:
        try:
            async with asyncio.timeout_at(self._deadline):
                event = await self._queue.get()
        except TimeoutError:
            raise self.timed_out() from None
        if event == Arrived(()):
            event = await self._gathered()
        told = (isinstance(event, Arrived) and bool(event.pieces)) or (
            self.delivery.early and isinstance(event, Started)
        )
        self._handed = self._handed or told
        return event

    async def _gathered(self) -> Arrived:
        """All that have come: some milliseconds after the last such event, but for the last."""
        loop, batch = asyncio.get_running_loop(), self._arrived
        if not self.over:
            await asyncio.sleep(self._told_at + _BETWEEN - loop.time())  # for what comes by then
        self._told_at = loop.time()
        if batch is not self._arrived:  # it has begun anew meanwhile
            return Arrived(())
        self._arrived = []
        return Arrived(tuple(batch))

    @property
    def deadline(self) -> float | None:
        """When the caller's time is over, on the loop's clock."""
        return self._deadline

    def timed_out(self) -> TimedOut:
        """The error for a caller whose time is over."""
        if self._waits is not None:
            return TimedOut(f"{self.room_report()}; the time that was asked for is over")
        return TimedOut(f"not finished within the {self.delivery.timeout:g} s that were asked for")

    def close(self) -> None:
        """The caller needs the bytes no longer."""
        self.closed = True
        self.keep(None)
        self._drop_lease()

    def _drop_lease(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.end()


def _check_refresh(request: DownloadRequest) -> None:
    """Raises InvalidRequest where an origin must be asked, and cannot be."""
    if policy_of(request.kind).imported:
        raise InvalidRequest(
            f"a {request.kind.name} task has no origin: it cannot be had with refresh"
        )
    if request.only_peers:
        raise InvalidRequest(
            "refresh asks the origin: it cannot go with disable_back_to_source, or priority LEVEL2"
        )


def asks_for_range(request: DownloadRequest) -> bool:
    """Not all of a file is wanted."""
    return request.range is not None or any(k.lower() == "range" for k in request.request_header)


def log_end(download: Download, seconds: float, why: str | None) -> None:
    """Write the one line that tells of a whole download.

    Args:
        download: It is over.
        seconds: How long it took.
        why: It failed, or its caller left; None if it went well.
    """
    came = download.came
    logger.info(
        "download finished" if why is None else "download failed",
        task=download.task_id,
        url=public_url(download.request.url),
        from_origin=came[Traffic.BACK_TO_SOURCE],
        from_peers=came[Traffic.REMOTE_PEER],
        from_cache=came[Traffic.LOCAL_PEER],
        seconds=round(seconds, 3),
        **({"prefetch": True} if download.request.is_prefetch else {}),
        **({} if why is None else {"why": why}),
    )


def _wanted_range(request: DownloadRequest, total: int) -> ByteRange | None:
    """The part a request asks for: its range, else that of its Range header, else everything."""
    if request.range is not None:
        return resolve_range(request.range, total)
    for name, value in request.request_header.items():
        if name.lower() == "range":
            return parse_range(value, total)
    return None
