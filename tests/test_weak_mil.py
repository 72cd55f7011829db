"""The multiple-instance ranking head and its loss: published sizes, worked values, and a planted anomaly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainers.losses.mil import loss, ranking, weight_l2
from vad.config import load
from vad.metrics.frame import auc
from vad.weak import WeakOutput


def build(**values):
    return load("vad.heads", {"kind": "mil", "dim": 8, **values}).build()


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


@pytest.mark.parametrize(("dim", "count"), [(4096, 2_114_113), (2048, 1_065_537), (1024, 541_249), (512, 279_105)])
def test_parameter_counts_are_the_published_ones(dim, count):
    assert sum(parameter.numel() for parameter in build(dim=dim).parameters()) == count


def test_the_hinge_is_taken_over_all_pairs():
    abnormal, normal = torch.tensor([0.9, 0.4]), torch.tensor([0.1, 0.6])
    assert ranking(abnormal, normal).item() == pytest.approx(1.4)
    one_to_one = (1 - abnormal + normal).clamp_min(0).mean().item()
    assert one_to_one == pytest.approx(0.7)  # what ports that pair bags one to one compute


def test_the_loss_of_equal_scores_is_the_worked_value():
    parts = loss(WeakOutput(torch.full((60, 32), 0.5)), torch.arange(60) < 30)
    assert sum(parts.values()).item() == pytest.approx(30.0384)
    assert parts["ranking"].item() == pytest.approx(30)
    assert parts["smoothness"].item() == 0


def test_the_ranking_gradient_touches_the_highest_snippet_of_each_video_only():
    scores = (torch.rand(6, 5, dtype=torch.float64, generator=torch.manual_seed(0)) * 0.3).requires_grad_()
    labels = torch.tensor([True, False, True, False, False, True])
    loss(WeakOutput(scores), labels)["ranking"].backward()
    expected = torch.zeros_like(scores)
    for video, highest in enumerate(scores.argmax(1)):
        expected[video, highest] = -1 if labels[video] else 1
    torch.testing.assert_close(scores.grad, expected)


def test_regularisers_act_on_abnormal_videos_only():
    scores = torch.rand(4, 6, requires_grad=True, generator=torch.manual_seed(0))
    parts = loss(WeakOutput(scores), torch.tensor([True, True, False, False]))
    (parts["sparsity"] + parts["smoothness"]).backward()
    assert (scores.grad[:2] != 0).all()
    assert (scores.grad[2:] == 0).all()


def test_smoothness_is_the_sum_of_squared_steps_inside_each_video():
    scores = torch.tensor([[0.0, 1.0, 0.5], [1.0, 1.0, 1.0], [0.0, 0.9, 0.0]])
    parts = loss(WeakOutput(scores), torch.tensor([True, True, False]), smoothness=1)
    assert parts["smoothness"].item() == pytest.approx(1 + 0.25)


def test_crops_count_by_their_mean():
    scores = torch.rand(6, 5, generator=torch.manual_seed(0))
    labels = torch.tensor([True, False])
    found = loss(WeakOutput(scores), labels, crops=3)
    torch.testing.assert_close(found, loss(WeakOutput(scores.view(2, 3, 5).mean(1)), labels))


@pytest.mark.parametrize("label", [True, False])
def test_a_batch_of_one_kind_is_refused(label):
    with pytest.raises(ValueError, match="needs abnormal and normal videos"):
        loss(WeakOutput(torch.rand(2, 4)), torch.tensor([label, label]))


def test_weight_decay_leaves_biases_alone():
    head = build()
    for parameter in head.parameters():
        torch.nn.init.ones_(parameter)
    assert weight_l2(head).item() == pytest.approx(1e-3 * (8 * 512 + 512 * 32 + 32))


def test_gradients_of_the_loss_are_right():
    labels, lengths = torch.tensor([True, False, True]), torch.tensor([5, 3, 4])

    def total(scores):
        return sum(loss(WeakOutput(scores), labels, lengths_B=lengths, sparsity=0.1, smoothness=0.3).values())

    scores = torch.rand(3, 5, dtype=torch.float64, generator=torch.manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(total, scores)


def test_gradients_of_the_head_are_right():
    head = build(dim=3, dropout=0).double()
    features = torch.randn(2, 3, 3, dtype=torch.float64, generator=torch.manual_seed(0)).requires_grad_()
    lengths = torch.tensor([3, 2])
    assert torch.autograd.gradcheck(lambda rows: head(rows, lengths).scores_BT, features)


def test_padding_changes_neither_scores_nor_loss_nor_gradients():
    head = build(dropout=0)
    labels, lengths = torch.tensor([True, False]), torch.tensor([5, 5])
    features = torch.randn(2, 5, 8, generator=torch.manual_seed(0))
    padded = torch.cat([features, torch.full((2, 3, 8), torch.nan)], dim=1)
    plain, behind = head(features), head(padded, lengths)
    torch.testing.assert_close(behind.scores_BT[:, :5], plain.scores_BT)
    assert (behind.scores_BT[:, 5:] == 0).all()
    losses = loss(plain, labels), loss(behind, labels, lengths_B=lengths)
    torch.testing.assert_close(losses[1], losses[0])
    grads = [torch.autograd.grad(sum(parts.values()), list(head.parameters())) for parts in losses]
    torch.testing.assert_close(grads[1], grads[0])


def test_snippets_see_nobody_else():
    head = build().eval()
    features = torch.randn(3, 6, 8, generator=torch.manual_seed(0))
    scores = head(features).scores_BT
    torch.testing.assert_close(head(features[1:2, 3:4]).scores_BT, scores[1:2, 3:4])
    assert (head.lookahead, head.receptive) == (0, 1)


def test_rows_are_scaled_to_length_one_unless_told_otherwise():
    features = torch.randn(1, 4, 8, generator=torch.manual_seed(0))
    for unit_length in (True, False):
        head = build(unit_length=unit_length).eval()
        same = torch.allclose(head(features).scores_BT, head(features * 7).scores_BT, atol=1e-6)
        assert same == unit_length


def test_a_planted_anomaly_is_localised():
    torch.manual_seed(0)
    features, labels, _ = toy_videos(seed=0)
    head = build(dim=16)
    optimiser = torch.optim.Adagrad(head.parameters(), lr=0.01, eps=1e-8)
    for _ in range(60):
        optimiser.zero_grad()
        (sum(loss(head(features), labels).values()) + weight_l2(head)).backward()
        optimiser.step()
    unseen, _, truth = toy_videos(seed=1)
    with torch.no_grad():
        scores = head.eval()(unseen).scores_BT.numpy()
    assert np.mean([auc(truth[video], scores[video]) for video in range(6)]) > 0.95
