"""UR-DMU: the published size, hand-worked terms, and what is drawn by chance."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest
import torch

from trainers.losses.urdmu import closer, lengths_apart, loss, partners, uncertainty
from vad.config import ConfigError, load
from vad.heads.urdmu import Memory, UrDmuOutput, distance_weights

SMALL = {
    "kind": "urdmu",
    "dim": 6,
    "width": 8,
    "layers": 2,
    "attention_heads": 2,
    "attention_width": 4,
    "prototypes": 20,
}
VARIANTS = ("fixed", "faithful")


def small(variant: str = "fixed", seed: int = 0, **changes):
    torch.manual_seed(seed)
    return load("vad.heads", {**SMALL, "variant": variant, **changes}).build().eval()


def values(output: UrDmuOutput) -> dict[str, torch.Tensor]:
    return {field.name: getattr(output, field.name) for field in fields(output)}


def random_output(batch: int = 4, count: int = 20, width: int = 5) -> UrDmuOutput:
    generator = torch.Generator().manual_seed(3)
    scalars = [torch.rand(batch, count, generator=generator, dtype=torch.float64) for _ in range(4)]
    vectors = [torch.randn(batch, count, width, generator=generator, dtype=torch.float64) for _ in range(5)]
    return UrDmuOutput(*scalars, *vectors)


@pytest.mark.parametrize("variant", VARIANTS)
def test_size_is_the_published_one(variant):
    head = load("vad.heads", {"kind": "urdmu", "variant": variant}).build()
    assert sum(parameter.numel() for parameter in head.parameters()) == 6_492_929


def test_weights_fit_both_variants():
    fixed, faithful = small("fixed"), small("faithful", seed=1)
    faithful.load_state_dict(fixed.state_dict())  # strict
    last, features = torch.tensor([1]), torch.zeros(1, 1, 6)
    # nothing but zeros before and after: no difference in padding or attention can show
    torch.testing.assert_close(fixed(features, last).scores_BT, faithful(features, last).scores_BT)


def test_distance_weights_of_two_snippets():
    weights = distance_weights(torch.ones(1, 2, 2, dtype=torch.bool))
    torch.testing.assert_close(weights[0], torch.tensor([[0.5909, 0.4091], [0.4091, 0.5909]]), atol=5e-5, rtol=0)


def test_distance_weights_leave_out_what_is_not_seen():
    seen = torch.ones(1, 3, 3, dtype=torch.bool).tril()
    weights = distance_weights(seen)
    assert weights[0, 0].tolist() == [1, 0, 0]
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 3))
    assert weights[0, 1, 2] == 0


def test_memory_answers_one_half_to_zeros():
    likeness, readout = Memory(60, 512)(torch.zeros(1, 3, 512))
    assert likeness.tolist() == [[0.5, 0.5, 0.5]]
    assert readout.shape == (1, 3, 512)


def test_likeness_is_the_mean_of_the_four_nearest_of_sixty_prototypes():
    memory = Memory(60, 1)
    with torch.no_grad():
        memory.rows_ME.copy_(torch.arange(60.0)[:, None] - 59)  # 0 is nearest to a hidden value of 1
    likeness, _ = memory(torch.ones(1, 1, 1))
    expected = np.mean([1 / (1 + math.exp(-x)) for x in (0.0, -1.0, -2.0, -3.0)])
    assert likeness.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("variant", "expected"), [("faithful", 100.0), ("fixed", 256.0)])
def test_divergence_by_hand(variant, expected):
    ones, there = torch.ones(2, 200, 512), torch.ones(2, 200, dtype=torch.bool)
    assert uncertainty(ones, torch.zeros_like(ones), there, variant=variant).item() == pytest.approx(expected)


def test_zero_latents_are_a_hundred_too_near_which_is_a_hundredth_of_loss():
    zeros = torch.zeros(2, 20, 8)
    assert lengths_apart(zeros[:, 0], zeros[:, 0]).item() == 100
    half = torch.full((2, 20), 0.5)
    parts = loss(UrDmuOutput(half, half, half, half, *[zeros] * 5), torch.tensor([False, True]))
    assert parts["distance"].item() == pytest.approx(0.01)
    assert parts["bag"].item() == pytest.approx(math.log(2))
    assert parts["memory"].item() == pytest.approx(0.4 * math.log(2))
    assert parts["divergence"].item() == 0
    assert parts["triplet"].item() == pytest.approx(0.1)  # nothing is nearer: the whole margin


def test_triplet_by_hand():
    anchor, far = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 5.0]])
    assert closer(anchor, 2 * anchor, far).item() == pytest.approx(0, abs=1e-4)
    assert closer(anchor, far, anchor).item() == pytest.approx(1 + math.sqrt(2), abs=1e-4)


def test_normal_half_first_is_paired_as_published():
    labels = torch.tensor([False, False, True, True])
    first, second = partners(labels)
    assert (first.tolist(), second.tolist()) == ([2, 3], [0, 1])


def test_loss_against_a_plain_second_writing():
    """Videos of 20 snippets: bags of two. Written with loops over single videos, from the paper's terms."""
    output, labels = random_output(), torch.tensor([False, False, True, True])
    v = {name: tensor.numpy() for name, tensor in values(output).items()}

    def highest(row):
        return np.argsort(-row)[:2]

    def unit(row):
        return row / np.linalg.norm(row)

    bag, memory, triplet, distance, divergence = [], [], [], [], []
    for n, a in ((0, 2), (1, 3)):
        bag += [-np.log(1 - np.sort(v["sampled_scores_BT"][n])[-2:].mean())]
        bag += [-np.log(np.sort(v["scores_BT"][a])[-2:].mean())]
        memory.append(
            -np.log(np.sort(v["abnormal_BT"][a])[-2:].mean())
            - np.log(np.sort(1 - v["normal_BT"][a])[-2:].mean())
            - np.log(v["normal_BT"][n]).mean()
            - np.log(1 - v["abnormal_BT"][n]).mean()
        )
        like_n, like_a = highest(v["normal_BT"][n]), highest(v["abnormal_BT"][a])
        anchor = unit(v["hidden_BTE"][n][like_n].mean(0))
        positive = unit(v["hidden_BTE"][a][highest(v["normal_BT"][a])].mean(0))
        negative = unit(v["hidden_BTE"][a][like_a].mean(0))
        triplet.append(max(0, 1 + np.linalg.norm(anchor - positive) - np.linalg.norm(anchor - negative)))
        mean, logvar = v["normal_mean_BTE"][n], v["normal_logvar_BTE"][n]
        divergence.append((-0.5 * (1 + logvar - mean**2 - np.exp(logvar))).sum(0).mean())
        longer = np.linalg.norm(v["abnormal_latent_BTE"][a][like_a].mean(0))
        shorter = np.linalg.norm(v["normal_latent_BTE"][n][like_n].mean(0))
        distance.append(max(0, 100 - longer + shorter))
    parts = loss(output, labels, variant="faithful")
    expected = {
        "bag": np.mean(bag),
        "memory": 0.1 * np.mean(memory),
        "triplet": 0.1 * np.mean(triplet),
        "divergence": 1e-3 * np.mean(divergence),
        "distance": 1e-4 * np.mean(distance),
    }
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(expected, rel=1e-5)


