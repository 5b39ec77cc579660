"""Content in memory: one segment per task, bytes received straight into their place.

A segment is a memfd as long as the content, mapped once. Its pages come into being when they
are first written, so a segment of which only a few pieces are wanted costs only those. Content
up to :data:`SMALL` bytes is a plain ``bytearray``: ten thousand small tasks must not need ten
thousand descriptors. Empty content is nothing at all.

Touching a page for the first time costs more than receiving into it. Two things avoid it: content
that has to go can hand its memory, still mapped, to the content that it makes room for; and where
the system allows huge pages for shared memory, segments ask for them. docs/adr/0005 has figures.

Where memfd does not exist (macOS) an unlinked temporary file stands in: it may be paged out to
its disk, and as it cannot be sealed, no reader is given its descriptor.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Protocol

from pantala.errors import Unavailable

#: Content up to this many bytes is kept without a descriptor.
SMALL: Final = 256 * 1024

#: Growing content is extended by this much at a time; every piece length that follows from a
#: content length is a multiple of it.
GROWTH_STEP: Final = 4 * 1024 * 1024

#: A content takes over memory that is at most this much longer than itself, because the rest is
#: freed on the spot; and at least half as long, or it is not worth it.
MAX_EXCESS: Final = 64 * 1024 * 1024

#: Content from this many bytes on asks for huge pages.
HUGE_FROM: Final = 64 * 1024 * 1024

_SEALS: Final = 0x2 | 0x4 | 0x10  # SHRINK, GROW, FUTURE_WRITE; the last is not in fcntl of 3.11
_F_ADD_SEALS: Final = 1033
_MLOCK_ONFAULT: Final = 1


class Content(Protocol):
    """The bytes of one task. Views stay valid after :meth:`close`, for those who hold them."""

    length: int

    #: It lies in memory that was another content's: until all of it is here, whoever could read
    #: anywhere in it would see what is none of theirs.
    inherited: bool

    def writable(self, offset: int, length: int) -> memoryview:
        """A view to receive into."""

    def readable(self, offset: int, length: int) -> memoryview:
        """A read-only view. What is in it before a piece is published has no meaning."""

    def punch(self, offset: int, length: int) -> bool:
        """Give the memory of a range back; it reads as zeros after. Whether that worked."""

    def handout(self) -> int | None:
        """A new read-only descriptor of all the content, or None if there is none to give."""

    def can_become(self, length: int) -> bool:
        """Whether :meth:`become` is worth trying."""

    def become(self, length: int) -> bool:
        """Turn into other content of *length* bytes, with the same memory. Whether that worked.

        What was in it is in it still. Only content that nobody uses any more may be asked.
        """

    def close(self) -> None:
        """Free it, or as much of it as nobody has a view or descriptor of."""


class SmallContent:
    """Content without a descriptor."""

    inherited = False

    def __init__(self, length: int) -> None:
        self.length = length
        self._bytes = bytearray(length)

    def writable(self, offset: int, length: int) -> memoryview:
        return memoryview(self._bytes)[offset : offset + length]

    def readable(self, offset: int, length: int) -> memoryview:
        return self.writable(offset, length).toreadonly()

    def punch(self, offset: int, length: int) -> bool:
        del offset, length
        return False

    def handout(self) -> None:
        return None

    def can_become(self, length: int) -> bool:
        del length
        return False

    def become(self, length: int) -> bool:
        return self.can_become(length)

    def close(self) -> None:
        self._bytes = bytearray()


class Segment:
    """Content in a memfd.

    Args:
        fd: The memfd; it is made *length* bytes long, and is the segment's from here on.
        length: Bytes; above 0.
        lock: Keep the pages out of swap (needs the right, or room in RLIMIT_MEMLOCK).
    """

    def __init__(self, fd: int, length: int, *, lock: bool = False) -> None:
        self.length = length
        self.inherited = False
        self._fd = fd
        self._sealed = False
        try:
            os.ftruncate(fd, length)
            self._map = mmap.mmap(fd, length)
            if hasattr(mmap, "MADV_DONTDUMP"):
                self._map.madvise(mmap.MADV_DONTDUMP)
            _ask_for_huge_pages(self._map)
            if lock:
                _lock_pages(self._map)
        except BaseException:  # whatever it is, the descriptor is ours to close
            os.close(fd)
            raise

    def writable(self, offset: int, length: int) -> memoryview:
        return memoryview(self._map)[offset : offset + length]

    def readable(self, offset: int, length: int) -> memoryview:
        return self.writable(offset, length).toreadonly()

    def punch(self, offset: int, length: int) -> bool:
        start = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
        end = offset + length
        if end != self.length:
            end = end // mmap.PAGESIZE * mmap.PAGESIZE
        if not hasattr(mmap, "MADV_REMOVE"):
            return False
        try:
            if start < end:
                self._map.madvise(mmap.MADV_REMOVE, start, end - start)
        except OSError:  # sealed: somebody has a descriptor
            return False
        return True

    def handout(self) -> int | None:
        """A new descriptor, open for reading only.

        A memfd is born with mode 0777 and could be reopened for writing through /proc by its
        owner; 0400 and the seals leave reading and mapping, whoever gets the descriptor. Our
        own mapping is older than the seal, so pieces are still received into it.
        """
        if not hasattr(os, "memfd_create"):
            return None
        if not self._sealed:
            os.fchmod(self._fd, 0o400)
            fcntl.fcntl(self._fd, _F_ADD_SEALS, _SEALS)
            self._sealed = True
        with _refusals_named():
            return os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC)

    def can_become(self, length: int) -> bool:
        # A sealed one may be in anybody's hands, for ever.
        if self._sealed or self._fd < 0:
            return False
        return self.length - MAX_EXCESS <= length <= 2 * self.length

    def become(self, length: int) -> bool:
        if not self.can_become(length):
            return False
        try:
            # Refused while a view is exported: nobody may be surprised by other bytes in it.
            self._map.resize(length)
            _ask_for_huge_pages(self._map)
        except (BufferError, OSError, SystemError, AttributeError):  # the last two: no mremap here
            return False
        self.length = length
        self.inherited = True
        return True

    def close(self) -> None:
        # Views of a reader who was cut off may still be exported; then the mapping goes with
        # the last of them.
        with contextlib.suppress(BufferError):
            self._map.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Growing:
    """Content whose length shows only at its end. One writer, no readers."""

    def __init__(self) -> None:
        self.length = 0
        with _refusals_named():
            self._fd = _anonymous_file()

    def extend(self) -> memoryview:
        """Make it longer by :data:`GROWTH_STEP` and return a view of the new part.

        Raises:
            Unavailable: The system has no memory for it.
        """
        start = self.length
        with _refusals_named():
            os.ftruncate(self._fd, start + GROWTH_STEP)
            self.length += GROWTH_STEP
            return memoryview(mmap.mmap(self._fd, GROWTH_STEP, offset=start))

    def finish(self, length: int, *, lock: bool = False) -> Content:
        """Cut it to *length* bytes and turn it into content that can be read.

        Raises:
            Unavailable: The system has no memory for it.
        """
        fd, self._fd = self._fd, -1
        if length <= SMALL:
            small = SmallContent(length)
            try:
                os.preadv(fd, [small.writable(0, length)], 0)
            finally:
                os.close(fd)
            return small
        with _refusals_named():
            return Segment(fd, length, lock=lock)

    def close(self) -> None:
        """Throw it away. Harmless after :meth:`finish`."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def heir_for(length: int, spare: Iterable[Content]) -> Content | None:
    """Of *spare*, the one whose memory suits content of *length* bytes best, if any may.

    The shortest that is long enough, else the longest.
    """
    able = (content for content in spare if length > SMALL and content.can_become(length))
    return min(able, key=lambda c: (c.length < length, abs(c.length - length)), default=None)


