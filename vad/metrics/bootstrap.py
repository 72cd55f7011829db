"""Confidence intervals by resampling videos (Efron 1979): frames of one video are not independent of each other.

A resample of videos with replacement is a vector of counts, how often each video was drawn. Metrics are computed from
per-video summaries under such counts, never from copied frames: ranking metrics from each video's exact histogram of
scores, sorted once; everything that is a ratio of sums from one row of sums per video.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vad.metrics.frame import (
    Counts,
    Labels,
    Ranks,
    Scores,
    average_precision,
    average_precision_trapezoid,
    check,
    ranks,
    ratio,
    roc_area,
)

_AT_ONCE = 32  # resamples; bounds the memory: a number per distinct score and resample


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with the interval that holds a share of the resamples (percentile method)."""

    value: float
    low: float  # NaN when no resample has the metric
    high: float
    undefined: int = 0  # resamples in which the metric has no value, for example for want of abnormal videos


def draws(videos: int, *, resamples: int, seed: int) -> Counts:
    """How often each video was drawn in each resample, (resamples, videos); the same for the same seed."""
    chance = np.full(videos, 1 / videos)
    return np.random.default_rng(seed).multinomial(videos, chance, size=resamples).astype(np.float64)


def interval(value: float, resampled_R: npt.ArrayLike, *, level: float = 0.95) -> Interval:
    """The central interval of the resampled values that are defined."""
    values = np.asarray(resampled_R, np.float64)
    defined = values[~np.isnan(values)]
    if not len(defined):
        return Interval(value, float("nan"), float("nan"), len(values))
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), len(values) - len(defined))


class SortedFrames:
    """Frames of many videos, sorted once, so that a resample costs a few sums per distinct abnormal score.

    Between two neighbouring scores of abnormal frames only the number of each video's normal frames matters, and at a
    score only that of its abnormal ones: two sparse tables (scores, videos), multiplied with many resamples at once.
    """

    def __init__(self, labels: Sequence[Labels], scores: Sequence[Scores]) -> None:
        from scipy.sparse import csr_array

        flags, values = np.concatenate(labels), np.concatenate(scores)
        check(flags, values)
        video = np.repeat(np.arange(len(labels)), [len(one) for one in labels])
        thresholds = np.unique(values[flags])[::-1]
        steps = len(thresholds)
        # 2g: normal frames between thresholds g - 1 and g; 2g + 1: those at threshold g; the last: below all
        above = np.searchsorted(-thresholds, -values[~flags], side="left")
        at = above != np.searchsorted(-thresholds, -values[~flags], side="right")
        shape = (2 * steps + 1, len(labels))
        self._normal = csr_array((np.ones(len(above)), (2 * above + at, video[~flags])), shape=shape)
        at_G = np.searchsorted(-thresholds, -values[flags])
        self._abnormal = csr_array((np.ones(len(at_G)), (at_G, video[flags])), shape=(steps, len(labels)))

    def ranks(self, times_RV: Counts) -> Ranks:
        """The ranks of resamples that have video v ``times_RV[r, v]`` times: arrays of (G, R)."""
        abnormal_GR = self._abnormal @ times_RV.T
        normal_SR = np.cumsum(self._normal @ times_RV.T, axis=0)
        return Ranks(abnormal_GR, normal_SR[:-1:2], normal_SR[1::2], normal_SR[-1])


Statistic = Callable[[Counts], dict[str, Counts]]
"""Metrics (R,) by name, of resamples that have each video so often (R, videos)."""


def frame_statistic(labels: Sequence[Labels], scores: Sequence[Scores]) -> Statistic:
    """The ranking metrics of ``frame.frame_metrics``: auc, auc_abnormal, auc_within, auc_macro, ap, ap_trapezoid."""
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
    pairs_V = np.array([one.abnormal * float(one.normal) for one in each])
    both_V = pairs_V > 0
    area_V = np.array([one.auc if there else 0.0 for one, there in zip(each, both_V, strict=True)])

    def statistic(times_RV: Counts) -> dict[str, Counts]:
        together = everything.ranks(times_RV)
        nothing = np.full(len(times_RV), np.nan)
        return {
            "auc": roc_area(together),
            "auc_abnormal": roc_area(abnormal.ranks(times_RV[:, chosen])) if abnormal else nothing,
            "auc_within": ratio(times_RV @ (area_V * pairs_V), times_RV @ pairs_V),
            "auc_macro": ratio(times_RV @ (area_V * both_V), times_RV @ both_V),
            "ap": average_precision(together),
            "ap_trapezoid": average_precision_trapezoid(together),
        }

    return statistic


def resample(statistic: Statistic, videos: int, *, resamples: int, seed: int) -> dict[str, Counts]:
    """Every metric of ``statistic`` in every resample: name -> (resamples,). Raises ValueError without a video."""
    if videos < 1 or resamples < 1:
        raise ValueError(f"need at least one video and one resample, got {videos} and {resamples}")
    times_RV = draws(videos, resamples=resamples, seed=seed)
    parts = [statistic(times_RV[start : start + _AT_ONCE]) for start in range(0, resamples, _AT_ONCE)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
