"""Where ``dfget`` puts what it got: a file that appears whole or not at all, or a stream.

A file is written without a name, and takes its own when all of it is there; so a ``dfget`` that
is killed leaves nothing behind. Where the file system has no files without names, it has a
temporary one beside its destination. It is not synced to the disk: like ``cp``, ``dfget``
promises nothing about a power cut.
"""
# ruff: noqa: PTH105, PTH108, PTH112, PTH116, PTH118, PTH120  pathlib costs 3 ms, a tenth of dfget's start

from __future__ import annotations

import os
import stat
import sys
from abc import ABC, abstractmethod
from contextlib import suppress
from errno import EBADF, EINVAL, ENOSYS

from pantala.errors import InvalidRequest, OutputExists, RemoteProtocolError, Unavailable
from pantala.files import link_open_file, open_nameless, reflink, why_no_link

TYPE_CHECKING = False  # dfget has no time to import typing
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

# Other systems send files to sockets alone.
_COPIES = sys.platform == "linux"

# So much of the output's own name stays in the temporary one, which may have 255 bytes.
_NAME_KEPT = 200


class Output(ABC):
    """Takes the bytes of one download, in whatever order they come.

    A context manager: entering opens it, leaving discards what was not committed.
    """

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    @abstractmethod
    def write(self, offset: int, data: memoryview) -> None:
        """Write *data*, which must stay as it is until the output is left.

        Args:
            offset: Where it belongs, counted from the output's first byte. No two writes
                overlap.
            data: The bytes.

        Raises:
            Unavailable: The disk is full, the reader of a pipe has gone, or the like.
        """

    def copy(self, fd: int, offset: int, at: int, size: int) -> bool:
        """Have the kernel copy *size* bytes of the file *fd*; False: they are to be written.

        Args:
            fd: The file.
            offset: Where in it they begin.
            at: Where they belong, as for :meth:`write`.
            size: Bytes.

        Raises:
            Unavailable: As :meth:`write` does.
            RemoteProtocolError: The file ends before that.
        """
        del fd, offset, at, size
        return False

    @abstractmethod
    def share(self, fd: int, *, whole: bool) -> bool:
        """Have the output share the bytes of the file *fd*; False: they are to be written.

        Args:
            fd: The file.
            whole: All of it is here, and the output is to have it. Else this says only whether
                that will do, so that nothing need be written meanwhile.

        Raises:
            Unavailable: The output must be that file, and cannot.
        """

    @property
    @abstractmethod
    def can_begin_again(self) -> bool:
        """What was written can be taken back."""

    @abstractmethod
    def begin_again(self) -> None:
        """Take back all that was written."""

    @abstractmethod
    def commit(self) -> None:
        """Everything is written: give it the name it is to have.

        Raises:
            OutputExists: Something took that name in the meantime.
            Unavailable: The disk is full, or the like.
        """


def output_at(path: str | os.PathLike[str], *, overwrite: bool) -> Output:
    """The output for a path that a program names, where ``-`` is a file as any other.

    Raises as :func:`output_for` does, in a program's words.
    """
    name = os.fspath(path)
    try:
        return output_for("./-" if name == "-" else name, overwrite=overwrite)
    except OutputExists:
        raise OutputExists(f"{name} exists already: overwrite=True replaces it") from None


