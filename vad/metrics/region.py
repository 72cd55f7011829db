"""Region- and track-based detection criteria: whether the right objects are found, at how many false regions.

A criterion without the truth that it needs (no region) is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vad.metrics.frame import Counts
from vad.metrics.tracks import Detections, Tracks, Whole

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class RegionMetrics:
    """Region- and track-based detection, each in [0, 1], with the points of the curves, thresholds falling."""

    rbdc: float
    tbdc: float
    false_per_frame_P: Counts  # false-positive regions per frame of all videos; may fall where regions merge
    region_recall_P: Counts
    track_recall_P: Counts
    regions: int
    tracks: int
    frames: int


def rbdc_tbdc(
    truth: Sequence[Tracks], detections: Sequence[Detections], *, alpha: float = 0.1, beta: float = 0.1
) -> RegionMetrics:
    """Region- and track-based detection criteria of all videos together.

    At a threshold, a true region is found if a standing detection of its frame has an IoU of at least ``beta`` with
    it; a track if at least the share ``alpha`` of its regions is found; a detection that has such an IoU with no true
    region is a false positive. Further detections of a found region count neither way, and one detection may find
    several regions. The criterion is the integral over x in [0, 1] of the highest recall that any threshold reaches
    with at most x false positives per frame. So recall is 0 before the first point, stays flat where the detections
    end before x = 1 and never falls where regions merge at low thresholds; no detections give 0, no regions NaN.

    Ramachandra, Jones, "Street Scene", WACV 2020, https://arxiv.org/abs/1902.05872. Differs from the paper: regions
    are compared by their boxes, and points are not joined by straight lines, which would give a detector with few
    levels recall at rates of false positives that it cannot be set to.

    Raises ValueError: no video, unequal numbers of videos, a detection after the last frame, alpha or beta
    outside (0, 1].
    """
    if not truth or len(truth) != len(detections):
        raise ValueError(f"need truth and detections of each video, got {len(truth)} and {len(detections)}")
    if not (0 < alpha <= 1 and 0 < beta <= 1):
        raise ValueError(f"alpha and beta must lie in (0, 1], got {alpha} and {beta}")
    region_M, lows_M, highs_M, lows_F, highs_F, track_R = _match(truth, detections, beta)
    size_K = np.bincount(track_R)
    # a threshold falls from event to event: a detection begins to stand at its score and ends just below its lowest
    heights, lows = np.concatenate([highs_M, highs_F]), np.concatenate([lows_M, lows_F])
    times, time_E = np.unique(-np.concatenate([heights, np.nextafter(lows, -np.inf)]), return_inverse=True)
    begin, end = time_E[: len(heights)], time_E[len(heights) :]
    matches = len(region_M)
    false = _Events(np.zeros(2 * len(lows_F), int), np.r_[begin[matches:], end[matches:]], _up_down(len(lows_F)))
    covered = _Events(np.r_[region_M, region_M], np.r_[begin[:matches], end[:matches]], _up_down(matches))
    regions = _crossings(covered, np.ones(len(track_R)))
    tracks = _crossings(regions._replace(key=track_R[regions.key]), np.ceil(alpha * size_K - _ROUNDING))
    frames = sum(one.num_frames for one in truth)
    per_frame = _running(false, len(times)) / max(frames, 1)
    region_recall = _running(regions, len(times)) / max(len(track_R), 1)
    track_recall = _running(tracks, len(times)) / max(len(size_K), 1)
    return RegionMetrics(
        _area(per_frame, region_recall) if len(track_R) else float("nan"),
        _area(per_frame, track_recall) if len(track_R) else float("nan"),
        per_frame,
        region_recall,
        track_recall,
        len(track_R),
        len(size_K),
        frames,
    )


def iou(boxes_A4: Whole, boxes_B4: Whole) -> Counts:
    """Intersection over union in [0, 1] of each box with each other: (A, B).

    >>> iou(np.array([[0, 0, 2, 2]]), np.array([[1, 0, 3, 2], [2, 0, 4, 2]])).round(3).tolist()
    [[0.333, 0.0]]
    """
    low = np.maximum(boxes_A4[:, None, :2], boxes_B4[None, :, :2])
    high = np.minimum(boxes_A4[:, None, 2:], boxes_B4[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    area_A, area_B = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (boxes_A4, boxes_B4))
    return shared / (area_A[:, None] + area_B - shared)


class _Events(NamedTuple):
    """At ``time`` the count of ``key`` changes by ``step``."""

    key: Whole
    time: Whole
    step: Counts


def _up_down(count: int) -> Counts:
    return np.repeat([1.0, -1.0], count)


def _crossings(events: _Events, need_K: Counts) -> _Events:
    """When each key's running count comes to reach what it needs (+1), and when it no longer does (-1)."""
    order = np.lexsort((events.time, events.key))
    key, time = events.key[order], events.time[order]
    last = np.append((key[1:] != key[:-1]) | (time[1:] != time[:-1]), True)[: len(key)]  # of those at one time
    count = np.cumsum(events.step[order])[last]  # every key ends at 0, where all its detections have ended
    key, time = key[last], time[last]
    reached = count >= need_K[key]
    changed = reached != np.append(False, reached[:-1])[: len(reached)]
    return _Events(key[changed], time[changed], np.where(reached, 1.0, -1.0)[changed])


