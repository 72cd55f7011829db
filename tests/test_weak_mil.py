"""The multiple-instance ranking head and its loss: published sizes and worked values."""

from __future__ import annotations

import pytest
import torch

from trainers.losses.mil import loss, ranking, weight_l2
from vad.config import load
from vad.weak import WeakOutput


def build(**values):
    return load("vad.heads", {"kind": "mil", "dim": 8, **values}).build()


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


def test_weight_decay_leaves_biases_alone():
    head = build()
    for parameter in head.parameters():
        torch.nn.init.ones_(parameter)
    assert weight_l2(head).item() == pytest.approx(1e-3 * (8 * 512 + 512 * 32 + 32))


def test_snippets_see_nobody_else():
    assert (build().lookahead, build().receptive) == (0, 1)


def test_rows_are_scaled_to_length_one_unless_told_otherwise():
    features = torch.randn(1, 4, 8, generator=torch.manual_seed(0))
    for unit_length in (True, False):
        head = build(unit_length=unit_length).eval()
        same = torch.allclose(head(features).scores_BT, head(features * 7).scores_BT, atol=1e-6)
        assert same == unit_length
