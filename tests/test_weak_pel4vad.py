"""PEL4VAD: published sizes, hand-worked terms, what its attention and its classifier see."""

from __future__ import annotations

import math

import pytest
import torch

from trainers.losses.pel4vad import alignment, loss, weighted
from vad.config import load
from vad.heads.pel4vad import Pel4VadOutput, attend, behind, distance_prior, in_window, signed_root

SMALL = {
    "kind": "pel4vad",
    "dim": 6,
    "attention_width": 4,
    "text_width": 5,
    "width": 4,
    "window": 3,
    "classifier": 3,
}
VARIANTS = ("fixed", "faithful")


def small(variant: str = "fixed", seed: int = 0, **changes):
    torch.manual_seed(seed)
    return load("vad.heads", {**SMALL, "variant": variant, **changes}).build().eval()


def random_output(batch: int = 4, count: int = 20, width: int = 5) -> Pel4VadOutput:
    generator = torch.Generator().manual_seed(3)
    scores = torch.rand(batch, count, generator=generator, dtype=torch.float64)
    visual = torch.randn(batch, count, width, generator=generator, dtype=torch.float64)
    return Pel4VadOutput(scores, visual, torch.tensor(1 / 0.09, dtype=torch.float64))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("classifier", "size"), [(9, 1_209_149), (3, 1_207_349)])
def test_size_is_the_published_one(variant, classifier, size):
    head = load("vad.heads", {"kind": "pel4vad", "variant": variant, "classifier": classifier}).build()
    assert sum(parameter.numel() for parameter in head.parameters()) == size


def test_weights_fit_both_variants():
    fixed, faithful = small("fixed", normalise=False), small("faithful", seed=1, normalise=False)
    faithful.load_state_dict(fixed.state_dict())  # strict
    features = torch.randn(1, 1, 6)  # nothing earlier or later: the variants agree
    torch.testing.assert_close(fixed(features).scores_BT, faithful(features).scores_BT)


@pytest.mark.parametrize(
    ("slope", "shift", "expected"),
    [
        (0.6, 0.2, [0.8187, 0.6703, 0.1108]),
        (0.06, 0.02, [math.exp(-0.02), math.exp(-0.04), math.exp(-0.22)]),
        (0.08, 0.1, [math.exp(-0.1), math.exp(-0.02), math.exp(-0.22)]),
    ],
)
def test_prior_by_hand(slope, shift, expected):
    head = small(prior_slope=slope, prior_shift=shift)
    prior = distance_prior(behind(3), slope=head.attention.prior_slope, shift=head.attention.prior_shift)
    torch.testing.assert_close(prior[0], torch.tensor(expected), atol=5e-5, rtol=0)
    torch.testing.assert_close(prior, prior.T)


def test_a_fresh_head_blends_half_and_half_at_the_set_temperature():
    head = small(temperature=0.05)
    assert torch.sigmoid(head.attention.blend).item() == 0.5
    assert head(torch.zeros(1, 1, 6)).inverse_temperature.item() == pytest.approx(20)


def test_windows_hold_as_many_snippets_as_set():
    past, around = (in_window(behind(20), 9, causal=causal) for causal in (True, False))
    assert past[12].nonzero()[:, 0].tolist() == list(range(4, 13))
    assert around[12].nonzero()[:, 0].tolist() == list(range(8, 17))


def test_attention_without_similarity_follows_the_prior():
    prior = torch.tensor([[0.8187, 0.6703, 0.1108]])
    weights = attend(prior, torch.tensor([[True, True, False]]))
    expected = math.exp(0.8187) / (math.exp(0.8187) + math.exp(0.6703))
    torch.testing.assert_close(weights, torch.tensor([[expected, 1 - expected, 0]]))


@pytest.mark.parametrize(("variant", "axis"), [("fixed", -1), ("faithful", 1)])
def test_attended_rows_have_unit_length_over_features_or_over_snippets(variant, axis):
    attention = small(variant).attention
    attention.out = torch.nn.Identity()
    rows = attention(torch.randn(2, 7, 6), torch.arange(7) < torch.tensor([[7], [4]]))
    lengths = rows.norm(dim=axis)
    there = lengths if axis == 1 else lengths[torch.arange(7) < torch.tensor([[7], [4]])]
    torch.testing.assert_close(there, torch.ones_like(there))
    assert not rows[1, 4:].any()


