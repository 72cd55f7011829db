"""From what the supervisor tells to what the store remembers: messages of events, and scores by the second."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping

from streaming.backend import Score
from streaming.messages import Event, Model, Threshold, event_id
from streaming.smoothing import Sample
from streaming.store import Retention, Second, Store
from streaming.supervisor import Alarm, Camera

ALERT = 0.85  # of a score: from here on an event is an alert
_PRUNE = 60.0  # seconds


class Journal:
    """Writes alarms and scores of all cameras into a store."""

    def __init__(
        self,
        store: Store,
        cameras: Mapping[str, tuple[Camera, Model]],
        *,
        keep: Retention | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Events that a run before left open are ended at once. ``clock`` gives Unix time."""
        self._store, self._cameras, self._clock, self._keep = store, cameras, clock, keep or Retention()
        self._open: dict[str, Event] = {}  # of each camera, as last told
        self._seconds: dict[str, tuple[int, float]] = {}  # second and highest score so far
        self._pruned = -math.inf
        store.close_open_events("restart", at=clock()).result()

    def tell(self, alarm: Alarm) -> None:
        """An event began or ended."""
        now, event = self._clock(), alarm.event
        camera, model = self._cameras[alarm.camera]
        if alarm.kind == "new":
            start = alarm.began + event.start
            told = Event(
                id=event_id(start),
                camera=alarm.camera,
                severity="alert" if event.peak >= ALERT else "detection",
                start_time=start,
                frame_time=now,
                score=event.peak,
                top_score=event.peak,
                top_score_time=alarm.began + event.peak_time,
                threshold=Threshold(on=camera.alarms.on, off=camera.alarms.off),
                model=model,
            )
            self._open[alarm.camera] = told
            self._store.publish("new", told, at=now)
            return
        before = self._open.pop(alarm.camera)
        end = max(alarm.began + event.end, before.start_time)
        told = before.model_copy(
            update={
                "severity": "alert" if event.peak >= ALERT else "detection",
                "end_time": end,
                "end_reason": alarm.reason,
                "frame_time": end,
                "top_score": event.peak,
                "top_score_time": alarm.began + event.peak_time,
            }
        )
        self._store.publish("end", told, at=now)

    def hear(self, score: Score, sample: Sample, began: float) -> None:
        """A score that stands for ``sample``'s seconds of a session that began at Unix time ``began``."""
        alarms = self._cameras[score.camera][0].alarms
        done = []
        for second in range(math.floor(began + sample.start), math.floor(began + sample.end) + 1):
            last, highest = self._seconds.get(score.camera, (second, 0.0))
            if second > last:
                done.append(Second(score.camera, last, highest, alarms.on, alarms.off))
                highest = 0.0
            self._seconds[score.camera] = (second, max(highest, sample.score))
        if done:
            self._store.append_scores(done)

    def look(self) -> None:
        """Forget what is beyond the limits, now and then."""
        now = self._clock()
        if now - self._pruned >= _PRUNE:
            self._pruned = now
            self._store.prune(now, self._keep)


def deliver(store: Store, sink: str, *, most: int = 100) -> Iterator[str]:
    """Payloads that a sink has not had yet, in order; each is acknowledged once the next one is asked for."""
    outbox = store.outbox(sink)
    for entry in outbox.pending(most):
        yield entry.payload
        outbox.acknowledge(entry.position)
