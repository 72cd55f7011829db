"""The outbox: every message once, in order, and one cursor per sink that says how far it has got."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select

from streaming.messages import Message
from streaming.store.database import Database
from streaming.store.schema import cursors, outbox
from streaming.store.writer import Writer


@dataclass(frozen=True, slots=True)
class Entry:
    """A message as it lies in the outbox. ``position`` rises over all events: it is the id of server-sent events."""

    position: int
    event_id: str
    seq: int
    created: float  # Unix seconds
    payload: str  # JSON

    @property
    def message(self) -> Message:
        """The payload, parsed."""
        return Message.model_validate_json(self.payload)


class Outbox:
    """What one sink still has to deliver. At least once: what was not acknowledged comes again after a restart."""

    def __init__(self, database: Database, writer: Writer, node: str, sink: str) -> None:
        self._database, self._writer = database, writer
        self._own = (cursors.c.node == node, cursors.c.sink == sink)
        self._node = node
        self._lock = threading.Lock()
        self._acknowledged = 0  # ahead of the database's cursor while that cannot be written
        self._saving = False

    def pending(self, limit: int = 100) -> list[Entry]:
        """The oldest messages that are not acknowledged, in order. Raises StoreError."""
        with self._database.read() as connection:
            return entries(connection, self._node, self._position(connection), limit)

    def acknowledge(self, position: int) -> None:
        """All messages up to ``position`` are delivered. Never waits; a kill right after it may repeat some."""
        with self._lock:
            self._acknowledged = max(position, self._acknowledged)
            if self._saving:
                return
            self._saving = True
        self._writer.submit("acknowledgements", self._save).add_done_callback(self._saved)

    def depth(self) -> int:
        """How many messages wait. Raises StoreError."""
        return self._of_waiting(func.count())

    def oldest_age(self, now: float) -> float:
        """Seconds since the oldest waiting message was made, 0 when none waits. Raises StoreError."""
        oldest = self._of_waiting(func.min(outbox.c.created))
        return 0.0 if oldest is None else max(0.0, now - oldest)

    def dropped(self) -> int:
        """How many messages fell out of the outbox before this sink had them, ever. Raises StoreError."""
        with self._database.read() as connection:
            return connection.scalar(select(cursors.c.dropped).where(*self._own)) or 0

    def _of_waiting(self, what: Any) -> Any:
        with self._database.read() as connection:
            position = self._position(connection)
            return connection.scalar(select(what).select_from(outbox).where(*_after(self._node, position)))

    def _position(self, connection: Connection) -> int:
        saved = connection.scalar(select(cursors.c.position).where(*self._own)) or 0
        return max(saved, self._acknowledged)

    def _save(self, connection: Connection) -> None:
        with self._lock:
            position = self._acknowledged
            self._saving = False  # what is acknowledged from here on asks for a write of its own
        connection.execute(cursors.update().where(*self._own, cursors.c.position < position).values(position=position))

    def _saved(self, _: object) -> None:
        with self._lock:
            self._saving = False  # also when it was refused


def entries(connection: Connection, node: str, after: int, limit: int) -> list[Entry]:
    """Messages beyond a position, in order."""
    columns = (outbox.c.position, outbox.c.event_id, outbox.c.seq, outbox.c.created, outbox.c.payload)
    query = select(*columns).where(*_after(node, after)).order_by(outbox.c.position).limit(limit)
    return [Entry(*row) for row in connection.execute(query)]


def _after(node: str, position: int) -> tuple[ColumnElement[bool], ...]:
    return outbox.c.node == node, outbox.c.position > position
