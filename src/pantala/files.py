"""Files that share their bytes with another: without a copy, or under a second name."""

# ruff: noqa: PTH112  pathlib costs 3 ms, a tenth of dfget's start

from __future__ import annotations

import os
from errno import EACCES, ENOENT, EPERM, EXDEV

# Linux alone has it, and there not every file system. 0: no file without a name.
_NAMELESS = getattr(os, "O_TMPFILE", 0)

#: Linux's ioctl to share blocks, which Python names only from 3.12 on.
_FICLONE = 0x40049409


def reflink(source: int, target: int) -> bool:
    """Have the file *target* share the blocks of *source* until either is written.

    Returns:
        Whether it does. It does not on two file systems, or on one that cannot.
    """
    import fcntl  # noqa: PLC0415  most have no use for it, and all would pay

    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def link_open_file(fd: int, name: str, directory: int | None = None) -> None:
    """Give the open file *fd* another name, in the open *directory* if there is one.

    Raises:
        OSError: It cannot have it; :func:`why_no_link` has words for that.
    """
    # Only with a directory's descriptor does Python follow the link in /proc; an absolute path
    # makes nothing of it.
    os.link(f"/proc/self/fd/{fd}", name, src_dir_fd=fd, dst_dir_fd=directory)


def open_nameless(path: str, mode: int, directory: int | None = None) -> int:
    """Create a file without a name, which is gone when nobody has it open, killed or not.

    Args:
        path: The directory that :func:`link_open_file` is to name it in.
        mode: Of the file, less the umask.
        directory: An open directory that *path* is relative to.

    Returns:
        Its descriptor; -1 where that, or naming it later, is not possible.
    """
    if not _NAMELESS or not os.path.isdir("/proc/self/fd"):
        return -1
    try:
        return os.open(path, _NAMELESS | os.O_WRONLY | os.O_CLOEXEC, mode, dir_fd=directory)
    except OSError:
        return -1  # if the directory is at fault, creating a name in it will say so


def why_no_link(error: OSError) -> str:
    """Why a file of the daemon's store cannot have another name."""
    if error.errno == EXDEV:
        return "it is on another file system than the daemon's store"
    if error.errno in (EPERM, EACCES):
        return "the system lets nobody link another user's file"
    if error.errno == ENOENT:
        return "what the daemon has is no file, or was deleted meanwhile"
    return error.strerror or str(error)
