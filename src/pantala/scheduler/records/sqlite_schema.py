"""What is in the file of SQLite: its tables, whether it is whole, and a copy of it all."""

from __future__ import annotations

import secrets
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

import structlog

from pantala.errors import FeatureOff

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

#: The setting that says where.
SETTING: Final = "database.sqlite.path"

#: Tables, by the version that they came with; the last stands in the file as ``user_version``.
SCHEMAS: Final = (
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
        received INTEGER NOT NULL
    ) WITHOUT ROWID;
    -- Megabytes, which would be written again with each change of the row.
    CREATE TABLE job_text (
        job_id TEXT PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE,
        plan TEXT NOT NULL, secret TEXT
    ) WITHOUT ROWID;
    CREATE TABLE job_pair (
        job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
        number INTEGER NOT NULL, outcome TEXT NOT NULL,
        PRIMARY KEY (job_id, number)
    ) WITHOUT ROWID;
    """,
)
_VERSION: Final = len(SCHEMAS)

#: All tables, in an order in which each row's parent is there before it.
_TABLES: Final = ("task", "peer", "store", "lease", "job", "job_text", "job_pair")

#: Seconds to wait for the transactions of others, which take milliseconds.
BUSY: Final = 5.0


def remove_beside(path: Path) -> None:
    """What belongs to a file that is not there any more, which SQLite would put into the next."""
    for ending in ("-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)


class _Damaged(sqlite3.DatabaseError):
    """The file was looked through, and is wrong."""


def is_damaged(error: sqlite3.DatabaseError) -> bool:
    """Not: locked, read-only, or full."""
    codes = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return isinstance(error, _Damaged) or getattr(error, "sqlite_errorcode", None) in codes


def connect(path: Path) -> sqlite3.Connection:
    """A connection to a file that is whole, and has all tables. Raises sqlite3.Error, OSError."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY)
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
            f"{path} ({SETTING}) was written by a newer version of this program (schema "
            f"{version}, want {_VERSION}): name another file"
        )
    if version < _VERSION:
        _make_tables(connection, version)
        connection.execute("INSERT INTO store VALUES (?)", (secrets.token_hex(8),))


def _make_tables(connection: sqlite3.Connection, version: int) -> None:
    """Those that came after *version*."""
    connection.executescript(
        f"BEGIN IMMEDIATE; {' '.join(SCHEMAS[version:])} PRAGMA user_version = {_VERSION}; COMMIT;"
    )


def write_again(path: Path, connection: sqlite3.Connection) -> None:
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
        remove_beside(path)
        copy.rename(path)
    finally:
        connection.execute("ROLLBACK")
    logger.warning("records of imported tasks were removed; written again", path=str(path))
