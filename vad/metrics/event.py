"""Events as a whole: alarms against events, one to one, by their overlap in time.

Rashvand et al. "From Frames to Events: Rethinking Evaluation in Human-Centric Video Anomaly Detection", 2026,
https://arxiv.org/abs/2604.09327, showed that a good frame AUC says little here. The temporal IoU (tIoU) of two
stretches is their shared time over the time that either covers. Differs from usual practice: of all ways to pair
alarms with events one with the *most* pairs is taken. Greedy pairing by highest overlap can find fewer, and then two
programs that break ties in another way disagree; the highest number is one number.
"""

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
    """Alarms against events at one temporal IoU. Counts of all videos are summed first (micro)."""

    tiou: float
    per_video: Counts  # (videos, 3): hits, false alarms, missed events

    @property
    def tp(self) -> int:
        """Pairs of an alarm and an event."""
        return int(self.per_video[:, 0].sum())

    @property
    def fp(self) -> int:
        """Alarms without an event."""
        return int(self.per_video[:, 1].sum())

    @property
    def fn(self) -> int:
        """Events without an alarm."""
        return int(self.per_video[:, 2].sum())

    @property
    def precision(self) -> float:
        """tp / (tp + fp): share in [0, 1] of alarms that match an event; NaN without alarms."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else float("nan")

    @property
    def recall(self) -> float:
        """tp / (tp + fn): share in [0, 1] of events that an alarm matches; NaN without events."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else float("nan")

    @property
    def f1(self) -> float:
        """2 tp / (2 tp + fp + fn), in [0, 1]; NaN with neither alarms nor events, 0 with only one of them."""
        either = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / either if either else float("nan")


def tiou(first: npt.ArrayLike, second: npt.ArrayLike) -> Counts:
    """Temporal intersection over union in [0, 1] of each stretch with each other: (A, B).

    >>> tiou([(0, 4)], [(2, 6), (4, 8)]).round(2).tolist()
    [[0.33, 0.0]]
    """
    a, b = (np.asarray(one, np.float64).reshape(-1, 2) for one in (first, second))
    shared = np.clip(np.minimum(a[:, None, 1], b[None, :, 1]) - np.maximum(a[:, None, 0], b[None, :, 0]), 0, None)
    union = (a[:, 1] - a[:, 0])[:, None] + (b[:, 1] - b[:, 0])[None] - shared
    return shared / union


def match(predicted: Stretches, truth: Stretches, *, at_least: float) -> list[tuple[int, int]]:
    """Pairs (number of a prediction, number of an event) with at least this tIoU, each in one pair, as many as can be.

    Raises ValueError for a tIoU outside (0, 1] and for an empty stretch.

    >>> match([(0, 10), (2, 12)], [(1, 11), (-4, 6)], at_least=0.4)  # the first fits both, the second only one
    [(0, 1), (1, 0)]
    """
    check_tious([at_least])
    return _pairs(tiou(_checked(predicted), _checked(truth)), at_least)


def event_scores_of(
    predictions: Sequence[Stretches], truths: Sequence[Stretches], *, tious: Sequence[float] = TIOUS
) -> tuple[EventScores, ...]:
    """One result per tIoU, for predicted and true stretches of each video.

    Predictions may overlap, as those of a tracker do. Raises ValueError: unequal numbers of videos, a tIoU outside
    (0, 1], an empty stretch.

    >>> (found,) = event_scores_of([[(0, 4), (6, 8)]], [[(1, 5)]], tious=[0.5])
    >>> found.tp, found.fp, found.fn, found.precision, found.recall
    (1, 1, 0, 0.5, 1.0)
    """
    if len(predictions) != len(truths):
        raise ValueError(f"need predictions and truth of each video, got {len(predictions)} and {len(truths)}")
    check_tious(tious)
    counts = np.zeros((len(tious), len(truths), 3))
    for video, (found, true) in enumerate(zip(predictions, truths, strict=True)):
        overlap_AB = tiou(_checked(found), _checked(true))
        for number, value in enumerate(tious):
            good = len(_pairs(overlap_AB, value))
            counts[number, video] = good, len(found) - good, len(true) - good
    return tuple(EventScores(value, one) for value, one in zip(tious, counts, strict=True))


def event_scores(
    videos: Sequence[TimedVideo], *, threshold: float, tious: Sequence[float] = TIOUS
) -> tuple[EventScores, ...]:
    """One result per tIoU, for alarms at a threshold. Raises ValueError for scores or a threshold outside [0, 1]."""
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


def check_tious(tious: Sequence[float]) -> None:
    """Raises ValueError for a tIoU outside (0, 1]: at 0 any two stretches would match."""
    for value in tious:
        if not 0 < value <= 1:
            raise ValueError(f"a tIoU must lie in (0, 1], got {value}")


def _pairs(overlap_AB: Counts, at_least: float) -> list[tuple[int, int]]:
    good_AB = overlap_AB >= at_least
    rows, columns = np.nonzero(good_AB)
    if len(set(rows)) < len(rows) or len(set(columns)) < len(columns):  # else they are apart already
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import maximum_bipartite_matching

        column_A = maximum_bipartite_matching(csr_array(good_AB), perm_type="column")
        rows = np.flatnonzero(column_A >= 0)
        columns = column_A[rows]
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def _checked(stretches: Stretches) -> Stretches:
    for start, end in stretches:
        if not start < end:
            raise ValueError(f"a stretch needs start < end, got [{start}, {end})")
    return stretches
