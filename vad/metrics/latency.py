"""How late: seconds to the first alarm of an event, and precision against recall that fades with the delay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vad.metrics.alarms import TimedVideo, check_unit
from vad.metrics.frame import Counts, run_starts


@dataclass(frozen=True, slots=True)
class FirstAlarms:
    """Delays of all events, in order of the videos; a missed event has the maximum.

    An alarm as late as the maximum is a miss: it is worth as little as none, in the latency-aware AP too.
    """

    delays: Counts  # (events,) seconds from the event's start, in [0, max_delay]
    max_delay: float

    @property
    def mean(self) -> float:
        """Seconds, misses counted at the maximum; NaN without events."""
        return float(self.delays.mean()) if len(self.delays) else float("nan")

    @property
    def median(self) -> float:
        """Seconds; NaN without events."""
        return float(np.median(self.delays)) if len(self.delays) else float("nan")

    @property
    def missed(self) -> float:
        """Share in [0, 1] of events without an alarm before the maximum; NaN without events."""
        return float((self.delays >= self.max_delay).mean()) if len(self.delays) else float("nan")

    def within(self, seconds: float) -> float:
        """Early-detection rate: share in [0, 1] of *all* events that alarm within so many seconds; NaN without events.

        Missed events are in the denominator and never in the numerator, be the allowed time as long as it may.
        """
        return (
            float(((self.delays <= seconds) & (self.delays < self.max_delay)).mean())
            if len(self.delays)
            else float("nan")
        )


def first_alarms(videos: Sequence[TimedVideo], *, threshold: float, max_delay: float) -> FirstAlarms:
    """Seconds from each event's start to its first frame at or above the threshold; 0 when the alarm is on already.

    Misses, and alarms later than ``max_delay``, count as ``max_delay``: left out, a detector that misses hard events
    would look fast. Alarms before the event's start do not count unless they last into it. Raises ValueError for
    scores or a threshold outside [0, 1] and a delay that is not positive.

    >>> late = TimedVideo(np.array([0.9, 0.1, 0.1, 0.1, 0.8]), [(2, 5)], 2.0)
    >>> first_alarms([late], threshold=0.5, max_delay=10).delays
    array([1.])
    """
    check_unit(videos, threshold)
    _check_delay(max_delay)
    delays = []
    for video in videos:
        for start, end in video.events:
            reached = np.flatnonzero(video.scores_N[start:end] >= threshold)
            delays.append(min(reached[0] / video.fps, max_delay) if len(reached) else max_delay)
    return FirstAlarms(np.array(delays, np.float64), max_delay)


def early_detection(found: FirstAlarms, within: Sequence[float]) -> Counts:
    """Share in [0, 1] of all events that alarm within each number of seconds; NaN without events."""
    return np.array([found.within(seconds) for seconds in within], np.float64)


def latency_aware_ap(videos: Sequence[TimedVideo], *, max_delay: float) -> float:
    """Average precision in [0, 1] whose recall fades with the delay; NaN without events.

    Precision is that of frames. Recall is the mean over events of max(0, 1 - delay / max_delay), the delay being that
    to the first frame at or above the threshold. Sum over falling thresholds of (R_n - R_n-1) P_n. The idea is that of
    Liu et al. "Rethinking Metrics and Benchmarks of Video Anomaly Detection" (https://arxiv.org/abs/2505.19022). How
    recall fades there could not be checked: the linear fading is our choice, so do not compare with numbers from there.
    Any finite scores. O(N log N): recall changes only at the running maxima of an event. Raises ValueError for a delay
    that is not positive.

    >>> video = TimedVideo(np.array([0.1, 0.2, 0.9, 0.9]), [(1, 4)], 1.0)  # one second late at 0.9, on time at 0.2
    >>> latency_aware_ap([video], max_delay=4)
    1.0
    >>> latency_aware_ap([TimedVideo(np.array([0.1, 0.0, 0.9]), [(0, 1)], 1.0)], max_delay=4)  # 0.9 is a false alarm
    0.5
    """
    _check_delay(max_delay)
    events = sum(len(video.events) for video in videos)
    if not events:
        return float("nan")
    flags = np.concatenate([video.labels_N for video in videos])
    scores = np.concatenate([video.scores_N for video in videos])
    abnormal, normal = np.sort(scores[flags]), np.sort(scores[~flags])
    thresholds, gains = [], []
    for video in videos:
        for start, end in video.events:
            highest = np.maximum.accumulate(video.scores_N[start:end])
            records = run_starts(highest)  # where the score is higher than ever before in this event
            weight = np.maximum(0, 1 - records / video.fps / max_delay)
            thresholds.append(highest[records])
            gains.append(weight - np.append(weight[1:], 0))  # over falling thresholds the first alarm moves forward
    at, gain = np.concatenate(thresholds), np.concatenate(gains)
    found = len(abnormal) - np.searchsorted(abnormal, at, side="left")
    false = len(normal) - np.searchsorted(normal, at, side="left")
    return float(gain @ (found / (found + false))) / events


def _check_delay(max_delay: float) -> None:
    if not max_delay > 0:
        raise ValueError(f"max_delay must be positive, got {max_delay}")