def output_for(path: str, *, overwrite: bool, hard_link: bool = False) -> Output:
    """The output for a ``-O`` value: ``-`` is stdout; a FIFO or device is written directly.

    A symlink is followed, so that it goes on pointing at what is written.

    Args:
        path: The value.
        overwrite: It may replace a file.
        hard_link: It must be a hard link of the daemon's file.

    Raises:
        InvalidRequest: It is no path, is a directory, or lies in no directory, or can be no hard
            link.
        OutputExists: It is an existing file, and *overwrite* is not set.
    """
    if path == "-":
        return StreamOutput("standard output", 1)
    real = _real(path)
    try:
        # Not of the real path: where /dev/stdout is a pipe, that exists in name only.
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = 0
    except OSError as error:
        raise InvalidRequest(f"cannot write {path}: {error.strerror}") from error
    if stat.S_ISDIR(mode) or path.endswith("/"):
        raise InvalidRequest(f"{path} is a directory: name a file in it")
    if mode and not stat.S_ISREG(mode):
        if hard_link:
            raise InvalidRequest(f"--force-hard-link: {path} is no file")
        return StreamOutput(path)
    if mode and not overwrite:
        raise OutputExists(f"{path} exists already: use --overwrite to replace it")
    parent = os.path.dirname(real)
    if not os.path.isdir(parent):
        raise InvalidRequest(f"cannot write {path}: {parent} is not a directory")
    return FileOutput(path, real, overwrite=overwrite, hard_link=hard_link)


def _real(path: str) -> str:
    """Where a path leads. Raises InvalidRequest: nowhere."""
    if not path:
        raise InvalidRequest("cannot write: the path is empty")
    try:
        return os.path.realpath(path)
    except FileNotFoundError as error:
        raise InvalidRequest(f"cannot write {path}: the working directory is gone") from error
    except ValueError as error:  # a NUL, or what is no character
        raise InvalidRequest(f"cannot write {path!a}: {error}") from error


class FileOutput(Output):
    """A regular file. Until it is committed, whatever had its name before stays untouched.

    Args:
        name: What the user calls it, for messages.
        path: Where it is to be, with symlinks resolved.
        overwrite: Whether it may replace another file.
        hard_link: Whether it must be another name of the file that it shares.
    """

    def __init__(self, name: str, path: str, *, overwrite: bool, hard_link: bool = False) -> None:
        self._name = name
        self._path = path
        self._overwrite = overwrite
        self._hard_link = hard_link
        self._temporary: str | None = None
        self._named = True
        self._fd = -1

    def __enter__(self) -> Self:
        directory, name = os.path.split(self._path)
        kept = os.fsdecode(os.fsencode(name)[:_NAME_KEPT])
        # Known before it exists, so that a signal in between leaves nothing behind.
        self._temporary = os.path.join(directory, f".{kept}.{os.urandom(8).hex()}.part")
        self._fd = open_nameless(directory, 0o666)
        self._named = self._fd < 0
        if self._named:
            self._open(self._temporary)
        if self._overwrite:
            self._keep_mode()
        return self

    def _open(self, temporary: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._fd = os.open(temporary, flags, 0o666)  # less the umask, as for any file
        except OSError as error:
            self._temporary = None
            raise _cannot_write(self._name, error) from error

    def _keep_mode(self) -> None:
        """Let nobody read the new file, not even while it grows, who may not read the old one."""
        with suppress(OSError):  # nothing to replace; or no modes here (FAT), nor before
            mode = os.stat(self._path).st_mode
            if stat.S_ISREG(mode):
                os.fchmod(self._fd, mode & 0o777)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._temporary is not None:
            _remove(self._temporary)
        if self._fd >= 0:
            os.close(self._fd)

    def write(self, offset: int, data: memoryview) -> None:
        if self._hard_link:
            raise Unavailable(f"cannot make {self._name} a hard link: the daemon passed no file")
        try:
            while data:
                written = os.pwrite(self._fd, data, offset)
                data = data[written:]
                offset += written
        except OSError as error:
            raise _cannot_write(self._name, error) from error

    def copy(self, fd: int, offset: int, at: int, size: int) -> bool:
        """Without mapping what is copied: on ext4 that takes two thirds of the CPU."""
        if self._hard_link or not _COPIES:
            return False
        try:
            os.lseek(self._fd, at, os.SEEK_SET)
            while size:
                copied = os.sendfile(self._fd, fd, offset, size)
                if not copied:
                    raise RemoteProtocolError(f"the daemon's segment ends at {offset}")
                offset, size = offset + copied, size - copied
        except OSError as error:
            if error.errno in (EINVAL, ENOSYS):  # not between files of these kinds
                return False
            raise _cannot_write(self._name, error) from error
        return True

    def share(self, fd: int, *, whole: bool) -> bool:
        if self._hard_link:
            self._link(fd)
            if not whole:  # who is killed while it comes leaves nothing behind
                _remove(self._temporary or "")
            return True
        # Not by default a hard link: whoever writes into the output would write into what the
        # daemon gives to others.
        return reflink(fd, self._fd)

    def _link(self, fd: int) -> None:
        """Be another name of the file *fd*, under the temporary name until it is committed."""
        assert self._temporary is not None  # noqa: S101  it is entered
        _remove(self._temporary)
        try:
            link_open_file(fd, self._temporary)
        except OSError as error:
            raise Unavailable(
                f"cannot make {self._name} a hard link: {why_no_link(error)}; "
                "without --force-hard-link it is a copy"
            ) from error
        self._named = True

    @property
    def can_begin_again(self) -> bool:
        return True

    def begin_again(self) -> None:
        try:
            os.ftruncate(self._fd, 0)
        except OSError as error:
            raise _cannot_write(self._name, error) from error

    def commit(self) -> None:
        temporary = self._temporary
        if temporary is None:
            return
        fd, self._fd = self._fd, -1
        try:
            try:
                if not self._named:
                    link_open_file(fd, temporary)
            finally:
                os.close(fd)  # a quota, or a server of files, may refuse only now
            if self._overwrite:
                os.replace(temporary, self._path)
                if self._hard_link:  # of two names of one file none is replaced
                    _remove(temporary)
            else:
                self._take_free_name(temporary)
        except FileExistsError as error:
            raise OutputExists(f"{self._name} has come to exist meanwhile") from error
        except OSError as error:
            raise _cannot_write(self._name, error) from error
        self._temporary = None

    def _take_free_name(self, temporary: str) -> None:
        """Rename *temporary*, but never over another file."""
        try:
            os.link(temporary, self._path)
        except FileExistsError:
            raise
        except OSError:
            # No hard links here (FAT, some network file systems). Whoever creates the name
            # owns it; ours is empty for an instant.
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))
            try:
                os.replace(temporary, self._path)
            except BaseException:  # a signal, too: nothing may be left behind
                _remove(self._path)
                raise
        else:
            _remove(temporary)


