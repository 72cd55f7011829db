"""The glance-and-focus network and its loss: size, worked values, and a planted anomaly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_weak import random, toy_videos

from trainers.losses.mgfn import loss
from vad.config import ConfigError, load
from vad.heads.mgfn import FOCUS_SIZE, MgfnOutput
from vad.metrics.frame import auc

VARIANTS = ["fixed", "faithful"]
SMALL = {"kind": "mgfn", "dim": 6, "widths": (4, 4, 8), "depths": (1, 1, 1), "head_width": 2}


def build(**values):
    """A small head in which attention and every tap of the convolutions, at their start zero, do something."""
    head = load("vad.heads", {**SMALL, **values}).build()
    for module in head.modules():
        if isinstance(module, torch.nn.Conv1d | torch.nn.Linear):
            module.reset_parameters()
    return head


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_parameter_count_is_that_of_the_layers(variant):
    with torch.device("meta"):
        head = load("vad.heads", {"kind": "mgfn", "variant": variant}).build()

    def block(width, mixer):
        return (3 * width * width + width) + mixer + (2 * width + 8 * width * width + 5 * width)

    def glance(width):
        return 2 * width + 3 * width * width + width * width + width

    def focus(width):
        return 2 * width + width * width + (width // 64) * (FOCUS_SIZE + 1) + width * width + width

    tokens = (3 * 2048 * 64 + 64) + (3 * 64 + 64)
    blocks = 3 * block(64, glance(64)) + 3 * block(128, focus(128)) + 2 * block(1024, focus(1024))
    between = (2 * 64 + 64 * 128 + 128) + (2 * 128 + 128 * 1024 + 1024)
    expected = tokens + blocks + between + 2 * 1024 + 1024 + 1
    assert expected == 28_652_773
    assert sum(parameter.numel() for parameter in head.parameters()) == expected


@pytest.mark.parametrize("variant", VARIANTS)
def test_equal_magnitudes_cost_the_whole_margin_and_nothing_within_a_class(variant):
    output = MgfnOutput(torch.full((8, 32), 0.5), torch.ones(8, 32, 16))
    parts = loss(output, torch.arange(8) < 4, variant=variant)
    assert parts["contrast"].item() == pytest.approx(0.04, rel=1e-6)  # a distance of a millionth each is added
    assert parts["within_abnormal"].item() == 0
    assert parts["within_normal"].item() == 0
    assert parts["classification"].item() == pytest.approx(np.log(2))


@pytest.mark.parametrize("variant", VARIANTS)
def test_faithful_sparsity_leaves_abnormal_scores_alone_and_fixed_the_normal_ones(variant):
    scores = torch.rand(4, 6, requires_grad=True, generator=torch.manual_seed(0))
    labels = torch.tensor([True, False, True, False])
    loss(MgfnOutput(scores, torch.ones(4, 6, 2)), labels, variant=variant)["sparsity"].backward()
    touched = labels if variant == "fixed" else ~labels
    assert (scores.grad[touched] > 0).all()
    assert (scores.grad[~touched] == 0).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_smoothness_stays_inside_each_video_and_takes_all_of_them(variant):
    scores = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 0.5], [1.0, 1.0, 1.0], [0.0, 0.3, 0.3]])
    labels = torch.tensor([True, False, True, False])
    parts = loss(MgfnOutput(scores, torch.ones(4, 3, 2)), labels, variant=variant, smoothness=1)
    assert parts["smoothness"].item() == pytest.approx(0.5**2 + 0.3**2)


@pytest.mark.parametrize("variant", VARIANTS)
def test_magnitudes_enter_as_sums_of_absolute_values(variant):
    features = torch.tensor([[1.0, -2.0], [0.0, 0.0], [1.0, 4.0], [0.0, 1.0]])[:, None].expand(4, 1, 2)  # 3 0 5 1
    labels = torch.tensor([True, False, True, False])
    weights = {"margin": 10, "contrast": 1, "within": 1, "k": 1}
    parts = loss(MgfnOutput(torch.full((4, 1), 0.5), features), labels, variant=variant, **weights)
    gaps = [3, 4] if variant == "faithful" else [3, 4, 2, 5]
    assert parts["contrast"].item() == pytest.approx(np.mean([(10 - gap) ** 2 for gap in gaps]))
    assert parts["within_abnormal"].item() == 4
    assert parts["within_normal"].item() == 1


def test_faithful_refuses_what_it_cannot_pair_and_fixed_takes_it():
    output = MgfnOutput(torch.rand(3, 4), torch.rand(3, 4, 2))
    labels = torch.tensor([True, True, False])
    with pytest.raises(ValueError, match="one to one, got 2 abnormal and 1 normal"):
        loss(output, labels, variant="faithful")
    with pytest.raises(ValueError, match="two halves of a class, got 1 rows"):
        loss(MgfnOutput(torch.rand(2, 4), torch.rand(2, 4, 2)), torch.tensor([True, False]), variant="faithful")
    assert torch.isfinite(sum(loss(output, labels).values()))
    with pytest.raises(ValueError, match="needs abnormal and normal videos"):
        loss(output, labels | True)


def test_fresh_fixed_weights_see_the_present_only():
    head = load("vad.heads", SMALL).build().double().eval()
    features = random(1, 6, 6)
    scores = head(features).scores_BT
    for snippet in range(6):
        alone = head(features[:, snippet : snippet + 1]).scores_BT[0, 0]
        torch.testing.assert_close(alone, scores[0, snippet])


def test_focus_shares_one_kernel_among_the_channels_of_a_head():
    focus = build(variant="faithful").double().eval().stages[2][0].mixer  # 8 channels, 4 heads of 2
    rows = random(1, 7, 8)
    values = focus.project(focus.norm(rows, torch.ones(1, 7, dtype=torch.bool)))
    near = torch.stack(
        [
            F.conv1d(values[..., c][:, None], focus.near.weight[c // 2][None], focus.near.bias[c // 2][None], padding=2)
            for c in range(8)
        ],
        dim=-1,
    )[:, 0]
    torch.testing.assert_close(focus(rows, torch.ones(1, 7, dtype=torch.bool)), focus.out(near))


def test_widths_that_do_not_split_into_heads_are_refused():
    with pytest.raises(ConfigError, match="widths must be multiples of head_width 3"):
        load("vad.heads", {**SMALL, "head_width": 3})


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_planted_anomaly_is_localised(variant):
    torch.manual_seed(0)
    toy = {"videos": 24, "count": 32, "span": 8}
    features, classes, _ = toy_videos(seed=0, **toy)
    sizes = {"widths": (16, 16, 32), "depths": (1, 1, 1), "head_width": 8}
    head = load("vad.heads", {"kind": "mgfn", "dim": 16, "variant": variant, **sizes}).build()
    optimiser = torch.optim.Adam(head.parameters(), lr=1e-3, weight_decay=5e-4)
    for _ in range(60):
        optimiser.zero_grad()
        # hiding 0.7 of the snippets would leave fewer than k of a short anomaly, and teach its surroundings
        sum(loss(head(features), classes > 0, variant=variant, selection_dropout=0.3).values()).backward()
        optimiser.step()
    unseen, _, truth = toy_videos(seed=1, **toy)
    with torch.no_grad():
        scores = head.eval()(unseen).scores_BT.numpy()
    assert np.mean([auc(truth[video], scores[video]) for video in range(12)]) > 0.95
