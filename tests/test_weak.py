"""The contract of every weakly supervised head and of its loss, in both variants.

What one head alone promises (its size, worked values, quirks of its paper) lies in ``test_weak_<kind>.py``.
"""

from __future__ import annotations

import copy
import importlib
import inspect
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch.autograd import gradcheck
from torch.func import functional_call

from trainers.losses.mil import weight_l2
from vad.config import available, load, settings_class
from vad.metrics.frame import auc
from vad.weak import WeakHeadSettings, existing

HEADS = [k for k in available("vad.heads") if issubclass(settings_class("vad.heads", k), WeakHeadSettings)]
VARIANTS = ("fixed", "faithful")
DIM, COUNT, TEXT_WIDTH = 8, 12, 3


@dataclass(frozen=True, slots=True)
class Kit:
    """What the contract has to be told about one head; a new head may do without.

    ``small`` are settings of small heads, with a variant if they are for that one only. ``loud`` are settings of the
    loss with which no part is too quiet for a check of gradients.
    """

    small: tuple[dict[str, Any], ...] = ({},)
    loud: dict[str, Any] = field(default_factory=dict)


SMALL_MGFN = {"widths": (4, 4, 4), "depths": (1, 1, 1), "head_width": 2}
SMALL_URDMU = {"width": 3, "attention_heads": 2, "attention_width": 2, "prototypes": 17}
SMALL_PEL4VAD = {"attention_width": 4, "text_width": TEXT_WIDTH, "width": 4, "window": 3, "classifier": 3}
SMALL_DUAL_BRANCH = {
    "width": 6,
    "classes": ("normal", "fire", "fight"),
    "score": "text",  # this branch sees as far back as the head says
    "temperature": 0.5,
    "window": 2,
    "layers": 1,
    "expansion": 1,
    "prototypes": 3,
    "decoder_layers": 1,
}
KITS = {
    "dual_branch": Kit(
        (
            {**SMALL_DUAL_BRANCH, "variant": "fixed", "block": 3},
            {**SMALL_DUAL_BRANCH, "variant": "faithful", "block": 12},
        ),
        {"apart": 1, "smoothing": 0.1},
    ),
    "mgfn": Kit((SMALL_MGFN,), {"margin": 20, "contrast": 0.1, "within": 0.1, "sparsity": 0.2, "smoothness": 0.3}),
    "mil": Kit(loud={"sparsity": 0.1, "smoothness": 0.3}),
    "pel4vad": Kit((SMALL_PEL4VAD, {**SMALL_PEL4VAD, "normalise": False})),
    "rtfm": Kit(loud={"margin": 5, "magnitude": 0.1, "sparsity": 0.2, "smoothness": 0.3}),
    "urdmu": Kit((SMALL_URDMU,), {"memory": 1, "triplet": 1, "divergence": 1, "distance": 1}),
}
PAIRED = [("mgfn", "faithful"), ("rtfm", "faithful")]  # losses that take abnormal and normal videos one to one
AVERAGED = ["mgfn", "mil", "rtfm"]  # losses that average crops; to others each is a video of its own
CASES = [
    {"kind": kind, "dim": DIM, "variant": variant, **small}
    for kind in HEADS
    for variant in VARIANTS
    for small in KITS.get(kind, Kit()).small
    if small.get("variant", variant) == variant
]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['kind']}-{case['variant']}")
in_training_and_not = pytest.mark.parametrize("training", [True, False], ids=["training", "judging"])


