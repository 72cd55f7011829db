"""Where in the picture: pixel-level ROC, and the region- and track-based detection criteria.

Masks are (N, H, W), True for abnormal pixels; heat maps are (N, h, w) grids, higher is more anomalous, and a pixel has
the heat of the cell that its centre lies in. Pixels are therefore counted per cell, which gives exactly what maps blown
up to the picture would give. Boxes are half-open pixels (x0, y0, x1, y1). One array or object per video. A criterion
without the truth that it needs (no abnormal pixel, no region) is NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vad.metrics.frame import Counts, Labels, Ranks, Scores, ranks

Whole = npt.NDArray[np.integer]
Box = tuple[int, int, int, int]

THRESHOLDS = tuple(k / 100 for k in range(1, 100))  # of calibrated heat; fixed, so nothing is chosen on test videos
_TOUCHING = np.ones((3, 3), np.int64)  # cells that meet at a corner are one region
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class PixelCriterion:
    """The pixel-level criterion over all thresholds; NaN where one kind of frames is missing."""

    auc: float  # area in [0, 1] under the ROC curve of frames
    eer: float  # in [0, 1], lower is better: false-positive rate where it equals the share of abnormal frames missed
    abnormal_frames: int
    normal_frames: int


@dataclass(frozen=True, slots=True)
class Tracks:
    """The abnormal regions of one video; regions of one object have the same track number."""

    frame_R: Whole  # (R,)
    boxes_R4: Whole  # (R, 4)
    track_R: Whole  # (R,) any numbers, of this video only
    num_frames: int

    def __post_init__(self) -> None:
        _check_boxes(self.frame_R, self.boxes_R4, self.track_R)
        if len(self.frame_R) and self.frame_R.max() >= self.num_frames:
            raise ValueError(f"the video has {self.num_frames} frames, got a region in frame {self.frame_R.max()}")


@dataclass(frozen=True, slots=True)
class Detections:
    """The regions that a detector found in one video. At a threshold t those with ``lowest <= t <= score`` stand."""

    frame_B: Whole  # (B,)
    boxes_B4: Whole  # (B, 4)
    score_B: Scores  # (B,)
    lowest_B: Scores | None = None  # (B,) None: stands at every threshold up to its score, as with an object detector

    def __post_init__(self) -> None:
        _check_boxes(self.frame_B, self.boxes_B4, self.score_B)
        if np.isnan(self.score_B).any():
            raise ValueError(f"{np.isnan(self.score_B).sum()} detections have no score")
        if self.lowest_B is not None and not (
            len(self.lowest_B) == len(self.score_B) and np.all(self.lowest_B <= self.score_B)
        ):
            raise ValueError("lowest must give each detection a threshold that is not above its score")


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


def pixel_ranks(masks: Iterable[Labels], heats: Iterable[Scores]) -> Ranks:
    """Rank the abnormal pixels of all videos among the normal ones: ``auc``, ``average_precision``, ``tie_rate``.

    One video is looked at at a time; what is kept is two counts per distinct heat of it. Raises ValueError: unequal
    numbers of videos or frames, a map without a value (NaN) or finer than its masks.
    """
    levels, counts = [], []
    for masks_NHW, heats_NHW in zip(masks, heats, strict=True):
        abnormal_NHW, area_HW = _pixels(masks_NHW, heats_NHW)
        pixels = np.stack([abnormal_NHW, area_HW - abnormal_NHW]).reshape(2, -1)
        level_L, counts_2L = _per_level(heats_NHW.ravel(), pixels)
        levels.append(level_L)
        counts.append(counts_2L)
    if not levels:
        raise ValueError("there is no video to measure")
    _, (abnormal_L, normal_L) = _per_level(np.concatenate(levels), np.concatenate(counts, axis=1))
    abnormal_L, normal_L = abnormal_L[::-1], normal_L[::-1]
    level_L, there = np.cumsum(normal_L), abnormal_L > 0
    return Ranks(abnormal_L[there], (level_L - normal_L)[there], level_L[there], float(normal_L.sum()))


def pixel_auc(masks: Iterable[Labels], heats: Iterable[Scores]) -> float:
    """Area in [0, 1] under the ROC curve of all pixels of all frames together, ties counting half.

    NaN with one class only. Pixels of large objects dominate it. Errors: as ``pixel_ranks``.

    >>> mask = np.zeros((1, 4, 4), bool)
    >>> mask[0, :2, :2] = True
    >>> pixel_auc([mask], [np.array([[[0.9, 0.1], [0.1, 0.1]]])])
    1.0
    """
    return pixel_ranks(masks, heats).auc


def pixel_criterion(masks: Iterable[Labels], heats: Iterable[Scores], *, share: float = 0.4) -> PixelCriterion:
    """The pixel-level criterion: ROC over frames, where finding a frame means finding its abnormal pixels.

    At a threshold, an abnormal frame is found if at least ``share`` of its abnormal pixels are flagged, a normal frame
    is a false positive if any pixel is. Mahadevan, Li, Bhalodia, Vasconcelos, "Anomaly Detection in Crowded Scenes",
    CVPR 2010. It cannot see false pixels in abnormal frames: flagging everything finds every frame. The equal error
    rate is taken on straight lines between the points of the curve. Errors: as ``pixel_ranks``; share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], got {share}")
    flags, scores = [], []
    for masks_NHW, heats_NHW in zip(masks, heats, strict=True):
        abnormal_NC = _pixels(masks_NHW, heats_NHW)[0].reshape(len(masks_NHW), -1)
        heat_NC = heats_NHW.reshape(len(heats_NHW), -1)
        order_NC = np.argsort(-heat_NC, axis=1)
        found_NC = np.cumsum(np.take_along_axis(abnormal_NC, order_NC, 1), axis=1)
        # the first cell by which enough is flagged: number 0, the hottest, in a frame with nothing to find
        enough_N = np.argmax(found_NC >= share * found_NC[:, -1:] - _ROUNDING, axis=1)
        heat_at_NC = np.take_along_axis(heat_NC, order_NC, 1)
        flags.append(found_NC[:, -1] > 0)
        scores.append(heat_at_NC[np.arange(len(heat_NC)), enough_N])
    if not flags:
        raise ValueError("there is no video to measure")
    frames = ranks(np.concatenate(flags), np.concatenate(scores))
    return PixelCriterion(frames.auc, equal_error_rate(frames), int(frames.abnormal), int(frames.normal))


