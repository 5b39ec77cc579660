"""Interfaces between the engine and the world. Adapters implement them, ``daemon`` joins them."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pantala.errors import DragonflyError
from pantala.model.announce import Answer, Candidate, Report
from pantala.model.exchange import Copy, Exchanged, Offer, Offering, Wish
from pantala.model.task import Description, DownloadRequest, ImportedTask, Kind


@dataclass(frozen=True, slots=True)
class SourceRequest:
    """What to ask an origin for.

    Attributes:
        headers: Sent as they are, ``Range`` apart, which *start* and *length* decide.
        start: First byte wanted. None asks for the whole content, without a Range.
        length: Bytes wanted from *start*. None: to the end.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    start: int | None = None
    length: int | None = None


class Abort:
    """How one thread gives up what another waits for, whatever that is just then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked = threading.Event()
        self._wake: Callable[[], object] | None = None

    @property
    def asked(self) -> bool:
        """The work is to end."""
        return self._asked.is_set()

    def ask(self) -> None:
        """Have the work end soon. Any thread may call this at any time."""
        with self._lock:
            self._asked.set()
            if self._wake is not None:
                self._wake()

    def by(self, wake: Callable[[], object] | None) -> None:
        """From here on *wake*, which must not block, wakes the work; None: nothing need do so.

        It is called at once when the work is to end already. Once this has returned, the one
        before is not called any more.
        """
        with self._lock:
            self._wake = wake
            if wake is not None and self._asked.is_set():
                wake()

    def wait(self, seconds: float) -> bool:
        """Let *seconds* pass; True, and sooner, when the work is to end."""
        return self._asked.wait(seconds)


class Sink(Protocol):
    """Where the bytes of one piece go, from the front to its end. One thread at a time uses it.

    Who receives takes a window, fills it from its beginning as far as bytes come, and says how far
    that was. So memory is received into where it lies, and a file may be written as suits it best.

    Attributes:
        length: Bytes that there is room for.
    """

    length: int

    def window(self, offset: int) -> memoryview:
        """Where the bytes from *offset* on are to be received; release it before the next call.

        At least one byte, at most all to the end. What a window holds before that has no meaning.
        """

    def wrote(self, offset: int, count: int) -> None:
        """The first *count* bytes of the window at *offset* are received.

        Raises:
            StoreFailed: They cannot be kept.
        """

    def close(self) -> None:
        """Nothing more will be received. A second time does nothing."""


class MemorySink:
    """A :class:`Sink` of memory: its bytes are received where they lie.

    Args:
        view: Writable; the sink's from here on.
    """

    def __init__(self, view: memoryview) -> None:
        self.length = len(view)
        self._view = view

    def window(self, offset: int) -> memoryview:
        """All from *offset* on. Raises ValueError once the sink is closed."""
        return self._view[offset:]

    def wrote(self, offset: int, count: int) -> None:
        """They are where they belong."""

    def close(self) -> None:
        """Let go of the memory."""
        self._view.release()


class Extent(Protocol):
    """Bytes of a task where they lie, read-only. Hold a lease for as long as you use them.

    What lies on a disk may have to be waited for, and may fail; memory does neither.

    Attributes:
        length: Bytes.
    """

    length: int

    def read(self, offset: int, count: int) -> memoryview:
        """The *count* bytes from *offset* on; of memory those where they lie.

        Raises:
            Damaged: They cannot be read any more.
        """

    def send(self, sock: socket.socket, offset: int, count: int) -> int:
        """Have the kernel send at most *count* bytes from *offset* on; how many it took.

        Raises:
            OSError: As ``send``.
        """

    def check(self, digest: str) -> None:
        """Make sure that the bytes, of one piece, are still those that were verified.

        Raises:
            Damaged: They are not, or cannot be read any more.
        """

    def close(self) -> None:
        """Nobody will read them here any more. A second time does nothing."""


class MemoryExtent:
    """An :class:`Extent` of memory, which nobody checks again.

    With ``send`` and not ``sendfile``: after that returns, memory that is used again would still
    change what is received.

    Args:
        view: The bytes; the extent's from here on.
    """

    def __init__(self, view: memoryview) -> None:
        self.length = len(view)
        self._view = view

    def read(self, offset: int, count: int) -> memoryview:
        """A part of the memory; release it before the lease ends."""
        return self._view[offset : offset + count]

    def send(self, sock: socket.socket, offset: int, count: int) -> int:
        """Send some of the bytes; how many went. Raises OSError, as ``socket.send`` does."""
        with self._view[offset : offset + count] as part:
            return sock.send(part)

    def check(self, digest: str) -> None:
        """It was verified when it was received."""

    def close(self) -> None:
        """Let go of the memory."""
        self._view.release()


def fill(sink: Sink, data: bytes | memoryview) -> None:
    """Put *data*, which is here already, at the beginning of *sink*. Blocks.

    Raises:
        StoreFailed: As :meth:`Sink.wrote`.
    """
    whole, at = memoryview(data), 0
    while at < len(whole):
        with sink.window(at) as window:
            count = min(len(window), len(whole) - at)
            window[:count] = whole[at : at + count]
        sink.wrote(at, count)
        at += count


class SourceBody(Protocol):
    """An origin's open answer. Its methods block; they run in a worker thread.

    Attributes:
        total: Bytes of the whole content; None when the origin does not say.
        start: Where in the content the body starts.
        length: Bytes in the body; None when the origin does not say (it ends when it ends).
        ranged: The origin honoured the range that was asked for.
        version: Strong identity of the content (ETag, else Last-Modified); ``""`` if unknown.
        header: Response headers as of an answer to a request without a range.
    """

    total: int | None
    start: int
    length: int | None
    ranged: bool
    version: str
    header: Mapping[str, str]

    def readinto(self, view: memoryview) -> int:
        """Fill *view* from the body; fewer bytes only at the body's end.

        Raises:
            SourceFailed: The connection broke, stalled, or ended before *length* bytes.
        """

    def abort(self) -> None:
        """Make a blocked :meth:`readinto` fail, from any thread. Harmless when closed."""

    def close(self) -> None:
        """Give the connection back if the body was read to its end, else close it."""


class Source(Protocol):
    """An origin client for one or more URL schemes."""

    def open(
        self,
        request: SourceRequest,
        *,
        timeout: float,
        answer: float | None = None,
        abort: Abort | None = None,
    ) -> SourceBody:
        """Ask; return once the answer's headers are here. Blocks.

        Args:
            request: What to ask for.
            timeout: Seconds for connecting, and for each wait for bytes of the body.
            answer: Seconds until the headers are here, further tries included. None: *timeout*.
            abort: Ends this early, with SourceFailed. For the body there is its own ``abort``.

        Raises:
            SourceFailed: Refused, unreachable, or not the range that was asked for.
            RangeNotSatisfiable: The range starts past the end.
        """


# -- schedulers --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KnownTask:
    """What the swarm knows of a task that somebody holds.

    Attributes:
        first_piece: Bytes in piece 0; None when it was not told.
    """

    content_length: int
    piece_count: int
    first_piece: int | None


class AnnounceStream(Protocol):
    """An announce stream: what a daemon and a scheduler tell each other about one download."""

    def tell(self, what: Report) -> None:
        """Queue a message, which is sent in its turn by :meth:`run`. Never waits."""

    def finish(self) -> None:
        """Nothing more will be told; the scheduler has little time left to end the stream."""

    async def run(self, on_answer: Callable[[Answer], None]) -> None:
        """Tell and hear, until the scheduler ends it, or does not in time after :meth:`finish`.

        Raises:
            HostUnknown: The scheduler does not know this host.
            DragonflyError: The stream broke off, or was refused.
        """


class Turn(Protocol):
    """It is ours to ask the origin what a task is; others wait for what we hear.

    What is told is sent by :meth:`run`, and telling never waits.
    """

    def learnt(self, said: Description, *, alone: bool) -> None:
        """The origin says so. *alone*: this host will not register as a peer."""

    def reading(self, received: int) -> None:
        """The origin names no length, and is read; so many bytes are here."""

    def failed(self, error: DragonflyError | None) -> None:
        """It has not said it, for this reason; None: not in time."""

    def end(self) -> None:
        """Nothing comes of it, or of what was told: it is another's turn."""

    async def run(self) -> None:
        """Tell what there is to tell. Returns when the scheduler needs us no longer."""


