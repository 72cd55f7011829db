"""The feature magnitude head and its loss: published size, worked values, causality, and a planted anomaly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainers.losses.rtfm import loss, select
from vad.config import load
from vad.heads.rtfm import RtfmOutput
from vad.metrics.frame import auc

VARIANTS = ["fixed", "faithful"]


def build(**values):
    """A small head in which attention and every tap of the convolutions, at their start zero, do something."""
    head = load("vad.heads", {"kind": "rtfm", "dim": 8, **values}).build()
    torch.nn.init.ones_(head.attention.norm.weight)
    for module in head.modules():
        if isinstance(module, torch.nn.Conv1d):
            module.reset_parameters()
    return head


def random(*shape, seed: int = 0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.manual_seed(seed))


def toy_videos(seed: int, videos: int = 12, count: int = 32, dim: int = 16):
    """Features (V, T, D), labels (V,) and truth (V, T): the first half of the videos has an anomaly of 5 snippets."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(videos, count, dim)) + 1
    truth = np.zeros((videos, count), dtype=bool)
    for video in range(videos // 2):
        start = random.integers(0, count - 5)
        truth[video, start : start + 5] = True
    features[truth, :4] += 4
    return torch.tensor(features, dtype=torch.float32), torch.tensor(truth.any(1)), truth


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


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("count", [1, 2])
def test_videos_shorter_than_k_train(variant, count):
    head = build(variant=variant)
    labels = torch.tensor([True, False])
    sum(loss(head(random(2, count, 8).float()), labels, variant=variant).values()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in head.parameters())


def test_dropout_hides_snippets_from_the_choice():
    torch.manual_seed(0)
    features = torch.arange(1.0, 33).view(1, 1, 32, 1)
    there = torch.ones(1, 32, dtype=torch.bool)
    highest = [int(select(features, there, k=1, dropout=0.7)[0]) for _ in range(300)]
    assert np.mean(np.array(highest) == 31) == pytest.approx(0.3, abs=0.08)


def test_crops_keep_their_own_features_and_share_their_scores():
    scores, features = torch.rand(2, 4), torch.rand(2, 4, 3)
    labels = torch.tensor([True, False])
    plain = loss(RtfmOutput(scores, features), labels, selection_dropout=0)
    doubled = RtfmOutput(scores.repeat_interleave(2, 0), features.repeat_interleave(2, 0))
    torch.testing.assert_close(loss(doubled, labels, crops=2, selection_dropout=0), plain)


def test_faithful_refuses_unequal_halves_and_fixed_takes_them():
    output = RtfmOutput(torch.rand(3, 4), torch.rand(3, 4, 2))
    labels = torch.tensor([True, True, False])
    with pytest.raises(ValueError, match="one to one, got 2 abnormal and 1 normal"):
        loss(output, labels, variant="faithful")
    assert torch.isfinite(sum(loss(output, labels).values()))
    with pytest.raises(ValueError, match="needs abnormal and normal videos"):
        loss(output, labels | True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_of_the_loss_are_right(variant):
    labels = torch.tensor([True, False])
    lengths = torch.tensor([4, 4, 2, 2])

    def total(scores, features):
        output = RtfmOutput(scores, features)
        weights = {"margin": 5, "magnitude": 0.1, "sparsity": 0.2, "smoothness": 0.3}
        parts = loss(output, labels, crops=2, lengths_B=lengths, variant=variant, selection_dropout=0, **weights)
        return sum(parts.values())

    inputs = random(4, 4).sigmoid().requires_grad_(), random(4, 4, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(total, inputs)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("training", [True, False])
def test_gradients_of_the_head_are_right(variant, training):
    head = build(dim=4, dropout=0, variant=variant).double().train(training)
    lengths = torch.tensor([4, 3])

    def outputs(rows):
        output = head(rows, lengths)
        return output.scores_BT, output.features_BTD

    assert torch.autograd.gradcheck(outputs, random(2, 4, 4).requires_grad_())


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("training", [True, False])
def test_padding_changes_neither_scores_nor_loss_nor_gradients(variant, training):
    head = build(variant=variant, dropout=0).double().train(training)
    labels, lengths = torch.tensor([True, False]), torch.tensor([9, 9])
    features = random(2, 9, 8)
    padded = torch.cat([features, torch.full((2, 4, 8), torch.nan)], dim=1)
    plain, behind = head(features), head(padded, lengths)
    torch.testing.assert_close(behind.scores_BT[:, :9], plain.scores_BT)
    torch.testing.assert_close(behind.features_BTD[:, :9], plain.features_BTD)
    assert (behind.scores_BT[:, 9:] == 0).all()
    assert (behind.features_BTD[:, 9:] == 0).all()
    losses = [
        loss(output, labels, lengths_B=there, variant=variant, selection_dropout=0)
        for output, there in ((plain, None), (behind, lengths))
    ]
    torch.testing.assert_close(losses[1], losses[0])
    grads = [torch.autograd.grad(sum(parts.values()), list(head.parameters())) for parts in losses]
    torch.testing.assert_close(grads[1], grads[0])


@pytest.mark.parametrize("variant", VARIANTS)
def test_videos_do_not_see_each_other(variant):
    head = build(variant=variant).double().eval()
    features, lengths = random(3, 9, 8), torch.tensor([9, 4, 7])
    together = head(features, lengths).scores_BT
    for video, length in enumerate(lengths):
        alone = head(features[video : video + 1, :length]).scores_BT
        torch.testing.assert_close(together[video : video + 1, :length], alone)


def test_running_statistics_count_existing_snippets_only():
    head, other = build(dropout=0).double(), build(dropout=0).double()
    other.load_state_dict(head.state_dict())
    features = random(2, 6, 8)
    head(features)
    other(torch.cat([features, torch.full((2, 3, 8), 1e6)], dim=1), torch.tensor([6, 6]))
    torch.testing.assert_close(dict(other.named_buffers()), dict(head.named_buffers()))


def test_fixed_never_looks_ahead():
    head = build().double().eval()
    features = random(1, 20, 8)
    scores = head(features).scores_BT
    for changed in (0, 7, 19):
        other = features.clone()
        other[:, changed] += 5
        moved = (head(other).scores_BT - scores).abs()[0] > 1e-12
        assert not moved[:changed].any()
        assert moved[changed:].all()
    for length in (1, 2, 10):
        torch.testing.assert_close(head(features[:, :length]).scores_BT, scores[:, :length])
    assert head.lookahead == 0


def test_fresh_causal_convolutions_see_the_present_only():
    fixed, faithful = (load("vad.heads", {"kind": "rtfm", "dim": 8, "variant": name}).build() for name in VARIANTS)
    assert (fixed.fuse.weight[..., :-1] == 0).all()
    assert (fixed.fuse.weight[..., -1] != 0).all()
    assert (faithful.fuse.weight != 0).all()


def test_faithful_sees_the_whole_video():
    head = build(variant="faithful").double().eval()
    features = random(1, 20, 8)
    other = features.clone()
    other[:, -1] += 5
    assert (head(other).scores_BT != head(features).scores_BT).all()
    assert head.lookahead is None


def test_weights_of_one_variant_fit_the_other():
    build(variant="fixed").load_state_dict(build(variant="faithful").state_dict())


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_planted_anomaly_is_localised(variant):
    torch.manual_seed(0)
    features, labels, _ = toy_videos(seed=0)
    head = load("vad.heads", {"kind": "rtfm", "dim": 16, "variant": variant}).build()
    optimiser = torch.optim.Adam(head.parameters(), lr=3e-3, weight_decay=5e-3)
    for _ in range(40):
        optimiser.zero_grad()
        sum(loss(head(features), labels, variant=variant).values()).backward()
        optimiser.step()
    unseen, _, truth = toy_videos(seed=1)
    with torch.no_grad():
        scores = head.eval()(unseen).scores_BT.numpy()
    assert np.mean([auc(truth[video], scores[video]) for video in range(6)]) > 0.95