def test_signed_root_has_a_gradient_everywhere():
    x = torch.tensor([-4.0, 0.0, 9.0], requires_grad=True)
    signed_root(x).sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([1 / 4, 0, 1 / 6]))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_classifier_never_looks_ahead(variant):
    head, reduced = small(variant), torch.randn(1, 10, 4)
    scores = head.score(reduced)
    for at in range(10):
        changed = reduced.clone()
        changed[:, at] += 5
        after = head.score(changed)
        torch.testing.assert_close(after[:, :at], scores[:, :at])
        torch.testing.assert_close(after[:, at + 3 :], scores[:, at + 3 :])
        assert (after[:, at : at + 3] != scores[:, at : at + 3]).all()


def test_bags_by_hand():
    """One snippet of a normal video counts, and of an abnormal one two of twenty."""
    scores = torch.zeros(2, 20)
    scores[0, 3], scores[1, 4], scores[1, 9] = 0.4, 0.9, 0.7
    output = Pel4VadOutput(scores, torch.zeros(2, 20, 5), torch.tensor(1.0))
    parts = loss(output, torch.tensor([False, True]))
    assert list(parts) == ["bag"]
    assert parts["bag"].item() == pytest.approx(-(math.log(1 - 0.4) + math.log(0.8)) / 2)


def test_weights_favour_high_scores():
    scores = torch.tensor([[0.0, 0.1, 0.2, 0.9]])
    there = torch.tensor([[True, True, True, False]])
    mixed = weighted(torch.eye(4)[None], scores, there)
    share = (math.e**2 - 1) / (math.e**2 + math.e - 2)
    torch.testing.assert_close(mixed, torch.tensor([[0, 1 - share, share, 0]]))


def test_alignment_by_hand():
    """Two snippets that score 0 and 1 and point to the texts of normal video and of their class."""
    visual = torch.tensor([[[7.0, 0.0], [0.0, 3.0]]])
    output = Pel4VadOutput(torch.tensor([[0.0, 1.0]]), visual, torch.tensor(2.0))
    labels, there, texts = torch.tensor([True]), torch.ones(1, 2, dtype=torch.bool), 5 * torch.eye(2)
    right = alignment(output, labels, there, texts, torch.tensor([1]))
    assert right.item() == pytest.approx(math.log(1 + math.exp(-2)))
    swapped = alignment(output, labels, there, texts.flip(0), torch.tensor([1]))
    assert swapped.item() == pytest.approx(math.log(1 + math.exp(2)))


def test_text_part_has_its_weight():
    output, labels, classes = random_output(), torch.tensor([False, False, True, True]), torch.tensor([0, 0, 1, 2])
    texts = torch.randn(3, 5, dtype=torch.float64)
    once, often = (loss(output, labels, texts_CE=texts, classes_V=classes, text=text) for text in (1.0, 9.0))
    torch.testing.assert_close(often["text"], 9 * once["text"])
    torch.testing.assert_close(often["bag"], once["bag"])


@pytest.mark.parametrize(
    ("texts", "classes", "message"),
    [
        (torch.ones(3, 5), None, "go together"),
        (None, torch.tensor([0, 0, 1, 2]), "go together"),
        (torch.ones(3, 6), torch.tensor([0, 0, 1, 2]), r"must be \(C, 5\)"),
        (torch.ones(2, 5), torch.tensor([0, 0, 1, 2]), "rows of texts_CE, 0 to 1"),
        (torch.ones(3, 5), torch.tensor([0, 1, 1, 2]), "as labels_B says"),
    ],
)
def test_texts_that_do_not_fit_are_refused(texts, classes, message):
    with pytest.raises(ValueError, match=message):
        loss(random_output(), torch.tensor([False, False, True, True]), texts_CE=texts, classes_V=classes)
