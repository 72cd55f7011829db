"""The vocabulary refuses what makes no sense, and the one expansion from snippets to frames."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vad.types import Clip, Event, FeatureSequence, Frame, Gap, ScoreCurve, to_frames

PIXELS = np.zeros((4, 6, 3), np.uint8)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Frame(0, 0.0, PIXELS[..., 0]), r"must be \(H, W, 3\), got \(4, 6\)"),
        (lambda: Frame(0, float("nan"), PIXELS), "pts must be finite, got nan"),
        (lambda: Clip(PIXELS, 0, 1, 0.0), r"must be \(clip_frames, H, W, 3\)"),
        (lambda: Clip(PIXELS[None], 3, 3, 0.0), r"start < end, got \[3, 3\)"),
        (lambda: FeatureSequence(np.zeros(3, np.float32), 16, 25.0), r"got \(3,\)"),
        (lambda: FeatureSequence(np.zeros((3, 2), np.float32), 0, 25.0), "hop_frames must be at least 1, got 0"),
        (lambda: FeatureSequence(np.zeros((3, 2), np.float32), 16, 0.0), "fps must be positive, got 0.0"),
        (lambda: ScoreCurve(np.arange(2.0), np.zeros(3, np.float32), np.zeros(2, np.float32)), "got 2, 3, 2"),
        (lambda: ScoreCurve(np.zeros(2), np.zeros(2, np.float32), np.zeros(2, np.float32)), "pts must rise"),
        (
            lambda: ScoreCurve(np.arange(2.0), np.zeros(2, np.float32), np.float32([0, 1.5])),
            r"\[0, 1\], got 0.0 to 1.5",
        ),
        (lambda: Event(2.0, 1.0, 0.5, 1.5), "peak_time must lie in"),
        (lambda: Event(1.0, 2.0, 1.5, 1.5), r"peak must lie in \[0, 1\]"),
        (lambda: Gap(1.0, 1.0, "damaged"), "start < end"),
    ],
)
def test_nonsense_is_refused_at_birth(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_tail_frames_keep_the_last_score():
    frames = to_frames(np.float32([1, 2]), np.array([[0, 3], [3, 5]]), num_frames=8, breaks=np.array([], int))
    assert frames.tolist() == [1, 1, 1, 2, 2, 2, 2, 2]


def test_scores_do_not_cross_a_break():
    # damage at frames 4 and 5; the stream begins anew at 6 and has its first whole snippet there
    spans, breaks = np.array([[0, 3], [6, 9]]), np.array([4, 5, 6])
    frames = to_frames(np.float32([1, 2]), spans, num_frames=10, breaks=breaks)
    np.testing.assert_array_equal(frames, np.float32([1, 1, 1, 1, np.nan, np.nan, 2, 2, 2, 2]))


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=20), st.integers(0, 6))
def test_every_frame_takes_the_snippet_that_covers_it_or_the_one_before(parts, tail):
    """``parts``: a run of frames, and whether it is a snippet or damage."""
    spans, values, breaks, expected, start = [], [], [], [], 0
    held = np.nan
    for number, (length, is_snippet) in enumerate(parts):
        end = start + length
        if is_snippet:
            spans.append((start, end))
            values.append(number)
            held = number
        else:
            breaks += range(start, end)
            held = np.nan
        expected += [held] * length
        start = end
    expected += [held] * tail
    frames = to_frames(
        np.float32(values), np.array(spans, int).reshape(-1, 2), num_frames=start + tail, breaks=np.array(breaks, int)
    )
    np.testing.assert_array_equal(frames, np.float32(expected))


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="2 values and 1 spans"):
        to_frames(np.float32([1, 2]), np.array([[0, 3]]), num_frames=3, breaks=np.array([], int))
