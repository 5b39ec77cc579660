"""The origin as one flight sees it: probed once, then read piece by piece, and held to its word.

Every answer within one flight must speak of the same content as the first. An origin that serves
ranges is asked for each piece; one that does not is read once from front to back. So is one whose
answers cannot be compared, because they name no version, or each a different one: all bytes are
then of one answer (ADR 11).
"""

from __future__ import annotations

import threading
import time
from typing import Final

from pantala.errors import OriginError, RangeNotSatisfiable, SourceChanged
from pantala.model.digest import crc32, piece_digest
from pantala.model.pieces import Piece
from pantala.model.units import byte_count
from pantala.ports import Abort, Extent, Sink, Source, SourceBody, SourceRequest

from .reading import CHUNK, NO_VERSION, OutOfTurn, Reading, skip

#: Seconds before the first retry of a broken transfer; doubled for each that follows.
BACKOFF: Final = 0.2

#: Bytes that are read at once at least, and seconds that it may take: so often others can see how
#: far a piece is.
_LEAST: Final = 64 << 10
_LOOK: Final = 0.1


class Origin:
    """One file at its origin, asked with one caller's URL and headers.

    Args:
        source: The client.
        url: What to ask for.
        headers: What to ask with.
        timeout: Seconds for connecting, and for each wait for bytes.
        answer: Seconds until an answer's headers are here. None: *timeout*.
        retries: How often a transfer that broke off is taken up again.
        one_answer: Its answers are known to disagree; read all from one.
    """

    def __init__(
        self,
        source: Source,
        url: str,
        headers: dict[str, str],
        *,
        timeout: float,
        answer: float | None = None,
        retries: int,
        one_answer: bool = False,
    ) -> None:
        self.url = url
        self.headers = headers
        self.retries = retries
        #: Bytes of the content; None when the origin does not say.
        self.total: int | None = None
        #: What it says of the content's identity; "" when it says nothing.
        self.version = ""
        self.header: dict[str, str] = {}
        #: It ignores ranges, and is read front to back.
        self.in_order = False
        self._source = source
        self._timeout = timeout
        self._answer = answer
        self._known = False
        self._lock = threading.Lock()
        self._stream: tuple[SourceBody, int] | None = None  # and where it is
        #: What the first answer named that named a version.
        self._named = ""
        #: The reading that all bytes must be of; None while answers can be told apart.
        self.reading: Reading | None = None
        #: End of what is wanted, as far as it is known.
        self.until: int | None = None
        if one_answer:
            self._read_once()

    def _read_once(self) -> None:
        """From here on all bytes must come from one answer."""
        self.reading = Reading()
        self.version = self.reading.version
        self.in_order = True

    def expect(self, total: int | None, version: str) -> None:
        """Hold the answers to what is known of the content from elsewhere."""
        self.total, self._known = total, True
        if self.reading is None:
            self.version = version

    def probe(self, abort: Abort) -> None:
        """Learn the content's length. Blocks.

        What an origin that ignores ranges sends meanwhile is the download's beginning.

        Raises:
            OriginError: It refused, or cannot be reached.
        """
        body = self._open(0, 1, abort)
        if not body.ranged and body.total != 0:
            self.in_order = True
            self._keep(body)
        else:
            body.close()
        if body.ranged and body.total is None:
            self.in_order = True
            self._keep(self._open(None, None, abort))

    def take_stream(self) -> SourceBody:
        """The body that the probe began: all of a file of unknown length. Once."""
        stream = self._take()
        if stream is None:
            raise ValueError("no probe has begun to read the content")
        return stream[0]

    def reader(self, offset: int, length: int, abort: Abort) -> tuple[SourceBody, int]:
        """A body that starts at *offset* or before, and where. Blocks.

        Hand it to :meth:`done_with` afterwards.
        """
        if self.reading is not None:
            return self._read_on(self.reading, offset, abort)
        if self.in_order:
            return self._resume(offset, abort)
        body = self._open(offset, length, abort)
        if self._is_read_once():  # the first answer, and it names no version: not in parts
            body.close()
            raise OutOfTurn("the origin is to be read from one answer")
        self.in_order = not body.ranged
        return body, body.start

    def _is_read_once(self) -> bool:
        return self.reading is not None

    def _read_on(self, reading: Reading, offset: int, abort: Abort) -> tuple[SourceBody, int]:
        """The one answer that all is read from; or one that was shown to begin like it."""
        stream = self._take()
        if stream is not None and stream[1] > offset:
            stream[0].close()
            stream = None
        if stream is None:
            stream = self._open_alike(reading, offset, abort)
        body, at = stream
        abort.by(body.abort)
        try:
            reading.go_on(body, at, offset)
        except BaseException:  # whatever it is, the connection is ours to close
            body.close()
            raise
        return body, offset

    def _open_alike(self, reading: Reading, offset: int, abort: Abort) -> tuple[SourceBody, int]:
        """Another answer, once its beginning was compared with what was read before."""
        begin = reading.begin_for(offset)
        length = None if self.until is None or self.until <= offset else self.until - begin
        body = self._open(begin, length, abort)
        abort.by(body.abort)
        try:
            return body, reading.compare(body)
        except BaseException:  # whatever it is, the connection is ours to close
            body.close()
            raise

    def _resume(self, offset: int, abort: Abort) -> tuple[SourceBody, int]:
        """The stream, if it has not passed *offset* yet, else a new one; and where it is."""
        stream = self._take()
        if stream is not None:
            if stream[1] <= offset:
                return stream
            stream[0].close()
        return self._open(None, None, abort), 0

    def done_with(self, body: SourceBody, at: int) -> None:
        """Keep or close a body of which everything before *at* was read."""
        end = self.total
        if self.reading is not None and end is not None and self.until is not None:
            end = min(end, self.until)  # more was not asked for
        if self.in_order and end is not None and at < end:
            self._keep(body, at)
        else:
            body.close()

    def close(self) -> None:
        """Close what is open. Only when nobody reads."""
        stream = self._take()
        if stream is not None:
            stream[0].close()

    def _keep(self, body: SourceBody, at: int = 0) -> None:
        with self._lock:
            other, self._stream = self._stream, (body, at)
        if other is not None:
            other[0].close()

    def _take(self) -> tuple[SourceBody, int] | None:
        with self._lock:
            stream, self._stream = self._stream, None
        return stream

    def _open(self, start: int | None, length: int | None, abort: Abort) -> SourceBody:
        request = SourceRequest(self.url, self.headers, start, length)
        try:
            body = self._source.open(
                request, timeout=self._timeout, answer=self._answer, abort=abort
            )
        except RangeNotSatisfiable as error:
            # We only ask for what was there a moment ago.
            raise SourceChanged(f"the origin's content became shorter: {error}") from error
        try:
            with self._lock:  # two answers that disagree may come at the same time
                self._check(body)
        except BaseException:  # whatever it is, the connection is ours to close
            body.close()
            raise
        return body

    def _check(self, body: SourceBody) -> None:
        if not self._known:
            self.expect(body.total, body.version)
            self.header = dict(body.header)
        elif body.total is not None:
            if self.total is not None and body.total != self.total:
                raise SourceChanged(
                    f"the origin's content changed: {byte_count(body.total)}, not {self.total}"
                )
            self.total = body.total
        if self.reading is None:
            self._check_version(body.version)

    def _check_version(self, named: str) -> None:
        if not named:
            if self.version:
                raise SourceChanged(NO_VERSION, wavers=bool(self._named))
            self._read_once()
            return
        if self.version not in ("", named):
            raise SourceChanged(
                f"the origin's content changed: {named}, not {self.version}",
                version=named,
                wavers=bool(self._named),
            )
        self.version = self._named = named


