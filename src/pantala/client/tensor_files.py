"""The tensors of one safetensors file, asked for so that little travels and nothing is copied."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any, Final

from pantala.errors import SourceChanged
from pantala.model.urls import public_url

from .arrival import Arrival, same
from .asking import Asking
from .fetch import Fetch
from .landing import Landing
from .tensor_arrays import Maker
from .tensor_header import PREFIX, Header, TensorInfo, header_end, parse_header
from .tensor_plan import Due, Part, parts_of, touch_all_pieces

#: Bytes that are asked for first: no piece is shorter, so as many travel anyway, and few headers
#: have more.
BEGINNING: Final = 1 << 20

#: Tensors by name, and what was made of them.
Made = list[tuple[str, Any]]

#: Which of the tensors of a file are wanted. It raises what speaks against it.
Choose = Callable[["TensorFile"], None]


class TensorFile:
    """One file.

    Args:
        url: Of it.
        asking: How it is asked for.
        maker: Makes tensors of bytes. None: only the header is wanted.

    Attributes:
        name: Of the file, as others may see it.
        header: What it says of itself, once that is here.
        wanted: The tensors that are, in the order in which they lie there.
    """

    def __init__(self, url: str, asking: Asking, maker: Maker | None = None) -> None:
        self.url = url
        self.name = public_url(url)
        self.wanted: list[TensorInfo] = []
        self._asking = asking
        self._maker = maker
        self._header: Header | None = None
        self._raw = b""
        #: Of the first request. It keeps what is whole here as it is.
        self._first: Landing | None = None

    @property
    def header(self) -> Header:
        """What it says of itself."""
        assert self._header is not None  # noqa: S101  asked for before
        return self._header

    def choose(self, wanted: Callable[[str], bool]) -> None:
        """Want some tensors, by name. Raises InvalidRequest: one that cannot be made is wanted."""
        self.wanted = [tensor for tensor in self.header.tensors.values() if wanted(tensor.name)]
        assert self._maker is not None  # noqa: S101  who has none wants no tensors
        for tensor in self.wanted:
            self._maker.check(tensor, self.name)

    # -- the header ------------------------------------------------------------------------------

    def open(self) -> Iterator[TensorFile]:
        """Get the header alone; this, when it is here.

        Raises:
            Corrupt: It is none.
            DragonflyError: It cannot be had.
        """
        landing = self._first = self._get(0, BEGINNING)
        size = landing.arrival.content_length
        here = landing.view(0, landing.arrival.length)
        end = header_end(here, size, self.name)
        raw = here[:end]
        if end > len(here):
            rest = self._get(len(here), end)
            self._must_be_same(rest.arrival)
            raw = memoryview(bytes(here) + rest.view(len(here), end))
        self._take_header(raw, size)
        yield self

    def _take_header(self, raw: memoryview, size: int) -> None:
        self._header = parse_header(raw, size, self.name)
        self._raw = bytes(raw)

    def _get(self, first: int, end: int) -> Landing:
        fetch = self._asking.fetch(self.url, (first, end))
        for _ in self._asking.steps(fetch):
            pass
        return fetch.landing

    # -- the tensors -----------------------------------------------------------------------------

    def whole(self, choose: Choose) -> Iterator[Made]:
        """All of the file at once, and of it what is chosen as soon as the header is here."""
        fetch = self._asking.fetch(self.url, again=True)
        for step in self._asking.steps(fetch):
            if step.name == "again":
                self._header = None
            if self._header is None and self._read_header(fetch.landing):
                choose(self)
        yield self._made(self.wanted, fetch.landing)
        fetch.landing.close()

    def _read_header(self, landing: Landing) -> bool:
        """Take the header of a file that is on its way, if it is here."""
        arrival, coverage = landing.arrival, landing.coverage
        size = arrival.content_length
        if not (arrival.done or coverage.has(0, min(PREFIX, size) or 1)):
            return False
        end = header_end(landing.view(0, min(PREFIX, size)), size, self.name)
        if not coverage.has(0, end):
            return False
        self._take_header(landing.view(0, end), size)
        return True

    def works(self) -> list[Callable[[], Iterator[Made]]]:
        """What is to be done for the tensors that are wanted; the header is here."""
        empty = [tensor for tensor in self.wanted if not tensor.nbytes]
        filled = [tensor for tensor in self.wanted if tensor.nbytes]
        works: list[Callable[[], Iterator[Made]]] = []
        if empty:
            works.append(lambda: iter([[(t.name, self._make(t, memoryview(b""))) for t in empty]]))
        parts = parts_of(filled)
        if not parts:
            return works
        assert self._first is not None  # noqa: S101  the header came with it
        first, last = self._first, parts[-1].end
        size, piece_length = first.arrival.content_length, first.arrival.piece_length
        here = first.fd < 0 and last <= first.arrival.length
        if here:
            works.append(lambda: iter([self._made(filled, first)]))
        elif first.fd >= 0 or touch_all_pieces(parts, self.header, size, piece_length):
            works.append(self._in_whole)
        else:
            works += [self._of_part(part) for part in parts]
        return works

    def _in_whole(self) -> Iterator[Made]:
        """The tensors of all of the file, which is here, or comes anyway, as they land."""
        fetch, parts = self._asking.fetch(self.url), list[tuple[int, int]]()
        due = Due(tensor for tensor in self.wanted if tensor.nbytes)
        verified = False
        with closing(self._asking.steps(fetch)) as steps:
            for step in steps:
                parts += step.brought
                verified = verified or self._is_same(fetch)
                if verified and (landed := due.landed(parts, fetch.landing.coverage)):
                    yield self._made(landed, fetch.landing)
                if verified:
                    parts.clear()
                if not due and not fetch.arrival.done:
                    break
        fetch.landing.close()

    def _is_same(self, fetch: Fetch) -> bool:
        """Whether the header has come again. Raises SourceChanged: another has."""
        if not fetch.landing.coverage.has(0, self.header.end):
            return False
        self._must_be_same(fetch.arrival)
        if fetch.landing.view(0, self.header.end) != self._raw:
            raise self._changed()
        return True

    def _of_part(self, part: Part) -> Callable[[], Iterator[Made]]:
        def work() -> Iterator[Made]:
            landing = self._get(part.first, part.end)
            self._must_be_same(landing.arrival)
            yield self._made(part.tensors, landing)
            landing.close()

        return work

    def _must_be_same(self, arrival: Arrival) -> None:
        """What has come is of the content whose header is here. Raises SourceChanged."""
        assert self._first is not None  # noqa: S101  nothing else is asked for before
        known = self._first.arrival
        told = (arrival.content_length, arrival.header)
        if not same((known.content_length, known.header), told):
            raise self._changed()

    def _changed(self) -> SourceChanged:
        return SourceChanged(f"{self.name} changed while it was read: ask again", transient=True)

    def _made(self, tensors: Iterable[TensorInfo], landing: Landing) -> Made:
        return [(t.name, self._make(t, landing.view(t.first, t.end))) for t in tensors]

    def _make(self, tensor: TensorInfo, view: memoryview) -> Any:
        assert self._maker is not None  # noqa: S101  who has none wants no tensors
        return self._maker.make(tensor, view)
