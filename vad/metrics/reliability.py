"""Do scores mean what they say? Calibration of scores in [0, 1] that are read as probabilities of "abnormal".

A frame with a score of 0.8 should be abnormal eight times in ten. Scores that only rank (the rarity of a one-class
model, say) are not meant that way: for those the numbers here say how far from it they are, not that they are bad.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vad.metrics.frame import Counts, Labels, Scores


@dataclass(frozen=True, slots=True)
class Bins:
    """Frames in groups of similar score, lowest first: the points of a reliability diagram. Empty bins are left out."""

    mean_score_K: Counts  # in [0, 1]
    observed_K: Counts  # share of abnormal frames, in [0, 1]
    count_K: npt.NDArray[np.int64]

    @property
    def gap(self) -> Counts:
        """(K,) observed share minus mean score, in [-1, 1]: negative where scores say too much."""
        return self.observed_K - self.mean_score_K

    @property
    def expected_error(self) -> float:
        """Expected calibration error in [0, 1]: sum over bins of count / frames x |gap|; NaN without a frame.

        Naeini, Cooper, Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015.
        """
        frames = int(self.count_K.sum())
        return float(self.count_K @ np.abs(self.gap)) / frames if frames else float("nan")

    @property
    def maximum_error(self) -> float:
        """Maximum calibration error in [0, 1] (the same paper): the largest |gap|, however few frames it is of."""
        return float(np.abs(self.gap).max()) if len(self.count_K) else float("nan")


@dataclass(frozen=True, slots=True)
class Reliability:
    """Calibration of the scores of a set of frames; each error in [0, 1], lower is better, NaN without a frame."""

    ece: float  # bins of equal width
    ece_equal_mass: float
    mce: float  # bins of equal width
    brier: float
    equal_width: Bins
    equal_mass: Bins


def reliability(labels_N: Labels, scores_N: Scores, *, bins: int = 15) -> Reliability:
    """Every calibration number of these frames. Raises ValueError: as ``equal_width``.

    One score for all, the share of abnormal frames, is perfectly calibrated and useless: read it beside the AUC.
    """
    width, mass = equal_width(labels_N, scores_N, bins=bins), equal_mass(labels_N, scores_N, bins=bins)
    return Reliability(
        width.expected_error, mass.expected_error, width.maximum_error, brier(labels_N, scores_N), width, mass
    )


def equal_width(labels_N: Labels, scores_N: Scores, *, bins: int = 15) -> Bins:
    """Bins [k / bins, (k + 1) / bins), the last one with 1. Low anomaly rates leave most frames in the first.

    Raises ValueError: unequal lengths, a score that is NaN or outside [0, 1], bins below 1.

    >>> equal_width(np.array([False, True, True]), np.array([0.0, 0.5, 1.0]), bins=2).count_K.tolist()
    [1, 2]
    """
    values = _checked(labels_N, scores_N, bins)
    inner = np.arange(1, bins) / bins
    return _bins(labels_N, values, np.searchsorted(inner, values, side="right"), bins)


def equal_mass(labels_N: Labels, scores_N: Scores, *, bins: int = 15) -> Bins:
    """Bins of about as many frames each, by rank (Nixon et al., "Measuring Calibration in Deep Learning", 2019).

    Frames of equal score stay together, in the bin of the first of them, so that nothing depends on the order of
    frames; scores of few levels therefore fill fewer and unequal bins. Errors: as ``equal_width``.

    >>> equal_mass(np.array([False, True, True, True]), np.array([0.1, 0.1, 0.1, 0.9]), bins=2).count_K.tolist()
    [3, 1]
    """
    values = _checked(labels_N, scores_N, bins)
    ordered = np.sort(values)
    lower_N = np.searchsorted(ordered, values, side="left")  # frames with a lower score
    return _bins(labels_N, values, lower_N * bins // max(len(values), 1), bins)


def brier(labels_N: Labels, scores_N: Scores) -> float:
    """Mean of (score - label)² in [0, 1], lower is better (Brier 1950); NaN without a frame.

    The share p of abnormal frames as the score of all gives p (1 - p). Errors: as ``equal_width``.

    >>> brier(np.array([False, True]), np.array([0.5, 0.5]))
    0.25
    """
    values = _checked(labels_N, scores_N, 1)
    return float(np.mean((values - labels_N) ** 2)) if len(values) else float("nan")


def _bins(labels_N: Labels, values_N: Counts, bin_N: npt.NDArray[np.int64], bins: int) -> Bins:
    count = np.bincount(bin_N, minlength=bins)
    filled = count > 0
    total, abnormal = (np.bincount(bin_N, weights, bins)[filled] for weights in (values_N, labels_N))
    return Bins(total / count[filled], abnormal / count[filled], count[filled])


def _checked(labels_N: Labels, scores_N: Scores, bins: int) -> Counts:
    if len(labels_N) != len(scores_N):
        raise ValueError(f"labels and scores must be equally long, got {len(labels_N)} and {len(scores_N)}")
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    values = np.asarray(scores_N, np.float64)
    if np.isnan(values).any():
        raise ValueError(f"{np.isnan(values).sum()} frames have no score; decide what they count as before measuring")
    if len(values) and not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(f"calibration is of scores in [0, 1], got {values.min():g} to {values.max():g}")
    return values
