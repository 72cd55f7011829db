"""Order by severity and calibration, against counting pairs and bins one by one and against scikit-learn."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, roc_auc_score

from vad.metrics.reliability import brier, equal_mass, equal_width, reliability
from vad.metrics.severity import severity_order

seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.integers(1, 40), st.integers(1, 5), st.integers(1, 8))
def test_severity_order_equals_counting_every_pair(seed, count, levels, values):
    random = np.random.default_rng(seed)
    severity, scores = random.integers(0, levels, count), random.integers(0, values, count) / values
    agree = ties = against = tied_severity = 0
    for i, j in itertools.combinations(range(count), 2):
        direction = np.sign(severity[i] - severity[j]) * np.sign(scores[i] - scores[j])
        tied_severity += severity[i] == severity[j]
        ties += bool(severity[i] != severity[j] and scores[i] == scores[j])
        agree += direction > 0
        against += direction < 0
    pairs = agree + ties + against
    result = severity_order(severity, scores)
    assert result.pairs == pairs
    if not pairs:
        assert math.isnan(result.c_index)
        assert math.isnan(result.kendall_tau_b)
        return
    assert result.c_index == pytest.approx((agree + ties / 2) / pairs)
    tied_scores = sum(scores[i] == scores[j] for i, j in itertools.combinations(range(count), 2))
    under = math.sqrt(pairs * (pairs + tied_severity - tied_scores))
    if under:
        assert result.kendall_tau_b == pytest.approx((agree - against) / under)
    else:
        assert math.isnan(result.kendall_tau_b)


@given(seeds)
def test_with_two_levels_the_c_index_is_the_auc(seed):
    random = np.random.default_rng(seed)
    severity, scores = np.r_[3, 7, random.choice([3, 7], 50)], random.integers(0, 9, 52).astype(np.float32)
    assert severity_order(severity, scores).c_index == pytest.approx(roc_auc_score(severity == 7, scores))


@pytest.mark.parametrize(
    ("scores", "tau", "c_index"), [([1, 2, 3], 1, 1), ([3, 2, 1], -1, 0), ([0.5, 0.5, 0.5], math.nan, 0.5)]
)
def test_rising_falling_and_equal_scores(scores, tau, c_index):
    result = severity_order(np.array([0, 1, 2]), np.array(scores, np.float64))
    assert result.kendall_tau_b == pytest.approx(tau, nan_ok=True)
    assert (result.c_index, result.pairs) == (c_index, 3)


def test_only_the_order_of_levels_and_scores_counts():
    severity, scores = np.array([0, 0, 1, 2, 2]), np.array([0.1, 0.4, 0.3, 0.3, 0.8])
    assert severity_order(severity, scores) == severity_order(severity * 10.5 - 3, np.exp(scores))


def test_without_levels_to_tell_apart_nothing_is_defined():
    for count in (0, 1, 4):
        result = severity_order(np.ones(count, int), np.arange(count, dtype=float))
        assert math.isnan(result.kendall_tau_b)
        assert math.isnan(result.c_index)
        assert result.pairs == 0


def test_bad_severities_are_refused():
    with pytest.raises(ValueError, match="equally long, got 1 and 2"):
        severity_order(np.array([1]), np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="2 items have no level or no score"):
        severity_order(np.array([1, np.nan, 2]), np.array([1.0, 1.0, np.nan]))


# Calibration


def slow_bins(labels, scores, place, bins):
    """(mean score, observed share, count) of each bin that has frames, frame by frame."""
    kept = [[] for _ in range(bins)]
    for label, score in zip(labels, scores, strict=True):
        kept[place(score)].append((score, label))
    return [(np.mean([s for s, _ in one]), np.mean([y for _, y in one]), len(one)) for one in kept if one]


def frames(seed, count, values):
    random = np.random.default_rng(seed)
    scores = random.integers(0, values + 1, count) / values
    return random.random(count) < scores**2, scores


@given(seeds, st.integers(1, 80), st.integers(1, 60), st.integers(1, 20))
def test_bins_equal_sorting_frames_in_one_by_one(seed, count, values, bins):
    labels, scores = frames(seed, count, values)
    by_width = slow_bins(labels, scores, lambda s: max(k for k in range(bins) if s >= k / bins), bins)
    by_rank = slow_bins(labels, scores, lambda s: int(sum(scores < s)) * bins // count, bins)
    result = reliability(labels, scores, bins=bins)
    for wanted, got in ((by_width, result.equal_width), (by_rank, result.equal_mass)):
        means, shares, counts = zip(*wanted, strict=True)
        assert got.count_K.tolist() == list(counts)
        np.testing.assert_allclose(got.mean_score_K, means)
        np.testing.assert_allclose(got.observed_K, shares)
        gaps = [(abs(share - mean), n) for mean, share, n in wanted]
        assert got.expected_error == pytest.approx(sum(gap * n for gap, n in gaps) / count)
        assert got.maximum_error == pytest.approx(max(gap for gap, _ in gaps))
    assert (result.ece, result.mce) == (result.equal_width.expected_error, result.equal_width.maximum_error)
    assert result.ece_equal_mass == result.equal_mass.expected_error
    assert result.brier == pytest.approx(np.mean((scores - labels) ** 2))


@given(seeds)
def test_the_diagram_and_the_brier_score_are_scikit_learns(seed):
    random = np.random.default_rng(seed)
    scores = random.random(500)
    labels = np.r_[True, False, random.random(498) < scores[2:]]
    observed, mean = calibration_curve(labels, scores, n_bins=10)
    result = reliability(labels, scores, bins=10)
    np.testing.assert_allclose(result.equal_width.observed_K, observed)
    np.testing.assert_allclose(result.equal_width.mean_score_K, mean)
    assert result.brier == pytest.approx(brier_score_loss(labels, scores))
    assert result.equal_mass.count_K.tolist() == [50] * 10


@given(seeds)
def test_nothing_depends_on_the_order_of_frames(seed):
    labels, scores = frames(seed, 60, 5)
    order = np.random.default_rng(seed).permutation(60)
    for bins in (equal_width, equal_mass):
        one, other = bins(labels, scores), bins(labels[order], scores[order])
        assert one.count_K.tolist() == other.count_K.tolist()
        np.testing.assert_allclose(one.observed_K, other.observed_K)
        np.testing.assert_allclose(one.mean_score_K, other.mean_score_K)


def test_calibration_by_hand():
    labels = np.array([False, True, True, False])
    result = reliability(labels, np.array([0.2, 0.2, 0.9, 1.0]), bins=2)
    assert result.equal_width.count_K.tolist() == [2, 2]
    np.testing.assert_allclose(result.equal_width.gap, [0.3, -0.45])
    assert result.ece == pytest.approx(0.375)
    assert result.mce == pytest.approx(0.45)
    assert result.brier == pytest.approx((0.04 + 0.64 + 0.01 + 1) / 4)


def test_perfect_scores_have_no_error_and_opposite_ones_all_of_it():
    labels = np.array([False, True, True])
    for scores, error in ((labels.astype(np.float32), 0), ((~labels).astype(np.float32), 1)):
        result = reliability(labels, scores)
        assert (result.ece, result.ece_equal_mass, result.mce, result.brier) == (error,) * 4


def test_one_class_has_numbers_and_no_frames_have_none():
    assert reliability(np.zeros(4, bool), np.full(4, 0.25)).ece == 0.25
    nothing = reliability(np.zeros(0, bool), np.zeros(0))
    assert np.isnan([nothing.ece, nothing.ece_equal_mass, nothing.mce, nothing.brier]).all()
    assert len(nothing.equal_width.count_K) == 0


@pytest.mark.parametrize("measure", [reliability, equal_width, equal_mass, brier])
def test_scores_that_are_no_probabilities_are_refused(measure):
    labels = np.array([True, False])
    with pytest.raises(ValueError, match=r"scores in \[0, 1\], got -0.5 to 7"):
        measure(labels, np.array([-0.5, 7.0]))
    with pytest.raises(ValueError, match="1 frames have no score"):
        measure(labels, np.array([0.5, np.nan]))
    with pytest.raises(ValueError, match="equally long, got 2 and 1"):
        measure(labels, np.array([0.5]))


def test_bins_below_one_are_refused():
    with pytest.raises(ValueError, match="bins must be at least 1, got 0"):
        equal_width(np.array([True]), np.array([0.5]), bins=0)
