"""A daemon of one's own, where the machine has none: started by the first who needs it.

Imported only then: it costs what ``dfget`` otherwise saves.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from pantala.errors import TimedOut, Unavailable
from pantala.paths import handoff_path_for, make_runtime_dir, personal_socket

from .connection import Connection, dial

_START_TIMEOUT: Final = 15.0
_POLL: Final = 0.02
_LOG_TAIL: Final = 4096

# Names the file of its settings. All other variables of a daemon's are for the machine's.
_CONFIG: Final = "DFDAEMON_CONFIG"

# -P: not whatever lies in the current directory. The socket's path follows.
_COMMAND: Final = (sys.executable, "-P", "-m", "pantala.cli.dfdaemon", "--personal", "--socket")


def connect_personal(*, numbered: bool = False) -> tuple[Connection, int | None]:
    """Connect to this user's personal daemon; start it if it does not run.

    However many ask at once, one of them starts it and the others wait.

    Returns:
        The connection, and the daemon's process id if it was this call that started it.

    Raises:
        Forbidden, ConfigError: Its directory cannot be used; nothing was started.
        Unavailable: It ended at once; the message has the last line of its log.
        TimedOut: It does not answer; it may yet.
    """
    directory = Path(make_runtime_dir())
    endpoint = personal_socket()
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    with os.fdopen(os.open(directory / "start.lock", flags, 0o600)) as lock:
        sock, pid = _connect_or_start(endpoint, directory / "dfdaemon.log", lock.fileno())
    return Connection(sock, endpoint, numbered=numbered), pid


def _connect_or_start(endpoint: str, log: Path, lock: int) -> tuple[_socket.socket, int | None]:
    deadline = time.monotonic() + _START_TIMEOUT
    child: subprocess.Popen[bytes] | None = None
    locked = False
    try:
        while (sock := dial(handoff_path_for(endpoint))) is None:
            if child is not None and child.poll() is not None:
                raise Unavailable(
                    f"the personal daemon ended at once: {_last_line(log)} (more in {log})"
                )
            if time.monotonic() > deadline:
                raise TimedOut(
                    f"the personal daemon does not answer after {_START_TIMEOUT:g} s: see {log}"
                )
            if locked and child is None:
                child = _start(endpoint, log)
            elif not locked and _try_lock(lock):
                locked = True  # and look once more: the one who had it may just have succeeded
                continue
            time.sleep(_POLL)  # another process: nothing tells when it listens
    finally:
        if child is not None and child.returncode is None:
            child.returncode = 0  # it outlives us on purpose; Popen would complain
    return sock, None if child is None else child.pid


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _start(endpoint: str, log: Path) -> subprocess.Popen[bytes]:
    # Appending, so that a daemon that cannot get the socket does not overwrite the other's
    # lines; from empty, so that it does not grow over the weeks.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    with os.fdopen(os.open(log, flags, 0o600), "wb") as output:
        return subprocess.Popen(  # noqa: S603  our own interpreter and module
            [*_COMMAND, endpoint],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=_environment(),
            start_new_session=True,
        )


def _environment() -> dict[str, str]:
    """Ours, as it is good for a daemon that starts in another directory."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name == _CONFIG or not name.startswith("DFDAEMON_")
    }
    if search := environment.get("PYTHONPATH"):
        parts = [str(Path(part).absolute()) for part in search.split(os.pathsep)]
        environment["PYTHONPATH"] = os.pathsep.join(parts)
    if config := environment.get(_CONFIG):
        environment[_CONFIG] = str(Path(config).absolute())
    return environment


def _last_line(log: Path) -> str:
    lines = log.read_bytes()[-_LOG_TAIL:].decode(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")
