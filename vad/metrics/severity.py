"""Do scores rise with severity? Order of the scores of items whose severity was graded.

The idea of MAD-Bench: an anomaly score should not only part normal from abnormal but also rank a crash above a stumble.
Severity levels are numbers of which only the order counts; scores are higher for more anomalous items, of any scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vad.metrics.frame import Scores

Levels = npt.NDArray[np.integer] | npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class SeverityOrder:
    """How well the order of scores follows the order of severity; NaN with one level only."""

    kendall_tau_b: float  # in [-1, 1], 0 is chance; NaN also where all scores are equal
    c_index: float  # in [0, 1], 0.5 is chance
    pairs: int  # of items that differ in severity


def severity_order(levels_N: Levels, scores_N: Scores) -> SeverityOrder:
    """Rank correlation and concordance of scores with severity.

    Over pairs of items, with C the concordant and D the discordant ones,
    tau-b = (C - D) / sqrt((pairs that differ in severity) (pairs that differ in score)) (Kendall, "The Treatment of
    Ties in Ranking Problems", Biometrika 1945), and C-index = (C + ties in score / 2) / (pairs that differ in
    severity) (Harrell et al., "Evaluating the Yield of Medical Tests", JAMA 1982). With two levels the C-index is the
    AUC. Ties in score, as of a model that says 0.5 for everything, pull tau-b and the C-index to chance.
    O(L N log N) for L levels. Raises ValueError: unequal lengths, NaN.

    >>> severity_order(np.array([0, 1, 1]), np.array([0.1, 0.1, 0.9])).c_index
    0.75
    >>> severity_order(np.array([0, 1, 1]), np.array([0.5, 0.5, 0.5]))
    SeverityOrder(kendall_tau_b=nan, c_index=0.5, pairs=2)
    """
    if len(levels_N) != len(scores_N):
        raise ValueError(f"levels and scores must be equally long, got {len(levels_N)} and {len(scores_N)}")
    if missing := int((np.isnan(levels_N) | np.isnan(scores_N)).sum()):
        raise ValueError(f"{missing} items have no level or no score; decide what they count as before measuring")
    from scipy import stats

    above, pairs = 0.0, 0
    for level in np.unique(levels_N)[1:]:
        milder = np.sort(scores_N[levels_N < level])
        here = scores_N[levels_N == level]
        lower = np.searchsorted(milder, here, side="left").sum()
        not_higher = np.searchsorted(milder, here, side="right").sum()
        above += float(lower + not_higher) / 2
        pairs += len(milder) * len(here)
    if not pairs:
        return SeverityOrder(float("nan"), float("nan"), 0)
    return SeverityOrder(float(stats.kendalltau(levels_N, scores_N).statistic), above / pairs, pairs)
