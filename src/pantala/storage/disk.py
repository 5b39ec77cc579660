"""The disk medium: a file for each task, in the :mod:`directory <.directory>` of a daemon.

A file has its bytes from the moment a piece is begun: what a full disk refuses, it refuses then.
Whether a piece is still what was verified is asked each time it is given away (docs/adr/0019).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Final

import structlog

from pantala.core.ledger import Needs, Place
from pantala.core.reclaim import Space
from pantala.errors import Damaged, StoreFailed
from pantala.model.pieces import GROWTH_STEP
from pantala.model.task import PieceRecord, TaskRecord

from .directory import DataDirectory
from .files import Descriptor, FileExtent, FileSink
from .medium import Content, Room

logger = structlog.get_logger(__name__)

_KEEP_SIZE: Final = 1
_PUNCH_HOLE: Final = 2

_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def _open_file(path: Path, flags: int = 0) -> Descriptor:
    return Descriptor(os.open(path, flags | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644))


class _Sink(FileSink):
    """A piece's place in a file. Its blocks are set aside when the first byte comes."""

    def __init__(self, file: Descriptor, offset: int, length: int, *, name: str) -> None:
        super().__init__(file.fd, offset, length, name=name)
        self._file = file
        self._at = offset
        self._name_of_content = name
        self._has_room = False

    def window(self, offset: int) -> memoryview:
        """A buffer.

        Raises:
            StoreFailed: The disk is full, or fails.
        """
        if not self._has_room:
            with _failures_named(f"no room for {self._name_of_content} on the disk"):
                _allocate(self._file.fd, _KEEP_SIZE, self._at, self.length)
            self._has_room = True
        return super().window(offset)


class _Extent(FileExtent):
    """A part of a file that stays open as long as this is used."""

    def __init__(self, file: Descriptor, offset: int, length: int, *, name: str) -> None:
        super().__init__(file.fd, offset, length, name=name)
        self._file = file


class DiskContent:
    """Content in a file, which is opened when it is used.

    Args:
        medium: The medium that it is in.
        path: Of the file.
        length: Bytes.
        file: It, if it is open.
    """

    reused = False
    is_clean = True

    def __init__(
        self, medium: DiskMedium, path: Path, length: int, file: Descriptor | None = None
    ) -> None:
        self.length = length
        self._medium = medium
        #: None: its name is another's, or nobody's.
        self._path: Path | None = path
        self._name = f"task {path.name}"
        self._open = file
        #: What the disk has set blocks aside for: lengths by offset.
        self._blocks: dict[int, int] = {}
        #: Bytes of blocks that are to be given back with the last descriptor.
        self._freeing = 0

    def _file(self) -> Descriptor:
        if self._open is None:
            if self._path is None:
                raise StoreFailed(f"{self._name} was deleted")
            with _failures_named(f"cannot open {self._name}"):
                try:
                    self._open = _open_file(self._path)
                except FileNotFoundError as error:
                    raise Damaged(self._name, "its file is gone", whole=True) from error
        return self._open

    def has_blocks(self, offset: int, length: int) -> None:
        """The disk has set blocks aside for a range, all of it or nothing before."""
        self._medium.allocated += length - self._blocks.get(offset, 0)
        self._blocks[offset] = length

    def sink(self, offset: int, length: int) -> FileSink:
        file = self._file()
        self.has_blocks(offset, length)
        return _Sink(file, offset, length, name=self._name)

    def extent(self, offset: int, length: int) -> FileExtent:
        return _Extent(self._file(), offset, length, name=self._name)

    def lying(self) -> None:
        """On a disk, where nothing can be sent from without waiting."""

    def punch(self, offset: int, length: int) -> bool:
        try:
            _allocate(self._file().fd, _KEEP_SIZE | _PUNCH_HOLE, offset, length)
        except (OSError, StoreFailed, Damaged):
            return False
        self._medium.allocated -= self._blocks.pop(offset, 0)
        return True

    def hand_off(self, *, seal: bool = True) -> int | None:
        del seal  # whoever may write to the file finds it in the directory
        with _failures_named(f"cannot open {self._name}"):
            return os.open(f"/proc/self/fd/{self._file().fd}", os.O_RDONLY | os.O_CLOEXEC)

    def is_elsewhere(self) -> bool:
        return False

    def rest(self) -> None:
        if self._path is not None:
            self._open = None

    def hide(self) -> None:
        if self._path is None:
            return
        with contextlib.suppress(StoreFailed, Damaged):
            self._file()  # for those who still use it
        path, self._path = self._path, None
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("file not removed", path=str(path), why=error.strerror)

    def retire(self) -> None:
        self.hide()
        amount = sum(self._blocks.values())
        self._blocks.clear()
        self._medium.allocated -= amount
        self._medium.free_soon(amount)
        self._freeing += amount

    def close(self) -> None:
        # With the last descriptor of a file without a name its blocks are free.
        self._open = None
        amount, self._freeing = self._freeing, 0
        self._medium.free_soon(-amount)

    def cut(self, length: int, here: int) -> None:
        """Make it *length* bytes long; what is behind the first *here* goes."""
        with _failures_named(f"cannot write {self._name}"):
            os.ftruncate(self._file().fd, here)
            os.ftruncate(self._file().fd, length)
        self._medium.allocated += here - sum(self._blocks.values())
        self._blocks = {0: here}
        self.length = length


