"""Localisation against scikit-learn, a loop over every confidence, and the field's rules written out frame by frame."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from vad.metrics.localisation import (
    Detection,
    Truth,
    average_precision,
    mean_average_precision,
    segments_of,
    suppressed,
    vadclip_compatible,
)

stretch = st.tuples(st.integers(0, 12), st.integers(1, 8)).map(lambda pair: (pair[0], pair[0] + pair[1]))
label = st.sampled_from("ab")
truth = st.builds(lambda video, span, label: Truth(video, *span, label), st.integers(0, 2), stretch, label)
detection = st.builds(
    lambda video, span, level, label: Detection(video, *span, level / 4, label),
    st.integers(0, 3),
    stretch,
    st.integers(0, 4),
    label,
)
shares = st.sampled_from([0.1, 0.3, 0.5])


def slow_tiou(a, b):
    first, second = set(range(a.start, a.end)), set(range(b.start, b.end))
    return len(first & second) / len(first | second)


def slow_hits(detections, truths, at_least):
    """How many of the detections, most confident first, take a free segment."""
    free, hits = list(truths), 0
    for one in sorted(detections, key=lambda d: (-d.confidence, d.start, d.end)):
        good = [t for t in free if t.video == one.video and slow_tiou(one, t) >= at_least]
        if good:
            free.remove(max(good, key=lambda t: slow_tiou(one, t)))
            hits += 1
    return hits


def slow_average_precision(detections, truths, at_least):
    """Mean over the n true segments of the highest precision at which at least k of them are found, k = 1 … n."""
    points = []
    for level in {one.confidence for one in detections}:
        kept = [one for one in detections if one.confidence >= level]
        points.append((slow_hits(kept, truths, at_least), slow_hits(kept, truths, at_least) / len(kept)))
    best = [max((p for hits, p in points if hits >= k), default=0) for k in range(1, len(truths) + 1)]
    return np.mean(best)


@given(st.lists(detection, max_size=15), st.lists(truth, max_size=6), shares)
def test_map_equals_a_loop_over_every_confidence(detections, truths, at_least):
    found = mean_average_precision(detections, truths, tious=[at_least])
    each = []
    for name in {one.label for one in truths}:
        own = [one for one in detections if one.label == name]
        each.append(slow_average_precision(own, [t for t in truths if t.label == name], at_least))
    expected = np.mean(each) if each else np.nan
    assert found.per_tiou[0] == pytest.approx(expected, nan_ok=True)
    shuffled = random.Random(0).sample(detections, len(detections))
    assert mean_average_precision(shuffled, truths, tious=[at_least]).per_tiou == pytest.approx(
        found.per_tiou, nan_ok=True
    )


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_uninterpolated_ap_is_scikit_learns_average_precision_ties_too(ranked):
    confidences = [level / 5 for level, _ in ranked]
    truths = [Truth(i, 0, 10) for i, (_, hit) in enumerate(ranked) if hit]
    detections = [Detection(i, 0, 10, confidence) for i, confidence in enumerate(confidences)]
    found = average_precision(detections, truths, at_least=0.5, interpolated=False)
    if truths:
        assert found == pytest.approx(average_precision_score([hit for _, hit in ranked], confidences))
        assert average_precision(detections, truths, at_least=0.5) >= found - 1e-12
    else:
        assert np.isnan(found)


def test_each_truth_is_taken_once_and_classes_without_truth_count_nowhere():
    truths = [Truth(0, 0, 10, "fall"), Truth(1, 0, 10, "fight")]
    twice = [Detection(0, 0, 10, 0.9, "fall"), Detection(0, 0, 9, 0.8, "fall"), Detection(1, 0, 10, 0.7, "fire")]
    assert mean_average_precision(twice, truths, tious=[0.5]).per_tiou == (0.5,)
    assert mean_average_precision(twice, truths, tious=[0.5], classes=["fall", "fire"]).per_tiou == (1.0,)
    # the second best overlap is taken when the best is gone
    close = [Truth(0, 0, 10), Truth(0, 2, 12)]
    two = [Detection(0, 1, 11, 0.9), Detection(0, 1, 11, 0.8)]
    assert mean_average_precision(two, close, tious=[0.5]).per_tiou == (1.0,)


def test_empty_lists():
    one = [Detection(0, 0, 10, 0.9)]
    assert np.isnan(mean_average_precision(one, []).average)
    assert np.isnan(mean_average_precision([], []).per_tiou).all()
    assert mean_average_precision([], [Truth(0, 0, 10)]).per_tiou == (0,) * 5
    assert np.isnan(average_precision(one, [], at_least=0.5))
    assert segments_of(np.empty(0), thresholds=[0.5], video=0) == []
    assert suppressed([], overlap=0.6) == []


def test_interpolation_takes_the_highest_precision_from_there_on():
    truths = [Truth(i, 0, 1) for i in range(2)]
    ranked = [Detection(9, 0, 1, 0.9), Detection(0, 0, 1, 0.8), Detection(1, 0, 1, 0.7)]
    assert average_precision(ranked, truths, at_least=0.5, interpolated=False) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert average_precision(ranked, truths, at_least=0.5) == pytest.approx(2 / 3)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=25), st.sets(st.integers(0, 6), min_size=1))
def test_segments_of_a_curve_are_runs_and_no_two_are_doubles(levels, thresholds):
    curve = np.array(levels) / 6
    found = segments_of(curve, thresholds=[t / 6 for t in thresholds], video=3)
    runs = set()
    for threshold in thresholds:
        for start in range(len(levels)):
            for end in range(start + 1, len(levels) + 1):
                longest = (start == 0 or levels[start - 1] < threshold) and (
                    end == len(levels) or levels[end] < threshold
                )
                if longest and min(levels[start:end]) >= threshold:
                    runs.add((start, end))
    kept = {(one.start, one.end) for one in found}
    assert kept <= runs
    for one in found:
        assert one.video == 3
        assert one.confidence == pytest.approx(curve[one.start : one.end].mean())
        assert all(other is one or slow_tiou(one, other) <= 0.6 for other in found)
    for start, end in runs - kept:  # left out for a segment that is no less confident
        left = Detection(3, start, end, float(curve[start:end].mean()))
        assert any(slow_tiou(left, other) > 0.6 and other.confidence >= left.confidence - 1e-9 for other in found)


def test_suppression_keeps_the_more_confident_one():
    overlapping = [Detection(0, 0, 10, 0.5), Detection(0, 1, 10, 0.9), Detection(0, 20, 30, 0.1)]
    assert [one.start for one in suppressed(overlapping, overlap=0.6)] == [1, 20]


def slow_vadclip(class_scores, truths, classes, hop, at_least):
    """The rules one by one, frame by frame, and each precision by hand."""
    precisions = []
    for number, name in enumerate(classes):
        segments = []
        for video, scores in enumerate(class_scores):
            frames = [float(row[number]) for row in scores for _ in range(hop)]
            top = sorted(frames, reverse=True)[: len(frames) // 16]
            if not top or sum(top) <= 0:
                continue
            limit = max(frames) - 0.6 * (max(frames) - min(frames))
            start = None
            for n, score in enumerate([*frames, limit]):
                if score > limit and start is None:
                    start = n
                if score <= limit and start is not None:
                    if n - start >= 2:
                        confidence = max(frames[start:n]) + 0.7 * (sum(top) / len(top))
                        segments.append(Detection(video, start, n, confidence))
                    start = None
        if not segments:
            return 0
        own = [t for t in truths if t.label == name]
        total = 0.0
        for level in sorted({one.confidence for one in segments}, reverse=True):
            upto = [one for one in segments if one.confidence >= level]
            above = [one for one in segments if one.confidence > level]
            new = slow_hits(upto, own, at_least) - slow_hits(above, own, at_least)
            total += new * slow_hits(upto, own, at_least) / len(upto)
        precisions.append(total / len(own) if own else 0)
    return np.mean(precisions)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 8, 16]), shares)
def test_the_fields_map_equals_its_rules_frame_by_frame(seed, hop, at_least):
    draw = np.random.default_rng(seed)
    # eighths add up without rounding, so that equal confidences are equal in both
    scores = [draw.integers(0, 9, (draw.integers(1, 25), 2)) / 8 for _ in range(4)]
    truths = []
    for _ in range(draw.integers(0, 6)):
        start = int(draw.integers(0, 10 * hop))
        truths.append(
            Truth(int(draw.integers(0, 4)), start, start + int(draw.integers(1, 8 * hop)), draw.choice([*"abA"]))
        )
    found = vadclip_compatible(scores, truths, classes="ab", hop=hop, tious=[at_least])
    assert found.per_tiou[0] == pytest.approx(slow_vadclip(scores, truths, "ab", hop, at_least))


def classes(count=3, snippets=20, at=(5, 10), label=1):
    scores = np.full((snippets, count), 0.1)
    scores[0] = 0.0  # so that every class has a range, and a segment
    scores[at[0] : at[1], label] = 0.9
    return scores


def test_the_fields_script_can_never_reach_one_with_a_class_that_has_no_truth():
    labels = ["Normal", *map(str, range(13))]
    videos = [classes(14, label=number) for number in range(1, 14)]
    truths = [Truth(number, 5 * 16, 10 * 16, name) for number, name in enumerate(labels[1:])]
    # normal videos carry another label in the published truth than the class has
    videos.append(classes(14, label=0))
    truths.append(Truth(13, 0, 20 * 16, "A"))
    assert vadclip_compatible(videos, truths, classes=labels).per_tiou == pytest.approx([13 / 14] * 5)
    perfect = [Detection(one.video, one.start, one.end, 0.9, one.label) for one in truths]
    assert mean_average_precision(perfect, truths, classes=labels).average == 1


def test_one_class_without_a_segment_makes_the_fields_map_zero():
    scores = classes()
    truths = [Truth(0, 5 * 16, 10 * 16, "b")]
    assert vadclip_compatible([scores], truths, classes="abc").average == pytest.approx(1 / 3)
    scores[:, 2] = 0.5  # constant: nothing lies above its threshold
    assert vadclip_compatible([scores], truths, classes="abc").average == 0


@pytest.mark.parametrize(("second", "ap"), [(0.40, 1), (0.44, 0.5)])
def test_the_class_score_of_the_video_weighs_seven_tenths(second, ap):
    sharp, broad = np.zeros((32, 1)), np.zeros((32, 1))
    sharp[5:7, 0] = 0.9, second  # class score 0.65 or 0.67: 0.9 + 0.7 x it is just below or above 0.8 + 0.7 x 0.8
    broad[5:7, 0] = 0.8
    assert vadclip_compatible([sharp, broad], [Truth(1, 80, 112, "a")], classes="a").average == ap


def test_segments_of_the_fields_script_are_in_frames():
    single = classes(2, at=(5, 6))  # one snippet is 16 frames, more than the least two
    assert vadclip_compatible([single], [Truth(0, 80, 96, "b")], classes="ab", tious=[1.0]).average == 0.5
    # truth is not rounded to snippets: 9 of 16 frames are not 60 %
    truths = [Truth(0, 80, 89, "b")]
    assert vadclip_compatible([single], truths, classes="ab", tious=[0.5]).average == 0.5
    assert vadclip_compatible([single], truths, classes="ab", tious=[0.6]).average == 0
    # fewer than 16 frames have no class score, hence no segment
    assert vadclip_compatible([single[:15]], truths, classes="ab", hop=1).average == 0


def test_input_that_means_nothing_is_refused():
    scores = classes()
    with pytest.raises(ValueError, match=r"class scores must be \(T, 2\), got \(20, 3\)"):
        vadclip_compatible([scores], [], classes="ab")
    with pytest.raises(ValueError, match="hop must be at least 1, got 0"):
        vadclip_compatible([scores], [], classes="abc", hop=0)
    scores[3, 1] = np.nan
    with pytest.raises(ValueError, match="1 class scores are not finite"):
        vadclip_compatible([scores], [], classes="abc")
    with pytest.raises(ValueError, match="1 frames have no finite score"):
        segments_of(scores[:, 1], thresholds=[0.5], video=0)
    with pytest.raises(ValueError, match=r"start < end, got \[4, 4\)"):
        Truth(0, 4, 4)
    with pytest.raises(ValueError, match=r"start < end, got \[5, 4\)"):
        Detection(0, 5, 4, 0.5)
    with pytest.raises(ValueError, match="confidence must be finite, got nan"):
        Detection(0, 4, 5, np.nan)
    for wrong in (0, 1.1, np.nan):
        with pytest.raises(ValueError, match=r"a tIoU must lie in \(0, 1\]"):
            mean_average_precision([], [], tious=[wrong])
        with pytest.raises(ValueError, match=r"a tIoU must lie in \(0, 1\]"):
            average_precision([], [], at_least=wrong)
        with pytest.raises(ValueError, match=r"a tIoU must lie in \(0, 1\]"):
            vadclip_compatible([], [], classes="ab", tious=[wrong])
