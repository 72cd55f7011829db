"""Scores at 1 Hz. A row holds a minute of a camera: 60 float32, about 350 kB per camera and day."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, select

from streaming.store.schema import scores

_MINUTE = 60
_FLOAT = np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class Second:
    """The highest score of one camera in one second, and the thresholds it was held against."""

    camera: str
    second: int  # Unix seconds, rounded down
    score: float
    on: float
    off: float

    def __post_init__(self) -> None:
        if not 0 <= self.score <= 1:
            raise ValueError(f"score must lie in [0, 1], got {self.score}")


@dataclass(frozen=True, slots=True)
class History:
    """A camera's curve, one value per bucket; buckets in which nothing was scored are left out."""

    starts: npt.NDArray[np.int64]  # (N,) Unix seconds
    scores: npt.NDArray[np.float32]  # (N,) the highest of each bucket
    on: npt.NDArray[np.float64]  # (N,) thresholds; of minutes with several, the last
    off: npt.NDArray[np.float64]  # (N,)


def append(connection: Connection, seconds: Iterable[Second]) -> None:
    """Add to the minutes concerned. Of several scores of one second the highest stays."""
    by_minute = sorted(seconds, key=_minute)
    for (camera, minute), group in itertools.groupby(by_minute, key=_minute):
        row = (scores.c.camera == camera) & (scores.c.minute == minute)
        stored = connection.scalar(select(scores.c.curve).where(row))
        curve = np.full(_MINUTE, np.nan, _FLOAT) if stored is None else np.frombuffer(stored, _FLOAT).copy()
        for last in group:
            curve[last.second % _MINUTE] = np.fmax(curve[last.second % _MINUTE], last.score)
        values = {"curve": curve.tobytes(), "threshold_on": float(last.on), "threshold_off": float(last.off)}
        if stored is None:
            connection.execute(scores.insert().values(camera=camera, minute=minute, **values))
        else:
            connection.execute(scores.update().where(row).values(**values))


def read(connection: Connection, camera: str, after: float, before: float, step: int) -> History:
    """The curve of ``[after, before)`` in buckets of ``step`` seconds that start at multiples of it."""
    if step < 1:
        raise ValueError(f"step must be at least 1 second, got {step}")
    query = select(scores.c.minute, scores.c.curve, scores.c.threshold_on, scores.c.threshold_off).where(
        scores.c.camera == camera,
        scores.c.minute >= math.floor(after / _MINUTE),
        scores.c.minute < math.ceil(before / _MINUTE),
    )
    rows = connection.execute(query.order_by(scores.c.minute)).all()
    minutes = np.array([row.minute for row in rows], np.int64)
    values = np.frombuffer(b"".join(row.curve for row in rows), _FLOAT)
    seconds = (minutes[:, None] * _MINUTE + np.arange(_MINUTE)).ravel()
    scored = ~np.isnan(values) & (seconds >= after) & (seconds < before)
    values, seconds, minute_of = values[scored], seconds[scored], np.arange(len(scored))[scored] // _MINUTE
    buckets = seconds // step * step
    starts, first = np.unique(buckets, return_index=True)
    last = minute_of[np.append(first[1:], len(buckets))[: len(first)] - 1]
    thresholds = np.array([(row.threshold_on, row.threshold_off) for row in rows], np.float64).reshape(-1, 2)[last]
    highest = np.maximum.reduceat(values, first) if len(first) else values
    return History(starts, highest.astype(np.float32), thresholds[:, 0], thresholds[:, 1])


def last_second(connection: Connection, camera: str) -> int | None:
    """The newest second of a camera that has a score."""
    query = select(scores.c.minute, scores.c.curve).where(scores.c.camera == camera)
    row = connection.execute(query.order_by(scores.c.minute.desc()).limit(1)).first()
    if row is None:
        return None
    return int(row.minute * _MINUTE + np.flatnonzero(~np.isnan(np.frombuffer(row.curve, _FLOAT)))[-1])


def prune(connection: Connection, before: float) -> int:
    """Forget the minutes that ended before; gives how many."""
    return connection.execute(scores.delete().where(scores.c.minute < math.floor(before / _MINUTE))).rowcount


def _minute(second: Second) -> tuple[Any, ...]:
    return second.camera, int(second.second) // _MINUTE  # int: no driver knows NumPy's
