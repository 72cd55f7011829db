"""Events against alarms: every pairing against scipy's assignment, counts against plain sums."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from vad.metrics.alarms import TimedVideo, alarm_runs
from vad.metrics.event import event_scores, event_scores_of, match, multi_threshold_f1, tiou

stretch = st.tuples(st.integers(0, 20), st.integers(1, 10)).map(lambda pair: (pair[0], pair[0] + pair[1]))
crossing = st.lists(stretch, max_size=7)  # may overlap, as a tracker's do
shares = st.sampled_from([0.1, 0.25, 0.5, 1.0])


def slow_tiou(a, b):
    first, second = set(range(*a)), set(range(*b))
    return len(first & second) / len(first | second)


def most_pairs(predicted, truth, at_least):
    good = np.array([[slow_tiou(a, b) >= at_least for b in truth] for a in predicted], bool)
    good = good.reshape(len(predicted), len(truth))
    rows, columns = linear_sum_assignment(good, maximize=True)
    return int(good[rows, columns].sum())


@given(crossing, crossing)
def test_overlap_equals_counting_frames(first, second):
    expected = np.array([[slow_tiou(a, b) for b in second] for a in first]).reshape(len(first), len(second))
    np.testing.assert_allclose(tiou(first, second), expected)


@given(crossing, crossing, shares)
def test_matching_finds_the_most_pairs(predicted, truth, at_least):
    pairs = match(predicted, truth, at_least=at_least)
    assert len(pairs) == most_pairs(predicted, truth, at_least)
    for side in (0, 1):
        assert len({pair[side] for pair in pairs}) == len(pairs)
    assert all(slow_tiou(predicted[a], truth[b]) >= at_least for a, b in pairs)
    assert len(match(truth, predicted, at_least=at_least)) == len(pairs)


@given(st.lists(st.tuples(crossing, crossing), min_size=1, max_size=4), shares)
def test_counts_and_quotients_equal_plain_sums(videos, at_least):
    predictions, truths = [one for one, _ in videos], [one for _, one in videos]
    (found,) = event_scores_of(predictions, truths, tious=[at_least])
    expected = []
    for predicted, truth in videos:
        good = most_pairs(predicted, truth, at_least)
        expected.append([good, len(predicted) - good, len(truth) - good])
    np.testing.assert_array_equal(found.per_video, expected)
    tp, fp, fn = np.sum(expected, axis=0)
    assert (found.tp, found.fp, found.fn) == (tp, fp, fn)
    assert found.precision == pytest.approx(tp / (tp + fp) if tp + fp else np.nan, nan_ok=True)
    assert found.recall == pytest.approx(tp / (tp + fn) if tp + fn else np.nan, nan_ok=True)
    if tp:
        assert found.f1 == pytest.approx(2 / (1 / found.precision + 1 / found.recall))
    assert (found.f1 == 0) == (not tp and fp + fn > 0)


@given(st.lists(st.sampled_from([0.0, 0.4, 0.5, 1.0]), min_size=6, max_size=30), st.sampled_from([0.0, 0.5, 0.7]))
def test_a_curve_is_measured_by_its_alarms(scores, threshold):
    one = TimedVideo(np.array(scores), [(0, 2), (4, 6)], 25.0)
    direct = event_scores_of([alarm_runs(one.scores_N, threshold=threshold)], [one.events])
    for first, second in zip(event_scores([one], threshold=threshold), direct, strict=True):
        np.testing.assert_array_equal(first.per_video, second.per_video)
        assert first.tiou == second.tiou


def test_greedy_by_overlap_would_lose_a_pair():
    predicted, truth = [(0, 10), (4, 14)], [(2, 12), (9, 19)]  # the best overlap takes what the other one needs
    assert tiou(predicted, truth).round(2).tolist() == [[0.67, 0.05], [0.67, 0.33]]
    assert match(predicted, truth, at_least=0.3) == [(0, 0), (1, 1)]


def test_one_alarm_over_two_events_and_two_alarms_in_one_event_count_once():
    (long,) = event_scores_of([[(0, 20)]], [[(0, 10), (11, 20)]], tious=[0.4])
    assert (long.tp, long.fp, long.fn) == (1, 0, 1)
    (split,) = event_scores_of([[(0, 10), (11, 20)]], [[(0, 20)]], tious=[0.4])
    assert (split.tp, split.fp, split.fn) == (1, 1, 0)


def test_events_without_alarms_and_alarms_without_events():
    (nothing,) = event_scores_of([[]], [[]], tious=[0.5])
    assert np.isnan([nothing.precision, nothing.recall, nothing.f1]).all()
    (false,) = event_scores_of([[(0, 5)]], [[]], tious=[0.5])
    assert (false.precision, false.f1) == (0, 0)
    assert np.isnan(false.recall)
    (missed,) = event_scores_of([[]], [[(0, 5)]], tious=[0.5])
    assert (missed.recall, missed.f1) == (0, 0)
    assert np.isnan(missed.precision)
    (none,) = event_scores_of([], [], tious=[0.5])
    assert none.per_video.shape == (0, 3)
    assert np.isnan(none.f1)


def test_an_event_is_found_in_its_own_video_only():
    (both,) = event_scores_of([[(0, 4)], [(10, 20)]], [[(0, 5)], [(0, 5)]], tious=[0.5])
    assert (both.precision, both.recall, both.f1) == (0.5, 0.5, 0.5)


def test_f1_over_thresholds_is_a_table():
    one = TimedVideo(np.array([0.1, 0.9, 0.9, 0.4]), [(1, 3)], 1.0)
    table = multi_threshold_f1([one], thresholds=[0.05, 0.5, 0.95], tious=[0.5, 1.0])
    np.testing.assert_array_equal(table, [[1, 0], [1, 1], [0, 0]])
    assert multi_threshold_f1([one], thresholds=[], tious=[0.5, 1.0]).shape == (0, 2)


def test_input_that_means_nothing_is_refused():
    one = [TimedVideo(np.array([0.5]), [(0, 1)], 1.0)]
    for wrong in (0, 1.1, np.nan):
        with pytest.raises(ValueError, match=r"a tIoU must lie in \(0, 1\]"):
            event_scores(one, threshold=0.5, tious=[wrong])
        with pytest.raises(ValueError, match=r"a tIoU must lie in \(0, 1\]"):
            match([], [], at_least=wrong)
    with pytest.raises(ValueError, match="got 1 and 2"):
        event_scores_of([[]], [[], []])
    with pytest.raises(ValueError, match=r"start < end, got \[3, 3\)"):
        event_scores_of([[(3, 3)]], [[]])
    with pytest.raises(ValueError, match=r"start < end, got \[0, nan\)"):
        event_scores_of([[]], [[(0, np.nan)]])
    with pytest.raises(ValueError, match=r"a threshold must lie in \[0, 1\], got 1.5"):
        event_scores(one, threshold=1.5)
    with pytest.raises(ValueError, match=r"scores must lie in \[0, 1\] for a threshold, got -3 to 7"):
        event_scores([TimedVideo(np.array([-3.0, 7.0]), [], 1.0)], threshold=0.5)