def _running(events: _Events, times: int) -> Counts:
    """Sum of all steps up to each time, after a 0 for a threshold above all; not at the last, where all have ended."""
    return np.append(0.0, np.cumsum(np.bincount(events.time, events.step, times))[:-1])


def _area(false_P: Counts, recall_P: Counts) -> float:
    """Integral over [0, 1] of the highest recall of the points with at most that many false positives."""
    order = np.argsort(false_P, kind="stable")
    best = np.maximum.accumulate(recall_P[order])
    return float(best @ np.diff(np.append(false_P[order], np.inf).clip(max=1)))


def _match(
    truth: Sequence[Tracks], detections: Sequence[Detections], beta: float
) -> tuple[Whole, Counts, Counts, Counts, Counts, Whole]:
    """(region, lowest, score) of each match, (lowest, score) of each false positive, track of each region."""
    regions, lows, highs, false_lows, false_highs, tracks = [], [], [], [], [], []
    region, track = 0, 0
    for true, found in zip(truth, detections, strict=True):
        if len(found.frame_B) and found.frame_B.max() >= true.num_frames:
            raise ValueError(f"the video has {true.num_frames} frames, got a detection in frame {found.frame_B.max()}")
        high_B = found.score_B.astype(np.float64)
        low_B = np.full(len(high_B), -np.inf) if found.lowest_B is None else found.lowest_B.astype(np.float64)
        order = np.argsort(found.frame_B, kind="stable")
        hit_B = np.zeros(len(order), bool)
        for frame in np.unique(true.frame_R):
            here_R = np.flatnonzero(true.frame_R == frame)
            first, last = np.searchsorted(found.frame_B[order], [frame, frame + 1])
            here_B = order[first:last]
            b, r = np.nonzero(iou(found.boxes_B4[here_B], true.boxes_R4[here_R]) >= beta)
            hit_B[here_B[b]] = True
            regions.append(region + here_R[r])
            lows.append(low_B[here_B[b]])
            highs.append(high_B[here_B[b]])
        false_lows.append(low_B[~hit_B])
        false_highs.append(high_B[~hit_B])
        numbers, own_R = np.unique(true.track_R, return_inverse=True)
        tracks.append(track + own_R)
        region, track = region + len(own_R), track + len(numbers)
    none, nobody = np.empty(0), np.empty(0, np.int64)
    return (
        np.concatenate([nobody, *regions]),
        np.concatenate([none, *lows]),
        np.concatenate([none, *highs]),
        np.concatenate(false_lows),
        np.concatenate(false_highs),
        np.concatenate(tracks),
    )
