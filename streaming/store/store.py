"""The store: what the rest of the daemon talks to."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from typing import Any, TypeVar

from sqlalchemy import Connection, select, tuple_
from sqlalchemy.exc import DBAPIError

from streaming.messages import EndReason, Event, Feedback, Kind, Severity, compose
from streaming.store import history, retention
from streaming.store.database import Database, StoreError, reason
from streaming.store.history import History, Second
from streaming.store.outbox import Entry, Outbox, entries
from streaming.store.retention import Pruned, Retention
from streaming.store.schema import cursors, events, migrate, outbox, writers
from streaming.store.writer import Health, Limits, Writer

log = logging.getLogger(__name__)

T = TypeVar("T")


class Store:
    """Events, outbox and scores of one node.

    Writes give a future at once and never wait or raise; a caller that must know asks it for its result. It holds
    ValueError for what the life cycle of an event forbids, and StoreError for what could not be taken. Reads see
    what is committed, do not wait for writes, and raise StoreError. All times are Unix seconds UTC, by the caller.
    """

    def __init__(self, database: Database, writer: Writer, node: str, sinks: Iterable[str], position: int) -> None:
        self._database, self._writer, self._node = database, writer, node
        self._sinks = {sink: Outbox(database, writer, node, sink) for sink in sinks}
        self._told = threading.Condition()
        self._position = position  # of the newest committed message

    @classmethod
    def open(
        cls,
        url: str,
        *,
        node: str = "local",
        sinks: Iterable[str] = (),
        backups: int = 3,
        limits: Limits = Limits(),  # noqa: B008 (frozen)
        clock: Callable[[], float] = time.time,
        observe: Callable[[float], None] = lambda _seconds: None,
    ) -> Store:
        """Open the database at ``url``, making or migrating it. Raises StoreError.

        ``sinks`` are those that deliver: a new one starts with what is told from now on, one that is missing is
        forgotten. ``clock`` dates copies and the beginning of faults; ``observe`` hears the seconds of each write.
        """
        sinks = sorted(set(sinks))
        database = Database(url, busy_timeout=limits.busy_timeout)
        try:
            migrate(database, backups=backups, clock=clock)
            with database.writing.begin() as connection:
                position = _register(connection, node, sinks, alone=database.path is not None)
        except DBAPIError as cause:
            database.close()
            raise StoreError(f"{database.name}: cannot be opened: {reason(cause)}") from cause
        except BaseException:
            database.close()
            raise
        writer = Writer(database, node, limits=limits, clock=clock, observe=observe)
        return cls(database, writer, node, sinks, position)

    def publish(self, kind: Kind, event: Event, *, at: float) -> Future[Entry]:
        """Store what became of an event and tell all sinks, in one transaction.

        What people said about the event (see ``amend``) is kept, whatever ``event`` says.
        """

        def run(connection: Connection, told: list[Entry]) -> Entry:
            row = _find(connection, event.id)
            if row is None:
                entry = _tell(connection, self._node, kind, event, None, 0, at)
            else:
                before = Event.model_validate_json(row.event)
                said = {
                    field: getattr(before, field) for field in ("false_positive", "feedback", "retain_indefinitely")
                }
                entry = _tell(connection, self._node, kind, event.model_copy(update=said), before, row.seq, at)
            told.append(entry)
            return entry

        return self._submit(run)

    def amend(
        self,
        event_id: str,
        *,
        at: float,
        false_positive: bool | None = None,
        feedback: Feedback | None = None,
        retain_indefinitely: bool | None = None,
        has_clip: bool | None = None,
        has_snapshot: bool | None = None,
    ) -> Future[Event]:
        """Change what is given. Of an open event the sinks hear by an ``update``; nothing follows an ``end``.

        The future holds LookupError for an unknown event.
        """
        given = {
            "false_positive": false_positive,
            "feedback": feedback,
            "retain_indefinitely": retain_indefinitely,
            "has_clip": has_clip,
            "has_snapshot": has_snapshot,
        }
        changes = {field: value for field, value in given.items() if value is not None}

        def run(connection: Connection, told: list[Entry]) -> Event:
            row = _find(connection, event_id)
            if row is None:
                raise LookupError(f"no event {event_id}")
            before = Event.model_validate_json(row.event)
            after = before.model_copy(update=changes)
            if before.end_time is None:
                told.append(_tell(connection, self._node, "update", after, before, row.seq, at))
            else:
                connection.execute(events.update().where(events.c.id == event_id).values(**_columns(after)))
            return after

        return self._submit(run)

    def close_open_events(
        self, end_reason: EndReason, *, at: float, cameras: Collection[str] | None = None
    ) -> Future[list[Entry]]:
        """End what is open, of all cameras or of some: at start, what a kill left behind.

        An event ends where it was last seen, by its last message or by its camera's last score, and not at ``at``:
        the daemon may have been down for days.
        """

        def run(connection: Connection, told: list[Entry]) -> list[Entry]:
            query = select(events.c.event, events.c.seq).where(events.c.node == self._node, events.c.end_time.is_(None))
            if cameras is not None:
                query = query.where(events.c.camera.in_(cameras))
            for row in connection.execute(query.order_by(events.c.start_time, events.c.id)).all():
                before = Event.model_validate_json(row.event)
                scored = history.last_second(connection, before.camera)
                seen = max(before.start_time, before.frame_time, 0 if scored is None else min(scored + 1, at))
                after = before.model_copy(update={"end_time": seen, "end_reason": end_reason})
                told.append(_tell(connection, self._node, "end", after, before, row.seq, at))
            return told

        return self._submit(run)

    def append_scores(self, seconds: Iterable[Second]) -> Future[None]:
        """Add to the history; better many seconds in one call than one. The first to be refused when all is full."""
        taken = list(seconds)
        return self._writer.submit("scores", lambda connection: history.append(connection, taken), expendable=True)

    def prune(self, now: float, keep: Retention) -> Future[Pruned]:
        """Forget what is beyond the limits; to be called every minute or so."""
        return self._writer.submit("pruning", lambda connection: retention.prune(connection, self._node, now, keep))

    def write(self, command: Callable[[Connection], T]) -> Future[T]:
        """Any other write. ``command`` may be called more than once, and must do nothing but use the connection."""
        return self._writer.submit("others", command)

    def event(self, event_id: str) -> Event | None:
        """An event as it stands."""
        with self._database.read() as connection:
            row = _find(connection, event_id)
        return None if row is None else Event.model_validate_json(row.event)

    def events(
        self,
        *,
        cameras: Collection[str] | None = None,
        labels: Collection[str] | None = None,
        severity: Severity | None = None,
        after: float | None = None,
        before: float | None = None,
        min_score: float | None = None,
        has_clip: bool | None = None,
        older_than: Event | None = None,
        limit: int = 100,
    ) -> list[Event]:
        """Events that started in ``[after, before)``, newest first. ``older_than`` is the last of the page before."""
        query = select(events.c.event).order_by(events.c.start_time.desc(), events.c.id.desc()).limit(limit)
        if cameras is not None:
            query = query.where(events.c.camera.in_(cameras))
        if labels is not None:
            query = query.where(events.c.label.in_(labels))
        if severity is not None:
            query = query.where(events.c.severity == severity)
        if after is not None:
            query = query.where(events.c.start_time >= after)
        if before is not None:
            query = query.where(events.c.start_time < before)
        if min_score is not None:
            query = query.where(events.c.top_score >= min_score)
        if has_clip is not None:
            query = query.where(events.c.has_clip == has_clip)
        if older_than is not None:
            query = query.where(tuple_(events.c.start_time, events.c.id) < (older_than.start_time, older_than.id))
        with self._database.read() as connection:
            return [Event.model_validate_json(text) for text in connection.scalars(query)]

    def scores(self, camera: str, after: float, before: float, *, step: int = 1) -> History:
        """A camera's curve of ``[after, before)``, the highest score of each ``step`` seconds."""
        with self._database.read() as connection:
            return history.read(connection, camera, after, before, step)

    def outbox(self, sink: str) -> Outbox:
        """What ``sink`` has to deliver. Raises ValueError for one that was not named at open."""
        if sink not in self._sinks:
            raise ValueError(f"unknown sink {sink!r}; available: {', '.join(self._sinks) or 'none'}")
        return self._sinks[sink]

    def replay(self, position: int, limit: int = 100) -> list[Entry]:
        """Messages after ``position``, for a client that comes back. The first may lie further on: what was delivered
        is forgotten after a time.
        """
        with self._database.read() as connection:
            return entries(connection, self._node, position, limit)

    @property
    def position(self) -> int:
        """Of the newest message."""
        return self._position

    def wait(self, position: int, timeout: float) -> bool:
        """Wait until there is a message after ``position``, at most ``timeout`` seconds; False when none came."""
        with self._told:
            return self._told.wait_for(lambda: self._position > position, timeout)

    def health(self) -> Health:
        """How writing goes."""
        return self._writer.health()

    def close(self, timeout: float = 10.0) -> int:
        """Write what is queued, then close; gives how many writes are lost because ``timeout`` was too short."""
        return self._writer.close(timeout)

    def _submit(self, run: Callable[[Connection, list[Entry]], T]) -> Future[T]:
        """Have a command carried out that may tell messages, which it adds to its list; then wake who waits."""
        told: list[Entry] = []

        def from_the_start(connection: Connection) -> T:
            told.clear()
            return run(connection, told)

        def wake(done: Future[T]) -> None:
            if not done.cancelled() and not done.exception() and told:
                with self._told:
                    self._position = max(self._position, told[-1].position)
                    self._told.notify_all()

        future = self._writer.submit("events", from_the_start)
        future.add_done_callback(wake)
        return future