class StreamOutput(Output):
    """A pipe, terminal or device: bytes leave in order, and cannot be taken back.

    Args:
        name: What the user calls it; opened on entering, unless *fd* is given.
        fd: An open descriptor, which stays open.
    """

    def __init__(self, name: str, fd: int | None = None) -> None:
        self._name = name
        self._owned = fd is None
        self._fd = -1 if fd is None else fd
        self._next = 0
        #: Arrived before their turn, by offset. They lie in the segment and cost no memory.
        self._early: dict[int, memoryview] = {}

    def __enter__(self) -> Self:
        if self._owned:
            try:
                self._fd = os.open(self._name, os.O_WRONLY | os.O_CLOEXEC)
            except OSError as error:
                raise _cannot_write(self._name, error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._early.clear()
        if self._owned:
            os.close(self._fd)

    def write(self, offset: int, data: memoryview) -> None:
        self._early[offset] = data
        try:
            while (turn := self._early.pop(self._next, None)) is not None:
                self._next += len(turn)
                while turn:
                    turn = turn[os.write(self._fd, turn) :]
        except OSError as error:
            raise _cannot_write(self._name, error) from error

    def share(self, fd: int, *, whole: bool) -> bool:
        del fd, whole
        return False

    @property
    def can_begin_again(self) -> bool:
        return False

    def begin_again(self) -> None:
        raise Unavailable(f"cannot write {self._name} anew: what was written has gone")

    def commit(self) -> None:
        """Nothing is left to do: what was written has gone."""


def _cannot_write(name: str, error: OSError) -> Unavailable:
    why = "it is closed" if error.errno == EBADF else error.strerror
    return Unavailable(f"cannot write {name}: {why}")


def _remove(path: str) -> None:
    with suppress(OSError):  # never made, or gone; nobody could do more about it
        os.unlink(path)
