"""Regions of a video: what a detector found, and what truly is there, linked to tracks.

Masks are (N, H, W), True for abnormal pixels; heat maps are (N, h, w) grids, higher is more anomalous, and a pixel has
the heat of the cell that its centre lies in. Boxes are half-open pixels (x0, y0, x1, y1). One object per video.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vad.metrics.frame import Counts, Labels, Scores
from vad.metrics.pixel import cell_edges, check_heat

Whole = npt.NDArray[np.integer]
Box = tuple[int, int, int, int]

THRESHOLDS = tuple(k / 100 for k in range(1, 100))  # of calibrated heat; fixed, so nothing is chosen on test videos
_TOUCHING = np.ones((3, 3), np.int64)  # cells that meet at a corner are one region


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
    check_heat(heats_NHW)
    edges_x, edges_y = cell_edges(size[0], heats_NHW.shape[2]), cell_edges(size[1], heats_NHW.shape[1])
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


def _check_boxes(frame_B: Whole, boxes_B4: Whole, other_B: npt.NDArray[np.generic]) -> None:
    if boxes_B4.shape != (len(frame_B), 4) or len(other_B) != len(frame_B):
        raise ValueError(f"need a frame for each box (x0, y0, x1, y1), got {len(frame_B)} and {boxes_B4.shape}")
    if len(frame_B) and frame_B.min() < 0:
        raise ValueError(f"frames count from 0, got {frame_B.min()}")
    if not np.all(boxes_B4[:, :2] < boxes_B4[:, 2:]):
        raise ValueError("a box needs x0 < x1 and y0 < y1")
