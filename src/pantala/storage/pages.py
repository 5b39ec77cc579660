"""Pages of memory as the system gives them: anonymous files, mappings, and who else has them."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Final

#: Mappings from this many bytes on ask for huge pages.
HUGE_FROM: Final = 64 * 1024 * 1024

_HUGE: Final = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")

_SEALS: Final = 0x2 | 0x4 | 0x10  # SHRINK, GROW, FUTURE_WRITE; the last is not in fcntl of 3.11
_F_ADD_SEALS: Final = 1033
_F_SETSIG: Final = 10
_MLOCK_ONFAULT: Final = 1
_POPULATE_WRITE: Final = 23  # MADV_POPULATE_WRITE, which Python does not name
_MAP_FIXED: Final = 0x10
_MAP_NORESERVE: Final = 0x4000


def anonymous_file() -> int:
    """A file in memory without a name; its descriptor.

    Linux counts who has a file open, but for the descriptor that made it. So the file is opened
    once more, and only that descriptor is kept: it can be asked :func:`is_elsewhere`.

    Raises:
        OSError: The system has none.
    """
    if not hasattr(os, "memfd_create"):
        fd, path = tempfile.mkstemp(prefix="pantala-")
        Path(path).unlink()
        return fd
    first = os.memfd_create("pantala", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        fd = os.open(f"/proc/self/fd/{first}", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            os.close(first)
            raise
        return first  # no /proc: it serves as it is, and is never handed off
    os.close(first)
    with contextlib.suppress(OSError):
        # Whoever opens the file while we ask makes the kernel tell us, with SIGIO if nothing else
        # was said, which would end the process. SIGURG does nothing.
        fcntl.fcntl(fd, _F_SETSIG, signal.SIGURG)
    return fd


def keep_from_others(fd: int) -> None:
    """Let other users open a memfd for reading alone, whoever has a descriptor of it.

    It is born with mode 0777, and could be opened once more for writing, through /proc.
    """
    os.fchmod(fd, 0o444)


def seal(fd: int) -> None:
    """Let nobody write to a memfd, or change its length, but by mappings that exist.

    Not even root, and us ourselves. It cannot be undone.
    """
    fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)


def is_elsewhere(fd: int) -> bool:
    """Whether another description of our file is open, or mapped, in any process.

    The kernel gives a lease for writing only to whoever is alone with a file; it is given back at
    once. True, too, where the system cannot say. Takes some 4 µs, and never waits.
    """
    if sys.platform != "linux":
        return True
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return True
    return False


def map_file(fd: int, length: int) -> mmap.mmap:
    """Map a file, shared, without a second descriptor of it.

    Python's own mapping of a file keeps a copy of the descriptor. On Linux the file is mapped
    over an anonymous mapping instead, which Python then takes care of all the same; resizing
    it leaves the file's length alone.

    Raises:
        OSError: The system has no memory or no mapping for it.
    """
    if sys.platform != "linux":
        return mmap.mmap(fd, length)
    mapping = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
    rights = mmap.PROT_READ | mmap.PROT_WRITE
    flags = mmap.MAP_SHARED | _MAP_FIXED
    start = ctypes.c_char.from_buffer(mapping)
    at = ctypes.addressof(start)
    del start
    if _libc().mmap(at, length, rights, flags, fd, 0) != at:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return mapping


def map_nothing(length: int) -> mmap.mmap:
    """Memory without a descriptor, and neighbours of it share one of the kernel's mappings.

    Raises:
        OSError: The system has no memory or no mapping for it.
    """
    return mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def prepare(mapping: mmap.mmap, *, lock: bool) -> None:
    """Keep a mapping out of core dumps, have huge pages for it, and lock it if that is wanted.

    Raises:
        OSError: It cannot be locked.
    """
    if hasattr(mmap, "MADV_DONTDUMP"):
        mapping.madvise(mmap.MADV_DONTDUMP)
    ask_for_huge_pages(mapping)
    if lock:
        _lock_pages(mapping)


def are_huge(length: int) -> bool:
    """Whether the system gives a mapping of *length* bytes huge pages if asked."""
    try:
        said = _HUGE.read_text()
    except OSError:  # no Linux, or one without huge pages
        return False
    return length >= HUGE_FROM and "[never]" not in said and "[deny]" not in said


def ask_for_huge_pages(mapping: mmap.mmap) -> None:
    """Have pages of 2 MiB where the system gives them to shared memory on demand.

    It does if ``/sys/kernel/mm/transparent_hugepage/shmem_enabled`` says ``advise``. Not for
    less than :data:`HUGE_FROM` bytes: the last page takes its 2 MiB, however little is in it.
    """
    if len(mapping) >= HUGE_FROM and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without huge pages
            mapping.madvise(mmap.MADV_HUGEPAGE)


def populate(view: memoryview) -> None:
    """Map the pages of shared memory for writing, and make those that are not there.

    The kernel may know no way (Linux before 5.14); then they come one by one, as they are touched.
    """
    if sys.platform != "linux" or not len(view):
        return
    first = ctypes.c_char.from_buffer(view)
    start = ctypes.addressof(first)
    skew = start % mmap.PAGESIZE
    _libc().madvise(start - skew, len(view) + skew, _POPULATE_WRITE)
    del first


def zero(view: memoryview) -> None:
    """Overwrite shared memory with zeros. Other threads run meanwhile."""
    populate(view)
    if len(view):
        first = ctypes.c_char.from_buffer(view)
        ctypes.memset(ctypes.addressof(first), 0, len(view))
        del first


def _lock_pages(mapping: mmap.mmap) -> None:
    """Keep pages in memory from the moment they are first touched."""
    if sys.platform != "linux":
        return
    view = (ctypes.c_char * len(mapping)).from_buffer(mapping)
    try:
        size = ctypes.c_size_t(len(mapping))
        if _libc().mlock2(ctypes.byref(view), size, _MLOCK_ONFAULT) != 0:
            error = ctypes.get_errno()
            raise OSError(error, f"storage.cacheLockPages: {os.strerror(error)}")
    finally:
        del view


_LIBC: list[ctypes.CDLL] = []


def _libc() -> ctypes.CDLL:
    """The C library, made ready when it is first needed."""
    if not _LIBC:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = (
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_int64,
        )
        libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        _LIBC.append(libc)
    return _LIBC[0]
