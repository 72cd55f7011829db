"""Frame-level ranking metrics: areas under the ROC and the precision-recall curve.

Labels are True for abnormal frames; scores are higher for more anomalous frames, of any scale. Frames with equal
scores are taken together, so that no result depends on the order of frames. A metric that is not defined for the
input (one class only, no frames) is NaN; a frame without a score is an error, because what it counts as is a decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.floating]
Counts = npt.NDArray[np.float64]
_TINY = np.finfo(np.float64).tiny  # a divisor where nothing is flagged, and the quotient 0


@dataclass(frozen=True, slots=True)
class Ranks:
    """Where the abnormal frames stand among the normal ones: all that a ranking metric needs to know.

    One entry per distinct score of an abnormal frame, highest first. Counts may be sums of weights, and may have a
    second axis, (G, R) and (R,), for R sets of weights at once: ``roc_area`` and its like then give (R,).
    """

    abnormal_G: Counts  # abnormal frames with this score
    above_G: Counts  # normal frames with a higher score
    level_G: Counts  # normal frames with this score or a higher one
    normal: Counts | float  # all normal frames

    @property
    def abnormal(self) -> float:
        """All abnormal frames."""
        return float(self.abnormal_G.sum())

    @property
    def auc(self) -> float:
        """The area that ``roc_area`` gives."""
        return float(roc_area(self))

    @property
    def tie_rate(self) -> float:
        """Share in [0, 1] of (abnormal, normal) pairs of frames with equal scores; they count half in the AUC."""
        tied = (self.abnormal_G * (self.level_G - self.above_G)).sum()
        return float(ratio(tied, self.abnormal * self.normal))

    @property
    def average_precision(self) -> float:
        """What the function of this name gives."""
        return float(average_precision(self))

    @property
    def average_precision_trapezoid(self) -> float:
        """What the function of this name gives."""
        return float(average_precision_trapezoid(self))


def roc_area(found: Ranks) -> Counts:
    """Probability in [0, 1] that an abnormal frame scores higher than a normal one, ties counting half.

    This is the area under the ROC curve by the trapezoid rule (Mann-Whitney statistic); 0.5 is chance, NaN one class.
    """
    lost = (found.abnormal_G * (found.above_G + found.level_G)).sum(0) / 2
    return 1 - ratio(lost, found.abnormal_G.sum(0) * found.normal)


def average_precision(found: Ranks) -> Counts:
    """Step-wise average precision in [0, 1]: sum of (R_n - R_n-1) P_n over falling thresholds.

    What scikit-learn calls average precision. Chance is the share of abnormal frames; NaN without any.
    """
    hits = np.cumsum(found.abnormal_G, axis=0)
    precision = hits / np.maximum(hits + found.level_G, _TINY)
    return ratio((found.abnormal_G * precision).sum(0), found.abnormal_G.sum(0))


def average_precision_trapezoid(found: Ranks) -> Counts:
    """Area in [0, 1] under the precision-recall points joined by straight lines, from the point (R 0, P 1).

    Optimistic, and wildly so for few score levels (Davis and Goadrich 2006), but much used with XD-Violence.
    """
    hits = np.cumsum(found.abnormal_G, axis=0)
    precision = hits / np.maximum(hits + found.level_G, _TINY)
    before = hits - found.abnormal_G  # at the next higher threshold, be it a normal frame's or an abnormal one's
    flagged = before + found.above_G
    precision_before = np.where(flagged > 0, before / np.maximum(flagged, _TINY), 1)
    return ratio((found.abnormal_G * (precision + precision_before)).sum(0) / 2, found.abnormal_G.sum(0))


@dataclass(frozen=True, slots=True)
class FrameMetrics:
    """The frame-level metrics of a set of videos, each in [0, 1], NaN where not defined."""

    auc: float  # micro: all frames of all videos together
    auc_abnormal: float  # AUC_A: frames of abnormal videos only, together
    auc_within: float  # an abnormal frame against a normal one *of the same video*: localisation alone
    auc_macro: float  # mean over the videos that have both kinds of frames
    auc_macro_padded: float  # mean over all videos, each with a perfect frame of either kind added: inflated
    ap: float  # step-wise
    ap_trapezoid: float
    tie_rate: float
    levels: int  # distinct scores
    macro_videos: int  # how many videos have both kinds of frames
    videos: int
    abnormal_videos: int
    frames: int
    abnormal_frames: int


def ranks(labels_N: Labels, scores_N: Scores) -> Ranks:
    """Rank the abnormal frames among the normal ones, O(N log N). Raises ValueError: unequal lengths, NaN."""
    check(labels_N, scores_N)
    # two sorts without indices are several times as fast as one with them
    abnormal, normal = np.sort(scores_N[labels_N])[::-1], np.sort(scores_N[~labels_N])
    starts = run_starts(abnormal)
    values = abnormal[starts]
    return Ranks(
        np.diff(np.append(starts, len(abnormal))).astype(np.float64),
        (len(normal) - np.searchsorted(normal, values, side="right")).astype(np.float64),
        (len(normal) - np.searchsorted(normal, values, side="left")).astype(np.float64),
        float(len(normal)),
    )


def auc(labels_N: Labels, scores_N: Scores) -> float:
    """Area under the ROC curve in [0, 1]; NaN with one class only. Raises ValueError: unequal lengths, NaN.

    >>> auc(np.array([False, True, True]), np.array([0.1, 0.1, 0.9]))
    0.75
    """
    return ranks(labels_N, scores_N).auc


def frame_metrics(labels: Sequence[Labels], scores: Sequence[Scores]) -> FrameMetrics:
    """Every frame-level metric of videos given one by one. Raises ValueError: unequal lengths, NaN, no video.

    ``auc_macro_padded`` follows Georgescu et al., "A Background-Agnostic Framework", TPAMI 2021: a normal frame
    with the lowest and an abnormal one with the highest score are appended to each video (0 and 1 there; here what
    the scores reach, where that lies outside), so that a video of one class counts as about 1.
    """
    if not labels:
        raise ValueError("there is no video to measure")
    each = [ranks(one_labels, one_scores) for one_labels, one_scores in zip(labels, scores, strict=True)]
    all_labels, all_scores = np.concatenate(labels), np.concatenate(scores)
    together = ranks(all_labels, all_scores)
    abnormal = [i for i, one in enumerate(labels) if one.any()]
    only_abnormal = (
        ranks(np.concatenate([labels[i] for i in abnormal]), np.concatenate([scores[i] for i in abnormal]))
        if abnormal
        else together
    )
    areas = np.array([one.auc for one in each])
    pairs = np.array([one.abnormal * float(one.normal) for one in each])
    both = pairs > 0
    low, high = min(0.0, float(all_scores.min(initial=0))), max(1.0, float(all_scores.max(initial=1)))
    padded = [
        auc(np.append(one_labels, [False, True]), np.append(one_scores, [low, high]))
        for one_labels, one_scores in zip(labels, scores, strict=True)
    ]
    return FrameMetrics(
        auc=together.auc,
        auc_abnormal=only_abnormal.auc if abnormal else float("nan"),
        auc_within=float(areas[both] @ pairs[both] / pairs[both].sum()) if both.any() else float("nan"),
        auc_macro=float(areas[both].mean()) if both.any() else float("nan"),
        auc_macro_padded=float(np.mean(padded)),
        ap=together.average_precision,
        ap_trapezoid=together.average_precision_trapezoid,
        tie_rate=together.tie_rate,
        levels=levels(all_scores),
        macro_videos=int(both.sum()),
        videos=len(labels),
        abnormal_videos=len(abnormal),
        frames=len(all_labels),
        abnormal_frames=int(all_labels.sum()),
    )


def levels(scores_N: Scores) -> int:
    """How many distinct scores there are."""
    return len(run_starts(np.sort(scores_N)))


def roc_curve(labels_N: Labels, scores_N: Scores, *, points: int = 400) -> tuple[Counts, Counts]:
    """False-positive and true-positive rate over falling thresholds, at most about ``points`` of them, for drawing."""
    found = ranks(labels_N, scores_N)
    rate = np.cumsum(found.abnormal_G) / max(found.abnormal, 1)
    # each distinct score of an abnormal frame is a step from (above, before) to (level, after)
    x = np.stack([found.above_G, found.level_G], axis=1).ravel() / max(float(found.normal), 1)
    y = np.stack([np.append(0, rate[:-1]), rate], axis=1).ravel()
    x, y = np.concatenate([[0], x, [1]]), np.concatenate([[0], y, [1]])
    keep = _thinned(x + y, points)
    return x[keep], y[keep]


def precision_recall_curve(labels_N: Labels, scores_N: Scores, *, points: int = 400) -> tuple[Counts, Counts]:
    """Recall and precision over falling thresholds, at most about ``points`` of them, for drawing."""
    found = ranks(labels_N, scores_N)
    hits = np.cumsum(found.abnormal_G)
    recall, precision = hits / max(found.abnormal, 1), hits / (hits + found.level_G)
    keep = _thinned(recall, points)
    return recall[keep], precision[keep]


def _thinned(along: Counts, points: int) -> npt.NDArray[np.int64]:
    """Indices of about ``points`` places spread evenly over the rising ``along``, both ends among them."""
    wanted = np.linspace(along[0], along[-1], points)
    return np.unique(np.r_[0, np.searchsorted(along, wanted).clip(max=len(along) - 1), len(along) - 1])


def ratio(over: Counts | float, under: Counts | float) -> Counts:
    """Quotients that are NaN where there is nothing to divide by."""
    divisor = np.asarray(under, np.float64)
    return np.divide(over, divisor, out=np.full(divisor.shape, np.nan), where=divisor > 0)


def check(labels_N: Labels, scores_N: Scores) -> None:
    """Raises ValueError: unequal lengths, a frame without a score."""
    if len(labels_N) != len(scores_N):
        raise ValueError(f"labels and scores must be equally long, got {len(labels_N)} and {len(scores_N)}")
    if np.isnan(scores_N).any():
        raise ValueError(f"{np.isnan(scores_N).sum()} frames have no score; decide what they count as before measuring")


def run_starts(sorted_N: Scores) -> npt.NDArray[np.int64]:
    """Where each run of equal values begins."""
    return np.flatnonzero(np.append(True, sorted_N[1:] != sorted_N[:-1])) if len(sorted_N) else np.empty(0, np.int64)
