"""Content as a file that is read while it comes."""

from __future__ import annotations

import io
import threading
from operator import index
from typing import Any, NoReturn

from pantala.model.urls import public_url

from .fetch import Fetch


class ContentFile(io.RawIOBase):
    """The content of a URL as a binary file, read-only and seekable. A read waits for its bytes.

    Several threads may use it; :meth:`pread` reads without moving the file's place.

    Args:
        fetch: The download, under way from here on.
        url: Of the content.

    Raises:
        DragonflyError: It cannot be had; what reads and seeks raises this, too.
    """

    def __init__(self, fetch: Fetch, url: str) -> None:
        super().__init__()
        self._fetch = fetch
        self._lock = threading.RLock()
        self._at = 0
        #: As others may see it; what file objects call so.
        self.name = public_url(url)
        self.mode = "rb"
        while fetch.arrival.task_id is None:
            fetch.step()

    def __repr__(self) -> str:
        return f"<ContentFile of {self.name}{', closed' if self.closed else ''}>"

    @property
    def size(self) -> int:
        """Bytes in it."""
        return self._fetch.arrival.length

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The place of the next byte that is read."""
        self._check()
        return self._at

    def write(self, data: Any, /) -> NoReturn:
        """It is read-only. Raises io.UnsupportedOperation."""
        del data
        raise io.UnsupportedOperation("not writable")

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to another place. Raises ValueError: before the beginning."""
        offset = index(offset)
        with self._lock:
            self._check()
            base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}.get(whence)
            if base is None:
                raise ValueError(f"whence: {whence} is none of 0, 1 and 2")
            if base + offset < 0:
                raise ValueError(f"negative place {base + offset}")
            self._at = base + offset
            return self._at

    def readinto(self, buffer: Any, /) -> int:
        """Read into *buffer* until it is full or the content ends; how many bytes it was."""
        with self._lock:
            room = memoryview(buffer).cast("B")
            view = self.view(self._at, self._at + len(room))
            room[: len(view)] = view
            self._at += len(view)
            return len(view)

    def read(self, size: int | None = -1, /) -> bytes:
        """The next *size* bytes, or as many as there are; all that are left if it is negative."""
        with self._lock:
            self._check()
            end = self.size if size is None or size < 0 else self._at + size
            data = bytes(self.view(self._at, end))
            self._at += len(data)
            return data

    def readall(self) -> bytes:
        """All that is left."""
        return self.read()

    def pread(self, size: int, offset: int) -> bytes:
        """As many as *size* bytes from *offset*, whatever the file's place is.

        Raises ValueError: before the beginning.
        """
        return bytes(self.view(offset, offset + size))

    def view(self, first: int, end: int) -> memoryview:
        """The bytes from *first* to before *end*, as far as there are such; not a copy.

        Raises ValueError: they begin before the content.
        """
        if first < 0:
            raise ValueError(f"negative place {first}")
        with self._lock:
            self._check()
            first, end = min(first, self.size), min(end, self.size)
            arrival, landing = self._fetch.arrival, self._fetch.landing
            while not landing.coverage.has(arrival.start + first, arrival.start + end):
                self._fetch.step()
            return landing.view(arrival.start + first, arrival.start + end)

    def close(self) -> None:
        """Want no more of it. Views stay. A second time does nothing."""
        if not self.closed:
            self._fetch.withdraw()
            self._fetch.landing.close()
        super().close()

    def _check(self) -> None:
        if self.closed:
            raise ValueError(f"the file of {self.name} is closed")