def equal_error_rate(found: Ranks) -> float:
    """False-positive rate in [0, 1] at the point of the ROC curve where as large a share is missed; NaN: one class.

    >>> equal_error_rate(ranks(np.array([False, True]), np.array([0.5, 0.5])))
    0.5
    """
    if not found.abnormal or not found.normal:
        return float("nan")
    recall_G = np.cumsum(found.abnormal_G) / found.abnormal
    x = np.concatenate([[0], np.stack([found.above_G, found.level_G], axis=1).ravel() / found.normal, [1]])
    y = np.concatenate([[0], np.stack([np.append(0, recall_G[:-1]), recall_G], axis=1).ravel(), [1]])
    return float(np.interp(1, x + y, x))


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


def detections_from_heat(
    heats_NHW: Scores, *, size: tuple[int, int], thresholds: Sequence[float] = THRESHOLDS
) -> Detections:
    """Regions of one video's heat maps at rising ``thresholds``, as boxes in a picture of ``size`` (width, height).

    The regions at a threshold are the connected parts (corners connect) of the cells that reach it. They stand from it
    up to the next threshold, but no further than the highest heat inside. So one threshold gives fixed boxes, each
    with its highest heat as the score; many give regions formed anew at each, as in the paper. Raises
    ValueError: NaN, thresholds that do not rise, a map finer than the picture.
    """
    levels = np.asarray(thresholds, np.float64)
    if not len(levels) or not np.all(np.diff(levels) > 0):
        raise ValueError(f"thresholds must rise, got {list(thresholds)}")
    _check_heat(heats_NHW)
    edges_x, edges_y = _edges(size[0], heats_NHW.shape[2]), _edges(size[1], heats_NHW.shape[1])
    rows: list[tuple[int, Box, float, float]] = []
    standing: list[tuple[Box, float, float]] = []
    for number, heat_HW in enumerate(heats_NHW):
        if not number or not np.array_equal(heat_HW, heats_NHW[number - 1]):  # a map is held over several frames
            standing = _components(heat_HW.astype(np.float64), levels)
        rows += [(number, *one) for one in standing]
    x0_B, y0_B, x1_B, y1_B = np.array([row[1] for row in rows], np.int64).reshape(-1, 4).T
    return Detections(
        np.array([row[0] for row in rows], np.int64),
        np.stack([edges_x[x0_B], edges_y[y0_B], edges_x[x1_B], edges_y[y1_B]], axis=1),
        np.array([row[2] for row in rows], np.float64),
        np.array([row[3] for row in rows], np.float64),
    )


