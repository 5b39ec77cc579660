"""Runs a program that sees a small disk of its own at a directory, and nobody else does.

    python -m pantala.testing.own_disk DIRECTORY OPTIONS MODULE [ARGUMENT]…

The disk is a ``tmpfs`` with mount options such as ``size=24m`` or ``ro``, in a mount namespace of
the process; it goes with the process. Others reach it below ``/proc/<pid>/root``. Where the system
lets nobody do that, the status is :data:`REFUSED`.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import sys
from pathlib import Path
from typing import Final

#: Exit status: the system allows no disk of one's own.
REFUSED: Final = 77

_NEW_NAMESPACE: Final = 0x00020000  # CLONE_NEWNS
_NEW_USER: Final = 0x10000000  # CLONE_NEWUSER
_PRIVATE: Final = 0x00040000 | 0x4000  # MS_PRIVATE | MS_REC
_READ_ONLY: Final = 1

_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def mount(directory: Path, options: str) -> None:
    """Have this process see a new disk at *directory*. It must have one thread.

    Raises:
        OSError: The system does not allow it.
    """
    user, group = os.geteuid(), os.getegid()
    _check(_LIBC.unshare(_NEW_NAMESPACE | (0 if user == 0 else _NEW_USER)))
    if user != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _check(_LIBC.mount(None, b"/", None, ctypes.c_ulong(_PRIVATE), None))
    words = options.split(",")
    flags = _READ_ONLY if "ro" in words else 0
    data = ",".join(word for word in words if word != "ro").encode()
    _check(_LIBC.mount(b"none", bytes(directory), b"tmpfs", ctypes.c_ulong(flags), data))


def main() -> None:
    """See the module."""
    directory, options, module, *arguments = sys.argv[1:]
    try:
        Path(directory).mkdir(exist_ok=True)
        mount(Path(directory), options)
    except OSError as error:
        sys.stderr.write(f"no disk of one's own: {error}\n")
        raise SystemExit(REFUSED) from error
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
