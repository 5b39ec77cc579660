"""Ways of lying in memory, received straight into its place.

========================  =========================================  ==========================
bytes of the content      lies in                                    takes
========================  =========================================  ==========================
up to :data:`SMALL`       the heap                                   nothing that is scarce
up to :data:`MEDIUM`      a segment while descriptors abound, else   a mapping, and a descriptor
                          memory without a descriptor                in a segment
more                      a segment: a memfd as long as the content  a mapping and a descriptor
========================  =========================================  ==========================

A segment is mapped once. Its pages come into being when they are first written, so a segment of
which only a few pieces are wanted costs only those. Only segments can be handed off; everything
else reaches programs in frames. Empty content is nothing at all. docs/adr/0007 says why.

Where memfd does not exist (macOS) an unlinked temporary file stands in: it may be paged out to
its disk, and as it cannot be sealed, no reader is given its descriptor.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable, Iterator
from typing import Final

from pantala.core.ledger import Needs
from pantala.errors import Unavailable
from pantala.model.pieces import GROWTH_STEP
from pantala.ports import Extent, MemoryExtent, MemorySink, Sink

from . import pages
from .cleaning import Cleaning
from .files import Descriptor, FileExtent, FileSink
from .medium import Content, Lying

#: Content up to this many bytes lies in the heap.
SMALL: Final = 256 * 1024

#: Content up to this many bytes can do without a descriptor. It is one piece, of which never a
#: part is wanted.
MEDIUM: Final = 4 * 1024 * 1024

#: A task takes over memory that is at most this much longer than itself, because the rest is
#: freed on the spot; and at least half as long, or it is not worth it.
MAX_EXCESS: Final = 64 * 1024 * 1024


def needs_of(length: int, *, abundant: bool) -> Needs:
    """What content of *length* bytes takes besides its bytes.

    Args:
        length: Bytes.
        abundant: Descriptors abound: what can do without may have one.
    """
    if length <= SMALL:
        return Needs()
    return Needs(descriptors=int(abundant or length > MEDIUM), mappings=1)


class _InMemory:
    """What lies at an address of this process, however it came there."""

    _bytes: Lying

    def writable(self, offset: int, length: int) -> memoryview:
        """A view to receive into."""
        return memoryview(self._bytes)[offset : offset + length]

    def sink(self, offset: int, length: int) -> Sink:
        return MemorySink(self.writable(offset, length))

    def readable(self, offset: int, length: int) -> memoryview:
        """The bytes as they lie there, not a copy; read-only."""
        return self.writable(offset, length).toreadonly()

    def extent(self, offset: int, length: int) -> MemoryExtent:
        return MemoryExtent(self.readable(offset, length))

    def lying(self) -> Lying:
        return self._bytes

    def rest(self) -> None:
        pass

    def hide(self) -> None:
        pass


class SmallContent(_InMemory):
    """Content without a descriptor.

    Args:
        length: Bytes.
        lock: As for :class:`Segment`; nothing in the heap is locked.

    Raises:
        OSError: The system has no memory for it.
    """

    reused = False
    is_clean = True

    def __init__(self, length: int, *, lock: bool = False) -> None:
        self.length = length
        if length <= SMALL:
            self._bytes = bytearray(length)
        else:
            self._bytes = pages.map_nothing(length)
            pages.prepare(self._bytes, lock=lock)

    def punch(self, offset: int, length: int) -> bool:
        start, end = _whole_pages(offset, length, self.length)
        if isinstance(self._bytes, bytearray):
            # What stays in the heap is bounded by how small such tasks are.
            self._bytes[start:end] = bytes(max(0, end - start))
        elif not hasattr(mmap, "MADV_DONTNEED"):
            return False
        elif start < end:
            self._bytes.madvise(mmap.MADV_DONTNEED, start, end - start)
        return True

    def hand_off(self, *, seal: bool = True) -> None:
        del seal

    def is_elsewhere(self) -> bool:
        return False

    def retire(self) -> None:
        pass

    def close(self) -> None:
        if isinstance(self._bytes, bytearray):
            self._bytes = bytearray()
        else:
            with contextlib.suppress(BufferError):  # a view goes with its last holder
                self._bytes.close()


class _Sink(FileSink):
    """A piece's place in a memfd, which is written to.

    A write makes a page without clearing it and without a fault. So it costs half of what
    receiving in place does (docs/adr/0005). The kernel refuses it from the moment the memfd is
    sealed; what comes then is copied into place by way of the mapping, which is older than the
    seal.

    Args:
        file: The memfd.
        place: Where its bytes are mapped; the sink's from here on.
        offset: Of that in the memfd.
    """

    def __init__(self, file: Descriptor, place: memoryview, offset: int) -> None:
        super().__init__(file.fd, offset, len(place), name="content in memory")
        self._file: Descriptor | None = file
        self._place = place

    def _write(self, data: memoryview, offset: int) -> int:
        try:
            return super()._write(data, offset)
        except PermissionError:
            self._place[offset : offset + len(data)] = data
            return len(data)

    def close(self) -> None:
        """Leave the buffer to others, and let go of the memory and its descriptor."""
        super().close()
        self._place.release()
        self._file = None


class _Extent(FileExtent):
    """A part of a memfd that is not mapped, and stays open as long as this is used."""

    def __init__(self, file: Descriptor, offset: int, length: int) -> None:
        super().__init__(file.fd, offset, length, name="content in memory")
        self._file = file


class _UsedSink(MemorySink):
    """A piece's place where another task's bytes were: the pages are there.

    Most were written, not mapped, and a fault for each would cost more than what is received. So
    all are mapped at once before the first byte comes; those that are already cost nearly nothing.

    Args:
        view: The place; the sink's from here on.
        cleaning: Empties the segment; the place must be through with that first. None: nobody does.
        offset: Of the place in the segment.
    """

    def __init__(self, view: memoryview, cleaning: Cleaning | None, offset: int) -> None:
        super().__init__(view)
        self._cleaning = cleaning
        self._offset = offset
        self._is_ready = False

    def window(self, offset: int) -> memoryview:
        if not self._is_ready:
            self._is_ready = True
            if self._cleaning is not None:
                self._cleaning.clean(self._offset, self._offset + self.length)
            with super().window(0) as whole:
                pages.populate(whole)
        return super().window(offset)


class Segment(_InMemory):
    """Content in a memfd.

    Args:
        file: The memfd; it is made *length* bytes long.
        length: Bytes; above 0.
        lock: Keep the pages out of swap (needs the right, or room in RLIMIT_MEMLOCK).
    """

    _bytes: mmap.mmap

    def __init__(self, file: Descriptor, length: int, *, lock: bool = False) -> None:
        self.length = length
        self.reused = False
        self._cleaning: Cleaning | None = None
        self._file: Descriptor | None = file
        #: Somebody was given a descriptor, and may have it still.
        self._given = False
        self._sealed = False
        os.ftruncate(file.fd, length)
        self._bytes = pages.map_file(file.fd, length)
        pages.prepare(self._bytes, lock=lock)
        #: Pages that are to be locked, or huge, come by a fault of the mapping alone.
        self._in_place = lock or pages.are_huge(length)

    def fileno(self) -> int:
        """Of the memfd; -1 once it was given up."""
        return -1 if self._file is None else self._file.fd

    def sink(self, offset: int, length: int) -> Sink:
        if self.reused:
            return _UsedSink(self.writable(offset, length), self._cleaning, offset)
        if self._file is None or self._in_place:
            return super().sink(offset, length)
        return _Sink(self._file, self.writable(offset, length), offset)

    @property
    def is_clean(self) -> bool:
        return not self.reused or (self._cleaning is not None and self._cleaning.is_over)

    def begin_cleaning(self) -> Callable[[], None]:
        """Have another task's bytes overwritten, before ours come: what does it, in a thread."""
        self._cleaning = Cleaning(self.writable(0, self.length))
        return self._cleaning.run

    def punch(self, offset: int, length: int) -> bool:
        start, end = _whole_pages(offset, length, self.length)
        if self.is_elsewhere() or not hasattr(mmap, "MADV_REMOVE"):
            return False
        try:
            if start < end:
                self._bytes.madvise(mmap.MADV_REMOVE, start, end - start)
        except OSError:  # sealed
            return False
        return True

    def hand_off(self, *, seal: bool = True) -> int | None:
        """A new descriptor, open for reading only.

        None where the system could not say later whether the descriptor still lives: the memory
        could never be used again.
        """
        if self._file is None or not hasattr(os, "memfd_create"):
            return None
        if not self._given:
            if pages.is_elsewhere(self._file.fd):
                return None
            pages.keep_from_others(self._file.fd)
        if seal and not self._sealed:
            pages.seal(self._file.fd)
            self._sealed = True
        with _refusals_named():
            fd = os.open(f"/proc/self/fd/{self._file.fd}", os.O_RDONLY | os.O_CLOEXEC)
        self._given = True
        return fd

    def is_elsewhere(self) -> bool:
        self._given = self._given and self._file is not None and pages.is_elsewhere(self._file.fd)
        return self._given

    def can_resize(self, length: int) -> bool:
        """Whether :meth:`resize` is worth trying."""
        # A sealed one cannot change its length; and somebody may still read what was handed off.
        if self._sealed or self._file is None or self.is_elsewhere():
            return False
        return self.length - MAX_EXCESS <= length <= 2 * self.length

    def resize(self, length: int) -> bool:
        """Turn into room for *length* other bytes, with the same memory. Whether that worked.

        What was in it is in it still. Only content that nobody uses any more may be asked.
        """
        if self._file is None or not self.can_resize(length):
            return False
        try:
            if length > self.length:
                os.ftruncate(self._file.fd, length)
            # Refused while a view is exported: nobody may be surprised by other bytes in it.
            self._bytes.resize(length)
            if length < self.length:
                os.ftruncate(self._file.fd, length)
            pages.ask_for_huge_pages(self._bytes)
        except (BufferError, OSError, SystemError, AttributeError):  # the last two: no mremap here
            return False
        self.length = length
        self.reused = True
        self._cleaning = None
        return True

    def close(self) -> None:
        # Views of a reader who was cut off may still be exported; then the mapping goes with
        # the last of them.
        self.retire()
        with contextlib.suppress(BufferError):
            self._bytes.close()

    def retire(self) -> None:
        self._file = None
        if self._cleaning is not None:
            self._cleaning.stop()


