"""A file of SQLite that several schedulers of one machine share.

Each has a connection and a thread of its own. What SQLite cannot do for them, since it is about the
file and not about what is in it, they do one at a time, under a lock on a second file beside it:
make its tables, move it aside when it is damaged, write it again when somebody has removed it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, TypeVar

import structlog

from pantala.errors import FeatureOff, Unavailable

from .living import Living
from .sqlite_schema import BUSY, SETTING, connect, is_damaged, remove_beside, write_again

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

#: Seconds to wait for others' work on the file itself.
_LOCKED: Final = 10.0

#: Seconds to wait for those who read what was there before, as who makes a copy of the file does.
_READERS: Final = 0.5

#: Times that the file may be another one when its turn comes.
_ATTEMPTS: Final = 3

T = TypeVar("T")

Work = Callable[[sqlite3.Connection], T]


class _Moved(Exception):
    """The file has been written again by another scheduler."""


class SqliteFile:
    """One scheduler's hold on the file. It comes to be with the first row.

    A file that is damaged is moved aside, with a line in the log. One that somebody removes under
    us is written again, by the first who notices.

    Args:
        path: The file. None: nothing is kept, and every call raises FeatureOff.
        clock: Unix time.
    """

    def __init__(self, path: Path | None, clock: Callable[[], float]) -> None:
        self.path = path
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "records")
        self._is_closed = False
        #: Used in the thread alone, as are the next two: which file it has open.
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None
        self._identity = ""
        self._living = None if path is None else Living(_lock_of(path))

    @property
    def is_there(self) -> bool:
        """Whether anything may be in it."""
        return self.path is not None and (self._connection is not None or _may_be(self.path))

    async def close(self) -> None:
        """Let go of it."""
        if not self._is_closed:
            self._is_closed = True
            await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
            self._thread.shutdown()
            if self._living is not None:
                self._living.close()

    async def read(self, work: Work[T]) -> T:
        """What *work* finds, as of one moment. Raises Unavailable, FeatureOff."""
        return await self._run(work, "BEGIN")

    async def write(self, work: Work[T]) -> T:
        """Let *work* have the file alone, as one transaction. Raises Unavailable, FeatureOff."""
        return await self._run(work, "BEGIN IMMEDIATE")

    async def write_alive(self, work: Callable[[sqlite3.Connection, Living], T]) -> T:
        """Likewise, seen alive by others, and able to see whether they are."""

        def alive(db: sqlite3.Connection) -> T:
            assert self._living is not None  # noqa: S101  there is a file, since it is open
            try:
                self._living.show()
                return work(db, self._living)
            except OSError as error:
                raise Unavailable(
                    f"records of imported tasks: {_lock_of(self._place())}: {error.strerror}"
                ) from error

        return await self._run(alive, "BEGIN IMMEDIATE")

    async def checkpoint(self) -> None:
        """Have all that was written in the file itself, and nothing of what it replaced beside it.

        As far as others do not read what was there before: they are waited for, but not for so long
        that leases end. Raises Unavailable, FeatureOff.
        """

        def run() -> None:
            try:
                connection = self._connected()
                connection.execute(f"PRAGMA busy_timeout = {_READERS * 1000:.0f}").fetchall()
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                connection.execute(f"PRAGMA busy_timeout = {BUSY * 1000:.0f}").fetchall()
            except sqlite3.Error as error:
                self._disconnect()
                raise Unavailable(f"records of imported tasks in {self.path}: {error}") from error

        await asyncio.get_running_loop().run_in_executor(self._thread, run)

    async def _run(self, work: Work[T], begin: str) -> T:
        def run() -> T:
            for _ in range(_ATTEMPTS):
                with contextlib.suppress(_Moved):
                    return self._attempt(work, begin)
            raise Unavailable(f"records of imported tasks: somebody keeps removing {self.path}")

        return await asyncio.get_running_loop().run_in_executor(self._thread, run)

    def _attempt(self, work: Work[T], begin: str) -> T:
        connection = self._connected()
        try:
            with connection:
                connection.execute(begin)
                # Whoever writes the file again does so when nobody writes, and then it is another.
                if begin != "BEGIN" and _file(self._place()) != self._opened:
                    raise _Moved
                return work(connection)
        except sqlite3.Error as error:
            # What it was cannot be known; the next call looks at the file anew.
            self._disconnect()
            raise Unavailable(
                f"records of imported tasks in {self.path}: {error}; nothing was changed, "
                "try again when that is remedied"
            ) from error

    def _place(self) -> Path:
        if self.path is None:
            raise FeatureOff(f"imported tasks are not kept here: set {SETTING}")
        return self.path

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> sqlite3.Connection:
        """The connection, made if need be.

        Raises:
            FeatureOff: The file cannot be had.
            Unavailable: It is not there any more.
        """
        path = self._place()
        if self._connection is not None and _file(path) != self._opened:
            self._follow(path, self._connection)
        if self._connection is None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with _alone(path):
                    self._open(path)
            except (sqlite3.DatabaseError, OSError) as error:
                why = error.strerror if isinstance(error, OSError) else None
                raise FeatureOff(
                    f"imported tasks cannot be kept in {path} ({SETTING}): {why or error}"
                ) from error
        assert self._connection is not None  # noqa: S101  _open has made it, or raised
        return self._connection

    def _open(self, path: Path) -> None:
        try:
            connection = connect(path)
        except sqlite3.DatabaseError as error:
            if not is_damaged(error):
                raise
            self._move_aside(path, error)
            connection = connect(path)
        (self._identity,) = connection.execute("SELECT id FROM store").fetchone()
        self._connection, self._opened = connection, _file(path)

    def _follow(self, path: Path, connection: sqlite3.Connection) -> None:
        """Somebody has removed the file. What was in it is here as long as it is open.

        Raises:
            Unavailable: It cannot be written again, or a strange one is there.
        """
        try:
            with _alone(path):
                if _file(path) is None:
                    write_again(path, connection)
                elif _identity(path) != self._identity and not self._is_aside(path):
                    raise Unavailable(
                        f"records of imported tasks: {path} is not the file that is in use; put "
                        "that back, or start the scheduler anew with the one that is there"
                    )
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(
                f"records of imported tasks: {path} was removed, and cannot be written again: "
                f"{error}"
            ) from error
        self._disconnect()

    def _is_aside(self, path: Path) -> bool:
        """Whether another scheduler has found the file that is open here damaged."""
        aside = path.parent.glob(f"{path.name}.damaged-*")
        return any(_file(each) == self._opened for each in aside)

    def _move_aside(self, path: Path, error: Exception) -> None:
        target = path.with_name(f"{path.name}.damaged-{int(self._clock())}")
        path.rename(target)
        remove_beside(path)
        logger.warning(
            "records of imported tasks are damaged; moved aside, starting without any",
            path=str(path),
            moved_to=str(target),
            why=str(error),
        )


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Have the file to oneself, as far as what it is goes. Raises OSError, Unavailable."""
    lock = os.open(_lock_of(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + _LOCKED
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Unavailable(
                        f"records of imported tasks: another process has had {path}.lock for "
                        f"{_LOCKED:g} s; see what it is, and end it"
                    ) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(lock)


def _lock_of(path: Path) -> Path:
    """The file beside it, for locks alone."""
    return path.with_name(f"{path.name}.lock")


def _may_be(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return True  # opening it will say why


def _file(path: Path) -> tuple[int, int] | None:
    """Which file is there, if one is."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _identity(path: Path) -> str | None:
    """What the file there calls itself; None: it is none of ours."""
    with contextlib.suppress(sqlite3.Error):
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY)) as connection:
            (found,) = connection.execute("SELECT id FROM store").fetchone()
            return str(found)
    return None
