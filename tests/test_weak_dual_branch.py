"""Dual branch: hand-worked terms, what an output may depend on, texts and prompts, gradients, and planted anomalies."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck
from torch.func import functional_call

from trainers.losses.dual_branch import Prompts, loss
from vad.config import ConfigError, load
from vad.heads.dual_branch import Adapter, DualBranchOutput, Reconstruction, Settings, blocks, distance, error, videos
from vad.metrics.frame import auc

SMALL = {
    "kind": "dual_branch",
    "dim": 6,
    "width": 6,
    "text_width": 6,
    "classes": ("normal", "fire", "fight"),
    "window": 3,
    "block": 7,
    "expansion": 1,
    "decoder_layers": 2,
}
VARIANTS = ("fixed", "faithful")


@pytest.fixture(autouse=True)
def one_thread():
    """Small networks are many times slower when threads wait for a busy core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small(variant: str = "fixed", seed: int = 0, **changes):
    """A head whose attention and graphs, which start at zero, do something."""
    head = fresh(variant, seed, **changes)
    for parameter in head.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.5)
    return head


def fresh(variant: str = "fixed", seed: int = 0, **changes):
    torch.manual_seed(seed)
    return load("vad.heads", {**SMALL, "variant": variant, **changes}).build().eval()


def of_snippets(output: DualBranchOutput) -> dict[str, torch.Tensor]:
    """Everything that has a value per snippet."""
    parts = [(output, field.name) for field in fields(output)]
    if output.reconstruction is not None:
        parts += [(output.reconstruction, field.name) for field in fields(output.reconstruction)]
    return {name: getattr(part, name) for part, name in parts if "_BT" in name}


def random_output(batch: int = 4, count: int = 20, classes: int = 3, dtype=torch.float64) -> DualBranchOutput:
    generator = torch.Generator().manual_seed(3)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    logits, class_logits = 2 * draw(batch, count), 5 * draw(batch, count, classes)
    found = Reconstruction(draw(batch, count).sigmoid(), draw(batch, count).abs(), draw(batch, 1, 4, 5))
    return DualBranchOutput(
        logits.sigmoid(), class_logits.softmax(-1), class_logits, logits, draw(classes, 5), reconstruction=found
    )


def plain_output(logits: torch.Tensor, class_logits: torch.Tensor | None = None, texts=None) -> DualBranchOutput:
    class_logits = torch.zeros(*logits.shape, 2) if class_logits is None else class_logits
    texts = torch.eye(class_logits.shape[-1]) if texts is None else texts
    return DualBranchOutput(logits.sigmoid(), class_logits.softmax(-1), class_logits, logits, texts)