class DiskGrowing:
    """Content whose length shows only at its end. One writer; what is whole may be read.

    Args:
        content: Where it is to be.
    """

    def __init__(self, content: DiskContent) -> None:
        self._content: DiskContent | None = content
        self._end = 0

    def extend(self) -> FileSink:
        if self._content is None:
            raise ValueError("it has come to its end")
        start, self._end = self._end, self._end + GROWTH_STEP
        return self._content.sink(start, GROWTH_STEP)

    def extent(self, offset: int, length: int) -> FileExtent:
        if self._content is None:
            raise ValueError("it has come to its end")
        return self._content.extent(offset, length)

    def finish(self, length: int, needs: Needs, *, here: int | None = None) -> DiskContent:
        del needs
        content, self._content = self._content, None
        if content is None:
            raise ValueError("it has come to its end")
        content.cut(length, length if here is None else here)
        return content

    def hide(self) -> None:
        if self._content is not None:
            self._content.hide()

    def retire(self) -> None:
        if self._content is not None:
            self._content.retire()

    def close(self) -> None:
        if self._content is not None:
            self._content.close()


class DiskMedium:
    """See :class:`~.medium.Medium`.

    Args:
        directory: Where the files are.
        executor: Where files are freed, which takes long for large ones. None: here.
        limit: Bytes that the disk is taken to have in all; 0: those that it has.
    """

    step = GROWTH_STEP
    growing_needs = Needs()
    decays = True
    off: str | None = None
    place = Place("on disk", "make room on the disk of storage.dir")

    def __init__(
        self, directory: DataDirectory, *, executor: Executor | None = None, limit: int = 0
    ) -> None:
        self.directory = directory
        self._executor = executor
        self._limit = limit
        #: Bytes for which the disk has set blocks aside, for all tasks.
        self.allocated = 0
        #: Bytes of deleted files of which the disk does not know yet that they are free.
        self._freeing = 0
        self._lock = threading.Lock()
        self._restored: set[Path] = set()

    def free_soon(self, amount: int) -> None:
        """So many bytes will be free in a moment, or, if negative, are now. From any thread."""
        with self._lock:
            self._freeing += amount

    def space(self) -> Space:
        """What the disk has in all, and what is left of it.

        Raises:
            StoreFailed: It does not say.
        """
        if not self.directory.is_open:
            return Space(0, 0)
        if self._limit:
            return Space(self._limit, max(0, self._limit - self.allocated))
        with _failures_named(f"cannot use storage.dir {self.directory.path}"):
            found = os.statvfs(self.directory.content)
        left = found.f_bavail * found.f_frsize + self._freeing
        return Space(found.f_blocks * found.f_frsize, left)

    def capacity(self) -> int:
        return self.space().left + self.allocated

    def needs(self, length: int, *, abundant: bool) -> Needs:
        del length, abundant
        return Needs()

    def create(self, record: TaskRecord, needs: Needs) -> DiskContent:
        del needs
        return self._create(record, record.content_length or 0)

    def reuse(self, length: int, evicted: list[Content], *, early: bool) -> None:
        del length, evicted, early

    def grow(self, record: TaskRecord) -> DiskGrowing:
        return DiskGrowing(self._create(record, 0))

    def _create(self, record: TaskRecord, length: int) -> DiskContent:
        path = self.directory.file_of(record.kind, record.id)
        with _failures_named(f"no room for task {record.id} on the disk"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)  # whatever it is, nobody knows of it
            file = _open_file(path, os.O_CREAT | os.O_EXCL)
            os.ftruncate(file.fd, length)
        return DiskContent(self, path, length, file)

    def restore(self, record: TaskRecord, pieces: Iterable[PieceRecord]) -> DiskContent | None:
        path = self.directory.file_of(record.kind, record.id)
        try:
            found = path.lstat()
        except OSError:
            return None
        if not stat.S_ISREG(found.st_mode) or found.st_size != record.content_length:
            return None
        content = DiskContent(self, path, found.st_size)
        for piece in pieces:
            content.has_blocks(piece.offset, piece.length)
        self._restored.add(path)
        return content

    def clean(self) -> None:
        for place, directories, names in os.walk(self.directory.content, topdown=False):
            for path in (Path(place, name) for name in names):
                if path not in self._restored:
                    with contextlib.suppress(OSError):
                        path.unlink()
            for path in (Path(place, name) for name in directories):
                with contextlib.suppress(OSError):  # there is something in it
                    path.unlink() if path.is_symlink() else path.rmdir()
        self._restored.clear()

    def discard(self, rooms: Iterable[Room]) -> None:
        for room in rooms:
            room.retire()
            if self._executor is None:
                room.close()
            else:
                self._executor.submit(room.close)


def _allocate(fd: int, mode: int, offset: int, length: int) -> None:
    """``fallocate``; where a file system cannot do it, blocks come as they are written."""
    if not hasattr(_LIBC, "fallocate"):
        return
    size = ctypes.c_int64
    if _LIBC.fallocate(fd, mode, size(offset), size(length)) != 0:
        number = ctypes.get_errno()
        if number != errno.EOPNOTSUPP or mode & _PUNCH_HOLE:
            raise OSError(number, os.strerror(number))


@contextlib.contextmanager
def _failures_named(what: str) -> Iterator[None]:
    """What the system says, as an error of ours."""
    try:
        yield
    except OSError as error:
        raise StoreFailed(f"{what}: {error.strerror}") from error
