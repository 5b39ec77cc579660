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
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, TypeVar

import structlog

from pantala.errors import FeatureOff, Unavailable

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

#: The setting that says where.
_SETTING: Final = "database.sqlite.path"

#: Tables, by the version that they came with; the last stands in the file as ``user_version``.
_SCHEMAS: Final = (
    """
    CREATE TABLE task (
        kind INTEGER NOT NULL, id TEXT NOT NULL,
        replicas INTEGER NOT NULL, content_length INTEGER NOT NULL, piece_length INTEGER NOT NULL,
        ttl REAL NOT NULL, created_at REAL NOT NULL, updated_at REAL NOT NULL,
        state TEXT NOT NULL, tag TEXT, application TEXT,
        expires_at REAL NOT NULL,
        PRIMARY KEY (kind, id)
    ) WITHOUT ROWID;
    CREATE TABLE peer (
        kind INTEGER NOT NULL, id TEXT NOT NULL,
        task_id TEXT NOT NULL, host_id TEXT NOT NULL, persistent INTEGER NOT NULL,
        created_at REAL NOT NULL, updated_at REAL NOT NULL,
        state TEXT NOT NULL, cost REAL NOT NULL, concurrent_pieces INTEGER NOT NULL,
        PRIMARY KEY (kind, id),
        FOREIGN KEY (kind, task_id) REFERENCES task (kind, id) ON DELETE CASCADE
    ) WITHOUT ROWID;
    CREATE INDEX peer_of_task ON peer (kind, task_id);
    """,
    """
    CREATE TABLE store (id TEXT NOT NULL);
    CREATE TABLE lease (
        name TEXT PRIMARY KEY, owner TEXT NOT NULL, ends_at REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE job (
        id TEXT PRIMARY KEY, kind INTEGER NOT NULL, scope TEXT NOT NULL,
        created_at REAL NOT NULL, ends_at REAL NOT NULL, ended_at REAL,
        pairs INTEGER NOT NULL, done INTEGER NOT NULL, failed INTEGER NOT NULL,
        received INTEGER NOT NULL,
        plan TEXT NOT NULL, secret TEXT
    ) WITHOUT ROWID;
    CREATE TABLE job_pair (
        job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
        number INTEGER NOT NULL, outcome TEXT NOT NULL,
        PRIMARY KEY (job_id, number)
    ) WITHOUT ROWID;
    """,
)
_VERSION: Final = len(_SCHEMAS)

#: All tables, in an order in which each row's parent is there before it.
_TABLES: Final = ("task", "peer", "store", "lease", "job", "job_pair")

#: Seconds to wait for others: for their transactions, which take milliseconds, and for their work
#: on the file itself.
_BUSY: Final = 5.0
_LOCKED: Final = 10.0

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

    @property
    def is_there(self) -> bool:
        """Whether anything may be in it."""
        return self.path is not None and (self._connection is not None or self.path.exists())

    async def close(self) -> None:
        """Let go of it."""
        if not self._is_closed:
            self._is_closed = True
            await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
            self._thread.shutdown()

    async def read(self, work: Work[T]) -> T:
        """What *work* finds, as of one moment. Raises Unavailable, FeatureOff."""
        return await self._run(work, "BEGIN")

    async def write(self, work: Work[T]) -> T:
        """Let *work* have the file alone, as one transaction. Raises Unavailable, FeatureOff."""
        return await self._run(work, "BEGIN IMMEDIATE")

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
            raise FeatureOff(f"imported tasks are not kept here: set {_SETTING}")
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
                    f"imported tasks cannot be kept in {path} ({_SETTING}): {why or error}"
                ) from error
        assert self._connection is not None  # noqa: S101  _open has made it, or raised
        return self._connection

    def _open(self, path: Path) -> None:
        try:
            connection = _connect(path)
        except sqlite3.DatabaseError as error:
            if not _is_damaged(error):
                raise
            self._move_aside(path, error)
            connection = _connect(path)
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
                    _write_again(path, connection)
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
        _remove_beside(path)
        logger.warning(
            "records of imported tasks are damaged; moved aside, starting without any",
            path=str(path),
            moved_to=str(target),
            why=str(error),
        )


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Have the file to oneself, as far as what it is goes. Raises OSError, Unavailable."""
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
        with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY)) as connection:
            (found,) = connection.execute("SELECT id FROM store").fetchone()
            return str(found)
    return None


def _remove_beside(path: Path) -> None:
    """What belongs to a file that is not there any more, which SQLite would put into the next."""
    for ending in ("-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)


class _Damaged(sqlite3.DatabaseError):
    """The file was looked through, and is wrong."""


def _is_damaged(error: sqlite3.DatabaseError) -> bool:
    """Not: locked, read-only, or full."""
    codes = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return isinstance(error, _Damaged) or getattr(error, "sqlite_errorcode", None) in codes


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=_BUSY)
    try:
        path.chmod(0o600)  # before there is anything in it
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")  # jobs have passwords until they end
        _check(connection, path)
    except BaseException:  # whatever it is, the file is ours to close
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Look the file through, and see to it that the tables are there."""
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise _Damaged(str(verdict))
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > _VERSION:
        raise FeatureOff(
            f"{path} ({_SETTING}) was written by a newer version of this program (schema "
            f"{version}, want {_VERSION}): name another file"
        )
    if version < _VERSION:
        _make_tables(connection, version)
        connection.execute("INSERT INTO store VALUES (?)", (secrets.token_hex(8),))


def _make_tables(connection: sqlite3.Connection, version: int) -> None:
    """Those that came after *version*."""
    connection.executescript(
        f"BEGIN IMMEDIATE; {' '.join(_SCHEMAS[version:])} PRAGMA user_version = {_VERSION}; COMMIT;"
    )


def _write_again(path: Path, connection: sqlite3.Connection) -> None:
    """Write what *connection* has to *path*, where nothing is. Raises sqlite3.Error, OSError."""
    copy = path.with_name(f"{path.name}.copy")
    copy.unlink(missing_ok=True)
    connection.execute("BEGIN IMMEDIATE")  # until it is there, nobody writes to the old one
    try:
        with closing(sqlite3.connect(copy, isolation_level=None)) as target:
            copy.chmod(0o600)
            _make_tables(target, 0)
            target.execute("BEGIN")
            for table in _TABLES:
                for row in connection.execute(f"SELECT * FROM {table}"):  # noqa: S608  names of ours
                    marks = ", ".join("?" * len(row))
                    target.execute(f"INSERT INTO {table} VALUES ({marks})", row)  # noqa: S608  names of ours
            target.execute("COMMIT")
        _remove_beside(path)
        copy.rename(path)
    finally:
        connection.execute("ROLLBACK")
    logger.warning("records of imported tasks were removed; written again", path=str(path))