class Growing:
    """Content whose length shows only at its end. One writer; what is whole may be read.

    Args:
        lock: As for :class:`Segment`, once it is content.

    Raises:
        Unavailable: The system has no descriptor for it.
    """

    def __init__(self, *, lock: bool = False) -> None:
        self.length = 0
        self._lock = lock
        with _refusals_named():
            self._file: Descriptor | None = Descriptor(pages.anonymous_file())

    def extend(self) -> Sink:
        """Make it longer by :data:`GROWTH_STEP` and return where the new part is received.

        Raises:
            Unavailable: The system has no memory for it.
        """
        if self._file is None:
            raise ValueError("it has come to its end")
        start = self.length
        with _refusals_named():
            os.ftruncate(self._file.fd, start + GROWTH_STEP)
            place = memoryview(mmap.mmap(self._file.fd, GROWTH_STEP, offset=start))
        self.length += GROWTH_STEP
        return _Sink(self._file, place, start)

    def extent(self, offset: int, length: int) -> Extent:
        if self._file is None:
            raise ValueError("it has come to its end")
        return _Extent(self._file, offset, length)

    def finish(self, length: int, needs: Needs, *, here: int | None = None) -> Content:
        file, self._file = self._file, None
        if file is None:
            raise ValueError("it has come to its end")
        here = length if here is None else here
        with _refusals_named():
            if needs.descriptors and length > SMALL:
                os.ftruncate(file.fd, here)  # what is behind it takes no memory from here on
                return Segment(file, length, lock=self._lock)
            small = SmallContent(length, lock=self._lock)
            with small.writable(0, here) as view:
                _read_all(file.fd, view)
        return small

    def hide(self) -> None:
        pass

    def retire(self) -> None:
        """Nothing can be given up before :meth:`close`."""

    def close(self) -> None:
        """Throw it away. Harmless after :meth:`finish`."""
        self._file = None


def create(length: int, *, descriptor: bool = True, lock: bool = False) -> Content:
    """Room for content of *length* bytes.

    Args:
        length: Bytes; above 0.
        descriptor: It may have one, as :func:`needs_of` says.
        lock: As for :class:`Segment`.

    Raises:
        Unavailable: The system has no memory for it, or no descriptor.
    """
    with _refusals_named():
        if length <= SMALL or not descriptor:
            return SmallContent(length, lock=lock)
        return Segment(Descriptor(pages.anonymous_file()), length, lock=lock)


def _whole_pages(offset: int, length: int, total: int) -> tuple[int, int]:
    """Start and end of the pages of which a range has all that is content."""
    start = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
    end = offset + length
    return start, end if end == total else end // mmap.PAGESIZE * mmap.PAGESIZE


def _read_all(fd: int, view: memoryview) -> None:
    """Fill *view* from the start of a file."""
    done = 0
    while done < len(view):
        done += os.preadv(fd, [view[done:]], done)


@contextlib.contextmanager
def _refusals_named() -> Iterator[None]:
    """What the system says when it has no more memory or descriptors, as an error of ours."""
    try:
        yield
    except (OSError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) else "no machine has so much"
        raise Unavailable(f"no room for content in memory: {why}") from error
