"""Content that a program has: bytes to look at, and a path to open."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from sys import is_finalizing
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Self

from pantala.model.urls import public_url

from .landing import Landing

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray


class Sources(NamedTuple):
    """Where the bytes of a download came from.

    Attributes:
        here: Bytes that this machine had before.
        peers: That came from other machines.
        origin: That this machine read at the origin.
    """

    here: int
    peers: int
    origin: int


class Content:
    """What was asked for, all of it here, read-only, and kept here as long as somebody looks at it.

    A context manager. Leaving it closes the path; views stay valid for as long as they are held,
    and until the last of them is gone the content keeps its place in the daemon's memory.
    From Python 3.12 on it is a buffer itself.

    Args:
        url: That was asked for.
        landing: Where it is.

    Attributes:
        url: As others may see it.
        task_id: The daemon's name for the content.
        size: Bytes in it; of a range, bytes in the range.
        start: Where in the whole content it begins; 0 but for a range.
        whole_size: Bytes in the whole content.
        sources: Where they came from.
        header: What the origin said of the content; empty where nobody remembers.
    """

    def __init__(self, url: str, landing: Landing) -> None:
        arrival = landing.arrival
        self.url = public_url(url)
        self.task_id = arrival.task_id or ""
        self.size = arrival.length
        self.start = arrival.start
        self.whole_size = arrival.content_length
        self.header = dict(arrival.header)
        self.sources = sources_of(landing)
        self._landing: Landing | None = landing
        self._copy = -1

    def __repr__(self) -> str:
        closed = ", closed" if self._landing is None else ""
        return f"<Content of {self.url}, {self.size} bytes{closed}>"

    def __len__(self) -> int:
        return self.size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self, ends: Callable[[], bool] = is_finalizing) -> None:
        if not ends():  # then modules go, and the system closes all
            self.close()

    def __reduce__(self) -> NoReturn:
        """It is this process's, and there is one of it: nobody else could close it."""
        raise TypeError("content is not copied or pickled: take bytes(content.view), or its url")

    def __buffer__(self, flags: int, /) -> memoryview:
        """The same as :attr:`view`, for whoever takes a buffer (Python 3.12)."""
        return self.view

    @property
    def view(self) -> memoryview:
        """The bytes, read-only, where they are: not a copy. Raises ValueError: it is closed."""
        landing = self._open()
        return landing.view(self.start, self.start + self.size)

    @property
    def path(self) -> str:
        """A path under which this process, and no other, can open the bytes as a file; until close.

        Of a range, and of what is small, it is a copy in memory. Raises ValueError: it is closed.
        """
        landing = self._open()
        if landing.fd >= 0 and self.size == self.whole_size:
            return f"/proc/self/fd/{landing.fd}"
        if self._copy < 0:
            self._copy = _copied(landing.view(self.start, self.start + self.size))
        return f"/proc/self/fd/{self._copy}"

    def array(self, dtype: DTypeLike = "uint8", shape: int | Sequence[int] = -1) -> NDArray[Any]:
        """The bytes as a read-only numpy array, where they lie. It keeps them there.

        Args:
            dtype: Of the elements.
            shape: In rows, as numpy has it; one of the numbers may be -1.

        Raises:
            ValueError: There are not as many bytes as that; or it is closed.
        """
        import numpy as np  # noqa: PLC0415  whoever calls this has it

        flat: NDArray[Any] = np.frombuffer(self.view, np.uint8)
        return flat.view(dtype).reshape(shape)

    def copy(self, first: int = 0, end: int | None = None) -> bytes:
        """The bytes, in memory of this process's own, as far as there are such.

        Args:
            first: Of those that are wanted.
            end: They end before this; None: with the content.

        Raises:
            ValueError: It is closed.
        """
        first, end, _ = slice(first, end).indices(self.size)
        return self._open().copy(self.start + first, self.start + max(first, end))

    def close(self) -> None:
        """Close the path. Views stay. A second time does nothing."""
        landing, self._landing = self._landing, None
        if landing is not None:
            landing.close()
        copy, self._copy = self._copy, -1
        if copy >= 0:
            os.close(copy)

    def _open(self) -> Landing:
        if self._landing is None:
            raise ValueError(f"the content of {self.url} is closed")
        return self._landing


def sources_of(landing: Landing) -> Sources:
    """Where what has come until now is from."""
    received = landing.arrival.received
    return Sources(received["cache"], received["peers"], received["origin"])


def _copied(view: memoryview) -> int:
    """A file in memory with these bytes; its descriptor."""
    fd = os.memfd_create("pantala")
    try:
        while view:
            view = view[os.write(fd, view) :]
    except BaseException:  # a signal, too: nothing is left open
        os.close(fd)
        raise
    return fd
