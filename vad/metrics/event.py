"""Events as a whole: alarms against events, one to one, by their overlap in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vad.metrics.alarms import TimedVideo, alarm_runs, check_unit
from vad.metrics.frame import Counts

Stretches = Sequence[tuple[float, float]]  # half-open, frames or seconds
TIOUS = (0.1, 0.2, 0.3, 0.4, 0.5)


@dataclass(frozen=True, slots=True)
class EventScores:
    """Alarms against events at one temporal IoU."""

    tiou: float
    per_video: Counts  # (videos, 3): hits, false alarms, missed events

    @property
    def precision(self) -> float:
        """Share in [0, 1] of alarms that match an event; NaN without alarms."""
        hits, false, _ = self.per_video.sum(0)
        return float(hits / (hits + false)) if hits + false else float("nan")

    @property
    def recall(self) -> float:
        """Share in [0, 1] of events that an alarm matches; NaN without events."""
        hits, _, missed = self.per_video.sum(0)
        return float(hits / (hits + missed)) if hits + missed else float("nan")

    @property
    def f1(self) -> float:
        """2 hits / (2 hits + false + missed), in [0, 1]; NaN with neither alarms nor events."""
        hits, false, missed = self.per_video.sum(0)
        return float(2 * hits / (2 * hits + false + missed)) if hits + false + missed else float("nan")


def tiou(first: npt.ArrayLike, second: npt.ArrayLike) -> Counts:
    """Temporal intersection over union in [0, 1] of each stretch with each other: (A, B).

    >>> tiou([(0, 4)], [(2, 6), (4, 8)]).round(2).tolist()
    [[0.33, 0.0]]
    """
    a, b = (np.asarray(one, np.float64).reshape(-1, 2) for one in (first, second))
    shared = np.clip(np.minimum(a[:, None, 1], b[None, :, 1]) - np.maximum(a[:, None, 0], b[None, :, 0]), 0, None)
    union = (a[:, 1] - a[:, 0])[:, None] + (b[:, 1] - b[:, 0])[None] - shared
    return shared / union


def hits(overlap_AB: npt.NDArray[np.float64], *, at_least: float) -> int:
    """The most pairs of one each that overlap so much (a maximum matching, not a greedy one)."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    good = overlap_AB >= at_least
    if not good.any():
        return 0
    if (good.sum(0) <= 1).all() and (good.sum(1) <= 1).all():
        return int(good.sum())
    return int((maximum_bipartite_matching(csr_array(good), perm_type="column") >= 0).sum())


def event_scores_of(
    predictions: Sequence[Stretches], truths: Sequence[Stretches], *, tious: Sequence[float] = TIOUS
) -> tuple[EventScores, ...]:
    """One result per tIoU, for predicted and true stretches of each video. Raises ValueError: unequal numbers."""
    if len(predictions) != len(truths):
        raise ValueError(f"need predictions and truth of each video, got {len(predictions)} and {len(truths)}")
    for value in tious:
        if not 0 < value <= 1:
            raise ValueError(f"a tIoU must lie in (0, 1], got {value}")
    counts = np.zeros((len(tious), len(truths), 3))
    for video, (found, true) in enumerate(zip(predictions, truths, strict=True)):
        overlap = tiou(found, true) if len(found) and len(true) else np.zeros((0, 0))
        for number, value in enumerate(tious):
            good = hits(overlap, at_least=value)
            counts[number, video] = good, len(found) - good, len(true) - good
    return tuple(EventScores(value, one) for value, one in zip(tious, counts, strict=True))


def event_scores(
    videos: Sequence[TimedVideo], *, threshold: float, tious: Sequence[float] = TIOUS
) -> tuple[EventScores, ...]:
    """One result per tIoU, for the alarms at a threshold. Raises ValueError for scores outside [0, 1]."""
    check_unit(videos, threshold)
    return event_scores_of(
        [alarm_runs(video.scores_N, threshold=threshold) for video in videos],
        [video.events for video in videos],
        tious=tious,
    )


def multi_threshold_f1(
    videos: Sequence[TimedVideo], *, thresholds: Sequence[float], tious: Sequence[float] = TIOUS
) -> Counts:
    """F1 at each threshold and tIoU, (thresholds, tious): shows what a threshold chosen afterwards would hide."""
    return np.array(
        [[one.f1 for one in event_scores(videos, threshold=each, tious=tious)] for each in thresholds]
    ).reshape(len(thresholds), len(tious))
