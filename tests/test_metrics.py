"""Frame AUC against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from vad.metrics.frame import auc, frame_auc


@given(st.integers(2, 300), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_auc_equals_an_independent_implementation_with_ties(count, levels, seed):
    random = np.random.default_rng(seed)
    labels = random.random(count) < 0.3
    scores = random.integers(0, levels, count).astype(np.float32)
    if labels.all() or not labels.any():
        assert np.isnan(auc(labels, scores))
    else:
        assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))


def test_micro_and_macro():
    labels = [np.array([False, True]), np.array([False, True]), np.array([True, True])]
    scores = [np.float32([0.1, 0.2]), np.float32([0.8, 0.7]), np.float32([0.9, 0.3])]
    result = frame_auc(labels, scores)
    assert (result.macro, result.macro_videos) == (0.5, 2)
    assert result.micro == pytest.approx(roc_auc_score(np.concatenate(labels), np.concatenate(scores)))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="equally long, got 2 and 3"):
        auc(np.array([True, False]), np.float32([1, 2, 3]))
    with pytest.raises(ValueError, match="1 frames have no score"):
        auc(np.array([True, False]), np.float32([1, np.nan]))