def test_unequal_numbers_of_videos_have_a_loss():
    parts = loss(random_output(), torch.tensor([True, False, True, True]))
    assert all(part.isfinite() for part in parts.values())


def test_only_training_samples_and_only_the_normal_readout():
    head, features = small(dropout=0.0), torch.randn(2, 5, 6)
    judged = head(features)
    assert torch.equal(judged.sampled_scores_BT, judged.scores_BT)
    assert torch.equal(judged.normal_latent_BTE, judged.normal_mean_BTE)
    head.train()
    first, second = values(head(features)), values(head(features))
    differing = {name for name in first if not torch.equal(first[name], second[name])}
    assert differing == {"sampled_scores_BT", "normal_latent_BTE"}
    torch.testing.assert_close(first["scores_BT"], judged.scores_BT)


def test_the_loss_takes_the_sample_for_normal_videos_only():
    output = random_output()
    scores, sampled = output.scores_BT.requires_grad_(), output.sampled_scores_BT.requires_grad_()
    loss(output, torch.tensor([False, True, False, True]))["bag"].backward()
    assert scores.grad.any(1).tolist() == [False, True, False, True]
    assert sampled.grad.any(1).tolist() == [True, False, True, False]


def test_a_misspelt_setting_is_refused():
    with pytest.raises(ConfigError, match="did you mean"):
        load("vad.heads", {"kind": "urdmu", "prototype": 3})
