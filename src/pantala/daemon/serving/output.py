"""Writing a file on behalf of a gRPC caller who named an output path.

The daemon may have rights that the caller has not, so this is off unless the operator allows it
or nobody but the daemon's own user can ask; and it never goes through a symlink.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

from pantala.daemon.config import DownloadServer
from pantala.errors import Forbidden, InvalidRequest, OutputExists, Unavailable
from pantala.files import link_open_file, open_nameless, reflink, why_no_link
from pantala.ports import Extent

_KEY: Final = "download.server.allowOutputPath"
_STEP: Final = 8 << 20

#: Of the file, less the umask.
_MODE: Final = 0o644


def check_allowed(server: DownloadServer) -> None:
    """Raise Forbidden unless callers may have files written."""
    allowed = server.allow_output_path
    if allowed == "auto":
        # A daemon of root would write anywhere for whoever can open its socket.
        allowed = not lends_rights(server)
    if not allowed:
        raise Forbidden(f"this daemon writes no files for its callers: see {_KEY}")


def lends_rights(server: DownloadServer) -> bool:
    """Whether callers could do through this daemon what they may not do themselves."""
    return os.geteuid() == 0 and bool(server.socket_mode & 0o077)


def check_path(path: str, *, overwrite: bool) -> Path:
    """Whether a file may be written at *path*, before anything is downloaded for it.

    Raises:
        InvalidRequest: It is not absolute, or lies in no directory.
        Forbidden: A symlink is in the way.
        OutputExists: It is there, and may not be replaced.
    """
    output = Path(path)
    if not output.is_absolute() or output.name in ("", "..") or "\0" in path:
        raise InvalidRequest(f"output path {path!r} is not an absolute path of a file")
    if not output.parent.is_dir():
        raise InvalidRequest(f"{output.parent} is not a directory")
    if output.parent.resolve() != output.parent or output.is_symlink():
        raise Forbidden(f"a symlink is on the way to {output}")
    if output.is_dir():
        raise InvalidRequest(f"{output} is a directory")
    if output.exists() and not overwrite:
        raise OutputExists(f"{output} exists already")
    return output


def write(
    output: Path,
    content: Extent,
    *,
    overwrite: bool,
    file: int | None = None,
    hard_link: bool = False,
) -> None:
    """Write *content* to *output*, which appears whole or not at all. Blocks.

    Args:
        output: Where.
        content: What.
        overwrite: It may replace another file.
        file: A descriptor of a file that is *content* and nothing else, if there is one.
        hard_link: It must be another name of *file*.

    Raises:
        Forbidden, OutputExists: As :func:`check_path`; things may have changed.
        Unavailable: It cannot be written.
        Damaged: The content cannot be read.
    """
    try:
        directory = os.open(output.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(f"cannot write {output}: {error.strerror}") from error
    temporary = f".{output.name[:100]}.{secrets.token_hex(8)}.part"
    try:
        # Where the descriptor leads is where the path led just now, without symlinks.
        if Path(f"/proc/self/fd/{directory}").readlink() != output.parent:
            raise Forbidden(f"a symlink is on the way to {output}")
        if hard_link:
            _link(output, file, temporary, directory)
        else:
            _copy(content, file, temporary, directory)
        if overwrite:
            os.rename(temporary, output.name, src_dir_fd=directory, dst_dir_fd=directory)
        else:
            os.link(temporary, output.name, src_dir_fd=directory, dst_dir_fd=directory)
    except FileExistsError:
        raise OutputExists(f"{output} exists already") from None
    except OSError as error:
        raise Unavailable(f"cannot write {output}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        os.close(directory)


def _link(output: Path, file: int | None, name: str, directory: int) -> None:
    if file is None:
        raise Unavailable(f"cannot make {output} a hard link: there is no file of its own to link")
    try:
        link_open_file(file, name, directory)
    except OSError as error:
        raise Unavailable(f"cannot make {output} a hard link: {why_no_link(error)}") from error


def _copy(content: Extent, file: int | None, name: str, directory: int) -> None:
    """Have a copy of *content* by that name. Who is killed meanwhile leaves nothing behind.

    But where the file system has no files without names.
    """
    fd = open_nameless(".", _MODE, directory)
    named = fd < 0
    if named:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, _MODE, dir_fd=directory)
    try:
        if file is None or not reflink(file, fd):
            for at in range(0, content.length, _STEP):
                with content.read(at, min(_STEP, content.length - at)) as part:
                    _write_all(fd, part)
        if not named:
            link_open_file(fd, name, directory)
    finally:
        os.close(fd)


def _write_all(fd: int, view: memoryview) -> None:
    while view:
        view = view[os.write(fd, view) :]
