"""Raw scores to [0, 1]."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vad.calibration import Calibration, rarity

raws = arrays(np.float32, st.integers(2, 200), elements=st.floats(0, 1e6, width=32))


@given(raws, arrays(np.float32, 20, elements=st.floats(-1e6, 1e9, width=32)))
def test_scores_lie_in_the_unit_interval_and_never_fall(normal, values):
    scores = Calibration.fit(normal)(np.sort(values))
    assert ((scores >= 0) & (scores <= 1)).all()
    assert (np.diff(scores) >= 0).all()


def test_order_is_kept_far_beyond_everything_normal():
    calibration = Calibration.fit(np.random.default_rng(0).exponential(size=5000).astype(np.float32))
    far = np.linspace(5, 500, 400).astype(np.float32)
    assert (np.diff(calibration(far)) > 0).all()


def test_half_means_one_in_a_thousand_normal_moments():
    random = np.random.default_rng(1)
    calibration = Calibration.fit(random.gamma(3, size=20_000).astype(np.float32))
    fresh = calibration(random.gamma(3, size=400_000).astype(np.float32))
    # the tail of a gamma falls a little slower than the exponential that is assumed
    assert 0.5e-3 < (fresh >= 0.5).mean() < 2e-3
    assert rarity(0.5) == pytest.approx(3)


def test_the_body_follows_the_quantiles():
    values = np.arange(1000, dtype=np.float32)
    calibration = Calibration.fit(values)
    median = float(calibration(np.float32([499.5]))[0])
    assert rarity(median) == pytest.approx(-np.log10(0.5), abs=0.01)


def test_constant_normal_scores_still_tell_more_from_less():
    calibration = Calibration.fit(np.full(50, 2, np.float32))
    low, high = calibration(np.float32([2, 3]))
    assert low < high


def test_too_few_scores_are_refused():
    with pytest.raises(ValueError, match="at least 2 normal scores, got 1"):
        Calibration.fit(np.float32([1, np.nan]))


def test_it_survives_json():
    calibration = Calibration.fit(np.random.default_rng(0).normal(size=300).astype(np.float32))
    assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration
