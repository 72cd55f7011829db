"""Alarms at a threshold, and how many false ones a given share of found events costs.

An alarm is a longest run of frames with a score at or above the threshold. It is false when no event touches it. A
normal video is one without events. What takes a threshold wants scores in [0, 1]: elsewhere a threshold means nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vad.metrics.frame import Counts, Labels, Scores, run_starts

PER_WEEK = 1 / 168  # per hour


@dataclass(frozen=True, slots=True)
class TimedVideo:
    """A video with its scores, its abnormal stretches and its frame rate."""

    scores_N: Scores  # finite, higher for more anomalous
    events: Sequence[tuple[int, int]]  # half-open frames, in order, apart from each other; none in a normal video
    fps: float

    def __post_init__(self) -> None:
        if self.scores_N.ndim != 1:
            raise ValueError(f"scores must be (N,), got {self.scores_N.shape}")
        if not np.isfinite(self.scores_N).all():
            raise ValueError(f"{int((~np.isfinite(self.scores_N)).sum())} frames have no finite score")
        if not 0 < self.fps < np.inf:
            raise ValueError(f"fps must be positive and finite, got {self.fps}")
        before = -1
        for start, end in self.events:
            if not max(before, 0) <= start < end <= len(self.scores_N) or start == before:
                raise ValueError(
                    f"events must be in order, apart, and inside {len(self.scores_N)} frames, got {list(self.events)}"
                )
            before = end

    @property
    def labels_N(self) -> Labels:
        """True for the frames inside an event."""
        labels_N = np.zeros(len(self.scores_N), bool)
        for start, end in self.events:
            labels_N[start:end] = True
        return labels_N


@dataclass(frozen=True, slots=True)
class FalseAlarmRate:
    """Share in [0, 1] of normal frames at or above the threshold; NaN without such frames."""

    normal_videos: float  # frames of normal videos only, as MIST (2104.01633) and PEL4VAD (2306.14451) count
    all_videos: float  # normal frames of all videos, as LaGoVAD (2503.13160) counts


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """False alarms per hour of normal footage; NaN without any."""

    normal_videos: float  # alarms and hours of normal videos only
    all_videos: float  # alarms that touch no event, and hours outside events, of all videos

    @property
    def normal_videos_per_day(self) -> float:
        """False alarms in 24 hours of normal videos."""
        return 24 * self.normal_videos

    @property
    def all_videos_per_day(self) -> float:
        """False alarms in 24 hours of normal frames of all videos."""
        return 24 * self.all_videos


@dataclass(frozen=True, slots=True)
class LowFalseAlarmRecall:
    """How many events are found at few false alarms."""

    integral: float  # mean recall in [0, 1] over the logarithm of the rate; NaN without events or normal video
    rates_P: Counts  # false alarms per hour, rising: one per distinct peak of an event, thresholds falling
    recalls_P: Counts  # share of events found there; holds until the next rate
    hours: float  # of normal video

    @property
    def resolution_per_hour(self) -> float:
        """One false alarm in all of the normal video: rates below are "none seen", however low; NaN without any."""
        return 1 / self.hours if self.hours else float("nan")


def alarm_runs(scores_N: Scores, *, threshold: float) -> list[tuple[int, int]]:
    """Alarms as half-open frames, in order.

    >>> alarm_runs(np.array([0.1, 0.6, 0.5, 0.2, 0.9]), threshold=0.5)
    [(1, 3), (4, 5)]
    """
    edges = np.flatnonzero(np.diff((scores_N >= threshold).astype(np.int8), prepend=0, append=0))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def is_false(alarm: tuple[int, int], events: Sequence[tuple[int, int]]) -> bool:
    """Whether no event shares a frame with the alarm."""
    return not any(start < alarm[1] and alarm[0] < end for start, end in events)


def false_alarm_rate(videos: Sequence[TimedVideo], *, threshold: float) -> FalseAlarmRate:
    """Share in [0, 1] of normal frames with a score at or above the threshold.

    Frames, not alarms: one long false alarm weighs as much as many short ones; see `false_alarms_per_hour`. Raises
    ValueError for scores or a threshold outside [0, 1].

    >>> false_alarm_rate([TimedVideo(np.array([0.1, 0.9, 0.5, 0.9]), [(3, 4)], 25.0)], threshold=0.5)
    FalseAlarmRate(normal_videos=nan, all_videos=0.6666666666666666)
    """
    check_unit(videos, threshold)
    counts = [
        (bool(v.events), int((v.scores_N[~v.labels_N] >= threshold).sum()), int((~v.labels_N).sum())) for v in videos
    ]
    return FalseAlarmRate(
        _share(sum(n for has, n, _ in counts if not has), sum(n for has, _, n in counts if not has)),
        _share(sum(n for _, n, _ in counts), sum(n for _, _, n in counts)),
    )


def false_alarms_per_hour(videos: Sequence[TimedVideo], *, threshold: float) -> FalseAlarms:
    """Alarms that share no frame with an event / hours of normal frames. One that begins before an event is not false.

    Raises ValueError for scores or a threshold outside [0, 1].

    >>> quiet = TimedVideo(np.array([0.9, 0.1, 0.9, 0.9]), [], 1.0)
    >>> false_alarms_per_hour([quiet], threshold=0.5).normal_videos  # 2 in 4 seconds
    1800.0
    """
    check_unit(videos, threshold)
    counts = [(bool(v.events), *false_alarms(v, threshold=threshold)) for v in videos]
    return FalseAlarms(
        _share(sum(n for has, n, _ in counts if not has), sum(h for has, _, h in counts if not has)),
        _share(sum(n for _, n, _ in counts), sum(h for _, _, h in counts)),
    )


def false_alarms(video: TimedVideo, *, threshold: float) -> tuple[int, float]:
    """False alarms of one video, and its hours of normal frames: what a resampling of videos sums up."""
    runs = alarm_runs(video.scores_N, threshold=threshold)
    return sum(is_false(run, video.events) for run in runs), float((~video.labels_N).sum()) / video.fps / 3600


def low_false_alarm_recall(
    videos: Sequence[TimedVideo], *, lowest_per_hour: float = PER_WEEK, highest_per_hour: float = 1.0
) -> LowFalseAlarmRecall:
    """Share of events found, averaged over the logarithm of false alarms per hour, one a week to one an hour.

    An event is found at a threshold that any of its frames reaches. False alarms are counted on normal videos alone.
    As the threshold falls runs merge, so a low threshold can have fewer alarms than a high one; nobody would call an
    everlasting alarm quiet, so the rate is the highest of all thresholds from there up. The steps are integrated
    exactly. In the spirit of AUPIMO (Bertoldo et al. 2024, https://arxiv.org/abs/2401.01984), which averages recall
    over a logarithm of the false-positive rate on normal images. O(N log N).

    Any finite scores; NaN without events or normal videos. Where no rate up to ``highest_per_hour`` finds an event it
    is 0. Raises ValueError for rates that do not rise from above 0.
    """
    if not 0 < lowest_per_hour < highest_per_hour:
        raise ValueError(f"rates must rise from above 0, got {lowest_per_hour} to {highest_per_hour}")
    peaks = np.sort([float(v.scores_N[start:end].max()) for v in videos for start, end in v.events])[::-1]
    normal = [v for v in videos if not v.events and len(v.scores_N)]
    hours = float(sum(len(v.scores_N) / v.fps for v in normal)) / 3600
    if not len(peaks) or not normal:
        return LowFalseAlarmRecall(float("nan"), np.empty(0), np.empty(0), hours)
    levels, most = _most_runs(normal)  # thresholds falling, the highest number of runs from each up
    thresholds = peaks[run_starts(peaks)]
    recalls = np.searchsorted(-peaks, -thresholds, side="right") / len(peaks)
    reached = np.searchsorted(-levels, -thresholds, side="right")  # levels at or above each threshold
    rates = np.append(0, most)[reached] / hours
    edges = np.concatenate(
        [[lowest_per_hour], rates[(rates > lowest_per_hour) & (rates < highest_per_hour)], [highest_per_hour]]
    )
    best = np.append(0.0, recalls)[np.searchsorted(rates, edges[:-1], side="right")]
    widths = np.diff(np.log(edges))
    integral = min(float(best @ widths / widths.sum()), 1.0)  # 1 + 1e-16 is possible
    return LowFalseAlarmRecall(integral, rates, recalls, hours)


def _most_runs(videos: Sequence[TimedVideo]) -> tuple[Scores, Counts]:
    """Distinct scores, falling, and the most alarms at any threshold from each up.

    Frame i begins an alarm at thresholds in (score of i - 1, score of i]. So the alarms at t are the frames that
    reach t less those of which the frame before reaches it too.
    """
    scores = np.sort(np.concatenate([v.scores_N for v in videos]))[::-1]
    both = np.sort(np.concatenate([np.minimum(v.scores_N[1:], v.scores_N[:-1]) for v in videos]))[::-1]
    starts = run_starts(scores)
    levels = scores[starts]
    frames = np.append(starts[1:], len(scores))
    runs = frames - np.searchsorted(-both, -levels, side="right")
    return levels, np.maximum.accumulate(runs).astype(np.float64)


def check_unit(videos: Sequence[TimedVideo], threshold: float) -> None:
    """Raises ValueError where a threshold means nothing: scores or threshold outside [0, 1]."""
    if not 0 <= threshold <= 1:
        raise ValueError(f"a threshold must lie in [0, 1], got {threshold}")
    for video in videos:
        if len(video.scores_N) and not (video.scores_N.min() >= 0 and video.scores_N.max() <= 1):
            raise ValueError(
                f"scores must lie in [0, 1] for a threshold, got {video.scores_N.min():g} to {video.scores_N.max():g}"
            )


def _share(over: float, under: float) -> float:
    return over / under if under else float("nan")
