"""A hand-off connection over which many requests come, each with an id (docs/handoff.md).

What is at hand is answered in the turn in which it is asked for, see :mod:`.whole`; anything else
is a task of its own, and the answers of all take turns, frame by frame. While the client does not
take what is sent, nothing is read from it: so it can have no more done than it takes, and that it
has gone shows all the same, as what is being sent fails.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final

import structlog

from pantala.errors import Busy, DragonflyError, InvalidRequest, RemoteProtocolError, TimedOut
from pantala.net.sockets import hang_up
from pantala.storage.medium import Lying
from pantala.wire.handoff import MAX_ID, encode, frame, parse, split

from .handoff_client import (
    REQUEST_LIMIT,
    Client,
    ClientGone,
    Connection,
    MakeDescriptor,
    failure,
    transmit,
    unreadable,
)
from .whole import Whole

logger = structlog.get_logger(__name__)

#: Requests that a client may have open: under way, or with a descriptor that it still needs. Each
#: may hold a lease. So much is told; twice as many are let in, since what is done takes a moment to
#: be forgotten.
MAX_OPEN: Final = 64

#: Bytes of answers that are sent at once: no more than a socket takes as a rule.
_BATCH: Final = 64 << 10

#: Parts of them: the kernel takes 1,024 at once.
_PARTS: Final = 512

#: Bytes that are read at once.
_READ: Final = 16 << 10

#: Seconds for a client to take a frame that has begun, and for others' frames before it.
PAUSE_LIMIT: Final = 7200.0

#: Events that end a request, and are told however late it is for it.
_LAST: Final = ("error", "released")


class _Answer:
    """A request, as those see it who answer it; see :class:`.Client`.

    Attributes:
        released: Its client needs nothing more of it.
    """

    goes_on = True

    def __init__(self, kept: KeptConnection, number: int) -> None:
        self.patience = PAUSE_LIMIT
        self.caller = kept.client.caller
        self.released = asyncio.Event()
        self._kept = kept
        self._number = number

    async def wait_until_gone(self) -> None:
        await self.released.wait()

    async def send(
        self,
        message: Mapping[str, Any],
        make: MakeDescriptor | None = None,
        content: memoryview | None = None,
    ) -> bool:
        data = encode({"id": self._number, **message})
        patience = PAUSE_LIMIT if message["event"] in _LAST else self.patience
        return await self._kept.send(data, make, content, patience=patience)


class KeptConnection:
    """See the module.

    Args:
        client: Whose first request has an id.
        whole: What is at hand.
        carry_out: Answers any other request, also if it makes no sense.
        works, rests: Told that something goes on here now, or not any more.
    """

    def __init__(
        self,
        client: Connection,
        whole: Whole,
        carry_out: Callable[[Client, dict[str, Any]], Awaitable[None]],
        works: Callable[[], None],
        rests: Callable[[], None],
    ) -> None:
        self.client = client
        self._sock = client.sock
        self._decoder = client.decoder
        self._whole = whole
        self._carry_out = carry_out
        self._works = works
        self._rests = rests
        self._loop = asyncio.get_running_loop()
        self._gone = self._loop.create_future()
        self._last = -1
        self._open: dict[int, _Answer] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        #: Held by whoever sends a frame; it lets go of it when all of the frame is out.
        self._turn = asyncio.Lock()
        #: What is to be sent at the end of this turn, and its bytes.
        self._out: list[bytes | Lying] = []
        self._due = 0
        #: What of it the client has not taken yet; it comes before anything else.
        self._rest = memoryview(b"")
        #: Somebody waits for it to take what is being sent.
        self._is_stuck = False
        self._reads = False
        #: Ends it when a frame that has begun does not become whole.
        self._half: asyncio.Task[None] | None = None
        self._count = 0

    async def serve(self, first: bytes) -> None:
        """Carry out *first* and what else is asked for, until the client has gone."""
        try:
            self._take_all(first)
            await self._gone
        finally:
            self._pause()
            hang_up(self._sock)  # so that nobody waits for it any more who sends
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            logger.info("a program has left", answers=self._count)

    # -- requests --------------------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            data = self._sock.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._decoder.feed(data)
            self._take_all()
        else:
            self._end()

    def _take_all(self, text: bytes | None = None) -> None:
        """Begin what is asked for, in as far as the client takes what it is answered.

        Args:
            text: The first request. None: what has been read is looked at.
        """
        began = False
        try:
            while not self._is_stuck:
                text = text or self._decoder.next_text()
                if text is None:
                    break
                began = True
                self._take(text)
                text = None
                if self._due >= _BATCH or len(self._out) >= _PARTS:
                    self._flush()
            self._flush()
        except RemoteProtocolError as error:
            self._refuse(unreadable(error))
        except DragonflyError as error:
            self._refuse(error)
        except ClientGone:
            self._end()
        except Exception:  # a bug with one client must not leave it waiting
            logger.exception("unexpected error on the hand-off socket")
            self._end()
        if not self._gone.done():
            self._look(began=began)

    def _look(self, *, began: bool) -> None:
        """What is to be waited for now. *began*: some request was whole."""
        if began and not self._open:
            self._rests()
        if self._half is not None and (began or self._is_stuck):
            self._half.cancel()
            self._half = None
        if self._is_stuck:
            self._pause()
            return
        if self._half is None and self._decoder.has_begun:
            self._half = self._start(self._wait_for_whole())
        if not self._reads:
            self._reads = True
            self._loop.add_reader(self._sock.fileno(), self._readable)

    def _take(self, text: bytes) -> None:
        head = split(text)
        if head is not None:
            number, beginning, rest = head
            found = self._whole.find(rest)
            if found is not None:
                self._next(number)
                answer, content = found
                self._put(frame(beginning, answer), content)
                self._count += 1
                return
        self._begin(parse(text))

    def _begin(self, request: dict[str, Any]) -> None:
        number = request.pop("id", None)
        if type(number) is not int or not 0 <= number <= MAX_ID:
            raise InvalidRequest(f"'id' must be a whole number from 0 to {MAX_ID}")
        if request.get("op") == "release":
            self._release(number, request)
            return
        self._next(number)
        if len(self._open) < 2 * MAX_OPEN:
            answer = self._open[number] = _Answer(self, number)
            self._works()
            self._start(self._run(number, answer, request))
        else:
            error = Busy(f"{len(self._open)} requests are open here: release some, or wait")
            self._put(encode({"id": number, **failure(error)}))

    def _next(self, number: int) -> None:
        if number <= self._last:
            raise InvalidRequest(f"'id' {number} is not above the one before, {self._last}")
        self._last = number

    def _release(self, number: int, request: dict[str, Any]) -> None:
        if len(request) > 1:
            raise InvalidRequest("a release has an 'id' and nothing else")
        answer = self._open.get(number)
        if answer is not None:  # which says so when it has let go
            answer.released.set()
        else:
            self._put(encode({"id": number, "event": "released"}))

    async def _run(self, number: int, answer: _Answer, request: dict[str, Any]) -> None:
        try:
            await self._carry_out(answer, request)
            if answer.released.is_set():
                await answer.send({"event": "released"})
        except ClientGone:
            self._end()
        except Exception:  # a bug with one answer must not leave its client waiting for it
            logger.exception("unexpected error on the hand-off socket")
            self._end()
        finally:
            del self._open[number]
            if not self._open:
                self._rests()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- answers ---------------------------------------------------------------------------------

    def _put(self, data: bytes, content: Lying | None = None) -> None:
        """Send it at the end of this turn."""
        self._out.append(data)
        self._due += len(data)
        if content is not None:
            self._out.append(content)
            self._due += len(content)

    def _flush(self) -> None:
        if not self._out:
            return
        out, due = self._out, self._due
        self._out, self._due = [], 0
        try:
            sent = self._sock.sendmsg(out)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise ClientGone(str(error)) from error
        if sent < due:
            self._rest = memoryview(b"".join(out))[sent:]
            self._is_stuck = True
            self._start(self._send_rest())

    async def _send_rest(self) -> None:
        with contextlib.suppress(ClientGone):  # then it has ended
            await self._turn.acquire()
            await self._send(b"", None, None)

    async def send(
        self,
        data: bytes,
        make: MakeDescriptor | None,
        content: memoryview | None,
        *,
        patience: float,
    ) -> bool:
        """Send a frame, whole even if that is cancelled once it has begun; see :class:`.Client`.

        It must begin within *patience*, seconds.

        Raises:
            TimedOut: Others' frames have taken so long; nothing was sent.
        """
        try:
            async with asyncio.timeout(patience):
                await self._turn.acquire()
        except TimeoutError:
            raise TimedOut(f"no answer could begin within {patience:g} s") from None
        sending = asyncio.ensure_future(self._send(data, make, content))
        try:
            return await asyncio.shield(sending)
        except asyncio.CancelledError:
            # Its content stays in place until then. It ends with the connection at the latest.
            await asyncio.wait((sending,))
            if not sending.cancelled():
                sending.exception()  # that the client is gone; nobody else asks
            raise

    async def _send(
        self, data: bytes, make: MakeDescriptor | None, content: memoryview | None
    ) -> bool:
        """Send a frame for whoever holds the turn, which goes on to the next one."""
        try:
            self._is_stuck = True
            rest, self._rest = self._rest, memoryview(b"")
            async with asyncio.timeout(PAUSE_LIMIT):
                if rest:
                    await transmit(self._sock, rest, None, None)
                sent = await transmit(self._sock, data, make, content)
            self._is_stuck = False
            if not (self._reads or self._gone.done()):
                self._take_all()  # before the next frame: what comes may be a release
        except OSError as error:  # part of a frame may be out
            self._end()
            raise ClientGone(str(error)) from error
        finally:
            self._turn.release()
        return sent

    # -- the end ---------------------------------------------------------------------------------

    def _pause(self) -> None:
        if self._reads:
            self._reads = False
            self._loop.remove_reader(self._sock.fileno())

    async def _wait_for_whole(self) -> None:
        await asyncio.sleep(REQUEST_LIMIT)
        self._refuse(TimedOut(f"no request within {REQUEST_LIMIT:g} s"))

    def _refuse(self, error: DragonflyError) -> None:
        """What came cannot be answered by its id: say so, if that can be heard, and end."""
        self._put(encode(failure(error)))
        with contextlib.suppress(OSError):
            if not self._is_stuck:
                self._sock.sendmsg(self._out)
        self._end()

    def _end(self) -> None:
        self._pause()
        if not self._gone.done():
            self._gone.set_result(None)
