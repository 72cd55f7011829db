"""Alarm, event, delay and localisation metrics against loops over every threshold and every matching."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from vad.metrics.alarms import (
    TimedVideo,
    alarm_runs,
    false_alarm_rate,
    false_alarms_per_hour,
    low_false_alarm_recall,
)
from vad.metrics.event import event_scores, event_scores_of, multi_threshold_f1, tiou
from vad.metrics.latency import first_alarms, latency_aware_ap
from vad.metrics.localisation import (
    Detection,
    Truth,
    average_precision,
    mean_average_precision,
    segments_of,
    suppressed,
    vadclip_compatible,
)


@st.composite
def video(draw, events=None):
    """A short video; few levels, so that ties and merging runs are common."""
    count = draw(st.integers(1, 30))
    levels = draw(st.sampled_from([2, 4, 100]))
    scores = np.array(draw(st.lists(st.integers(0, levels), min_size=count, max_size=count)), np.float64) / levels
    wanted = draw(st.integers(0, 3)) if events is None else events
    cuts = sorted(draw(st.sets(st.integers(0, count), max_size=2 * wanted)))
    pairs = [(a, b) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
    return TimedVideo(scores, [pair for i, pair in enumerate(pairs) if not i or pairs[i - 1][1] < pair[0]], 2.0)


sets = st.lists(video(), min_size=1, max_size=5)
thresholds = st.sampled_from([0.0, 0.25, 0.5, 0.51, 1.0])


def slow_runs(scores, threshold):
    runs, start = [], None
    for n, score in enumerate([*scores, -np.inf]):
        if score >= threshold and start is None:
            start = n
        if score < threshold and start is not None:
            runs.append((start, n))
            start = None
    return runs


@given(video(), thresholds)
def test_alarms_are_the_longest_runs(one, threshold):
    assert alarm_runs(one.scores_N, threshold=threshold) == slow_runs(one.scores_N, threshold)


@given(sets, thresholds)
def test_false_alarms_equal_a_plain_loop(videos, threshold):
    normal = [v for v in videos if not v.events]
    for found, among in ((0, normal), (1, videos)):
        frames = [(s, any(a <= n < b for a, b in v.events)) for v in among for n, s in enumerate(v.scores_N)]
        quiet = [s for s, abnormal in frames if not abnormal]
        rate = false_alarm_rate(videos, threshold=threshold)
        expected = np.mean([s >= threshold for s in quiet]) if quiet else np.nan
        assert (rate.normal_videos, rate.all_videos)[found] == pytest.approx(expected, nan_ok=True)
        false = sum(
            not any(a < end and start < b for a, b in v.events)
            for v in among
            for start, end in slow_runs(v.scores_N, threshold)
        )
        hourly = false_alarms_per_hour(videos, threshold=threshold)
        expected = false / (len(quiet) / 2 / 3600) if quiet else np.nan
        assert (hourly.normal_videos, hourly.all_videos)[found] == pytest.approx(expected, nan_ok=True)


@given(sets, st.sampled_from([(1.0, 1000.0), (100.0, 3000.0), (400.0, 401.0)]))
def test_low_false_alarm_recall_equals_a_loop_over_thresholds(videos, rates):
    found = low_false_alarm_recall(videos, lowest_per_hour=rates[0], highest_per_hour=rates[1])
    normal = [v for v in videos if not v.events]
    peaks = [v.scores_N[a:b].max() for v in videos for a, b in v.events]
    if not normal or not peaks:
        assert np.isnan(found.integral)
        return
    hours = sum(len(v.scores_N) / v.fps for v in normal) / 3600
    levels = sorted({s for v in videos for s in v.scores_N}, reverse=True)
    points, most = [], 0
    for level in levels:
        most = max(most, sum(len(slow_runs(v.scores_N, level)) for v in normal))
        points.append((most / hours, np.mean([peak >= level for peak in peaks])))
    grid = np.exp((np.arange(20_000) + 0.5) / 20_000 * np.log(rates[1] / rates[0])) * rates[0]
    recall = np.zeros(len(grid))
    for rate, share in points:
        recall = np.maximum(recall, np.where(grid >= rate, share, 0))
    assert found.integral == pytest.approx(recall.mean(), abs=1e-3)
    assert found.resolution_per_hour == pytest.approx(1 / hours)


def test_an_everlasting_alarm_is_not_a_quiet_one():
    # at 0.1 the normal video is one single run, at 0.9 there were three of them
    normal = TimedVideo(np.array([0.9, 0.1, 0.9, 0.1, 0.9]), [], 1.0)
    abnormal = TimedVideo(np.array([0.1]), [(0, 1)], 1.0)
    found = low_false_alarm_recall([normal, abnormal], lowest_per_hour=1, highest_per_hour=10_000)
    assert found.rates_P.tolist() == [pytest.approx(3 * 720)]


@given(sets, st.sampled_from([0.5, 2.0, 100.0]))
def test_latency_aware_ap_equals_a_loop_over_thresholds(videos, max_delay):
    found = latency_aware_ap(videos, max_delay=max_delay)
    events = [(v, a, b) for v in videos for a, b in v.events]
    if not events:
        assert np.isnan(found)
        return
    frames = [(s, any(a <= n < b for a, b in v.events)) for v in videos for n, s in enumerate(v.scores_N)]
    total = before = 0.0
    for level in sorted({s for s, _ in frames}, reverse=True):
        weights = []
        for v, a, b in events:
            late = [n - a for n in range(a, b) if v.scores_N[n] >= level]
            weights.append(max(0, 1 - late[0] / v.fps / max_delay) if late else 0)
        flagged = [abnormal for s, abnormal in frames if s >= level]
        total += (np.mean(weights) - before) * np.mean(flagged)
        before = np.mean(weights)
    assert found == pytest.approx(total, abs=1e-9)


def test_a_miss_counts_as_the_maximum_delay():
    videos = [TimedVideo(np.array([0, 0, 0, 0.8, 0.2, 0.9, 0.1, 0, 0]), [(2, 5), (5 + 1, 9)], 2.0)]
    found = first_alarms(videos, threshold=0.5, max_delay=10)
    assert found.delays.tolist() == [0.5, 10]
    assert (found.mean, found.median, found.missed) == (5.25, 5.25, 0.5)
    assert (found.within(0.4), found.within(0.5), found.within(60)) == (0, 0.5, 0.5)
    assert first_alarms(videos, threshold=0, max_delay=10).delays.tolist() == [0, 0]
    assert np.isnan(first_alarms([], threshold=0.5, max_delay=10).mean)


@given(sets, thresholds)
def test_matching_finds_the_most_pairs(videos, threshold):
    for each in event_scores(videos, threshold=threshold, tious=(0.1, 0.5)):
        for one, (hits, false, missed) in zip(videos, each.per_video, strict=True):
            runs, truth = slow_runs(one.scores_N, threshold), list(one.events)
            short, long = sorted([runs, truth], key=len)
            best = max(
                sum(tiou([a], [b])[0, 0] >= each.tiou for a, b in zip(short, chosen, strict=True))
                for chosen in itertools.islice(itertools.permutations(long, len(short)), 5000)
            )
            assert hits >= best  # equal unless there were more than 5000 ways
            assert (hits + false, hits + missed) == (len(runs), len(truth))


def test_events_without_alarms_and_alarms_without_events():
    (nothing,) = event_scores_of([[]], [[]], tious=(0.5,))
    assert np.isnan([nothing.precision, nothing.recall, nothing.f1]).all()
    (false,) = event_scores_of([[(0, 5)]], [[]], tious=(0.5,))
    assert (false.precision, false.f1) == (0, 0)
    assert np.isnan(false.recall)
    (missed,) = event_scores_of([[]], [[(0, 5)]], tious=(0.5,))
    assert (missed.recall, missed.f1) == (0, 0)
    (both,) = event_scores_of([[(0, 4)], [(10, 20)]], [[(0, 5)], [(0, 5)]], tious=(0.5,))
    assert (both.precision, both.recall, both.f1) == (0.5, 0.5, 0.5)


def test_f1_over_thresholds_is_a_table():
    one = TimedVideo(np.array([0.1, 0.9, 0.9, 0.4]), [(1, 3)], 1.0)
    table = multi_threshold_f1([one], thresholds=(0.05, 0.5, 0.95), tious=(0.5, 1.0))
    np.testing.assert_array_equal(table, [[1, 0], [1, 1], [0, 0]])


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=30))
def test_uninterpolated_ap_is_average_precision_when_no_two_confidences_tie(ranked):
    confidences = [level + i / 100 for i, (level, _) in enumerate(ranked)]
    truths = [Truth(i, 0, 10) for i, (_, hit) in enumerate(ranked) if hit]
    detections = [Detection(i, 0, 10, confidence) for i, confidence in enumerate(confidences)]
    found = average_precision(detections, truths, at_least=0.5, interpolated=False)
    if truths:
        assert found == pytest.approx(average_precision_score([hit for _, hit in ranked], confidences))
        smooth = average_precision(detections, truths, at_least=0.5)
        assert smooth >= found - 1e-12
    else:
        assert np.isnan(found)


def test_each_truth_is_taken_once_and_classes_without_truth_count_nowhere():
    truths = [Truth(0, 0, 10, "fall"), Truth(1, 0, 10, "fight")]
    twice = [Detection(0, 0, 10, 0.9, "fall"), Detection(0, 0, 9, 0.8, "fall"), Detection(1, 0, 10, 0.7, "fire")]
    assert mean_average_precision(twice, truths, tious=(0.5,)).per_tiou == (0.5,)
    assert np.isnan(mean_average_precision(twice, [], tious=(0.5,)).average)
    # the second best overlap is taken when the best is gone
    close = [Truth(0, 0, 10), Truth(0, 2, 12)]
    two = [Detection(0, 1, 11, 0.9), Detection(0, 1, 11, 0.8)]
    assert mean_average_precision(two, close, tious=(0.5,)).per_tiou == (1.0,)


def test_interpolation_takes_the_highest_precision_from_there_on():
    truths = [Truth(i, 0, 1) for i in range(2)]
    ranked = [Detection(9, 0, 1, 0.9), Detection(0, 0, 1, 0.8), Detection(1, 0, 1, 0.7)]
    assert average_precision(ranked, truths, at_least=0.5, interpolated=False) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert average_precision(ranked, truths, at_least=0.5) == pytest.approx(2 / 3)


def test_segments_of_a_curve_are_its_runs_without_doubles():
    curve = np.array([0.1, 0.8, 0.9, 0.8, 0.1, 0.1, 0.4, 0.1])
    found = segments_of(curve, thresholds=(0.3, 0.5, 0.85), video=3)
    assert [(one.video, one.start, one.end) for one in found] == [(3, 2, 3), (3, 1, 4), (3, 6, 7)]
    assert [round(one.confidence, 3) for one in found] == [0.9, 0.833, 0.4]
    overlapping = [Detection(0, 0, 10, 0.5), Detection(0, 1, 10, 0.9), Detection(0, 20, 30, 0.1)]
    assert [one.start for one in suppressed(overlapping, overlap=0.6)] == [1, 20]


def classes(count=3, snippets=20, at=(5, 10), label=1):
    scores = np.full((snippets, count), 0.1)
    scores[0] = 0.0  # so that every class has a range, and a segment
    scores[at[0] : at[1], label] = 0.9
    return scores


def test_the_fields_script_can_never_reach_one_with_a_class_that_has_no_truth():
    labels = ["Normal", *map(str, range(13))]
    videos, truths = [], []
    for number, label in enumerate(labels[1:], 1):
        videos.append(classes(14, label=number))
        truths.append(Truth(number - 1, 5 * 16, 10 * 16, label))
    found = vadclip_compatible(videos, truths, classes=labels)
    assert found.average == pytest.approx(13 / 14)
    assert mean_average_precision(
        [Detection(t.video, t.start, t.end, 0.9, t.label) for t in truths], truths
    ).average == 1  # fmt: skip


def test_one_class_without_a_segment_makes_the_fields_map_zero():
    scores = classes()
    truths = [Truth(0, 5 * 16, 10 * 16, "b")]
    assert vadclip_compatible([scores], truths, classes=["a", "b", "c"]).average == pytest.approx(1 / 3)
    scores[:, 2] = 0.5  # constant: nothing lies above its threshold
    assert vadclip_compatible([scores], truths, classes=["a", "b", "c"]).average == 0
    with pytest.raises(ValueError, match=r"class scores must be \(T, 2\), got \(20, 3\)"):
        vadclip_compatible([scores], truths, classes=["a", "b"])


@pytest.mark.parametrize(
    "function",
    [
        lambda v: false_alarm_rate(v, threshold=0.5),
        lambda v: false_alarms_per_hour(v, threshold=0.5),
        lambda v: first_alarms(v, threshold=0.5, max_delay=1),
        lambda v: event_scores(v, threshold=0.5),
    ],
)
def test_thresholds_are_refused_for_scores_outside_the_unit_interval(function):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\] for a threshold, got -3 to 7"):
        function([TimedVideo(np.array([-3.0, 7.0]), [(0, 1)], 1.0)])


def test_ranking_over_false_alarms_and_delays_takes_any_scale():
    narrow = TimedVideo(np.array([0.1, 0.9, 0.3]), [(1, 2)], 1.0), TimedVideo(np.array([0.2, 0.4]), [], 1.0)
    wide = [TimedVideo(100 * v.scores_N - 7, v.events, v.fps) for v in narrow]
    assert latency_aware_ap(narrow, max_delay=5) == latency_aware_ap(wide, max_delay=5)
    assert low_false_alarm_recall(narrow).integral == low_false_alarm_recall(wide).integral


@pytest.mark.parametrize(
    ("scores", "events", "fps", "words"),
    [
        ([0.1, np.nan], [], 1.0, "1 frames have no finite score"),
        ([0.1], [(0, 2)], 1.0, "inside 1 frames"),
        ([0.1] * 9, [(3, 5), (1, 2)], 1.0, "in order"),
        ([0.1] * 9, [(1, 3), (3, 5)], 1.0, "apart"),
        ([0.1], [], 0.0, "fps must be positive"),
    ],
)
def test_a_video_is_checked_at_birth(scores, events, fps, words):
    with pytest.raises(ValueError, match=words):
        TimedVideo(np.array(scores), events, fps)


def test_settings_that_mean_nothing_are_refused():
    one = [TimedVideo(np.array([0.5]), [(0, 1)], 1.0)]
    with pytest.raises(ValueError, match="threshold must lie"):
        false_alarm_rate(one, threshold=2)
    with pytest.raises(ValueError, match="max_delay must be positive"):
        latency_aware_ap(one, max_delay=0)
    with pytest.raises(ValueError, match="rates must rise"):
        low_false_alarm_recall(one, lowest_per_hour=2, highest_per_hour=1)
    with pytest.raises(ValueError, match="tIoU must lie"):
        event_scores(one, threshold=0.5, tious=(0,))
    with pytest.raises(ValueError, match="got 1 and 2"):
        event_scores_of([[]], [[], []])
