"""Tables, and how an older database becomes one of today.

A migration is a function in ``MIGRATIONS``; version n is what the first n of them made. One that has been released
is never edited: the tables below may change, its statements may not.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError

from streaming.store.database import Database, StoreError, reason
from vad.files import replacing

log = logging.getLogger(__name__)

metadata = MetaData()
schema_version = Table("schema_version", metadata, Column("version", Integer, nullable=False))
writers = Table(
    "writers",
    metadata,
    Column("node", Text, primary_key=True),
    Column("batch", Text, nullable=False),  # the newest that was committed
    Column("position", BigInteger, nullable=False),  # of the newest message
)
events = Table(
    "events",
    metadata,
    Column("id", Text, primary_key=True),
    Column("node", Text, nullable=False),
    Column("camera", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("start_time", Double, nullable=False),
    Column("end_time", Double),
    Column("top_score", Double, nullable=False),
    Column("has_clip", Boolean, nullable=False),
    Column("false_positive", Boolean, nullable=False),
    Column("retain_indefinitely", Boolean, nullable=False),
    Column("seq", Integer, nullable=False),  # of its last message
    Column("event", Text, nullable=False),  # JSON, as last told
)
# Positions are counted by each node's single writer and not by a sequence of the server: numbers of a sequence
# become visible out of order, and a cursor would pass over those that come late.
outbox = Table(
    "outbox",
    metadata,
    Column("node", Text, primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("event_id", Text, ForeignKey("events.id"), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("created", Double, nullable=False),
    Column("payload", Text, nullable=False),
)
cursors = Table(
    "cursors",
    metadata,
    Column("node", Text, primary_key=True),
    Column("sink", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),  # all up to here are delivered
    Column("dropped", BigInteger, nullable=False),  # never delivered: beyond the limits
)
scores = Table(
    "scores",
    metadata,
    Column("camera", Text, primary_key=True),
    Column("minute", BigInteger, primary_key=True),  # Unix time / 60
    Column("curve", LargeBinary, nullable=False),  # 60 little-endian float32, NaN where nothing was scored
    Column("threshold_on", Double, nullable=False),  # the last of the minute
    Column("threshold_off", Double, nullable=False),
)

_FIRST = (  # BYTEA is PostgreSQL's; SQLite takes any type's name and keeps bytes as they are
    "CREATE TABLE schema_version (version INTEGER NOT NULL)",
    "INSERT INTO schema_version VALUES (0)",
    "CREATE TABLE writers (node TEXT PRIMARY KEY, batch TEXT NOT NULL, position BIGINT NOT NULL)",
    "CREATE TABLE events (id TEXT PRIMARY KEY, node TEXT NOT NULL, camera TEXT NOT NULL, label TEXT NOT NULL, "
    "severity TEXT NOT NULL, start_time DOUBLE PRECISION NOT NULL, end_time DOUBLE PRECISION, "
    "top_score DOUBLE PRECISION NOT NULL, has_clip BOOLEAN NOT NULL, false_positive BOOLEAN NOT NULL, "
    "retain_indefinitely BOOLEAN NOT NULL, seq INTEGER NOT NULL, event TEXT NOT NULL)",
    "CREATE INDEX events_by_time ON events (start_time)",
    "CREATE INDEX events_by_camera ON events (camera, start_time)",
    "CREATE INDEX events_open ON events (node) WHERE end_time IS NULL",
    "CREATE TABLE outbox (node TEXT NOT NULL, position BIGINT NOT NULL, event_id TEXT NOT NULL REFERENCES events (id), "
    "seq INTEGER NOT NULL, created DOUBLE PRECISION NOT NULL, payload TEXT NOT NULL, "
    "PRIMARY KEY (node, position), UNIQUE (event_id, seq))",
    "CREATE TABLE cursors (node TEXT NOT NULL, sink TEXT NOT NULL, position BIGINT NOT NULL, dropped BIGINT NOT NULL, "
    "PRIMARY KEY (node, sink))",
    "CREATE TABLE scores (camera TEXT NOT NULL, minute BIGINT NOT NULL, curve BYTEA NOT NULL, "
    "threshold_on DOUBLE PRECISION NOT NULL, threshold_off DOUBLE PRECISION NOT NULL, PRIMARY KEY (camera, minute))",
)


def _first(connection: Connection) -> None:
    for statement in _FIRST:
        connection.execute(text(statement))


MIGRATIONS: list[Callable[[Connection], None]] = [_first]


def migrate(database: Database, *, backups: int, clock: Callable[[], float]) -> None:
    """Bring the database to the newest version, all steps or none; a SQLite file is copied first.

    The newest ``backups`` copies are kept. Raises StoreError, and refuses a database that a newer vadwatch made.
    """
    if backups < 1:
        raise ValueError(f"backups must be at least 1, got {backups}")
    with database.read() as connection:
        found = _version(connection)
    if found > len(MIGRATIONS):
        raise StoreError(
            f"{database.name}: made by a newer vadwatch (schema {found}, this one knows up to {len(MIGRATIONS)}); "
            "install that version again, or move the database away and put back a copy from before the upgrade"
        )
    if found == len(MIGRATIONS):
        return
    copy = _copy(database.path, found, backups=backups, now=clock()) if database.path and found else None
    try:
        with database.writing.begin() as connection:
            for migration in MIGRATIONS[_version(connection) :]:
                migration(connection)
            connection.execute(schema_version.update().values(version=len(MIGRATIONS)))
    except DBAPIError as cause:
        raise StoreError(
            f"{database.name}: cannot be brought from schema {found} to {len(MIGRATIONS)} and was left as it is: "
            f"{reason(cause)}"
        ) from cause
    if copy:
        log.info("%s: schema %d is now %d; the copy from before is %s", database.name, found, len(MIGRATIONS), copy)


def _version(connection: Connection) -> int:
    if not inspect(connection).has_table(schema_version.name):
        return 0
    return connection.scalar(select(func.max(schema_version.c.version))) or 0


def _copy(path: Path, version: int, *, backups: int, now: float) -> Path:
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    copy = path.with_name(f"{path.name}.{stamp}.v{version}.bak")
    try:
        with (
            replacing(copy) as temporary,
            contextlib.closing(sqlite3.connect(path)) as source,
            contextlib.closing(sqlite3.connect(temporary)) as target,
        ):
            source.backup(target)
    except (sqlite3.Error, OSError) as cause:
        raise StoreError(
            f"{path}: not migrated, for a copy could not be made: {cause}; free some space and start again"
        ) from cause
    for old in sorted(path.parent.glob(f"{path.name}.*.bak"))[:-backups]:
        old.unlink()
    return copy
