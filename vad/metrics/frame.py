"""Frame-level ROC area under curve.

Labels are 0 normal, 1 abnormal, one per frame; scores are higher for more anomalous frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vad.types import Array

Labels = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class FrameAUC:
    """Micro and macro AUC of a set of videos, each in [0, 1], 0.5 for chance."""

    micro: float  # all frames of all videos together
    macro: float  # mean over videos that have both normal and abnormal frames; NaN when none has
    macro_videos: int  # how many those are


def auc(labels_N: Labels, scores_N: Array) -> float:
    """Probability that an abnormal frame scores higher than a normal one; ties count half. NaN with one class only.

    The Mann-Whitney statistic over (abnormal x normal) pairs. Raises ValueError for unequal lengths and NaN scores.

    >>> auc(np.array([False, True, True]), np.float32([0.1, 0.1, 0.9]))
    0.75
    """
    if len(labels_N) != len(scores_N):
        raise ValueError(f"labels and scores must be equally long, got {len(labels_N)} and {len(scores_N)}")
    if np.isnan(scores_N).any():
        raise ValueError(f"{np.isnan(scores_N).sum()} frames have no score; decide what they count as before measuring")
    positives = int(labels_N.sum())
    negatives = len(labels_N) - positives
    if not positives or not negatives:
        return float("nan")
    _, place, counts = np.unique(scores_N, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = float(mean_rank[place][labels_N].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def frame_auc(labels: Sequence[Labels], scores: Sequence[Array]) -> FrameAUC:
    """Micro and macro AUC of videos given one by one; a video of unequal lengths raises ValueError."""
    each = [auc(one_labels, one_scores) for one_labels, one_scores in zip(labels, scores, strict=True)]
    defined = [value for value in each if not np.isnan(value)]
    return FrameAUC(
        auc(np.concatenate(labels), np.concatenate(scores)),
        float(np.mean(defined)) if defined else float("nan"),
        len(defined),
    )
