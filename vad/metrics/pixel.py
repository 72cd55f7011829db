"""Pixel-level ROC: whether the right pixels are hot.

Masks are (N, H, W), True for abnormal pixels; heat maps are (N, h, w) grids, higher is more anomalous, and a pixel has
the heat of the cell that its centre lies in. Pixels are therefore counted per cell, which gives exactly what maps blown
up to the picture would give. One array per video. A metric with one class only is NaN.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vad.metrics.frame import Counts, Labels, Ranks, Scores, ranks

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class PixelCriterion:
    """The pixel-level criterion over all thresholds; NaN where one kind of frames is missing."""

    auc: float  # area in [0, 1] under the ROC curve of frames
    eer: float  # in [0, 1], lower is better: false-positive rate where it equals the share of abnormal frames missed
    abnormal_frames: int
    normal_frames: int


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


def _pixels(masks_NHW: Labels, heats_NHW: Scores) -> tuple[Counts, Counts]:
    """Abnormal pixels of each cell of each map (N, h, w), and all pixels of each cell (h, w)."""
    if masks_NHW.ndim != 3 or len(masks_NHW) != len(heats_NHW):
        raise ValueError(f"need one map per mask (N, H, W), got {heats_NHW.shape} for {masks_NHW.shape}")
    check_heat(heats_NHW)
    edges_y = cell_edges(masks_NHW.shape[1], heats_NHW.shape[1])
    edges_x = cell_edges(masks_NHW.shape[2], heats_NHW.shape[2])
    abnormal_NHW = np.zeros(heats_NHW.shape)
    for number, mask_HW in enumerate(masks_NHW):
        if mask_HW.any():
            lines = np.add.reduceat(mask_HW, edges_y[:-1], axis=0, dtype=np.int64)
            abnormal_NHW[number] = np.add.reduceat(lines, edges_x[:-1], axis=1)
    return abnormal_NHW, np.outer(np.diff(edges_y), np.diff(edges_x)).astype(np.float64)


def cell_edges(pixels: int, cells: int) -> npt.NDArray[np.int64]:
    """Where each cell's pixels begin and the last one's end: pixel p is of the cell that holds p + 1/2.

    >>> cell_edges(5, 2).tolist()
    [0, 2, 5]
    """
    if not 1 <= cells <= pixels:
        raise ValueError(f"a heat map must not be finer than the picture, got {cells} cells for {pixels} pixels")
    return np.searchsorted((2 * np.arange(pixels) + 1) * cells // (2 * pixels), np.arange(cells + 1))


def _per_level(heat_C: Scores, counts_2C: Counts) -> tuple[Scores, Counts]:
    """Distinct values, rising, and the sums of the counts at each: (L,), (2, L)."""
    level_L, where_C = np.unique(heat_C, return_inverse=True)
    return level_L, np.stack([np.bincount(where_C, counts_C, len(level_L)) for counts_C in counts_2C])


def check_heat(heats_NHW: Scores) -> None:
    """Refuse what is no row of maps, and maps that lack a value. Raises ValueError."""
    if heats_NHW.ndim != 3:
        raise ValueError(f"heat maps must be (N, h, w), got {heats_NHW.shape}")
    if missing := int(np.isnan(heats_NHW).any(axis=(1, 2)).sum()):
        raise ValueError(f"{missing} frames have no complete heat map; decide what they count as before measuring")
