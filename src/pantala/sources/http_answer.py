"""What the status and the headers of an HTTP response mean to us. No I/O."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from urllib3 import HTTPHeaderDict

from pantala.errors import OriginError, RangeNotSatisfiable, RemoteProtocolError
from pantala.model.pieces import parse_content_range
from pantala.ports import SourceRequest

#: Statuses after which the same request may succeed a little later.
TRANSIENT: Final = frozenset({408, 429, 500, 502, 503, 504})

# Remembered with each task and sent to whoever asks for it: keep it small. Python's HTTP client
# gives up at 100 headers, others at 8 to 32 KiB of them.
_MAX_HEADERS: Final = 64
_MAX_HEADER_BYTES: Final = 32 << 10

# Of one connection or one message, or of one user, or a URL that may be signed for one user: no
# part of the content's description.
_NOT_KEPT: Final = frozenset(
    {
        "connection",
        "content-length",
        "content-location",
        "content-range",
        "keep-alive",
        "link",
        "location",
        "proxy-authenticate",
        "proxy-connection",
        "refresh",
        "set-cookie",
        "set-cookie2",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_LENGTH: Final = re.compile(r"[0-9]+")
#: Of a length: 10^18 bytes are more than any file has, and far from what 63 bits can count.
_MAX_DIGITS: Final = 18

#: A weight in Accept-Encoding that means no.
_NEVER: Final = re.compile(r"q=0(\.0*)?")


@dataclass(frozen=True, slots=True)
class Answer:
    """An accepted answer; the fields are those of :class:`~pantala.ports.SourceBody`."""

    total: int | None
    start: int
    length: int | None
    ranged: bool
    version: str
    header: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers of a response.

    Attributes:
        name: What was asked, for messages.
        chunked: The body is chunked, as far as the HTTP library understands it.
    """

    name: str
    status: int
    headers: HTTPHeaderDict
    chunked: bool

    def accept(self, request: SourceRequest) -> Answer:
        """What this answers to *request*.

        Raises:
            OriginError: It refuses, or is not an answer to that request.
            RangeNotSatisfiable: The range starts past the end.
        """
        if self.status in {200, 206}:
            self._check_encoding(request.headers)
        if self.status == 200:
            length = self._content_length()
            return self._answer(total=length, start=0, length=length, ranged=False)
        if self.status == 206:
            return self._part(request)
        if self.status == 416 and request.start is not None:
            raise RangeNotSatisfiable(f"{self.name} has no bytes at {request.start}")
        raise self.refusal()

    def refusal(self) -> OriginError:
        """The error for a status that means no."""
        return OriginError(
            describe(self.status),
            status=self.status,
            header=_kept(self.headers),
            transient=self.status in TRANSIENT,
        )

    def _check_encoding(self, asked: Mapping[str, str]) -> None:
        """Refuse what is compressed for one who did not ask for that: others get it, too."""
        encodings = _tokens(self.headers.get("Content-Encoding", ""))
        accepted = _accepted(asked)
        for encoding in encodings:
            if encoding not in accepted and "*" not in accepted:
                raise self._broken(
                    f"answered with Content-Encoding {encoding[:50]}, which was not asked for; to "
                    f"get the encoded bytes, ask with the header 'Accept-Encoding: {encoding[:50]}'"
                )

    def _part(self, request: SourceRequest) -> Answer:
        if request.start is None:
            raise self._broken("answered with a part to a request for the whole")
        if self.headers.get("Content-Type", "").lower().startswith("multipart/byteranges"):
            raise self._broken("answered with several parts to a request for one")
        try:
            start, last, total = parse_content_range(self.headers.get("Content-Range", ""))
        except RemoteProtocolError as exc:
            raise self._broken(f"answered with a part, but: {exc}") from exc
        if start != request.start or not _ends_right(last, total, request):
            asked = f"{request.start}-{_last(request)}"
            raise self._broken(f"answered with bytes {start}-{last} to a request for {asked}")
        length = last - start + 1
        if self._content_length() not in (None, length):
            raise self._broken(f"announces another length than its Content-Range, {length}")
        return self._answer(total=total, start=start, length=length, ranged=True)

    def _answer(self, *, total: int | None, start: int, length: int | None, ranged: bool) -> Answer:
        header = _kept(self.headers)
        if total is not None:
            header["Content-Length"] = str(total)
        return Answer(total, start, length, ranged, version(self.headers), header)

    def _content_length(self) -> int | None:
        """Bytes in the body; None if only its end will tell."""
        encoding = self.headers.get("Transfer-Encoding")
        if self.chunked:
            return None
        if encoding is not None:
            raise self._broken("uses a Transfer-Encoding that nobody asked for")
        lengths = {part.strip() for part in self.headers.get("Content-Length", "").split(",")}
        if lengths == {""}:
            return None
        length = lengths.pop()
        if lengths or not _LENGTH.fullmatch(length):
            raise self._broken("announces a Content-Length that is no number")
        if len(length) > _MAX_DIGITS:
            raise self._broken(f"announces a Content-Length that nothing can have, {length[:40]}")
        return int(length)

    def _broken(self, what: str) -> OriginError:
        return OriginError(f"{self.name} {what}", status=self.status, header=_kept(self.headers))


def version(headers: Mapping[str, str]) -> str:
    """Identity of the content that *headers* describe, ``""`` if they name none.

    Weak tags and dates promise less than strong tags, so the three kinds never compare equal.
    """
    tag = headers.get("ETag", "").strip()
    if tag:
        return f"weak:{tag}" if tag.startswith("W/") else f"etag:{tag}"
    modified = headers.get("Last-Modified", "").strip()
    return f"last-modified:{modified}" if modified else ""


def _tokens(value: str) -> list[str]:
    """Content codings in *value*, in lower case and by their proper names; no coding is none."""
    codings = [part.strip().lower() for part in value.split(",")]
    return [coding.removeprefix("x-") for coding in codings if coding not in {"", "identity"}]


def _accepted(asked: Mapping[str, str]) -> set[str]:
    """Content codings that a request with the headers *asked* accepts; ``*`` is any."""
    found = set()
    for name, value in asked.items():
        for part in value.split(",") if name.lower() == "accept-encoding" else ():
            coding, _, weight = part.partition(";")
            if not _NEVER.fullmatch(weight.replace(" ", "").lower()):
                found.update(_tokens(coding))
    return found


def describe(status: int) -> str:
    """``404 Not Found``, whatever words the origin used."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _ends_right(last: int, total: int | None, request: SourceRequest) -> bool:
    """Whether a part ends where it was asked to, or before that at the content's end."""
    at_end = total is not None and last == total - 1
    if request.start is None or request.length is None:
        return at_end
    want = request.start + request.length - 1
    return last == want or (at_end and last < want)


def _last(request: SourceRequest) -> int | str:
    """The last byte asked for, as a Range writes it: nothing means all that follow."""
    if request.start is None or request.length is None:
        return ""
    return request.start + request.length - 1


def _kept(headers: HTTPHeaderDict) -> dict[str, str]:
    """The headers that describe the content, as many as the limits allow."""
    kept: dict[str, str] = {}
    room = _MAX_HEADER_BYTES
    named = headers.get("Connection", "").split(",")
    dropped = _NOT_KEPT.union(token.strip().lower() for token in named)
    for name, value in headers.itermerged():
        if name.lower() in dropped:
            continue
        room -= len(name) + len(value)
        if room < 0 or len(kept) == _MAX_HEADERS - 1:  # one is left for Content-Length
            break
        kept[sys.intern(name)] = sys.intern(value)  # they are kept with each task, mostly the same
    return kept