def _register(connection: Connection, node: str, sinks: Collection[str], *, alone: bool) -> int:
    """Make the rows of this node and its sinks; gives the position of the newest message."""
    if alone:  # a file has one daemon: after a change of node.id what it holds is still ours to end and to deliver
        for table in (writers, events, outbox, cursors):
            connection.execute(table.update().where(table.c.node != node).values(node=node))
    position = connection.scalar(select(writers.c.position).where(writers.c.node == node))
    if position is None:
        connection.execute(writers.insert().values(node=node, batch="", position=0))
        position = 0
    own = cursors.c.node == node
    known = set(connection.scalars(select(cursors.c.sink).where(own)))
    for sink in known.difference(sinks):
        log.warning("sink %s is not configured any more; what it had not delivered is forgotten", sink)
        connection.execute(cursors.delete().where(own, cursors.c.sink == sink))
    for sink in set(sinks) - known:
        connection.execute(cursors.insert().values(node=node, sink=sink, position=position, dropped=0))
    return position


def _find(connection: Connection, event_id: str) -> Any:
    return connection.execute(select(events.c.event, events.c.seq).where(events.c.id == event_id)).first()


def _tell(
    connection: Connection, node: str, kind: Kind, after: Event, before: Event | None, seq: int, at: float
) -> Entry:
    """Write an event and its message, in the caller's transaction."""
    message = compose(kind, after, before=before, seq=seq, node=node, sent_at=at)
    values = _columns(message.after) | {"seq": message.seq}
    if before is None:
        connection.execute(events.insert().values(id=after.id, node=node, **values))
    else:
        connection.execute(events.update().where(events.c.id == after.id).values(**values))
    own = writers.c.node == node
    connection.execute(writers.update().where(own).values(position=writers.c.position + 1))
    position = connection.scalars(select(writers.c.position).where(own)).one()
    entry = Entry(position, after.id, message.seq, message.sent_at, message.json_text())
    connection.execute(
        outbox.insert().values(
            node=node,
            position=position,
            event_id=entry.event_id,
            seq=entry.seq,
            created=entry.created,
            payload=entry.payload,
        )
    )
    return entry


def _with_what_was_said(event: Event, before: Event) -> Event:
    said = ("false_positive", "feedback", "retain_indefinitely")
    return event.model_copy(update={field: getattr(before, field) for field in said})


def _columns(event: Event) -> dict[str, Any]:
    return {
        "camera": event.camera,
        "label": event.label,
        "severity": event.severity,
        "start_time": event.start_time,
        "end_time": event.end_time,
        "top_score": event.top_score,
        "has_clip": event.has_clip,
        "false_positive": event.false_positive,
        "retain_indefinitely": event.retain_indefinitely,
        "event": event.model_dump_json(),
    }