class SchedulerLink(Protocol):
    """The schedulers of this daemon; the ring decides which one a task belongs to."""

    def __len__(self) -> int:
        """How many are known, whether they answer or not."""

    async def stat(self, kind: Kind, task_id: str) -> KnownTask | None:
        """What the swarm knows; None when no usable holder lives, or no scheduler answers."""

    async def description(
        self,
        request: DownloadRequest,
        task_id: str,
        *,
        origin: bool,
        version: str,
        patience: float | None,
    ) -> Description | Turn | None:
        """What a task is, from whoever knows; or our turn to ask its origin, after others.

        Args:
            request: With what the origin would be asked.
            task_id: Of the task.
            origin: Nothing but the origin's word will do.
            version: Of what is here, as an origin named it; ``""`` if nothing, or none was named.
            patience: Seconds to wait for others' turns to end. None: as long as it takes.

        Returns:
            None when no scheduler answers, or none that knows such questions; when it does not know
            whom to send; when that time is over.

        Raises:
            SourceFailed: The origin has failed several others.
        """

    async def imported(self, kind: Kind, task_id: str) -> ImportedTask:
        """What is known of a task that was imported.

        Raises:
            TaskNotFound: There is no such task.
            NoProvider: Its import has not ended well.
            SchedulerLost: Nobody who knows can be asked.
            DragonflyError: The scheduler does not say.
        """


