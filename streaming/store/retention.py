"""What is forgotten, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from sqlalchemy import Connection, and_, func, not_, or_, select

from streaming.store import history
from streaming.store.schema import cursors, events, outbox, writers

_DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Retention:
    """How long things are kept. Events that are open, marked to stay or not yet delivered are never forgotten."""

    detections: float = 14.0  # days after the event's end
    alerts: float = 30.0  # days
    false_positives: float = 90.0  # days
    scores: float = 14.0  # days
    outbox_events: int = 100_000  # messages
    outbox_age: float = 7 * _DAY  # seconds
    replay: float = 3600.0  # seconds that delivered messages stay, for clients that come back

    def __post_init__(self) -> None:
        for limit in fields(self):
            if getattr(self, limit.name) < 0:
                raise ValueError(f"{limit.name} must not be negative, got {getattr(self, limit.name)}")


@dataclass(frozen=True, slots=True)
class Pruned:
    """What went."""

    events: int
    minutes: int  # of scores
    delivered: int  # messages that every sink had
    dropped: Mapping[str, int] = field(default_factory=dict)  # sink -> messages that it never had


def prune(connection: Connection, node: str, now: float, keep: Retention) -> Pruned:
    """Forget what is beyond the limits at ``now``: of the outbox the oldest first, counted for who missed it."""
    delivered = _prune_delivered(connection, node, now - keep.replay)
    dropped = _drop_oldest(connection, node, now - keep.outbox_age, keep.outbox_events)
    pruned = _prune_events(connection, node, now, keep)
    return Pruned(pruned, history.prune(connection, now - keep.scores * _DAY), delivered, dropped)


def _prune_delivered(connection: Connection, node: str, before: float) -> int:
    everything = select(writers.c.position).where(writers.c.node == node).scalar_subquery()
    slowest = select(func.min(cursors.c.position)).where(cursors.c.node == node).scalar_subquery()
    old = and_(
        outbox.c.node == node, outbox.c.position <= func.coalesce(slowest, everything), outbox.c.created < before
    )
    return connection.execute(outbox.delete().where(old)).rowcount


def _drop_oldest(connection: Connection, node: str, before: float, most: int) -> dict[str, int]:
    own = outbox.c.node == node
    newest_too_many = select(outbox.c.position).where(own).order_by(outbox.c.position.desc()).offset(most).limit(1)
    # up to the first that is young enough: after a leap of the clock old times may lie between young ones
    first_young = select(func.min(outbox.c.position)).where(own, outbox.c.created >= before)
    last = connection.scalar(select(func.max(outbox.c.position)).where(own))
    if last is None:
        return {}
    young = connection.scalar(first_young)
    end = max(connection.scalar(newest_too_many) or 0, last if young is None else young - 1)
    dropped = {}
    for sink, position in connection.execute(
        select(cursors.c.sink, cursors.c.position).where(cursors.c.node == node, cursors.c.position < end)
    ).all():
        missed = select(func.count()).select_from(outbox).where(own, outbox.c.position.between(position + 1, end))
        dropped[sink] = connection.scalar(missed) or 0
        connection.execute(
            cursors.update()
            .where(cursors.c.node == node, cursors.c.sink == sink)
            .values(position=end, dropped=cursors.c.dropped + dropped[sink])
        )
    connection.execute(outbox.delete().where(own, outbox.c.position <= end))
    return {sink: count for sink, count in dropped.items() if count}


def _prune_events(connection: Connection, node: str, now: float, keep: Retention) -> int:
    days = (
        (events.c.false_positive, keep.false_positives),
        (and_(not_(events.c.false_positive), events.c.severity == "alert"), keep.alerts),
        (and_(not_(events.c.false_positive), events.c.severity != "alert"), keep.detections),
    )
    old = or_(*(and_(which, events.c.end_time < now - limit * _DAY) for which, limit in days))
    told = ~select(outbox.c.position).where(outbox.c.event_id == events.c.id).exists()
    return connection.execute(
        events.delete().where(events.c.node == node, not_(events.c.retain_indefinitely), old, told)
    ).rowcount
