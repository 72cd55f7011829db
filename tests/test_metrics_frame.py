"""Frame-level metrics against scikit-learn, the controls against published arithmetic, the bootstrap against copies."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from conftest import data
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import auc as area
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.metrics import precision_recall_curve as sklearn_curve

from vad.metrics import bootstrap
from vad.metrics.controls import controls, middle, video_label
from vad.metrics.frame import auc, frame_metrics, precision_recall_curve, ranks, roc_curve


@st.composite
def frames(draw, *, both=True):
    """Labels and scores, from few levels (many ties) to continuous, float32 or float64, negative ones too."""
    count = draw(st.integers(2, 200))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = random.random(count) < draw(st.sampled_from([0.03, 0.3, 0.9]))
    if both:
        labels[:2] = False, True
    levels = draw(st.sampled_from([1, 2, 5, 10**6]))
    kind = draw(st.sampled_from([np.float32, np.float64]))
    return labels, (random.integers(0, levels, count) / levels - 0.5).astype(kind)


@given(frames())
def test_ranking_metrics_equal_scikit_learn(case):
    labels, scores = case
    found = ranks(labels, scores)
    assert found.auc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert found.average_precision == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    precision, recall, _ = sklearn_curve(labels, scores)
    assert found.average_precision_trapezoid == pytest.approx(area(recall, precision), abs=1e-12)
    ties = (scores[labels][:, None] == scores[~labels]).mean()
    assert found.tie_rate == pytest.approx(ties, abs=1e-12)


@given(frames(both=False))
def test_one_class_only_has_no_auc(case):
    labels, scores = case
    found = ranks(labels, scores)
    assert np.isnan(found.auc) == (labels.all() or not labels.any())
    assert np.isnan(found.average_precision) == (not labels.any())
    assert not labels.all() or found.average_precision == 1


@given(st.lists(frames(both=False), min_size=1, max_size=6))
def test_sets_of_videos_equal_a_plain_loop(videos):
    labels, scores = [one for one, _ in videos], [one.astype(np.float64) for _, one in videos]
    found = frame_metrics(labels, scores)
    each = [roc_auc_score(a, b) for a, b in zip(labels, scores, strict=True) if 0 < a.sum() < len(a)]
    padded = [
        roc_auc_score([*a, 0, 1], [*b, min(0, *map(min, scores)), 1]) for a, b in zip(labels, scores, strict=True)
    ]
    pairs = wins = 0.0
    for a, b in zip(labels, scores, strict=True):
        pairs += a.sum() * (~a).sum()
        wins += ((b[a][:, None] > b[~a]) + (b[a][:, None] == b[~a]) / 2).sum()
    assert found.auc_macro == pytest.approx(np.mean(each), abs=1e-12) if each else np.isnan(found.auc_macro)
    assert found.auc_macro_padded == pytest.approx(np.mean(padded), abs=1e-12)
    assert found.auc_within == pytest.approx(wins / pairs, abs=1e-12) if pairs else np.isnan(found.auc_within)
    abnormal = [i for i, one in enumerate(labels) if one.any()]
    if abnormal and not all(labels[i].all() for i in abnormal):
        expected = roc_auc_score(
            np.concatenate([labels[i] for i in abnormal]), np.concatenate([scores[i] for i in abnormal])
        )
        assert found.auc_abnormal == pytest.approx(expected, abs=1e-12)
    assert found.levels == len(np.unique(np.concatenate(scores)))
    assert (found.videos, found.abnormal_videos, found.macro_videos) == (len(videos), len(abnormal), len(each))


def test_the_padding_trick_lifts_single_class_videos_to_one():
    labels = [np.array([False, False]), np.array([False, True])]
    scores = [np.array([0.9, 0.9]), np.array([0.9, 0.1])]
    found = frame_metrics(labels, scores)
    assert (found.auc_macro, found.macro_videos) == (0, 1)
    assert found.auc_macro_padded == pytest.approx((1 + 0.75) / 2)


@pytest.mark.parametrize("function", [auc, ranks])
def test_bad_input_is_refused(function):
    with pytest.raises(ValueError, match="equally long, got 2 and 3"):
        function(np.array([True, False]), np.float32([1, 2, 3]))
    with pytest.raises(ValueError, match="1 frames have no score"):
        function(np.array([True, False]), np.float32([1, np.nan]))
    with pytest.raises(ValueError, match="no video"):
        frame_metrics([], [])
    assert np.isnan(auc(np.empty(0, bool), np.empty(0)))


@given(frames())
def test_drawn_curves_have_the_areas_of_the_metrics(case):
    labels, scores = case
    x, y = roc_curve(labels, scores, points=10**6)
    assert np.trapezoid(y, x) == pytest.approx(auc(labels, scores), abs=1e-12)
    assert (np.diff(x) >= 0).all()
    assert (np.diff(y) >= 0).all()
    recall, precision = precision_recall_curve(labels, scores, points=10**6)
    assert np.diff(recall, prepend=0) @ precision == pytest.approx(average_precision_score(labels, scores), abs=1e-12)


def test_drawn_curves_are_thin_however_many_frames_there_are():
    random = np.random.default_rng(0)
    labels = random.random(100_000) < 0.3
    scores = random.random(100_000) + labels * 0.3
    x, y = roc_curve(labels, scores)
    assert len(x) <= 402
    assert np.trapezoid(y, x) == pytest.approx(auc(labels, scores), abs=1e-3)
    assert len(precision_recall_curve(labels, scores)[0]) <= 402


@given(st.lists(frames(both=False), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_resampled_metrics_equal_metrics_of_copied_videos(videos, seed):
    labels, scores = [one for one, _ in videos], [one.astype(np.float64) for _, one in videos]
    statistic = bootstrap.frame_statistic(labels, scores)
    drawn = bootstrap.draws(len(videos), resamples=5, seed=seed)
    fast = statistic(drawn)
    for number, times in enumerate(drawn):
        chosen = np.repeat(np.arange(len(videos)), times.astype(int))
        slow = frame_metrics([labels[i] for i in chosen], [scores[i] for i in chosen])
        for name, values in fast.items():
            assert values[number] == pytest.approx(getattr(slow, name), abs=1e-9, nan_ok=True), name


def test_intervals_are_the_same_for_the_same_seed_and_hold_the_value():
    random = np.random.default_rng(0)
    labels = [random.random(50) < 0.3 for _ in range(30)]
    scores = [random.random(50) + one * 0.2 for one in labels]
    statistic = bootstrap.frame_statistic(labels, scores)
    first, second, other = (bootstrap.resample(statistic, 30, resamples=300, seed=s)["auc"] for s in (1, 1, 2))
    assert (first == second).all()
    assert (first != other).any()
    found = bootstrap.interval(frame_metrics(labels, scores).auc, first)
    assert found.low < found.value < found.high
    with pytest.raises(ValueError, match="at least one video and one resample"):
        bootstrap.resample(statistic, 30, resamples=0, seed=0)


def test_an_undefined_resample_is_counted_not_guessed():
    found = bootstrap.interval(0.5, [0.4, np.nan, 0.6])
    assert (found.undefined, found.low) == (1, pytest.approx(0.405))
    assert np.isnan(bootstrap.interval(0.5, [np.nan]).low)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    random = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        values = random.normal(size=40)  # one number a video; the truth is 0

        def mean(times, values=values):
            return {"mean": times @ values / times.sum(1)}

        found = bootstrap.interval(
            0, bootstrap.resample(mean, 40, resamples=200, seed=int(random.integers(2**32)))["mean"]
        )
        covered += found.low <= 0 <= found.high
    assert 175 <= covered <= 199  # 95 % of 200 is 190, small samples cover a little less


def ucf():
    """Labels by video of the UCF-Crime test set."""
    with open(data("ucf_crime", "test_annotations.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    labels = {}
    for row in rows:
        one = labels[row["video"]] = np.zeros(int(row["num_frames"]), bool)
        for k in "12":
            if int(row["start" + k]) >= 0:
                one[int(row["start" + k]) : int(row["end" + k])] = True
    return labels


def xd():
    """Labels by video of the XD-Violence test set."""
    labels = {}
    with open(data("labels", "xd_violence_test.csv"), newline="") as file:
        for row in csv.DictReader(file):
            one = labels[row["video"]] = np.zeros(int(row["num_frames"]), bool)
            for pair in filter(None, row["intervals_half_open"].split(";")):
                start, end = map(int, pair.split("-"))
                one[start:end] = True
    return labels


def test_golden_numbers_of_a_real_model_on_ucf_crime():
    with np.load(data("ucf_crime", "model_scores_32.npz"), allow_pickle=False) as file:
        rows = dict(zip(file["names"].tolist(), file["scores"], strict=True))
    labels = ucf()
    scores = [rows[name][np.arange(len(one)) * 32 // len(one)] for name, one in labels.items()]
    found = frame_metrics(list(labels.values()), scores)
    assert (found.frames, found.abnormal_frames) == (1_109_680, 84_128)
    assert found.auc == pytest.approx(0.690289, abs=1e-6)
    assert found.ap == pytest.approx(0.191946, abs=1e-6)


@pytest.mark.parametrize(
    ("truth", "label", "middle_prior", "product"), [(ucf, 81.5, 61.9, 86.5), (xd, 84.9, 54.6, 87.0)]
)
def test_controls_reach_what_is_known_of_them(truth, label, middle_prior, product):
    labels = list(truth().values())
    found = {name: frame_metrics(labels, make()) for name, make in controls(labels).items()}
    assert 100 * found["perfect video label"].auc == pytest.approx(label, abs=0.1)
    assert 100 * found["middle of the video"].auc == pytest.approx(middle_prior, abs=0.3)
    assert 100 * found["label × middle"].auc == pytest.approx(product, abs=0.3)
    assert 100 * found["random"].auc == pytest.approx(50, abs=0.3)
    # the label control says nothing about when
    assert found["perfect video label"].auc_within == found["perfect video label"].auc_macro == 0.5
    normal_of_normal = sum(len(one) for one in labels if not one.any())
    normal_of_abnormal = sum((~one).sum() for one in labels if one.any())
    formula = (normal_of_normal + normal_of_abnormal / 2) / (normal_of_normal + normal_of_abnormal)
    assert found["perfect video label"].auc == pytest.approx(formula, abs=1e-12)


@pytest.mark.parametrize(("truth", "steps", "trapezoid"), [(ucf, 18.2, 59.1), (xd, 49.8, 74.9)])
def test_two_definitions_of_ap_are_told_apart(truth, steps, trapezoid):
    labels = list(truth().values())
    found = frame_metrics(labels, [video_label(one) for one in labels])
    assert 100 * found.ap == pytest.approx(steps, abs=0.1)
    assert 100 * found.ap_trapezoid == pytest.approx(trapezoid, abs=0.1)


def test_the_middle_is_highest_and_the_same_both_ways():
    bell = middle(101)
    assert bell.argmax() == 50
    assert bell[50] == 1
    np.testing.assert_allclose(bell, bell[::-1])
    assert middle(1).tolist() == [1]
