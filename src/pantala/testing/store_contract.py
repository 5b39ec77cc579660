"""What every implementation of :class:`pantala.storage.medium.Content` must do.

A subclass says how to make one, and how to look behind its back: content must not vouch for
itself::

    class TestSegment(ContentContract):
        length = 1 << 20

        def make(self) -> Content: ...
        def peek(self, content, offset, length) -> bytes: ...
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import random
from collections.abc import Iterator
from typing import ClassVar

import pytest

from pantala.ports import fill
from pantala.storage.medium import Content


def seen_in(content: Content, offset: int, length: int) -> memoryview:
    """What is read from it."""
    return content.extent(offset, length).read(0, length)


def put(content: Content, offset: int, data: bytes) -> None:
    """Receive *data* into it."""
    with contextlib.closing(content.sink(offset, len(data))) as sink:
        fill(sink, data)


class ContentContract:
    """Tests that each sort of content must pass."""

    #: Bytes in what :meth:`make` returns; at least 100.
    length: ClassVar[int]

    #: It has a descriptor to give.
    hands_out: ClassVar[bool] = True

    #: What was read shows what is received later.
    in_place: ClassVar[bool] = True

    def make(self) -> Content:
        """Fresh content of :attr:`length` bytes."""
        raise NotImplementedError

    def peek(self, content: Content, offset: int, length: int) -> bytes:
        """What it holds, read in another way than by its own methods."""
        raise NotImplementedError

    @pytest.fixture
    def content(self) -> Iterator[Content]:
        """Content that is closed in the end."""
        content = self.make()
        yield content
        content.close()

    @pytest.fixture
    def data(self, content: Content) -> bytes:
        """What *content* has been filled with."""
        data = random.Random(self.length).randbytes(self.length)
        put(content, 0, data)
        return data

    def test_it_is_as_long_as_was_asked(self, content: Content) -> None:
        """Not rounded to anything."""
        assert content.length == self.length
        with seen_in(content, 0, self.length) as view:
            assert len(view) == self.length

    def test_it_keeps_what_was_received(self, content: Content, data: bytes) -> None:
        """Any part of it, at any offset."""
        for start, size in ((0, self.length), (1, 50), (self.length - 7, 7), (33, 0)):
            with seen_in(content, start, size) as view:
                assert view == data[start : start + size]
            assert self.peek(content, start, size) == data[start : start + size]

    def test_it_is_received_in_place(self, content: Content) -> None:
        """A view shows what is written after it was made: nothing is copied."""
        with seen_in(content, 10, 5) as seen:
            put(content, 8, b"abcde")
            assert bytes(seen) == (b"cde\0\0" if self.in_place else bytes(5))
        assert self.peek(content, 7, 7) == b"\0abcde\0"

    def test_what_lies_in_memory_is_all_of_it(self, content: Content, data: bytes) -> None:
        """No byte more: it is sent as it lies. What is not in memory does not say that it is."""
        lying = content.lying()
        assert (lying is not None) == self.in_place
        assert lying is None or lying[:] == data

    def test_neighbours_are_left_alone(self, content: Content, data: bytes) -> None:
        """A part is a part."""
        put(content, 20, bytes(10))
        assert self.peek(content, 0, self.length) == data[:20] + bytes(10) + data[30:]

    def test_what_is_readable_is_not_writable(self, content: Content) -> None:
        """A verified piece cannot be changed by who reads it."""
        with seen_in(content, 0, 10) as view:
            assert view.readonly

    def test_punching_gives_back_or_changes_nothing(self, content: Content, data: bytes) -> None:
        """Where it worked there are zeros, but for pages that hold something else too."""
        start, end = self.length // 4, self.length
        first = min(end, -(-start // mmap.PAGESIZE) * mmap.PAGESIZE)
        punched = content.punch(start, end - start)
        kept = self.peek(content, 0, self.length)
        assert kept[:start] == data[:start]
        assert kept[start:first] in (data[start:first], bytes(first - start))
        assert kept[first:] == (bytes(end - first) if punched else data[first:])

    def test_a_hand_off_shows_everything(self, content: Content, data: bytes) -> None:
        """What was there, and what is received later; at the content's own offsets."""
        with self._hand_off(content) as fd:
            assert os.pread(fd, self.length, 0) == data
            put(content, 3, b"late")
            assert os.pread(fd, 4, 3) == b"late"
            assert os.fstat(fd).st_size == self.length
            assert not os.get_inheritable(fd)

    def test_a_hand_off_is_for_reading_only(self, content: Content, data: bytes) -> None:
        """Also for its owner, who could open it once more."""
        with self._hand_off(content) as fd:
            assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.pwrite(fd, b"evil", 0)
            with pytest.raises(OSError, match="Invalid argument"):
                os.ftruncate(fd, 0)
            with pytest.raises(OSError, match="Permission denied"):
                mmap.mmap(fd, self.length)
        assert self.peek(content, 0, self.length) == data

    def test_each_hand_off_is_one_of_its_own(self, content: Content) -> None:
        """Closing one leaves the others."""
        with self._hand_off(content) as first, self._hand_off(content) as second:
            assert first != second
        with self._hand_off(content) as third:
            assert len(os.pread(third, 10, 0)) == 10

    def test_views_outlive_it(self, data: bytes, content: Content) -> None:
        """A reader who was cut off must not crash; so do descriptors."""
        view = seen_in(content, 0, self.length)
        with self._hand_off(content) as fd:
            content.close()
            assert os.pread(fd, self.length, 0) == data
        assert view == data

    def test_closing_twice_is_harmless(self, content: Content) -> None:
        """As the fixture does once more."""
        content.close()
        content.close()

    @contextlib.contextmanager
    def _hand_off(self, content: Content) -> Iterator[int]:
        fd = content.hand_off()
        assert (fd is not None) == self.hands_out
        if fd is None:
            pytest.skip("has no descriptor to give")
        try:
            yield fd
        finally:
            os.close(fd)