class Probe:
    """Asks an origin what its content is."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._abort = Abort()

    def abort(self) -> None:
        """Make :meth:`run` fail soon, from any thread."""
        self._abort.ask()

    def run(self) -> None:
        """Blocks until the origin has answered; see :meth:`Origin.probe` for what it raises."""
        self._origin.probe(self._abort)


class SourceFetch:
    """One piece from the origin, straight into its place.

    Args:
        origin: Where from.
        piece: Which.
        into: As long as the piece.
    """

    def __init__(self, origin: Origin, piece: Piece, into: Sink) -> None:
        self._origin = origin
        self._piece = piece
        self._into = into
        self._at = 0
        self._crc = 0
        self._abort = Abort()

    def abort(self) -> None:
        """Make :meth:`run` fail soon, from any thread."""
        self._abort.ask()

    def run(self) -> str:
        """Fetch it, going on where a broken transfer stopped; its digest.

        Raises:
            OriginError: The origin refused, broke off too often, or changed its content.
            StoreFailed: The bytes cannot be kept here.
        """
        failures = 0
        while True:
            before = self._at
            try:
                self._read()
            except OriginError as error:
                if self._abort.asked or not error.transient:
                    raise
                # An origin that brings something each time is slow, not broken.
                failures = 1 if self._at - before >= CHUNK else failures + 1
                if failures > self._origin.retries:
                    raise
                if self._abort.wait(BACKOFF * 2 ** (failures - 1)):
                    raise
            else:
                return piece_digest(self._crc)

    def _read(self) -> None:
        piece = self._piece
        start = piece.offset + self._at
        body, at = self._origin.reader(start, piece.length - self._at, self._abort)
        self._abort.by(body.abort)
        good = False
        try:
            skip(body, start - at)
            step, first = _LEAST, self._at
            while self._at < piece.length:
                began = time.monotonic()
                most = min(step, CHUNK - (self._at - first) % CHUNK)  # whole chunks are what counts
                with self._into.window(self._at) as window, window[:most] as chunk:
                    n = body.readinto(chunk)
                    with chunk[:n] as fresh:
                        self._crc = crc32(fresh, self._crc)
                        if self._origin.reading is not None:
                            self._origin.reading.note(fresh)
                if not n:
                    raise OriginError(
                        f"the origin's answer ended after {self._at} of {piece.length} bytes",
                        transient=True,
                    )
                self._into.wrote(self._at, n)
                self._at += n
                quick = time.monotonic() - began < _LOOK
                step = min(step * 2, CHUNK) if quick else max(step // 2, _LEAST)
            good = True
        finally:
            self._abort.by(None)
            if good:
                self._origin.done_with(body, piece.offset + piece.length)
            else:
                body.close()


class StreamFetch:
    """The next bytes of a body of unknown length, straight into their place.

    Attributes:
        crc: The CRC-32 of those that came.
    """

    def __init__(self, body: SourceBody, into: Sink) -> None:
        self._body = body
        self._into = into
        self.crc = 0

    def abort(self) -> None:
        """Make :meth:`run` fail soon, from any thread."""
        self._body.abort()

    def run(self) -> int:
        """How many bytes came; fewer than there is room for only at the end.

        Raises:
            OriginError: The origin broke off.
            StoreFailed: The bytes cannot be kept here.
        """
        at = 0
        while at < self._into.length:
            with self._into.window(at) as window:
                room = len(window)
                count = self._body.readinto(window)
                with window[:count] as fresh:
                    self.crc = crc32(fresh, self.crc)
            self._into.wrote(at, count)
            at += count
            if count < room:
                break
        return at


class Checksum:
    """The CRC-32 of bytes that lie where they belong already."""

    def __init__(self, extent: Extent) -> None:
        self._extent = extent

    def abort(self) -> None:
        """It takes milliseconds: nothing to give up."""

    def run(self) -> int:
        """Compute it. Raises Damaged when they cannot be read."""
        crc = 0
        for at in range(0, self._extent.length, CHUNK):
            with self._extent.read(at, min(CHUNK, self._extent.length - at)) as part:
                crc = crc32(part, crc)
        return crc