@pytest.fixture(autouse=True)
def one_thread():
    """Small networks are many times slower when threads wait for a busy core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def samples_are_one_deviation_off(monkeypatch):
    """What training draws by chance would differ from one forward to the next."""
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.manual_seed(seed))


def build(case: dict[str, Any], *, seed: int = 0):
    """A head in float64 without dropout, in which whatever fresh weights start at zero does something."""
    torch.manual_seed(seed)
    dropout = {"dropout": 0} if "dropout" in settings_class("vad.heads", case["kind"]).model_fields else {}
    head = load("vad.heads", {**case, **dropout}).build().double().eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += 0.3 * torch.randn(parameter.shape) * (parameter == 0)
    return head


def parts_of(case: dict[str, Any], output, labels: torch.Tensor, **given: Any) -> dict[str, torch.Tensor]:
    """The loss, loud, with what it takes of the following."""
    kinds = torch.where(labels, 1 + torch.arange(len(labels)) % 2, 0)
    offered = {"selection_dropout": 0, **texts(random(3, TEXT_WIDTH), kinds)}
    return loss_of(case, output, labels, **{**offered, **KITS.get(case["kind"], Kit()).loud, **given})


def texts(texts_CE: torch.Tensor, classes: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"texts_CE": texts_CE, "classes_V": classes}


def loss_of(case: dict[str, Any], output, labels: torch.Tensor, **offered: Any) -> dict[str, torch.Tensor]:
    """The parts of the loss, which is given those of the values that it knows."""
    loss = importlib.import_module(f"trainers.losses.{case['kind']}").loss
    known = inspect.signature(loss).parameters
    values = {name: value for name, value in offered.items() if name in known}
    return dict(loss(output, labels, variant=case["variant"], **values))


def tensors(output) -> dict[str, torch.Tensor]:
    """All values of an output by name, those of outputs inside it too."""
    found = {}
    for name in (entry.name for entry in fields(output)):
        value = getattr(output, name)
        found |= tensors(value) if is_dataclass(value) else {} if value is None else {name: value}
    return found


def of_snippets(output) -> dict[str, torch.Tensor]:
    return {name: value for name, value in tensors(output).items() if "_BT" in name}


def with_values(output, values: dict[str, torch.Tensor]):
    """The same output with other values."""
    inner = {entry.name: getattr(output, entry.name) for entry in fields(output)}
    changed = {n: with_values(v, values) if is_dataclass(v) else values.get(n) for n, v in inner.items()}
    return replace(output, **changed)


# scores


@every_case
@pytest.mark.parametrize("count", [1, 2, 3, 300])
def test_any_number_of_snippets_is_scored(case, count):
    lengths = torch.tensor([count, 1])
    scores = build(case)(random(2, count, DIM), lengths).scores_BT
    there = existing(lengths, scores)
    assert scores.shape == (2, count)
    assert ((scores > 0) & (scores < 1))[there].all()
    assert (scores[~there] == 0).all()


@every_case
def test_judging_is_the_same_each_time(case):
    head = load("vad.heads", case).build().eval()
    features = random(2, COUNT, DIM).float()
    first, second = tensors(head(features)), tensors(head(features))
    assert all(torch.equal(second[name], value) for name, value in first.items())


@every_case
def test_rows_do_not_change_with_the_batch(case):
    head = build(case).float()
    features = random(7, COUNT, DIM).float()
    scores = head(features).scores_BT
    for size in (1, 2, 5):
        torch.testing.assert_close(head(features[:size]).scores_BT, scores[:size])


@every_case
def test_videos_do_not_see_each_other(case):
    head, features, lengths = build(case), random(3, 9, DIM), torch.tensor([9, 4, 7])
    together = of_snippets(head(features, lengths))
    for video, length in enumerate(lengths):
        for name, alone in of_snippets(head(features[video : video + 1, :length])).items():
            torch.testing.assert_close(together[name][video : video + 1, :length], alone)


@every_case
def test_weights_survive_a_file(case):
    head, twin = build(case), build(case, seed=1)
    features = random(4, COUNT, DIM)
    head.train()(features)  # statistics of a batch travel too
    head.eval()
    assert not torch.equal(twin(features).scores_BT, head(features).scores_BT)
    twin.load_state_dict(from_bytes(to_bytes(head.state_dict())))
    assert torch.equal(twin(features).scores_BT, head(features).scores_BT)


@pytest.mark.parametrize("kind", [kind for kind in HEADS if kind != "dual_branch"])  # its faithful variant has more
def test_weights_of_one_variant_fit_the_other(kind):
    heads = {case["variant"]: build(case) for case in CASES if case["kind"] == kind}
    heads["fixed"].load_state_dict(heads["faithful"].state_dict())


# what a score depends on


@every_case
def test_a_score_depends_on_what_the_head_says_and_on_all_of_it(case):
    head, features = build(case), random(1, COUNT, DIM)
    ahead, back = head.lookahead, head.receptive
    assert ahead is None or ahead < COUNT, "more than this test can see"
    assert back is None or back < COUNT, "more than this test can see"
    scores = head(features).scores_BT[0]
    for at in range(COUNT):
        changed = features.clone()
        changed[:, at] += 5
        moved = (head(changed).scores_BT[0] - scores).abs() > 1e-12
        first = 0 if ahead is None else max(at - ahead, 0)
        end = COUNT if back is None else at + back
        assert not moved[:first].any()
        assert moved[first:end].all()
        assert not moved[end:].any()


@pytest.mark.parametrize("case", [case for case in CASES if case["variant"] == "fixed"], ids=lambda case: case["kind"])
def test_the_causal_curve_of_every_prefix_is_the_one_in_one_go(case):
    head, features = build(case), random(1, COUNT, DIM)
    assert head.lookahead == 0
    whole = of_snippets(head(features))
    for length in range(1, COUNT + 1):
        for name, value in of_snippets(head(features[:, :length])).items():
            torch.testing.assert_close(value, whole[name][:, :length])
        begin = 0 if head.receptive is None else max(length - head.receptive, 0)
        last = head(features[:, begin:length]).scores_BT[:, -1]
        torch.testing.assert_close(last, whole["scores_BT"][:, length - 1])


@every_case
@in_training_and_not
@pytest.mark.parametrize("lengths", [[9, 9, 9, 9], [9, 4, 1, 9]], ids=["full", "unequal"])
@pytest.mark.usefixtures("samples_are_one_deviation_off")
def test_padding_changes_neither_outputs_nor_loss_nor_gradients(case, training, lengths):
    head, lengths = build(case).train(training), torch.tensor(lengths)
    twin = copy.deepcopy(head)
    features = random(4, 9, DIM)
    there = existing(lengths, torch.empty(4, 14))
    padded = torch.cat([features, torch.full((4, 5, DIM), torch.nan)], dim=1)
    padded[:, :9].masked_fill_(~there[:, :9, None], 1e3)
    plain_lengths = None if (lengths == 9).all() else lengths
    plain, behind = head(features, plain_lengths), twin(padded, lengths)
    for name, value in of_snippets(plain).items():
        torch.testing.assert_close(of_snippets(behind)[name][:, :9], value)
        assert not of_snippets(behind)[name][~there].any(), name
    torch.testing.assert_close(dict(twin.named_buffers()), dict(head.named_buffers()))  # running statistics
    for labels in (torch.tensor([True, False, True, False]), torch.tensor([False, True, False, True])):
        parts = parts_of(case, plain, labels, lengths_B=plain_lengths)
        others = parts_of(case, behind, labels, lengths_B=lengths)
        torch.testing.assert_close(others, parts)
        torch.testing.assert_close(gradients(others, twin), gradients(parts, head))


def gradients(parts: dict[str, torch.Tensor], head) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(sum(parts.values()), list(head.parameters()), retain_graph=True)


@every_case
def test_padding_gets_no_gradient_and_all_else_does(case):
    head, lengths = build(case).train(), torch.tensor([6, 3, 6, 3])
    features = random(4, 6, DIM)
    there = existing(lengths, features[..., 0])
    features[~there] = torch.nan
    output = head(features.requires_grad_(), lengths)
    sum(parts_of(case, output, torch.tensor([False, True, True, False]), lengths_B=lengths).values()).backward()
    assert not features.grad[~there].any()
    assert features.grad.isfinite().all()
    assert features.grad.any(-1).any(-1).all()  # every video has one
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


# the loss


@every_case
@pytest.mark.parametrize("count", [1, 2])
def test_videos_shorter_than_any_kernel_train(case, count):
    head, labels = build(case).train(), torch.tensor([True, False, True, False])
    output = head(random(4, count, DIM))
    sum(parts_of(case, output, labels, selection_dropout=0.7).values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head.parameters())


@every_case
def test_the_same_crop_twice_counts_once(case):
    labels, again = torch.tensor([True, False]), torch.tensor([0, 0, 1, 1])
    if case["kind"] == "mgfn" and case["variant"] == "faithful":
        labels, again = labels.repeat(2), torch.arange(4).repeat_interleave(2)
    output = build(case)(random(len(labels), 4, DIM))
    doubled = {name: value[again] for name, value in tensors(output).items() if "_B" in name}
    doubled = with_values(output, {**tensors(output), **doubled})
    once, twice = parts_of(case, output, labels), parts_of(case, doubled, labels, crops=2)
    torch.testing.assert_close(twice, once)


@pytest.mark.parametrize("kind", ["mgfn", "mil", "rtfm", "urdmu"])
@pytest.mark.parametrize("label", [True, False])
def test_losses_that_compare_videos_refuse_a_batch_of_one_kind(kind, label):
    case = next(case for case in CASES if case["kind"] == kind)
    with pytest.raises(ValueError, match=r"needs abnormal and normal videos, got (one kind only|[02] abnormal of 2)"):
        parts_of(case, build(case)(random(2, 4, DIM)), torch.tensor([label, label]))


# gradients


@every_case
@in_training_and_not
@pytest.mark.usefixtures("samples_are_one_deviation_off")
def test_gradients_of_the_head_are_right(case, training):
    head, lengths = build({**case, "dim": 4}).train(training), torch.tensor([3, 2])
    names, weights = zip(*head.named_parameters(), strict=True)

    def run(rows, *weights):
        output = functional_call(head, dict(zip(names, weights, strict=True)), (rows, lengths))
        return tuple(tensors(output).values())

    features = random(2, 3, 4).requires_grad_()
    assert gradcheck(run, (features, *weights), fast_mode=True)
    if not training or list(head.buffers()):  # batch norm: only in training do rows depend on each other
        still = [weight.detach() for weight in weights]
        assert gradcheck(lambda rows: run(rows, *still), features)


@every_case
def test_gradients_of_the_loss_are_right(case):
    labels, lengths = torch.tensor([False, True, True]), torch.tensor([3, 2, 1])
    if (case["kind"], case["variant"]) in PAIRED:
        labels, lengths = torch.tensor([False, True, True, False]), torch.tensor([3, 2, 1, 2])
    assert gradcheck(*loss_and_inputs(case, labels, lengths), fast_mode=case["kind"] in ("mgfn", "rtfm"))


@every_case
def test_gradients_of_the_loss_of_crops_are_right(case):
    inputs = loss_and_inputs(case, torch.tensor([True, False]), torch.tensor([4, 4, 2, 2]), crops=2)
    assert gradcheck(*inputs, fast_mode=case["kind"] not in AVERAGED)


def loss_and_inputs(case: dict[str, Any], labels: torch.Tensor, lengths: torch.Tensor, *, crops: int = 1):
    """The parts as a function of the values of an output, and such values at random."""
    output = build({**case, "dim": 4})(random(len(lengths), int(lengths.max()), 4))
    generator = torch.manual_seed(1)
    values = {
        name: (torch.rand if name.endswith("_BT") else torch.randn)(value.shape, generator=generator).double()
        for name, value in tensors(output).items()
    }

    def run(*inputs):
        changed = with_values(output, dict(zip(values, inputs, strict=True)))
        return tuple(parts_of(case, changed, labels, crops=crops, lengths_B=lengths).values())

    return run, tuple(value.requires_grad_() for value in values.values())


# learning


def toy_videos(seed: int, *, videos: int = 12, count: int = 32, dim: int = 16, span: int = 5, kinds: int = 1):
    """Features (V, T, D), classes (V,) and truth (V, T): the first half of the videos has an anomaly of ``span``."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(videos, count, dim)) + 1
    truth = np.zeros((videos, count), dtype=bool)
    for video in range(videos // 2):
        start, first = random.integers(0, count - span), 4 * (video % kinds)
        truth[video, start : start + span] = True
        features[video, start : start + span, first : first + 4] += 4
    classes = np.where(truth.any(1), 1 + np.arange(videos) % kinds, 0)
    return torch.tensor(features, dtype=torch.float32), torch.tensor(classes), truth


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one head learns toy videos; each kind of anomaly has a text."""

    head: dict[str, Any] = field(default_factory=dict)
    optimiser: type[torch.optim.Optimizer] = torch.optim.Adam
    rates: dict[str, float] = field(default_factory=lambda: {"lr": 2e-3})
    steps: int = 40
    toy: dict[str, int] = field(default_factory=lambda: {"videos": 16, "count": 64, "span": 12})
    with_texts: bool = False


TO_LEARN_PEL4VAD = {"attention_width": 32, "text_width": 64, "width": 32, "window": 3, "classifier": 3}
TWO_KINDS = {"videos": 16, "count": 64, "span": 12, "kinds": 2}
RECIPES = {
    "dual_branch": [Recipe({"width": 32, "block": 64, "expansion": 2})],
    "mgfn": [],  # fixed hardly learns this toy; its own file has another
    "mil": [Recipe(optimiser=torch.optim.Adagrad, rates={"lr": 0.01}, steps=60, toy={})],
    "pel4vad": [
        Recipe(TO_LEARN_PEL4VAD),
        Recipe(TO_LEARN_PEL4VAD, steps=60, toy=TWO_KINDS, with_texts=True),
    ],
    "rtfm": [Recipe(rates={"lr": 3e-3, "weight_decay": 5e-3}, toy={})],
    "urdmu": [Recipe({"width": 32, "attention_heads": 2, "attention_width": 8, "prototypes": 20, "dropout": 0.1})],
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("kind", "recipe"),
    [pytest.param(kind, recipe, id=kind) for kind in HEADS for recipe in RECIPES.get(kind, [Recipe()])],
)
def test_a_planted_anomaly_is_found_inside_unseen_videos(kind, recipe, variant):
    torch.manual_seed(0)
    features, classes, _ = toy_videos(seed=0, **recipe.toy)
    case = {"kind": kind, "dim": features.shape[-1], "variant": variant, **recipe.head}
    head = load("vad.heads", case).build()
    offered = texts(torch.randn(1 + int(classes.max()), 64), classes) if recipe.with_texts else {}
    optimiser = recipe.optimiser(head.parameters(), **recipe.rates)
    for _ in range(recipe.steps):
        optimiser.zero_grad()
        parts = loss_of(case, head(features), classes > 0, **offered)
        (sum(parts.values()) + (weight_l2(head) if kind == "mil" else 0)).backward()
        optimiser.step()
    unseen, _, truth = toy_videos(seed=1, **recipe.toy)
    with torch.no_grad():
        scores = head.eval()(unseen).scores_BT.numpy()
    # an anomaly is still seen just after it: a head that sees the past only cannot reach 1
    assert np.mean([auc(truth[video], scores[video]) for video in range(len(truth) // 2)]) > 0.95
