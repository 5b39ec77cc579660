"""Content from files of this machine, below directories that the operator names."""

from __future__ import annotations

import errno
import os
import re
import stat
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import unquote_to_bytes

import ada_url

from pantala.errors import Blame, Forbidden, InvalidRequest, OriginError, SourceChanged
from pantala.model.pieces import ByteRange, resolve_range
from pantala.ports import Abort, SourceBody, SourceRequest

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_ABSOLUTE: Final = re.compile(r" *file:[/\\]", re.IGNORECASE)

# Without O_PATH a directory must be readable to be walked through.
_DIRECTORY: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW
# Opening a FIFO would block.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class FileSource:
    """A :class:`~pantala.ports.Source` for ``file://``. Any thread may use it.

    The daemon may be allowed more than its callers, so nothing is read unless it lies below one
    of the roots, once all symbolic links are resolved.

    Args:
        allowed_roots: Directories (``backend.fileRoots``). None at all: no file is read.
    """

    def __init__(self, allowed_roots: tuple[Path, ...] = ()) -> None:
        self._roots = allowed_roots

    def open(
        self,
        request: SourceRequest,
        *,
        timeout: float,  # noqa: ARG002  the port's; files do not stall
        answer: float | None = None,  # noqa: ARG002  the port's; nobody has to answer
        abort: Abort | None = None,  # noqa: ARG002  the port's; there is no wait to end
    ) -> SourceBody:
        """Open; see :meth:`pantala.ports.Source.open`. Headers mean nothing here.

        Raises:
            InvalidRequest: The URL names another host, or no absolute path.
            Forbidden: The file is not below ``backend.fileRoots``, or is no regular file.
            OriginError: There is no such file, or it cannot be read.
            RangeNotSatisfiable: The range is empty, or starts past the end.
        """
        path = _path_of(request.url)
        fd = self._open(path)
        try:
            return _FileBody(fd, path, request)
        except BaseException:  # whatever it is, the descriptor is ours to close
            os.close(fd)
            raise

    def _open(self, path: Path) -> int:
        if not self._roots:
            raise Forbidden("file:// is off: name the directories to serve in backend.fileRoots")
        real = Path(os.path.realpath(path))
        for root in self._roots:
            real_root = Path(os.path.realpath(root))
            if real.is_relative_to(real_root):
                return _open_below(real_root, real)
        raise Forbidden(f"{path} does not lie below any of backend.fileRoots")


class _FileBody:
    """A :class:`~pantala.ports.SourceBody` of an open file, which it owns."""

    def __init__(self, fd: int, path: Path, request: SourceRequest) -> None:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise Forbidden(f"{path} is no regular file")
        part = _part(request, found.st_size)
        self.total: int | None = found.st_size
        self.start = part.start
        self.length: int | None = part.length
        self.ranged = request.start is not None and found.st_size > 0
        self.version = _version(found)
        self.header: Mapping[str, str] = {"Content-Length": str(found.st_size)}
        self._path = path
        self._at = part.start
        self._end = part.end
        # A descriptor that was closed may already be another file's.
        self._lock = threading.Lock()
        self._fd: int | None = fd

    def readinto(self, view: memoryview) -> int:
        """Fill *view*; see :meth:`pantala.ports.SourceBody.readinto`."""
        want = min(len(view), self._end - self._at)
        done = 0
        while done < want:
            n = self._read(view[done:want])
            done += n
            self._at += n
        return done

    def abort(self) -> None:
        """Make the next read fail. One that is under way ends soon: it is of a file."""
        self.close()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None

    def _read(self, view: memoryview) -> int:
        with self._lock:
            if self._fd is None:
                words = f"{self._path} was closed here at byte {self._at}"
                raise OriginError(words, blame=Blame.LOCAL)
            try:
                n = os.preadv(self._fd, [view], self._at)
            except OSError as exc:
                words = f"{self._path}: {exc.strerror} at byte {self._at}"
                raise OriginError(words, blame=Blame.LOCAL) from exc
            if n == 0 or _version(os.fstat(self._fd)) != self.version:
                raise SourceChanged(f"{self._path} changed while it was read")
            return n


def _path_of(url: str) -> Path:
    if _CONTROL.search(url) or not _ABSOLUTE.match(url):
        raise InvalidRequest("a file:// URL must hold an absolute path: want file:///path")
    try:
        # As the task's id has it: two readings would be two files under one id.
        parsed = ada_url.URL(url)
    except ValueError as exc:  # brackets that are no IPv6 address
        raise InvalidRequest("the file:// URL is malformed: want file:///path") from exc
    if parsed.hostname:  # localhost counts as none
        raise InvalidRequest("a file:// URL must name no host: want file:///path")
    path = os.fsdecode(unquote_to_bytes(parsed.pathname))
    if not path.startswith("/") or _CONTROL.search(path):
        raise InvalidRequest("a file:// URL must hold an absolute path: want file:///path")
    return Path(path)


def _open_below(root: Path, real: Path) -> int:
    """Open *real*, a path below *root* without symbolic links, following none that came since."""
    *directories, name = real.relative_to(root).parts or (".",)
    at = -1
    try:
        at = os.open(root, _DIRECTORY)
        for directory in directories:
            inner = os.open(directory, _DIRECTORY, dir_fd=at)
            os.close(at)
            at = inner
        return os.open(name, _FILE, dir_fd=at)
    except OSError as exc:
        if exc.errno in {errno.ELOOP, errno.ENOTDIR}:
            raise Forbidden(f"{real}: a symbolic link or file where a directory was") from exc
        # Other machines have files of their own: this says nothing of theirs.
        raise OriginError(f"{real}: {exc.strerror}", blame=Blame.LOCAL) from exc
    finally:
        if at >= 0:
            os.close(at)


def _part(request: SourceRequest, size: int) -> ByteRange:
    if request.start is None:
        if request.length is not None:
            raise InvalidRequest("a range needs a start")
        return ByteRange(0, size)
    if request.start == 0 and size == 0:
        return ByteRange(0, 0)
    length = max(1, size - request.start) if request.length is None else request.length
    return resolve_range(ByteRange(request.start, length), size)


def _version(found: os.stat_result) -> str:
    return f"file:{found.st_mtime_ns}-{found.st_size}-{found.st_ino}"
