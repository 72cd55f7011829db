"""Paired differences between systems: the same videos, the same resamples, one difference per resample.

Two intervals that overlap may still belong to systems that differ: what varies is mostly which videos are in the test
set, and that is the same for both. The difference of a resample does not have that part.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vad.evaluation.alignment import ScoredVideo, listed
from vad.evaluation.measure import Settings
from vad.evaluation.scores import ScoresError
from vad.metrics.bootstrap import Interval, frame_statistic, interval, resample


@dataclass(frozen=True, slots=True)
class Difference:
    """``first`` minus ``second`` in one metric."""

    metric: str
    first: str
    second: str
    first_value: float
    second_value: float
    difference: Interval
    p: float  # two-sided: how often chance alone would move the difference to the other side of 0; in (0, 1]


def compare(systems: Mapping[str, Sequence[ScoredVideo]], settings: Settings) -> list[Difference]:
    """Every pair of systems in every ranking metric. p values are per comparison, not corrected for their number.

    Raises ScoresError for fewer than two systems, and for systems that were not measured on the same frames.
    """
    if len(systems) < 2:
        raise ScoresError(f"a comparison needs at least two score sets, got {len(systems)}")
    first_name, first_videos = next(iter(systems.items()))
    for name, videos in systems.items():
        _same_frames(first_name, first_videos, name, videos)
    values, resampled = {}, {}
    for name, videos in systems.items():
        statistic = frame_statistic([v.labels_N for v in videos], [v.scores_N for v in videos])
        values[name] = {metric: float(value[0]) for metric, value in statistic(np.ones((1, len(videos)))).items()}
        resampled[name] = resample(statistic, len(videos), resamples=settings.resamples, seed=settings.seed)
    return [
        _difference(metric, first, second, values, resampled, settings.level)
        for metric in values[first_name]
        for first, second in itertools.combinations(systems, 2)
    ]


def _difference(
    metric: str,
    first: str,
    second: str,
    values: Mapping[str, Mapping[str, float]],
    resampled: Mapping[str, Mapping[str, np.ndarray]],
    level: float,
) -> Difference:
    apart = resampled[first][metric] - resampled[second][metric]
    defined = apart[~np.isnan(apart)]
    beyond = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    p = min(1.0, 2 * (beyond + 1) / (len(defined) + 1)) if len(defined) else float("nan")
    value = values[first][metric] - values[second][metric]
    return Difference(
        metric,
        first,
        second,
        values[first][metric],
        values[second][metric],
        interval(value, apart, level=level),
        p,
    )


def _same_frames(first: str, firsts: Sequence[ScoredVideo], other: str, others: Sequence[ScoredVideo]) -> None:
    lengths = {video.name: len(video.scores_N) for video in firsts}
    found = {video.name: len(video.scores_N) for video in others}
    differing = sorted(name for name in lengths.keys() | found.keys() if lengths.get(name) != found.get(name))
    if differing:
        raise ScoresError(
            f"{first} and {other} are not measured on the same frames, so they cannot be compared: {listed(differing)}"
        )