def create(length: int, *, lock: bool = False) -> Content:
    """Room for content of *length* bytes.

    Raises:
        Unavailable: The system has no memory for it, or no descriptor.
    """
    if length <= SMALL:
        return SmallContent(length)
    with _refusals_named():
        return Segment(_anonymous_file(), length, lock=lock)


@contextlib.contextmanager
def _refusals_named() -> Iterator[None]:
    """What the system says when it has no more memory or descriptors, as an error of ours."""
    try:
        yield
    except (OSError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) else "no machine has so much"
        raise Unavailable(f"no room for content in memory: {why}") from error


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("pantala", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    fd, path = tempfile.mkstemp(prefix="pantala-")
    Path(path).unlink()
    return fd


def _ask_for_huge_pages(mapping: mmap.mmap) -> None:
    """Have pages of 2 MiB where the system gives them to shared memory on demand.

    It does if ``/sys/kernel/mm/transparent_hugepage/shmem_enabled`` says ``advise``. Not for
    less than :data:`HUGE_FROM` bytes: the last page takes its 2 MiB, however little is in it.
    """
    if len(mapping) >= HUGE_FROM and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without huge pages
            mapping.madvise(mmap.MADV_HUGEPAGE)


def _lock_pages(mapping: mmap.mmap) -> None:
    """Keep pages in memory from the moment they are first touched."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    view = (ctypes.c_char * len(mapping)).from_buffer(mapping)
    try:
        size = ctypes.c_size_t(len(mapping))
        if libc.mlock2(ctypes.byref(view), size, _MLOCK_ONFAULT) != 0:
            error = ctypes.get_errno()
            raise OSError(error, f"storage.cacheLockPages: {os.strerror(error)}")
    finally:
        del view
