"""Alarms and delays against loops over every threshold."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vad.metrics.alarms import (
    TimedVideo,
    alarm_runs,
    false_alarm_rate,
    false_alarms_per_hour,
    low_false_alarm_recall,
)
from vad.metrics.latency import early_detection, first_alarms, latency_aware_ap


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
        per_day = (hourly.normal_videos_per_day, hourly.all_videos_per_day)[found]
        assert per_day == pytest.approx(24 * expected, nan_ok=True)


@given(sets, st.sampled_from([(1.0, 1000.0), (100.0, 3000.0), (400.0, 401.0)]))
def test_low_false_alarm_recall_equals_a_loop_over_thresholds(videos, rates):
    found = low_false_alarm_recall(videos, lowest_per_hour=rates[0], highest_per_hour=rates[1])
    normal = [v for v in videos if not v.events]
    peaks = [v.scores_N[a:b].max() for v in videos for a, b in v.events]
    if not normal or not peaks:
        assert np.isnan(found.integral)
        return
    hours = sum(len(v.scores_N) / v.fps for v in normal) / 3600
    points, most = [], 0
    for level in sorted({s for v in videos for s in v.scores_N}, reverse=True):
        most = max(most, sum(len(slow_runs(v.scores_N, level)) for v in normal))
        points.append((most / hours, np.mean([peak >= level for peak in peaks])))
    # between two neighbouring edges the best recall that can be paid for does not change
    edges = sorted({*rates, *(rate for rate, _ in points if rates[0] < rate < rates[1])})
    area = 0.0
    for low, high in itertools.pairwise(edges):
        area += np.log(high / low) * max((share for rate, share in points if rate <= low), default=0)
    assert found.integral == pytest.approx(area / np.log(rates[1] / rates[0]), abs=1e-9)
    assert 0 <= found.integral <= 1
    assert found.resolution_per_hour == pytest.approx(1 / hours)
    for rate in found.rates_P:
        drawn = found.recalls_P[found.rates_P <= rate].max()
        assert drawn == pytest.approx(max(recall for paid, recall in points if paid <= rate * (1 + 1e-12)))


@given(sets)
def test_the_number_of_alarms_at_every_threshold_at_once_equals_counting_them(videos):
    normal = [v for v in videos if not v.events]
    alone = [*normal, TimedVideo(np.array([s for v in videos for s in v.scores_N]), [(0, 1)], 1.0)]
    found = low_false_alarm_recall(alone, lowest_per_hour=1, highest_per_hour=2)
    peak = alone[-1].scores_N[0]
    levels = [s for v in normal for s in v.scores_N if s >= peak]
    most = max((sum(len(slow_runs(v.scores_N, level)) for v in normal) for level in levels), default=0)
    assert not normal or found.rates_P == pytest.approx([most / found.hours])


def test_without_a_false_alarm_every_event_found_counts_in_full():
    quiet, loud = TimedVideo(np.zeros(9), [], 1.0), TimedVideo(np.ones(9), [], 1.0)
    two = TimedVideo(np.array([0.0, 0.8, 0.0, 0.4]), [(1, 2), (3, 4)], 1.0)
    assert low_false_alarm_recall([quiet, two]).integral == 1
    assert low_false_alarm_recall([loud, two]).integral == 0  # one alarm in 9 seconds is far above one an hour
    found = low_false_alarm_recall([quiet, two])
    assert (found.hours, found.resolution_per_hour) == (pytest.approx(1 / 400), pytest.approx(400))
    nothing = low_false_alarm_recall([two])
    assert np.isnan([nothing.integral, nothing.resolution_per_hour]).all()
    assert np.isnan(low_false_alarm_recall([quiet]).integral)


def test_a_step_in_the_middle_of_the_log_axis_counts_half():
    # 100 hours of normal video, one alarm there: 0.01 an hour, half way from 0.001 to 0.1
    scores = np.zeros(360_000)
    scores[7] = 0.5
    videos = [TimedVideo(scores, [], 1.0), TimedVideo(np.array([0.5]), [(0, 1)], 1.0)]
    assert low_false_alarm_recall(videos, lowest_per_hour=0.001, highest_per_hour=0.1).integral == pytest.approx(0.5)


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


@given(sets, thresholds, st.sampled_from([0.5, 2.0, 100.0]))
def test_delays_equal_a_plain_loop(videos, threshold, max_delay):
    found = first_alarms(videos, threshold=threshold, max_delay=max_delay)
    delays = []
    for v in videos:
        for a, b in v.events:
            late = [(n - a) / v.fps for n in range(a, b) if v.scores_N[n] >= threshold]
            delays.append(late[0] if late and late[0] < max_delay else None)
    within = (0, 0.5, 3, max_delay, np.inf)
    if not delays:
        assert np.isnan([found.mean, found.median, found.missed, *early_detection(found, within)]).all()
        return
    filled = [max_delay if delay is None else delay for delay in delays]
    assert found.delays.tolist() == filled
    assert (found.mean, found.median) == (pytest.approx(np.mean(filled)), np.median(filled))
    assert found.missed == pytest.approx(delays.count(None) / len(delays))
    early = [sum(d is not None and d <= seconds for d in delays) / len(delays) for seconds in within]
    assert early_detection(found, within) == pytest.approx(early)
    assert early[-1] == pytest.approx(1 - found.missed)


def test_a_late_detector_and_one_that_misses_are_told_apart():
    curve = np.zeros(100)
    curve[90] = 1
    late, missing = TimedVideo(curve, [(0, 100)], 10.0), TimedVideo(0 * curve, [(0, 100)], 10.0)
    assert first_alarms([late], threshold=0.5, max_delay=30).mean == 9
    assert first_alarms([missing], threshold=0.5, max_delay=30).mean == 30
    assert first_alarms([late], threshold=0.5, max_delay=9).missed == 1  # as late as the maximum is a miss
    assert latency_aware_ap([late], max_delay=9) == 1  # at 0 the alarm is on from the start, and no frame is normal


def test_a_miss_counts_as_the_maximum_delay():
    videos = [TimedVideo(np.array([0, 0, 0, 0.8, 0.2, 0.9, 0.1, 0, 0]), [(2, 5), (5 + 1, 9)], 2.0)]
    found = first_alarms(videos, threshold=0.5, max_delay=10)
    assert found.delays.tolist() == [0.5, 10]
    assert (found.mean, found.median, found.missed) == (5.25, 5.25, 0.5)
    assert first_alarms(videos, threshold=0, max_delay=10).delays.tolist() == [0, 0]
    assert early_detection(found, [0.4, 0.5, 60]).tolist() == [0, 0.5, 0.5]
    assert np.isnan(first_alarms([], threshold=0.5, max_delay=10).mean)


@pytest.mark.parametrize(
    "function",
    [
        lambda v: false_alarm_rate(v, threshold=0.5),
        lambda v: false_alarms_per_hour(v, threshold=0.5),
        lambda v: first_alarms(v, threshold=0.5, max_delay=1),
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
        ([0.1, np.inf], [], 1.0, "1 frames have no finite score"),
        ([[0.1], [0.2]], [], 1.0, r"must be \(N,\), got \(2, 1\)"),
        ([0.1], [(0, 2)], 1.0, "inside 1 frames"),
        ([0.1], [(-1, 1)], 1.0, "inside 1 frames"),
        ([0.1] * 3, [(2, 2)], 1.0, "in order"),
        ([0.1] * 9, [(3, 5), (1, 2)], 1.0, "in order"),
        ([0.1] * 9, [(1, 3), (3, 5)], 1.0, "apart"),
        ([0.1], [], 0.0, "fps must be positive and finite"),
        ([0.1], [], np.nan, "fps must be positive and finite"),
        ([0.1], [], np.inf, "fps must be positive and finite"),
    ],
)
def test_a_video_is_checked_at_birth(scores, events, fps, words):
    with pytest.raises(ValueError, match=words):
        TimedVideo(np.array(scores), events, fps)


def test_settings_that_mean_nothing_are_refused():
    one = [TimedVideo(np.array([0.5]), [(0, 1)], 1.0)]
    with pytest.raises(ValueError, match="threshold must lie"):
        false_alarm_rate(one, threshold=2)
    for wrong in (0, -1, np.nan):
        with pytest.raises(ValueError, match="max_delay must be positive"):
            latency_aware_ap(one, max_delay=wrong)
        with pytest.raises(ValueError, match="max_delay must be positive"):
            first_alarms(one, threshold=0.5, max_delay=wrong)
    with pytest.raises(ValueError, match="rates must rise"):
        low_false_alarm_recall(one, lowest_per_hour=2, highest_per_hour=1)
    with pytest.raises(ValueError, match="rates must rise"):
        low_false_alarm_recall(one, lowest_per_hour=0)
