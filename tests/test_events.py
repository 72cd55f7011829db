"""The event machine."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.events import Settings, State, events, finish, step
from streaming.smoothing import Sample

SETTINGS = Settings(on=0.6, off=0.4, min_duration=0.3, cooldown=0.5)


def samples(values, period=0.1):
    return [Sample(i * period, (i + 1) * period, value) for i, value in enumerate(values)]


def spans(values, settings=SETTINGS):
    return [(round(e.start, 6), round(e.end, 6)) for e in events(samples(values), settings)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.1] * 20, []),
        ([0.1] * 5 + [0.9] * 5 + [0.1] * 10, [(0.5, 1.0)]),
        ([0.9] * 2 + [0.1] * 10, []),  # shorter than min_duration
        ([0.9] * 3 + [0.1] * 10, [(0.0, 0.3)]),
        ([0.5] * 20, []),  # above off alone starts nothing
        ([0.9] * 5 + [0.5] * 5 + [0.1] * 10, [(0.0, 1.0)]),  # above off carries on
        ([0.9] * 5 + [0.1] * 4 + [0.9] * 5 + [0.1] * 9, [(0.0, 1.4)]),  # a dip shorter than the cool-down
        ([0.9] * 5 + [0.1] * 5 + [0.9] * 5 + [0.1] * 9, [(0.0, 0.5), (1.0, 1.5)]),
        ([0.1] * 5 + [0.9] * 5, [(0.5, 1.0)]),  # still open when the stream ends
        ([0.1] * 5 + [0.9] * 2, []),  # too young when the stream ends
        ([0.9, 0.9, 0.5, 0.9, 0.9] + [0.1] * 9, []),  # min_duration is time at or above on, in one run
    ],
)
def test_cases(values, expected):
    assert spans(values) == expected


def test_a_hole_in_the_stream_ends_an_event():
    early, late = samples([0.9] * 5), [Sample(9 + s.start, 9 + s.end, s.score) for s in samples([0.9] * 5)]
    found = events(early + late, SETTINGS)
    assert [(e.start, e.end) for e in found] == [(0.0, 0.5), (9.0, 9.5)]


def test_the_peak_is_the_highest_sample_of_the_event():
    (event,) = events(samples([0.1, 0.7, 0.8, 0.95, 0.7, 0.1, 0.1, 0.1, 0.1, 0.1]), SETTINGS)
    assert event.peak == 0.95
    assert event.peak_time == pytest.approx(0.3)


settings = st.builds(
    lambda off, more, least, cool: Settings(on=min(1.0, off + more), off=off, min_duration=least, cooldown=cool),
    st.floats(0.05, 0.9),
    st.floats(0, 0.5),
    st.sampled_from([0.0, 0.1, 0.25, 0.7]),
    st.sampled_from([0.0, 0.1, 0.35, 1.0]),
)
scores = st.lists(st.floats(0, 1), max_size=80)


@given(scores, settings)
def test_told_events_are_sound(values, settings):
    state, told, open_since = State(), [], None
    for sample in samples(values):
        state, transitions = step(state, settings, sample)
        for transition in transitions:
            if transition.kind == "new":
                assert open_since is None
                open_since = transition.event.start
                assert sample.end - transition.event.start >= settings.min_duration - 1e-6
            else:
                assert transition.event.start == open_since  # never told of a start that changes later
                assert sample.end - transition.event.end >= settings.cooldown - 1e-6
                told.append(transition.event)
                open_since = None
    told += [transition.event for transition in finish(state)]
    assert told == events(samples(values), settings)
    for event in told:
        inside = [s for s in samples(values) if event.start <= s.start < event.end - 1e-9]
        assert inside[0].score >= settings.on
        assert inside[-1].score >= settings.off
        assert event.peak == max(s.score for s in inside)
    for before, after in itertools.pairwise(told):
        assert after.start - before.end >= settings.cooldown - 1e-6


@given(scores, settings)
def test_every_long_enough_run_is_told(values, settings):
    found = events(samples(values), settings)
    run = 0
    for sample in samples(values):
        run = run + 1 if sample.score >= settings.on else 0
        if run and run * 0.1 >= settings.min_duration + 1e-6:
            assert any(e.start <= sample.start < e.end for e in found)


def test_thresholds_must_be_in_order():
    with pytest.raises(ValueError, match=r"off must not be above on, got off 0\.8 and on 0\.6"):
        Settings(on=0.6, off=0.8)
