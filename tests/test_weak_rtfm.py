"""The feature magnitude head and its loss: published size and worked values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainers.losses.rtfm import loss, select
from vad.config import load
from vad.heads.rtfm import RtfmOutput

VARIANTS = ["fixed", "faithful"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_parameter_count_is_the_published_one(variant):
    with torch.device("meta"):
        head = load("vad.heads", {"kind": "rtfm", "variant": variant}).build()
    assert sum(parameter.numel() for parameter in head.parameters()) == 24_718_849


@pytest.mark.parametrize("variant", VARIANTS)
def test_features_of_length_nothing_cost_one(variant):
    output = RtfmOutput(torch.full((4, 32), 0.5), torch.zeros(4, 32, 8))
    parts = loss(output, torch.tensor([True, True, False, False]), variant=variant)
    assert parts["magnitude"].item() == pytest.approx(1.0)
    assert parts["classification"].item() == pytest.approx(np.log(2))


@pytest.mark.parametrize("variant", VARIANTS)
def test_sparsity_is_the_length_of_all_abnormal_scores(variant):
    output = RtfmOutput(torch.full((64, 32), 0.5), torch.zeros(64, 32, 4))
    parts = loss(output, torch.arange(64) < 32, variant=variant)
    assert parts["sparsity"].item() == pytest.approx(0.128)  # the sum of the scores would give 4.096


@pytest.mark.parametrize(("variant", "expected"), [("faithful", 8e-4), ("fixed", 0)])
def test_only_faithful_smooths_from_one_video_into_the_next(variant, expected):
    scores = torch.tensor([0.0, 0.5, 1.0, 0.5])[:, None].expand(4, 32)
    labels = torch.tensor([True, False, True, False])
    parts = loss(RtfmOutput(scores, torch.zeros(4, 32, 4)), labels, variant=variant)
    assert parts["smoothness"].item() == pytest.approx(expected)


@pytest.mark.parametrize(("variant", "expected"), [("faithful", 65), ("fixed", 64.625)])
def test_magnitudes_are_compared_one_to_one_or_over_all_pairs(variant, expected):
    lengths = torch.tensor([4.0, 1.0, 3.5, 2.5])  # they lack 6 and 6.5 to the margin of 10
    features = lengths[:, None, None].expand(4, 5, 1)
    labels = torch.tensor([True, False, True, False])
    parts = loss(RtfmOutput(torch.full((4, 5), 0.5), features), labels, variant=variant, margin=10, magnitude=1)
    one_to_one, crossed = [(6 + 1) ** 2, (6.5 + 2.5) ** 2], [(6 + 2.5) ** 2, (6.5 + 1) ** 2]
    assert np.mean(one_to_one if variant == "faithful" else one_to_one + crossed) == expected
    assert parts["magnitude"].item() == pytest.approx(expected)


def test_the_longest_features_are_chosen_by_their_mean_over_crops():
    magnitude = torch.tensor([[[1.0, 9.0, 2.0, 4.0], [5.0, 1.0, 8.0, 0.0]]])  # means 3, 5, 5, 2
    index, weight = select(magnitude[..., None], torch.ones(1, 4, dtype=torch.bool), k=3, dropout=0)
    assert index.tolist() == [[1, 2, 0]]
    torch.testing.assert_close(weight, torch.full((1, 3), 1 / 3))


def test_a_video_is_judged_by_its_longest_features_and_not_by_its_highest_scores():
    scores = torch.tensor([[0.2, 0.4, 0.9], [0.3, 0.3, 0.3]])
    features = torch.tensor([[3.0, 2.0, 1.0], [1.0, 1.0, 1.0]])[..., None]
    parts = loss(RtfmOutput(scores, features), torch.tensor([True, False]), k=2, selection_dropout=0)
    expected = -(np.log(0.3) + np.log(1 - 0.3)) / 2
    assert parts["classification"].item() == pytest.approx(expected)


def test_fewer_snippets_than_k_are_all_chosen():
    there = torch.tensor([[True, True, False, False, False]])
    index, weight = select(torch.tensor([1.0, 2, 9, 9, 9]).view(1, 1, 5, 1), there, k=3, dropout=0)
    assert index.tolist() == [[1, 0, 0]]
    assert weight.tolist() == [[0.5, 0.5, 0]]


def test_dropout_hides_snippets_from_the_choice():
    torch.manual_seed(0)
    features = torch.arange(1.0, 33).view(1, 1, 32, 1)
    there = torch.ones(1, 32, dtype=torch.bool)
    highest = [int(select(features, there, k=1, dropout=0.7)[0]) for _ in range(300)]
    assert np.mean(np.array(highest) == 31) == pytest.approx(0.3, abs=0.08)


def test_faithful_refuses_unequal_halves_and_fixed_takes_them():
    output = RtfmOutput(torch.rand(3, 4), torch.rand(3, 4, 2))
    labels = torch.tensor([True, True, False])
    with pytest.raises(ValueError, match="one to one, got 2 abnormal and 1 normal"):
        loss(output, labels, variant="faithful")
    assert torch.isfinite(sum(loss(output, labels).values()))
    with pytest.raises(ValueError, match="needs abnormal and normal videos"):
        loss(output, labels | True)


def test_fresh_causal_convolutions_see_the_present_only():
    fixed, faithful = (load("vad.heads", {"kind": "rtfm", "dim": 8, "variant": name}).build() for name in VARIANTS)
    assert (fixed.fuse.weight[..., :-1] == 0).all()
    assert (fixed.fuse.weight[..., -1] != 0).all()
    assert (faithful.fuse.weight != 0).all()