def tracks_from_masks(masks_NHW: Labels) -> Tracks:
    """Regions and tracks of one video from its masks, where no track files are at hand.

    Regions are the connected parts (corners connect) of each mask. A region goes on the track of the region of the
    frame before that it shares the most with (highest IoU of pixels first, each region once); without one it begins a
    track. Differs from annotated tracks: objects that touch are one region; a track ends where its object is hidden.
    """
    from scipy import ndimage

    frames: list[int] = []
    boxes: list[Box] = []
    tracks: list[int] = []
    before: Whole = np.zeros(masks_NHW.shape[1:], np.int64)
    before_tracks: list[int] = []
    begun = 0
    for number, mask_HW in enumerate(masks_NHW):
        labels, count = ndimage.label(mask_HW, _TOUCHING)
        follows = _linked(before, labels)
        here = []
        for region, (rows, columns) in enumerate(ndimage.find_objects(labels)):
            if region in follows:
                here.append(before_tracks[follows[region]])
            else:
                here.append(begun)
                begun += 1
            boxes.append((columns.start, rows.start, columns.stop, rows.stop))
        frames += [number] * count
        tracks += here
        before, before_tracks = labels, here
    return Tracks(
        np.array(frames, np.int64), np.array(boxes, np.int64).reshape(-1, 4), np.array(tracks, np.int64), len(masks_NHW)
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


def _components(heat_HW: Counts, levels: Counts) -> list[tuple[Box, float, float]]:
    """(box in cells, highest, lowest threshold at which it stands) of one map."""
    from scipy import ndimage

    ceilings = np.append(np.nextafter(levels[1:], -np.inf), np.inf)
    standing: dict[Box, float] = {}
    ended: list[tuple[Box, float, float]] = []
    for k in reversed(range(len(levels))):
        labels, count = ndimage.label(heat_HW >= levels[k], _TOUCHING)
        peaks = ndimage.maximum(heat_HW, labels, np.arange(1, count + 1))
        here: dict[Box, float] = {}  # no two parts have one box: paths across it both ways would meet
        for (rows, columns), peak in zip(ndimage.find_objects(labels), peaks, strict=True):
            here[columns.start, rows.start, columns.stop, rows.stop] = float(peak)
        gone = [box for box in standing if box not in here]
        ended += [(box, standing.pop(box), float(levels[k + 1])) for box in gone]
        for box, peak in here.items():
            standing.setdefault(box, min(peak, float(ceilings[k])))
    return ended + [(box, high, float(levels[0])) for box, high in standing.items()]


def _linked(before_HW: Whole, labels_HW: Whole) -> dict[int, int]:
    """Region number -> number of the region of the frame before that it goes on from, both counted from 0."""
    size_B, size_A = np.bincount(before_HW.ravel())[1:], np.bincount(labels_HW.ravel())[1:]
    width = len(size_A) + 1
    shared = np.bincount((before_HW * width + labels_HW).ravel(), minlength=(len(size_B) + 1) * width)
    shared_BA = shared.reshape(len(size_B) + 1, width)[1:, 1:]
    iou_BA = shared_BA / (size_B[:, None] + size_A - shared_BA)
    follows: dict[int, int] = {}
    for place in np.argsort(-iou_BA, axis=None, kind="stable")[: np.count_nonzero(shared_BA)]:
        b, a = divmod(int(place), max(len(size_A), 1))
        if a not in follows and b not in follows.values():
            follows[a] = b
    return follows


def _pixels(masks_NHW: Labels, heats_NHW: Scores) -> tuple[Counts, Counts]:
    """Abnormal pixels of each cell of each map (N, h, w), and all pixels of each cell (h, w)."""
    if masks_NHW.ndim != 3 or len(masks_NHW) != len(heats_NHW):
        raise ValueError(f"need one map per mask (N, H, W), got {heats_NHW.shape} for {masks_NHW.shape}")
    _check_heat(heats_NHW)
    edges_y = _edges(masks_NHW.shape[1], heats_NHW.shape[1])
    edges_x = _edges(masks_NHW.shape[2], heats_NHW.shape[2])
    abnormal_NHW = np.zeros(heats_NHW.shape)
    for number, mask_HW in enumerate(masks_NHW):
        if mask_HW.any():
            lines = np.add.reduceat(mask_HW, edges_y[:-1], axis=0, dtype=np.int64)
            abnormal_NHW[number] = np.add.reduceat(lines, edges_x[:-1], axis=1)
    return abnormal_NHW, np.outer(np.diff(edges_y), np.diff(edges_x)).astype(np.float64)


def _edges(pixels: int, cells: int) -> npt.NDArray[np.int64]:
    """Where each cell's pixels begin and the last one's end: pixel p is of the cell that holds p + 1/2.

    >>> _edges(5, 2).tolist()
    [0, 2, 5]
    """
    if not 1 <= cells <= pixels:
        raise ValueError(f"a heat map must not be finer than the picture, got {cells} cells for {pixels} pixels")
    return np.searchsorted((2 * np.arange(pixels) + 1) * cells // (2 * pixels), np.arange(cells + 1))


def _per_level(heat_C: Scores, counts_2C: Counts) -> tuple[Scores, Counts]:
    """Distinct values, rising, and the sums of the counts at each: (L,), (2, L)."""
    level_L, where_C = np.unique(heat_C, return_inverse=True)
    return level_L, np.stack([np.bincount(where_C, counts_C, len(level_L)) for counts_C in counts_2C])


def _check_heat(heats_NHW: Scores) -> None:
    if heats_NHW.ndim != 3:
        raise ValueError(f"heat maps must be (N, h, w), got {heats_NHW.shape}")
    if missing := int(np.isnan(heats_NHW).any(axis=(1, 2)).sum()):
        raise ValueError(f"{missing} frames have no complete heat map; decide what they count as before measuring")


def _check_boxes(frame_B: Whole, boxes_B4: Whole, other_B: npt.NDArray[np.generic]) -> None:
    if boxes_B4.shape != (len(frame_B), 4) or len(other_B) != len(frame_B):
        raise ValueError(f"need a frame for each box (x0, y0, x1, y1), got {len(frame_B)} and {boxes_B4.shape}")
    if len(frame_B) and frame_B.min() < 0:
        raise ValueError(f"frames count from 0, got {frame_B.min()}")
    if not np.all(boxes_B4[:, :2] < boxes_B4[:, 2:]):
        raise ValueError("a box needs x0 < x1 and y0 < y1")
