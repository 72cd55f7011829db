"""Connections: one engine that writes, one that only reads, for SQLite and PostgreSQL alike."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from vad.files import writable_folder

# FULL, not NORMAL: after a power cut NORMAL may have forgotten the newest commits. A message that was delivered
# and forgotten would come again with the same seq and other content, and a reader drops it as a repeat.
_WRITING = ("synchronous = FULL", "foreign_keys = ON", "journal_size_limit = 67108864")
_READING = ("query_only = ON",)


class StoreError(OSError):
    """The database cannot do what was asked; the message says what to try."""


class StoreFullError(StoreError):
    """The queue of the writer is full: the database has not taken writes for long."""


class Database:
    """Where the store lies. ``writing`` has one connection, ``reading`` several which cannot write.

    Raises StoreError when the URL is of no use, or when another process holds the file.
    """

    def __init__(self, url: str, *, busy_timeout: float) -> None:
        parsed = _parse(url)
        self.name = parsed.render_as_string(hide_password=True)
        self.path = _sqlite_path(parsed)
        self._lock = _lock(self.path) if self.path else None
        if self.path:
            self.writing = _sqlite(parsed, _WRITING, "BEGIN IMMEDIATE", busy_timeout, connections=1)
            self.reading = _sqlite(parsed, _READING, "BEGIN", busy_timeout, connections=20)
        else:
            self.writing = _server(parsed, busy_timeout, connections=1)
            reading = _server(parsed, busy_timeout, connections=20)
            self.reading = reading.execution_options(postgresql_readonly=True)

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one state of the database. Raises StoreError."""
        try:
            with self.reading.connect() as connection:
                yield connection
        except DBAPIError as cause:
            raise StoreError(f"{self.name}: cannot be read: {reason(cause)}") from cause

    def close(self) -> None:
        """Close all connections and let others have the file."""
        self.reading.dispose()
        self.writing.dispose()  # last: whoever is last writes the log back into the file
        if self._lock:
            self._lock.close()


def reason(cause: BaseException) -> str:
    """What went wrong in the database's own words: no statement, no parameters."""
    original = cause.orig if isinstance(cause, DBAPIError) else cause
    return " ".join(str(original).split()) or type(original).__name__


def _parse(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        # without its cause, which repeats the URL and with it the password
        raise StoreError(
            "not a database URL; use sqlite:////folder/vad.db or postgresql://user:password@host/name"
        ) from None


def _sqlite_path(url: URL) -> Path | None:
    if url.get_backend_name() == "postgresql":
        return None
    if url.get_backend_name() != "sqlite":
        raise StoreError(f"{url.get_backend_name()}: no such store; use a sqlite or a postgresql URL")
    if not url.database or url.database.startswith((":", "file:")):
        raise StoreError("the store needs a file that outlives the process; use sqlite:////folder/vad.db")
    return Path(url.database)


def _lock(path: Path) -> TextIO:
    """One daemon per file. The lock is the kernel's, so it goes when the process does."""
    writable_folder(path.parent)
    file = open(path.with_name(path.name + ".lock"), "w")  # noqa: SIM115 (held until close)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as cause:
        file.close()
        raise StoreError(
            f"{path}: in use by another daemon; stop it, or give this one a database of its own"
        ) from cause
    return file


def _sqlite(url: URL, pragmas: Sequence[str], begin: str, busy_timeout: float, *, connections: int) -> Engine:
    engine = create_engine(url, connect_args={"timeout": busy_timeout}, pool_size=connections, max_overflow=0)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions begin where we say, not where the driver guesses
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreError(f"{url.database}: this file system cannot do write-ahead logs; use a local disk")

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _server(url: URL, busy_timeout: float, *, connections: int) -> Engine:
    patience = round(1000 * busy_timeout)
    try:
        return create_engine(
            url,
            pool_size=connections,
            max_overflow=0,
            pool_pre_ping=True,
            # a write to a server that vanished must not hang for the quarter of an hour that TCP allows
            connect_args={
                "connect_timeout": 10,
                "tcp_user_timeout": patience,
                "options": f"-c lock_timeout={patience}",
            },
        )
    except ModuleNotFoundError as cause:
        raise StoreError(f"PostgreSQL needs the package {cause.name}; pip install 'vadwatch[postgres]'") from cause
    except NoSuchModuleError as cause:
        raise StoreError(f"{url.drivername}: no such driver; use a postgresql:// URL") from cause