# -- parents -----------------------------------------------------------------------------------


class Wants(Protocol):
    """What one parent is told of what is wanted here."""

    first: Wish

    async def next(self) -> Wish:
        """What has changed; waits until something has."""


class ParentLink(Protocol):
    """What other daemons can be asked for as parents: what they have, and what they can give."""

    def offers(
        self, parent: Candidate, kind: Kind, task_id: str, numbers: frozenset[int], *, gap: float
    ) -> AsyncIterator[Offer | Copy]:
        """Which of the pieces *parent* has, as it gets them. The first item is the copy.

        Args:
            parent: Whom to ask.
            kind: With *task_id*, of what.
            task_id: The task.
            numbers: The pieces wanted.
            gap: Seconds between two offers at most.

        Raises:
            Busy: It serves as many as it can.
            ParentLost: It could not be reached, broke off, or was silent for too long.
        """

    def exchange(
        self, parent: Candidate, kind: Kind, task_id: str, wants: Wants, *, gap: float
    ) -> AsyncIterator[Copy | Exchanged | Offering]:
        """Which pieces *parent* would have us fetch, one soon after the other.

        The first item is the copy, the second says how it is cut and where pieces are served. There
        is none if *parent* does not exchange: its :meth:`offers` are all that can be had.

        Args:
            parent: Whom to ask.
            kind: With *task_id*, of what.
            task_id: The task.
            wants: What it is told.
            gap: Seconds between two words of it at most.

        Raises:
            Busy, ParentLost: As :meth:`offers`.
        """

    def weights(self, parent: Candidate) -> AsyncIterator[float]:
        """What *parent*'s host can still give, bits a second, above 0; told about once a second.

        Raises:
            ParentLost: It could not be reached, or broke off.
        """

    async def fetch(
        self,
        parent: Candidate,
        kind: Kind,
        task_id: str,
        piece: Offer,
        *,
        limit: float,
    ) -> tuple[bytes, str]:
        """Get a piece inside a message, for want of a better way; its bytes and their digest.

        Raises:
            ParentLost, NotFound, DigestMismatch, RemoteProtocolError: As fetching by Vortex.
        """
