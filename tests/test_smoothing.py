"""Smoothers as step functions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from streaming.smoothing import Sample, Settings

SMOOTHERS = [
    {"kind": "none"},
    {"kind": "ema", "half_life": 0.4},
    {"kind": "median", "window": 0.9},
    {"kind": "gaussian", "sigma": 0.3, "lookahead": 0.7},
]
scores = st.lists(st.floats(0, 1), min_size=1, max_size=60)


def build(values):
    return TypeAdapter(Settings).validate_python(values)


def samples(values, period=0.1):
    return [Sample(i * period, (i + 1) * period, value) for i, value in enumerate(values)]


def smooth(settings, values):
    smoother = build(settings).build()
    done = [out for sample in samples(values) for out in smoother.step(sample)]
    return done + smoother.finish()


@pytest.mark.parametrize("settings", SMOOTHERS, ids=lambda s: s["kind"])
@given(values=scores)
def test_one_sample_out_for_each_in_in_order_and_within_range(settings, values):
    out = smooth(settings, values)
    assert [(s.start, s.end) for s in out] == [(s.start, s.end) for s in samples(values)]
    assert all(min(values) - 1e-9 <= s.score <= max(values) + 1e-9 for s in out)


@pytest.mark.parametrize("settings", SMOOTHERS, ids=lambda s: s["kind"])
@given(values=scores, cut=st.integers(0, 60))
def test_smoothing_never_looks_further_ahead_than_declared(settings, values, cut):
    cut = min(cut, len(values))
    changed = values[:cut] + [1 - value for value in values[cut:]]
    lookahead = build(settings).lookahead
    for before, after, time in zip(smooth(settings, values), smooth(settings, changed), samples(values), strict=True):
        if time.end + lookahead < cut * 0.1 + 0.1 - 1e-6:
            assert before.score == after.score


@pytest.mark.parametrize("settings", SMOOTHERS[:3], ids=lambda s: s["kind"])
@given(values=scores)
def test_causal_smoothers_answer_at_once(settings, values):
    smoother = build(settings).build()
    assert all(len(smoother.step(sample)) == 1 for sample in samples(values))
    assert smoother.finish() == []


@pytest.mark.parametrize("settings", SMOOTHERS, ids=lambda s: s["kind"])
def test_a_constant_stays_what_it_is(settings):
    assert [s.score for s in smooth(settings, [0.3] * 20)] == pytest.approx([0.3] * 20)


def test_ema_halves_the_past_in_its_half_life():
    out = smooth({"kind": "ema", "half_life": 0.1}, [1, 0, 0, 0])
    assert [s.score for s in out] == pytest.approx([1, 0.5, 0.25, 0.125])


def test_ema_means_the_same_at_every_frame_rate():
    slow = build({"kind": "ema", "half_life": 0.5}).build()
    fast = build({"kind": "ema", "half_life": 0.5}).build()
    for sample in samples([0] + [1] * 10, period=0.2):
        (last_slow,) = slow.step(sample)
    fast.step(Sample(0, 0.2, 0))
    for i in range(20):
        (last_fast,) = fast.step(Sample(0.2 + i * 0.1, 0.3 + i * 0.1, 1))
    assert last_slow.score == pytest.approx(last_fast.score)


def test_median_equals_numpy_over_its_window():
    values = list(np.random.default_rng(0).random(50))
    out = smooth({"kind": "median", "window": 0.45}, values)
    expected = [np.median(values[max(0, i - 4) : i + 1]) for i in range(50)]
    assert [s.score for s in out] == pytest.approx(expected)


def test_gaussian_equals_a_direct_sum():
    values = np.random.default_rng(0).random(40)
    times = (np.arange(40) + 1) * 0.1
    out = smooth({"kind": "gaussian", "sigma": 0.25, "lookahead": 0.52}, list(values))
    for i, sample in enumerate(out):
        near = (times >= times[i] - 0.75 - 1e-9) & (times <= times[i] + 0.52)
        weights = np.exp(-(((times[near] - times[i]) / 0.25) ** 2) / 2)
        assert sample.score == pytest.approx((weights @ values[near]) / weights.sum(), abs=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "ema", "half_life": 0}, "greater than 0"),
        ({"kind": "mean"}, "expected tags"),
        ({"kind": "median", "half_life": 1}, "Extra inputs"),
    ],
)
def test_bad_settings_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        build(values)
