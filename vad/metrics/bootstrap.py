"""Confidence intervals by resampling videos (Efron 1979): frames of one video are not independent of each other.

A resample of videos with replacement is a vector of counts, how often each video was drawn. Metrics are computed from
per-video summaries under such counts, never from copied frames: ranking metrics from each video's exact histogram of
scores, sorted once; everything that is a ratio of sums from one row of sums per video.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vad.metrics.frame import Counts, Labels, Ranks, Scores, ranks, run_starts


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with the interval that holds a share of the resamples (percentile method)."""

    value: float
    low: float  # NaN when no resample has the metric
    high: float
    undefined: int = 0  # resamples in which the metric has no value, for example for want of abnormal videos


def draws(videos: int, *, resamples: int, seed: int) -> Iterator[Counts]:
    """How often each video was drawn, (videos,), for each resample; the same for the same seed."""
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(generator.integers(videos, size=videos), minlength=videos).astype(np.float64)


def interval(value: float, resampled_R: npt.ArrayLike, *, level: float = 0.95) -> Interval:
    """The central interval of the resampled values that are defined."""
    values = np.asarray(resampled_R, np.float64)
    defined = values[~np.isnan(values)]
    if not len(defined):
        return Interval(value, float("nan"), float("nan"), len(values))
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), len(values) - len(defined))


class SortedFrames:
    """Frames of many videos, sorted once, so that a metric of any resample of the videos costs two sums.

    Equal scores of one video are kept as one cell with a count.
    """

    def __init__(self, labels: Sequence[Labels], scores: Sequence[Scores]) -> None:
        flags, values = np.concatenate(labels), np.concatenate(scores)
        ranks(flags, values)  # its checks: lengths, NaN
        video = np.repeat(np.arange(len(labels), dtype=np.int32), [len(one) for one in labels])
        abnormal, self._abnormal_video, self._abnormal_count = _cells(values[flags], video[flags])
        normal, self._normal_video, self._normal_count = _cells(values[~flags], video[~flags])
        self._starts = run_starts(abnormal)
        thresholds = -abnormal[self._starts]  # cells fall, searchsorted wants rising values
        self._above = np.searchsorted(-normal, thresholds, side="left")
        self._level = np.searchsorted(-normal, thresholds, side="right")

    def ranks(self, times_V: Counts) -> Ranks:
        """The ranks of a resample that has video v ``times_V[v]`` times."""
        weights = times_V[self._abnormal_video] * self._abnormal_count
        abnormal_G = np.add.reduceat(weights, self._starts) if len(weights) else weights
        below = np.concatenate([[0.0], np.cumsum(times_V[self._normal_video] * self._normal_count)])
        return Ranks(abnormal_G, below[self._above], below[self._level], float(below[-1]))


def _cells(values_N: Scores, video_N: npt.NDArray[np.int32]) -> tuple[Scores, npt.NDArray[np.int32], Counts]:
    """(value, video, count) of frames, values falling; equal neighbours of one video become one cell."""
    order = np.argsort(-values_N, kind="stable")  # stable: frames of a video stay together
    values, video = values_N[order], video_N[order]
    if not len(values):
        return values, video, np.empty(0)
    starts = np.flatnonzero(np.append(True, (values[1:] != values[:-1]) | (video[1:] != video[:-1])))
    return values[starts], video[starts], np.diff(np.append(starts, len(values))).astype(np.float64)


Statistic = Callable[[Counts], dict[str, float]]


def frame_statistic(labels: Sequence[Labels], scores: Sequence[Scores]) -> Statistic:
    """The ranking metrics of ``frame.frame_metrics`` as a function of how often each video is there.

    Names: auc, auc_abnormal, auc_within, auc_macro, ap, ap_trapezoid.
    """
    everything = SortedFrames(labels, scores)
    chosen = np.array([one.any() for one in labels])
    abnormal = (
        SortedFrames(
            [one for one, keep in zip(labels, chosen, strict=True) if keep],
            [one for one, keep in zip(scores, chosen, strict=True) if keep],
        )
        if chosen.any()
        else None
    )
    each = [ranks(one_labels, one_scores) for one_labels, one_scores in zip(labels, scores, strict=True)]
    pairs_V = np.array([one.abnormal * one.normal for one in each])
    both_V = pairs_V > 0
    area_V = np.array([one.auc if there else 0.0 for one, there in zip(each, both_V, strict=True)])

    def statistic(times_V: Counts) -> dict[str, float]:
        together = everything.ranks(times_V)
        return {
            "auc": together.auc,
            "auc_abnormal": abnormal.ranks(times_V[chosen]).auc if abnormal else float("nan"),
            "auc_within": ratio(float(times_V @ (area_V * pairs_V)), float(times_V @ pairs_V)),
            "auc_macro": ratio(float(times_V @ (area_V * both_V)), float(times_V @ both_V)),
            "ap": together.average_precision,
            "ap_trapezoid": together.average_precision_trapezoid,
        }

    return statistic


def ratio(over: float, under: float) -> float:
    """A quotient that is NaN when there is nothing to divide by."""
    return over / under if under else float("nan")


def resample(statistic: Statistic, videos: int, *, resamples: int, seed: int) -> dict[str, npt.NDArray[np.float64]]:
    """Every metric of ``statistic`` in every resample: name -> (resamples,). Raises ValueError without a video."""
    if videos < 1 or resamples < 1:
        raise ValueError(f"need at least one video and one resample, got {videos} and {resamples}")
    rows = [statistic(times) for times in draws(videos, resamples=resamples, seed=seed)]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}