# what the settings allow


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("normal",)}, "at least 2 items"),
        ({"classes": ("normal", "fire", "fire")}, "must have different names"),
        ({"attention_heads": 4}, "multiple of attention_heads 4, got 6"),
        ({"window": 8}, "window must be at most block 7, got 8"),
        ({"temperature": 0}, "greater than 0"),
        ({"adapter_mix": 1.5}, "less than or equal to 1"),
        ({"prototypes": 0}, "greater than or equal to 1"),
        ({"score": "both"}, "'binary' or 'text'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        load("vad.heads", {**SMALL, **changes})


def test_the_default_head_works_as_it_is():
    head = load("vad.heads", {"kind": "dual_branch"}).build().eval()
    with torch.no_grad():
        output = head(torch.randn(1, 3, 512))
    assert output.scores_BT.shape == (1, 3)
    assert output.class_scores_BTC.shape == (1, 3, 2)
    assert output.reconstruction is None


# what an output is


@pytest.mark.parametrize("prototypes", [None, 4])
@pytest.mark.parametrize("score", ["binary", "text"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("count", [1, 2, 7, 8, 40])
def test_any_number_of_snippets_is_scored(variant, score, prototypes, count):
    output = small(variant, score=score, prototypes=prototypes)(torch.randn(2, count, 6), torch.tensor([count, 1]))
    there = torch.arange(count) < torch.tensor([[count], [1]])
    assert output.scores_BT.shape == (2, count)
    assert ((output.scores_BT > 0) & (output.scores_BT < 1))[there].all()
    torch.testing.assert_close(output.class_scores_BTC.sum(-1), there.float())
    for name, value in of_snippets(output).items():
        assert value.shape[:2] == (2, count), name
        assert not value[~there].any(), name
    right = output.logits_BT.sigmoid() if score == "binary" else 1 - output.class_scores_BTC[..., 0]
    torch.testing.assert_close(output.scores_BT, right * there)


def test_class_logits_are_cosines_over_the_temperature():
    features = torch.randn(1, 9, 6)
    cold, warm = (small(temperature=temperature)(features).class_logits_BTC for temperature in (0.07, 0.7))
    torch.testing.assert_close(cold, 10 * warm)
    assert cold.abs().max() <= 1 / 0.07 + 1e-4


def test_features_of_another_width_are_projected():
    assert small(dim=9)(torch.randn(2, 5, 9)).scores_BT.shape == (2, 5)


@pytest.mark.parametrize("prototypes", [None, 4])
@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_changes_nothing(variant, prototypes):
    head = small(variant, prototypes=prototypes)
    features, lengths = torch.randn(2, 9, 6), torch.tensor([9, 4])
    padded = torch.full((2, 17, 6), torch.nan)
    padded[:, :9] = features
    padded[1, 4:] = 1e3
    plain, more, alone = head(features, lengths), head(padded, lengths), head(features[1:, :4])
    for name, value in of_snippets(plain).items():
        torch.testing.assert_close(of_snippets(more)[name][:, :9], value)
        torch.testing.assert_close(value[1:, :4], of_snippets(alone)[name])
        assert not value[1, 4:].any(), name
        assert not of_snippets(more)[name][:, 9:].any(), name
    labels = torch.tensor([False, True])
    for which in (labels, ~labels):
        one, other = (
            loss(output, which, lengths_B=lengths, variant=variant, classes_V=2 * which.long())
            for output in (plain, more)
        )
        torch.testing.assert_close(dict(one), dict(other))


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_gives_no_gradient(variant):
    head, lengths = small(variant, prototypes=4).train(), torch.tensor([9, 3])
    features = torch.randn(2, 9, 6)
    features[1, 3:] = torch.nan
    features.requires_grad_()
    labels = torch.tensor([False, True])
    sum(loss(head(features, lengths), labels, lengths_B=lengths, classes_V=labels.long()).values()).backward()
    assert not features.grad[1, 3:].any()
    assert features.grad.isfinite().all()
    assert features.grad[1, :3].any()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_half_precision_gives_about_the_same(variant):
    head, features, labels = small(variant, prototypes=4), torch.randn(2, 9, 6), torch.tensor([False, True])
    wide = head(features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = head(features)
        parts = loss(half, labels, classes_V=labels.long())
    torch.testing.assert_close(half.scores_BT.float(), wide.scores_BT, atol=0.05, rtol=0)
    torch.testing.assert_close(parts["bag"], loss(wide, labels)["bag"], atol=0.1, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_videos_do_not_see_each_other(variant):
    head, features = small(variant, prototypes=4), torch.randn(3, 10, 6)
    together, alone = of_snippets(head(features)), of_snippets(head(features[1:2]))
    for name, value in together.items():
        torch.testing.assert_close(alone[name], value[1:2])


@pytest.mark.parametrize("score", ["binary", "text"])
def test_fixed_never_looks_ahead(score):
    head, features = small(prototypes=4, score=score), torch.randn(1, 12, 6)
    assert head.lookahead == 0
    before = of_snippets(head(features))
    for at in range(12):
        changed = features.clone()
        changed[:, at] += 5
        after, prefix = of_snippets(head(changed)), of_snippets(head(features[:, : at + 1]))
        for name, value in before.items():
            torch.testing.assert_close(after[name][:, :at], value[:, :at])
            torch.testing.assert_close(prefix[name], value[:, : at + 1])
            assert (after[name][:, at] != value[:, at]).any(), name


def test_fixed_sees_as_far_back_as_it_says_wherever_the_stream_began():
    head, features = small(prototypes=4, block=4, layers=2), torch.randn(1, 30, 6)
    assert head.receptive == 1 + 2 * 2 + 3 * 3
    whole = of_snippets(head(features))
    for name, value in of_snippets(head(features[:, -head.receptive :])).items():
        torch.testing.assert_close(value[:, -1], whole[name][:, -1])
    short = of_snippets(head(features[:, 1 - head.receptive :]))
    assert (short["class_logits_BTC"][:, -1] != whole["class_logits_BTC"][:, -1]).any()


def test_faithful_sees_its_block_and_no_other():
    head, features = small("faithful", prototypes=4), torch.randn(1, 21, 6)
    assert head.lookahead is None
    assert head.receptive is None
    changed = features.clone()
    changed[:, 13] += 5  # the last of the second block of seven
    before, after = of_snippets(head(features)), of_snippets(head(changed))
    for name, value in before.items():
        same = (after[name] == value).flatten(2).all(-1) if value.ndim > 2 else after[name] == value
        assert not same[:, 7:14].any(), name
        assert same[:, :7].all(), name
        assert same[:, 14:].all(), name


def test_snippet_eight_does_not_change_snippet_seven_in_windows_of_eight():
    head, features = small("faithful", window=8, block=16), torch.randn(1, 16, 6)

    def attended(rows):
        seen = []
        hook = head.layers[-1].register_forward_hook(lambda _module, _inputs, out: seen.append(out))
        head(rows)
        hook.remove()
        return seen[0]

    changed = features.clone()
    changed[:, 8] += 5
    same = (attended(changed) == attended(features)).all(-1)[0]
    assert same.tolist() == 8 * [True] + 8 * [False]


def test_windows_past_the_end_are_filled_with_zeros():
    """As published: the last window of a short video is as wide as the others, however far the caller pads."""
    head, features = small("faithful"), torch.randn(1, 4, 6)
    filled = torch.cat([features, torch.zeros(1, 2, 6)], 1)
    torch.testing.assert_close(head(filled, torch.tensor([4])).logits_BT[:, :4], head(features).logits_BT)
    assert head.place_TE.shape == (7, 6)
    assert small("fixed").place_TE is None


def test_blocks_and_back():
    values, there = torch.randn(3, 10, 2), torch.arange(10) < torch.tensor([[10], [4], [1]])
    assert blocks(values, 4).shape == (9, 4, 2)
    torch.testing.assert_close(videos(blocks(values, 4), there), values * there[..., None])


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_fresh_classifier_sees_single_snippets(variant):
    head, features = fresh(variant), torch.randn(1, 7, 6)
    changed = features.clone()
    changed[:, 3] += 5
    same = head(changed).scores_BT == head(features).scores_BT
    assert same[0].tolist() == [True, True, True, False, True, True, True]


# the loss by hand


@pytest.mark.parametrize(("length", "k"), [(15, 1), (16, 2), (256, 17)])
def test_a_bag_is_a_sixteenth_and_one_more(length, k):
    logits = torch.full((1, 300), 9.0)  # what stands behind the length does not count
    logits[0, :length] = -torch.arange(float(length))
    output = plain_output(logits, torch.stack([torch.zeros_like(logits), logits], -1))
    parts = loss(output, torch.tensor([True]), lengths_B=torch.tensor([length]), classes_V=torch.tensor([1]))
    top = -torch.arange(float(k))
    assert parts["bag"].item() == pytest.approx(-top.sigmoid().mean().log().item(), rel=1e-5)
    assert parts["classes"].item() == pytest.approx(math.log(1 + math.exp(-top.mean())), rel=1e-5)


def test_bags_average_probabilities_not_logits():
    output = plain_output(torch.tensor([[3.0, -1.0] + 14 * [-50.0]]))
    assert math.exp(-loss(output, torch.tensor([True]))["bag"]) == pytest.approx(0.6108, abs=5e-5)


@pytest.mark.parametrize("apart", [0.1, 1e-4])
def test_equal_texts_cost_the_weight_and_orthogonal_ones_nothing(apart):
    logits, labels = torch.zeros(1, 3), torch.tensor([False])
    same = loss(plain_output(logits, texts=torch.ones(14, 8)), labels, apart=apart)
    opposite = loss(plain_output(logits, texts=torch.tensor([[1.0, 0], [-2, 0]])), labels, apart=apart)
    orthogonal = loss(plain_output(logits, texts=3 * torch.eye(7)), labels, apart=apart)
    assert same["apart"].item() == pytest.approx(apart)
    assert opposite["apart"].item() == pytest.approx(apart)
    assert orthogonal["apart"].item() == 0


def test_each_class_is_pooled_over_snippets_of_its_own():
    logits = torch.zeros(1, 20)
    class_logits = torch.full((1, 20, 2), -9.0)
    class_logits[0, 3, 0], class_logits[0, 4, 0] = 1.0, 2.0
    class_logits[0, 11, 1], class_logits[0, 12, 1] = 3.0, 4.0
    parts = loss(plain_output(logits, class_logits), torch.tensor([True]), classes_V=torch.tensor([1]))
    assert parts["classes"].item() == pytest.approx(math.log(1 + math.exp(1.5 - 3.5)))


def test_smoothing_spreads_the_target_and_alignment_is_a_weight():
    output, labels, classes = random_output(), torch.tensor([False, False, True, True]), torch.tensor([0, 0, 1, 2])
    plain, smooth = (loss(output, labels, classes_V=classes, smoothing=share)["classes"] for share in (0.0, 0.3))
    every = torch.stack([loss_of_class(output, row) for row in range(3)]).mean()
    torch.testing.assert_close(smooth, 0.7 * plain + 0.3 * every)
    heavy = loss(output, labels, classes_V=classes, alignment=5.0)
    torch.testing.assert_close(heavy["classes"], 5 * plain)


def loss_of_class(output: DualBranchOutput, row: int) -> torch.Tensor:
    labels = torch.full((4,), row > 0)
    return loss(output, labels, classes_V=torch.full((4,), row))["classes"]


def test_parts_are_there_when_their_inputs_are():
    labels, classes = torch.tensor([False, False, True, True]), torch.tensor([0, 0, 1, 2])
    assert set(loss(plain_output(torch.zeros(4, 3)), labels)) == {"bag", "apart"}
    everything = loss(random_output(), labels, classes_V=classes)
    assert set(everything) == {"bag", "apart", "classes", "gather", "consistency"}


def test_bag_keeps_its_precision_in_bfloat16():
    output = random_output(dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        part = loss(output, torch.tensor([False, False, True, True]))["bag"]
    assert part.dtype == torch.float32
    wide = loss(plain_output(output.logits_BT.float()), torch.tensor([False, False, True, True]))["bag"]
    torch.testing.assert_close(part, wide)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (torch.tensor([0, 0, 1, 3]), "classes of the head, 0 to 2"),
        (torch.tensor([0, -1, 1, 2]), "classes of the head, 0 to 2"),
        (torch.tensor([0, 1, 1, 2]), "as labels_B says"),
    ],
)
def test_classes_that_do_not_fit_are_refused(classes, message):
    with pytest.raises(ValueError, match=message):
        loss(random_output(), torch.tensor([False, False, True, True]), classes_V=classes)


# the reconstruction


def test_distance_to_a_prototype_and_error_of_reconstruction_by_hand():
    rows = torch.tensor([[[2.0, 0, 0], [0, 0, 3], [-1, 0, 0]]])
    prototypes = torch.tensor([[[5.0, 0, 0], [0, 1, 0]]])
    torch.testing.assert_close(distance(rows, prototypes), torch.tensor([[0.0, 1, 1]]))
    made = torch.tensor([[[1.0, 0, 0], [0, 7, 0], [1, 0, 0]]])
    torch.testing.assert_close(error(rows, made), torch.tensor([[0.0, 0.5, 1]]))
    noisy = error(1e3 * torch.randn(1, 500, 4), torch.randn(1, 500, 4))
    assert ((noisy >= 0) & (noisy <= 1)).all()


def test_gathering_counts_the_calm_snippets_and_consistency_all():
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0, 2.0]])
    found = Reconstruction(torch.full((1, 5), 0.5), torch.tensor([[0.1, 0.2, 0.3, 0.4, 9.0]]), torch.zeros(1, 1, 1, 1))
    output = DualBranchOutput(logits.sigmoid(), torch.zeros(1, 5, 2), torch.zeros(1, 5, 2), logits, torch.eye(2), found)
    parts = loss(output, torch.tensor([True]), gather=2.0)
    assert parts["gather"].item() == pytest.approx(2 * 0.25)
    assert parts["consistency"].item() == pytest.approx((1 / (1 + math.exp(-2)) - 0.5) ** 2 / 5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_prototypes_are_those_of_all_video_or_of_each_block(variant):
    head, features = small(variant, prototypes=4), torch.randn(2, 9, 6)
    found = head(features).reconstruction
    assert found.prototypes_BNPE.shape == (2, 1 if variant == "fixed" else 2, 4, 6)
    same = torch.equal(found.prototypes_BNPE[0, 0], found.prototypes_BNPE[1, 0])
    assert same == (variant == "fixed")
    expected = distance(hidden(head, features)[:, :7], found.prototypes_BNPE[:, 0])
    torch.testing.assert_close(found.distances_BT[:, :7], expected)


def hidden(head, features: torch.Tensor) -> torch.Tensor:
    """What both branches read."""
    seen = []
    hook = head.join.register_forward_hook(lambda _module, _inputs, out: seen.append(out))
    head(features)
    hook.remove()
    there = torch.ones(features.shape[:2], dtype=torch.bool)
    return videos(seen[0], there)


def test_gathered_prototypes_leave_out_the_most_anomalous_snippets():
    reconstruct = small("faithful", prototypes=4).reconstruct
    rows, there = torch.randn(1, 5, 6), torch.ones(1, 5, dtype=torch.bool)
    logits = torch.tensor([[0.0, 1.0, 9.0, 2.0, 3.0]])
    before = reconstruct(rows, logits, there)[0]
    for at in range(5):
        changed = rows.clone()
        changed[:, at] += 5
        assert torch.equal(reconstruct(changed, logits, there)[0], before) == (at == 2)


# texts


def test_a_head_without_its_texts_says_so():
    head, features = small(texts="given"), torch.randn(1, 4, 6)
    with pytest.raises(ValueError, match="no class texts yet; call give_texts"):
        head(features)
    with pytest.raises(ValueError, match=r"must be \(3, 6\), got \(2, 6\)"):
        head.give_texts(torch.ones(2, 6))
    with pytest.raises(ValueError, match=r"must be \(3, 6\), got \(3, 5\)"):
        head(features, texts_CE=torch.ones(3, 5))
    with pytest.raises(ValueError, match="learns its class embeddings"):
        small().give_texts(torch.ones(3, 6))


@pytest.mark.parametrize("text_width", [6, 11])
def test_given_texts_travel_with_the_weights(text_width):
    head, twin = (small(texts="given", text_width=text_width, seed=seed) for seed in (0, 1))
    features, texts = torch.randn(1, 4, 6), torch.randn(3, text_width)
    head.give_texts(texts)
    assert "texts_CE" not in dict(head.named_parameters())
    twin.load_state_dict(head.state_dict())
    torch.testing.assert_close(twin(features).class_scores_BTC, head(features).class_scores_BTC)
    torch.testing.assert_close(head(features, texts_CE=texts).class_scores_BTC, head(features).class_scores_BTC)


def test_an_adapter_of_share_nothing_gives_the_plain_texts():
    texts = torch.randn(3, 6)
    for length in (None, 3.0):
        plain = small(texts="given", adapter_mix=0, text_length=length)
        plain.give_texts(texts)
        expected = texts if length is None else 3 * texts / texts.norm(dim=-1, keepdim=True)
        torch.testing.assert_close(plain(torch.randn(1, 4, 6)).texts_CE, expected)
    tenth, whole = (Adapter(Settings(**{**SMALL, "adapter_mix": mix, "text_length": None})) for mix in (0.1, 1.0))
    whole.load_state_dict(tenth.state_dict())
    torch.testing.assert_close(tenth(texts), 0.9 * texts + 0.1 * whole(texts))


def test_learned_texts_start_apart():
    texts = small().texts_CE
    torch.testing.assert_close(texts @ texts.T, 100 * torch.eye(3))
    assert isinstance(texts, torch.nn.Parameter)


def test_the_order_of_texts_is_the_order_of_classes():
    head, features, texts = small(texts="given"), torch.randn(1, 9, 6), torch.randn(3, 6)
    one, other = (head(features, texts_CE=t).class_logits_BTC for t in (texts, texts[[2, 0, 1]]))
    torch.testing.assert_close(other, one[..., [2, 0, 1]])


# prompts


def mean_encoder(tokens, ends):
    """Stands for a text encoder: the mean of all tokens up to the end, each weighted by its place."""
    places = torch.arange(tokens.shape[1])
    weights = (places + 1.0) * (places <= ends[:, None])
    return (weights[..., None] * tokens).sum(1)


def test_prompts_stand_before_and_after_the_names():
    names = [torch.full((1, 2), 5.0), torch.full((3, 2), 6.0)]
    prompts = Prompts(
        names, start_E=torch.full((2,), 1.0), end_E=torch.full((2,), 9.0), encode=lambda t, e: t, before=2, after=1
    )
    with torch.no_grad():
        prompts.before_PE.copy_(torch.tensor([[2.0, 2], [3, 3]]))
        prompts.after_PE.fill_(7)
    assert prompts()[..., 0].tolist() == [[1, 2, 3, 5, 7, 9, 0, 0], [1, 2, 3, 6, 6, 6, 7, 9]]
    assert prompts.ends_C.tolist() == [5, 7]


def test_prompts_have_ten_tokens_on_both_sides_and_learn_through_the_head():
    names = [torch.randn(count, 6) for count in (1, 2, 4)]
    prompts = Prompts(names, start_E=torch.randn(6), end_E=torch.randn(6), encode=mean_encoder)
    assert [(name, tuple(p.shape)) for name, p in prompts.named_parameters()] == [
        ("before_PE", (10, 6)),
        ("after_PE", (10, 6)),
    ]
    head, labels = small(texts="given"), torch.tensor([False, True])
    output = head(torch.randn(2, 9, 6), texts_CE=prompts())
    sum(loss(output, labels, classes_V=labels.long()).values()).backward()
    assert prompts.before_PE.grad.abs().sum(1).all()
    assert prompts.after_PE.grad.abs().sum(1).all()


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
def test_prompts_learn_through_a_frozen_clip_text_encoder_and_are_baked_into_the_head():
    import transformers

    torch.manual_seed(0)
    config = transformers.CLIPTextConfig(
        vocab_size=99,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        projection_dim=6,
        bos_token_id=97,
        eos_token_id=98,
        pad_token_id=98,
    )
    model = transformers.CLIPTextModelWithProjection(config).eval().requires_grad_(False)

    def encode(tokens, ends):
        text = model.text_model
        count = tokens.shape[1]
        rows = tokens + text.embeddings.position_embedding.weight[:count]
        mask = torch.full((count, count), -torch.inf).triu(1)[None, None]
        for layer in text.encoder.layers:
            rows = layer(rows, mask)
        return model.text_projection(text.final_layer_norm(rows)[torch.arange(len(rows)), ends])

    embed = model.get_input_embeddings()
    words = [[3], [4, 5, 6], [7, 8]]
    start, end = embed(torch.tensor([97, 98]))

    def prompts_of(**tokens):
        return Prompts([embed(torch.tensor(w)) for w in words], start_E=start, end_E=end, encode=encode, **tokens)

    ids = torch.full((3, 5), 98)
    for row, word in enumerate(words):
        ids[row, : len(word) + 1] = torch.tensor([97, *word])
    torch.testing.assert_close(
        prompts_of(before=0, after=0)(), model(ids).text_embeds
    )  # nothing added: the model itself

    prompts, head = prompts_of(), small(texts="given", adapter_mix=0.0)
    features, labels, classes = torch.randn(3, 9, 6), torch.tensor([False, True, True]), torch.tensor([0, 1, 2])
    optimiser = torch.optim.Adam([*prompts.parameters(), *head.parameters()], lr=1e-2)
    frozen = {name: value.clone() for name, value in model.state_dict().items()}
    first = prompts().detach()
    totals = []
    for _ in range(20):
        optimiser.zero_grad()
        totals.append(sum(loss(head(features, texts_CE=prompts()), labels, classes_V=classes).values()))
        totals[-1].backward()
        optimiser.step()
    assert totals[-1] < totals[0]
    assert (prompts() != first).all()
    assert all(torch.equal(value, frozen[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert set(prompts.state_dict()) == {"before_PE", "after_PE", "tokens_CLE", "ends_C"}  # and no encoder

    head.give_texts(prompts())
    twin = small(texts="given", adapter_mix=0.0, seed=5)
    twin.load_state_dict(head.state_dict())
    for name, value in of_snippets(twin(features)).items():
        torch.testing.assert_close(value, of_snippets(head(features, texts_CE=prompts()))[name])


# gradients, and learning


@pytest.mark.parametrize("texts", ["given", "learned"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_of_the_network(variant, texts):
    head = small(
        variant, dim=3, width=4, text_width=5, window=2, block=3, layers=1, attention_heads=2, prototypes=2, texts=texts
    ).double()
    if texts == "given":
        head.give_texts(torch.randn(3, 5, dtype=torch.float64))
    names, parameters = zip(*head.named_parameters(), strict=True)
    lengths = torch.tensor([4, 2])

    def run(features, *weights):
        output = functional_call(head, dict(zip(names, weights, strict=True)), (features, lengths))
        return (*of_snippets(output).values(), output.texts_CE)

    features = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(run, (features, *(p.detach().requires_grad_() for p in parameters)), fast_mode=True)
    assert gradcheck(lambda x: run(x, *parameters)[0], (features,))


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_of_the_loss(variant):
    labels, lengths, classes = torch.tensor([False, True, True]), torch.tensor([20, 17, 2]), torch.tensor([0, 2, 1])
    output = random_output(3)
    found = output.reconstruction

    def run(class_logits, logits, texts, errors, distances):
        rebuilt = DualBranchOutput(
            logits.sigmoid(),
            class_logits.softmax(-1),
            class_logits,
            logits,
            texts,
            Reconstruction(errors, distances, found.prototypes_BNPE),
        )
        parts = loss(rebuilt, labels, lengths_B=lengths, variant=variant, classes_V=classes, smoothing=0.1)
        return tuple(parts.values())

    inputs = output.class_logits_BTC, output.logits_BT, output.texts_CE, found.errors_BT, found.distances_BT
    assert gradcheck(run, tuple(tensor.requires_grad_() for tensor in inputs))


def planted(generator, *, pairs: int = 16, count: int = 48, size: int = 32, long: int = 6):
    """As many normal as abnormal toy videos; six snippets of each of the latter lean one of two ways."""
    features = torch.randn(2 * pairs, count, size, generator=generator)
    truth = torch.zeros(2 * pairs, count, dtype=torch.bool)
    for video in range(pairs, 2 * pairs):
        start = int(torch.randint(0, count - long, (1,), generator=generator))
        truth[video, start : start + long] = True
        features[video, start : start + long, video % 2] += 6
    classes = torch.cat([torch.zeros(pairs, dtype=torch.long), 1 + torch.arange(pairs) % 2])
    return features, truth, classes


@pytest.mark.parametrize(
    ("score", "texts", "prototypes", "steps"),
    [("binary", "learned", None, 70), ("text", "given", None, 50), ("binary", "given", 16, 80)],
)
@pytest.mark.parametrize("variant", VARIANTS)
def test_planted_anomalies_are_found_in_unseen_videos_and_told_apart(variant, score, texts, prototypes, steps):
    sizes = {"dim": 32, "width": 32, "text_width": 32, "window": 4, "block": 16, "expansion": 2}
    head = fresh(variant, **sizes, score=score, texts=texts, prototypes=prototypes).train()
    if texts == "given":
        head.give_texts(torch.randn(3, 32))
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(head.parameters(), lr=1e-3)
    for _ in range(steps):
        features, truth, classes = planted(generator)
        optimiser.zero_grad()
        sum(loss(head(features), truth.any(1), variant=variant, classes_V=classes).values()).backward()
        optimiser.step()
    features, truth, classes = planted(generator)
    with torch.no_grad():
        output = head.eval()(features)
    scores = output.scores_BT.double().numpy()
    within = [auc(truth[video].numpy(), scores[video]) for video in range(16, 32)]
    assert np.mean(within) > 0.95
    right = output.class_scores_BTC.argmax(-1) == classes[:, None]
    assert right[truth].float().mean() > 0.9
