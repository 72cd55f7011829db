"""Networks of mmaction2 and torchvision: their features are what their own heads would classify.

Published weights do not travel with packages, so these tests save randomly initialised ones in the published form.
"""

import hashlib
import http.server
import importlib.util
import os
import re
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from extractors import _mmaction, _zoo, slowfast, torchvision_video
from vad.config import ConfigError, load, settings_class
from vad.extractor import Extractor, ExtractorSettings
from vad.types import Array, Pixels
from vad.weights import WeightsError, package_file

MMACTION = importlib.util.find_spec("mmaction") is not None
TORCHVISION = importlib.util.find_spec("torchvision") is not None
needs_mmaction = pytest.mark.skipif(not MMACTION, reason="mmaction2 is not installed")
needs_torchvision = pytest.mark.skipif(not TORCHVISION, reason="torchvision is not installed")
X3D = "x3d_s_13x6x1_facebook-kinetics400-rgb"
MVIT = "mvit-small-p244_32xb16-16x4x1-200e_kinetics400-rgb"
VIDEOMAE = "vit-small-p16_videomaev2-vit-g-dist-k710-pre_16x4x1_kinetics-400"
SWIN = "swin-tiny-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb"
C3D = "c3d_sports1m-pretrained_8xb30-16x1x1-45e_ucf101-rgb"
TSM = "tsm_imagenet-pretrained-mobilenetv2_8xb16-1x1x8-100e_kinetics400-rgb"
SMALL: dict[str, dict[str, Any]] = {
    "mmaction": {"config": X3D, "clip_frames": 4, "size": [64, 64]},
    "slowfast": {"clip_frames": 8, "size": [64, 64]},
    "torchvision_video": {"architecture": "mc3_18", "clip_frames": 4, "size": [64, 64]},
}
ZOO = [
    pytest.param("mmaction", marks=needs_mmaction),
    pytest.param("slowfast", marks=needs_mmaction),
    pytest.param("torchvision_video", marks=needs_torchvision),
]


def zoo_settings(kind: str, folder: Path) -> dict[str, Any]:
    """Settings of a small network of this kind, whose weights are written into ``folder``."""
    path = folder / f"{kind}.pth"
    if kind == "torchvision_video":
        torch.save(torchvision_model(SMALL[kind]["architecture"]).state_dict(), path)
    else:
        save_mmengine(recogniser(SMALL[kind].get("config", slowfast.CONFIG)), path)
    return {"kind": kind, **SMALL[kind], "weights": str(path)}


def recogniser(config: str) -> Any:
    """The whole network of a config, classification included, as mmaction2 builds it."""
    _mmaction._registry()  # the first import draws random numbers of its own
    torch.manual_seed(0)
    model = _mmaction.read_config(config).model
    model.backbone.pop("pretrained", None)
    return lively(_mmaction._build_recogniser(config, model))


def torchvision_model(architecture: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return lively(torchvision_video._models().get_model(architecture, **options))


def lively(network: Any) -> Any:
    """Ready to infer, its normalisation layers as after a training: layers of a fresh one let nothing through."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.02)
    return network.eval()


def save_mmengine(network: nn.Module, path: Path) -> Path:
    """As mmengine's runner does: with the loss curves, the optimiser and what is known of the run."""
    from mmengine.logging import HistoryBuffer

    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    torch.save(
        {
            "meta": {
                "epoch": 3,
                "iter": 30,
                "cfg": "model = dict()\n",
                "dataset_meta": {"classes": ("fight",)},
                "seed": 1,
            },
            "state_dict": OrderedDict(network.state_dict()),
            "message_hub": {
                "log_scalars": OrderedDict({"train/loss": HistoryBuffer([0.5, 0.25], [1, 1])}),
                "runtime_info": OrderedDict({"lr": np.float64(0.1), "best": np.arange(3.0)}),
                "resumed_keys": OrderedDict({"train/loss": True}),
            },
            "optimizer": optimiser.state_dict(),
            "param_schedulers": [{"last_step": 3, "base_values": [0.1]}],
        },
        path,
    )
    return path


def build(kind: str, **settings: Any) -> Extractor:
    extractor: Extractor = load("extractors", {"kind": kind, "runtime": "torch", **settings}).build()
    return extractor


def noise(settings: ExtractorSettings, *, batch: int = 1) -> Pixels:
    width, height = settings.size
    shape = (batch, settings.clip_frames, height, width, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def error(found: Array | Tensor, expected: Array | Tensor) -> float:
    """Norm of the difference by norm of the expected."""
    found, expected = np.asarray(found), np.asarray(expected)
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that an earlier run converted or downloaded is used here."""
    monkeypatch.setenv("VAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way out leads to a port of this machine where nothing listens."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder that is served, and its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


def pixels_of(clips: Pixels, mean: Any, std: Any) -> Tensor:
    """Normalised, (B, C, T, H, W)."""
    return ((torch.from_numpy(clips).float() - torch.tensor(mean)) / torch.tensor(std)).permute(0, 4, 1, 2, 3)


@needs_mmaction
def test_slowfast_is_mmactions_network_up_to_its_classification(tmp_path: Path) -> None:
    reference = recogniser(slowfast.CONFIG)
    path = save_mmengine(reference, tmp_path / "slowfast.pth")
    extractor = build("slowfast", clip_frames=16, size=(96, 64), weights=path)
    clips = noise(extractor.settings, batch=2)
    features = extractor(clips)
    assert features.shape == (2, 2304)
    assert extractor.dim == 2304
    assert extractor.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert extractor.normalisation == "(x - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]"
    x = pixels_of(clips, [123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
    with torch.inference_mode():
        maps, _ = reference.extract_feat(x[:, None])
        slow, fast = (maps[0].mean((2, 3, 4)), maps[1].mean((2, 3, 4)))
        assert error(features, torch.cat([fast, slow], 1)) < 1e-5
        assert error(reference.cls_head.fc_cls(torch.from_numpy(features)), reference.cls_head(maps)) < 1e-5


@needs_mmaction
def test_slowfast_has_the_clips_of_its_config() -> None:
    settings = load("extractors", {"kind": "slowfast"})
    geometry = _mmaction.geometry(slowfast.CONFIG)
    assert {name: getattr(settings, name) for name in geometry} == geometry


@needs_mmaction
@pytest.mark.parametrize(
    ("config", "layer", "clips"),
    [
        (X3D, "fc2", {"clip_frames": 5, "size": [64, 96]}),
        (MVIT, "fc_cls", {"clip_frames": 4, "size": [64, 64]}),
        (VIDEOMAE, "fc_cls", {}),
        (TSM, "fc_cls", {"size": [64, 64]}),
        pytest.param(C3D, "fc_cls", {}, marks=pytest.mark.slow),  # 4096-d fully connected layers: 300 MB
        pytest.param(SWIN, "fc_cls", {"clip_frames": 4, "size": [64, 64]}, marks=pytest.mark.slow),
    ],
)
def test_features_are_what_the_config_classifies(
    config: str, layer: str, clips: dict[str, Any], tmp_path: Path
) -> None:
    reference = recogniser(config)
    extractor = build("mmaction", config=config, weights=save_mmengine(reference, tmp_path / "w.pth"), **clips)
    classify = getattr(reference.cls_head, layer)
    pixels = noise(extractor.settings)
    features = extractor(pixels)
    assert features.shape == (1, extractor.dim)
    preprocessor = _mmaction.read_config(config).model.data_preprocessor
    x = pixels_of(pixels, preprocessor.mean, preprocessor.std)
    x = x.transpose(1, 2) if config == TSM else x[:, None]
    with torch.inference_mode():
        scores = reference.extract_feat(x, stage="head")[0]
        assert error(classify(torch.from_numpy(features)), scores) < 1e-5


@needs_mmaction
@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (X3D, {"clip_frames": 13, "stride": 6, "size": (182, 182), "resize": 182}),
        (MVIT, {"clip_frames": 16, "stride": 4, "size": (224, 224), "resize": 256}),
        (SWIN, {"clip_frames": 32, "stride": 2, "size": (224, 224), "resize": 256}),
        (C3D, {"clip_frames": 16, "stride": 1, "size": (112, 112), "resize": 128}),
        (TSM, {"clip_frames": 8, "stride": 8, "size": (224, 224), "resize": 256}),
    ],
)
def test_clips_are_those_of_the_config(config: str, expected: dict[str, Any]) -> None:
    settings = load("extractors", {"kind": "mmaction", "config": config})
    assert {name: getattr(settings, name) for name in expected} == expected


@needs_mmaction
def test_every_config_says_its_clips_or_why_it_cannot() -> None:
    refused = {}
    names = [path.stem for path in _mmaction._configs().rglob("*.py")]
    for name in names:
        try:
            load("extractors", {"kind": "mmaction", "config": name})
        except ConfigError as cause:
            refused[name] = str(cause)
    assert len(names) == 125
    assert len(refused) == 4
    assert all("RecognizerOmni" in why or "has no test; set clip_frames" in why for why in refused.values())


@needs_mmaction
def test_what_the_user_sets_wins() -> None:
    settings = load("extractors", {"kind": "mmaction", "config": X3D, "clip_frames": 4, "size": [96, 64]})
    assert (settings.clip_frames, settings.stride) == (4, 6)
    assert (settings.size, settings.resize) == ((96, 64), "crop")  # the published side goes with the published size
    settings = load("extractors", {"kind": "mmaction", "config": X3D, "resize": "stretch", "fps": 30})
    assert (settings.size, settings.resize, settings.fps) == ((182, 182), "stretch", 30)
    assert load("extractors", {"kind": "slowfast", "size": [112, 112]}).resize == "crop"
    assert load("extractors", {"kind": "torchvision_video", "size": [64, 64]}).resize == "crop"


@pytest.mark.parametrize("kind", ZOO)
def test_settings_survive_a_round_trip(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load("extractors", {"kind": kind, **SMALL[kind], "weights": "some/weights.pth"})
    monkeypatch.setitem(sys.modules, "mmaction", None)  # what was written down is read without the zoo
    assert load("extractors", settings.model_dump()) == settings
    assert load("extractors", settings.model_dump(mode="json")) == settings


def test_without_mmaction_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "mmaction", None)
    sentence = r"mmaction2 is not installed; run: pip install 'vadwatch\[zoo\]'"
    with pytest.raises(ConfigError, match=sentence):
        load("extractors", {"kind": "mmaction", "config": X3D})
    with pytest.raises(ConfigError, match=sentence):
        build("slowfast", weights=tmp_path / "some.pth")


@needs_mmaction
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("slowfast_r50_8x8x1-256e_kinetics400-rgb", r'did you mean "slowfast_r50_8xb8-8x8x1-256e_kinetics400-rgb"\?'),
        ("qqq", "they lie in "),
    ],
)
def test_an_unknown_config_gets_the_nearest_name(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown mmaction config '{name}'; {hint}"):
        load("extractors", {"kind": "mmaction", "config": name})


@needs_mmaction
@pytest.mark.parametrize(
    ("config", "why"),
    [
        ("slowonly_r50_8xb16-16x4x1-256e_kinetics400-flow", "sees optical flow"),
        ("trn_imagenet-pretrained-r50_8xb16-1x1x8-50e_sthv1-rgb", "classifies in more than one layer"),
        ("tin_imagenet-pretrained-r50_8xb6-1x1x8-40e_sthv1-rgb", "needs a package that is not installed: .*tin_shift"),
        (
            "tsn_imagenet-pretrained-swin-transformer_8xb32-1x1x3-100e_kinetics400-rgb",
            "needs a package that is not installed: .*timm",
        ),
    ],
)
def test_configs_without_a_feature_say_why(config: str, why: str) -> None:
    with pytest.raises(ConfigError, match=f"mmaction config '{config}' {why}"):
        build("mmaction", config=config)


@needs_mmaction
@pytest.mark.parametrize(
    ("clips", "why"),
    [
        ({"config": VIDEOMAE, "clip_frames": 8}, "takes no clips of 8 frames of 224x224 pixels"),
        ({"config": TSM, "clip_frames": 16}, "makes 2 rows of one clip of 16 frames"),
    ],
)
def test_clips_that_do_not_fit_are_refused_before_the_first_one(clips: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        build("mmaction", **clips)


@needs_mmaction
def test_a_checkpoint_is_converted_once(tmp_path: Path) -> None:
    settings = zoo_settings("mmaction", tmp_path)
    first = build(**settings)
    (converted,) = (tmp_path / "cache" / "weights").glob("*.safetensors")
    assert converted.name == f"mmaction-{first.digest[:12]}-v1.safetensors"
    made = converted.stat().st_mtime_ns
    clips = noise(first.settings)
    np.testing.assert_array_equal(build(**settings)(clips), first(clips))
    assert converted.stat().st_mtime_ns == made
    np.testing.assert_array_equal(build(**{**settings, "weights": converted})(clips), first(clips))


@needs_mmaction
@pytest.mark.parametrize("wrapper", ["", "module.", "model.module."])
def test_a_bare_state_dict_and_a_wrapped_one_load_too(wrapper: str, tmp_path: Path) -> None:
    settings = zoo_settings("mmaction", tmp_path)
    state = {f"{wrapper}{name}": tensor for name, tensor in recogniser(X3D).state_dict().items()}
    torch.save(state, tmp_path / "bare.pth")
    expected = build(**settings)
    clips = noise(expected.settings)
    np.testing.assert_array_equal(build(**{**settings, "weights": tmp_path / "bare.pth"})(clips), expected(clips))


@needs_mmaction
def test_weights_of_another_architecture_name_the_layer_and_both_shapes(tmp_path: Path) -> None:
    settings = zoo_settings("mmaction", tmp_path)
    with pytest.raises(
        WeightsError,
        match=r"mmaction\.pth does not fit this network: backbone\.slow_path\.conv1\.conv\.weight "
        r"must be \(64, 3, 1, 7, 7\), got nothing",
    ):
        build("slowfast", weights=settings["weights"])
    state = torch.load(settings["weights"], weights_only=False)["state_dict"]
    first = state["backbone.conv1_s.conv.weight"]
    state["backbone.conv1_s.conv.weight"] = first[:12]
    torch.save(state, tmp_path / "narrow.pth")
    with pytest.raises(WeightsError, match=r"conv1_s\.conv\.weight must be \(24, 3, 1, 3, 3\), got \(12, 3, 1, 3, 3\)"):
        build(**{**settings, "weights": tmp_path / "narrow.pth"})


@needs_mmaction
def test_weights_of_a_deeper_network_are_refused(tmp_path: Path) -> None:
    settings = zoo_settings("mmaction", tmp_path)
    state = {
        **recogniser(X3D).state_dict(),
        "backbone.layer4.7.conv1.conv.weight": torch.zeros(3, 2),
    }
    torch.save(state, tmp_path / "deep.pth")
    with pytest.raises(WeightsError, match=r"layer4\.7\.conv1\.conv\.weight must be nothing, got \(3, 2\)"):
        build(**{**settings, "weights": tmp_path / "deep.pth"})
    url = _mmaction.published_url(X3D)
    assert url is not None
    published = tmp_path / url.rpartition("/")[2]
    (tmp_path / "deep.pth").rename(published)  # a published file is of its config, whatever else is in it
    assert build(**{**settings, "weights": published}).dim == 2048


@needs_mmaction
def test_tables_that_a_network_computes_need_not_be_in_the_file(tmp_path: Path) -> None:
    reference = recogniser(VIDEOMAE)
    state = reference.state_dict()
    del state["backbone.pos_embed"]
    torch.save(state, tmp_path / "old.pth")
    extractor = build("mmaction", config=VIDEOMAE, weights=tmp_path / "old.pth")
    loaded = build("mmaction", config=VIDEOMAE, weights=save_mmengine(reference, tmp_path / "new.pth"))
    clips = noise(extractor.settings)
    np.testing.assert_array_equal(extractor(clips), loaded(clips))


class Malicious:
    """Makes a folder when a careless reader unpickles it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("kind", ZOO)
@pytest.mark.parametrize("place", ["state_dict", "meta"])
def test_a_malicious_pickle_is_refused_and_not_run(kind: str, place: str, tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"state_dict": {}, place: {"evil": Malicious(tmp_path / "ran")}}, path)
    with pytest.raises(WeightsError, match=r"refused to load posix\.mkdir from .*evil\.pth"):
        build(kind, **SMALL[kind], weights=path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ZOO)
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "no weights at .*; set 'weights' to an existing file"),
        (b"", "is not a readable weight file"),
        (b"not a checkpoint", "is not a readable weight file"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused(kind: str, content: bytes | None, why: str, tmp_path: Path) -> None:
    path = tmp_path / "some.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=why):
        build(kind, **SMALL[kind], weights=path)


@pytest.mark.parametrize("kind", ZOO)
def test_offline_says_which_file_goes_where(kind: str, offline: None, tmp_path: Path) -> None:
    name, host = {
        "mmaction": (r"x3d_s_13x6x1_facebook-kinetics400-rgb_\d+-623825a0\.pth", "download.openmmlab.com/mmaction/"),
        "slowfast": (slowfast.CONFIG + r"_\d+-1cb6dfc8\.pth", "download.openmmlab.com/mmaction/"),
        "torchvision_video": (r"mc3_18-a90a0ba3\.pth", "download.pytorch.org/models/"),
    }[kind]
    with pytest.raises(
        WeightsError,
        match=f"no weights: cannot download {name} from https://{host}.*{name} .*; "
        f"put that file at {tmp_path}/torch/hub/checkpoints/{name}, or anywhere and set 'weights' to it",
    ):
        build(kind, **SMALL[kind])


@needs_mmaction
@pytest.mark.parametrize(
    ("config", "digits"),
    [
        (SWIN.replace("tiny", "base"), "182ec6cc"),  # whose entry's config ends in .py.py
        (MVIT, "23284ff3"),  # which two other entries call theirs
        ("mvit-small-p244_k400-pre_16xb16-u16-100e_sthv2-rgb", "4065c1b9"),  # one of those
    ],
)
def test_published_weights_are_found_where_the_zoo_lists_them_oddly(config: str, digits: str) -> None:
    url = _mmaction.published_url(config)
    assert url is not None
    assert url.endswith(f"-{digits}.pth")


@needs_mmaction
def test_every_published_file_carries_its_digest() -> None:
    urls = {_mmaction.published_url(config) for config in (X3D, MVIT, VIDEOMAE, SWIN, C3D, slowfast.CONFIG)}
    assert all(re.search(r"-[0-9a-f]{8}\.pth$", str(url)) for url in urls)


@needs_mmaction
def test_a_config_without_published_weights_says_so() -> None:
    with pytest.raises(WeightsError, match=f"mmaction2 publishes no weights for config '{TSM}'; set 'weights'"):
        build("mmaction", config=TSM)


def test_a_download_is_checked_and_kept(server: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = server
    content = b"weights" * 100
    name = f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    (folder / name).write_bytes(content)
    path = _zoo.fetched(f"{address}/{name}")
    assert path == tmp_path / "torch" / "hub" / "checkpoints" / name
    assert path.read_bytes() == content
    (folder / name).unlink()
    assert _zoo.fetched(f"{address}/{name}") == path  # not asked for again
    path.write_bytes(content[:-1])
    with pytest.raises(WeightsError, match=r"is damaged: its sha256 is .*; delete it"):
        _zoo.fetched(f"{address}/{name}")


def test_a_download_of_something_else_is_not_kept(server: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = server
    (folder / "net-0123abcd.pth").write_bytes(b"something else")
    with pytest.raises(WeightsError, match=r'cannot download net-0123abcd\.pth .*invalid hash value .*"0123abcd"'):
        _zoo.fetched(f"{address}/net-0123abcd.pth")
    assert not list((tmp_path / "torch").rglob("*.*"))
    with pytest.raises(WeightsError, match="does not carry its digest in its name"):
        _zoo.fetched(f"{address}/net.pth")


@pytest.mark.parametrize("kind", ["slowfast", "torchvision_video"])
def test_reading_settings_imports_no_zoo(kind: str) -> None:
    check = (
        "import sys\n"
        "from vad.config import load\n"
        f"load('extractors', {{'kind': {kind!r}}})\n"
        "print(sorted({'mmaction', 'mmcv', 'mmengine', 'torchvision', 'cv2', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@needs_mmaction
def test_reading_settings_of_a_config_imports_no_network() -> None:
    check = (
        "import sys\n"
        "from vad.config import load, settings_class\n"
        "settings_class('extractors', 'mmaction')\n"
        "assert 'mmengine' not in sys.modules\n"
        f"load('extractors', {{'kind': 'mmaction', 'config': {X3D!r}}})\n"
        "print(sorted({'mmaction', 'mmcv', 'torchvision', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# The smallest clips that each takes.
TORCHVISION_CLIPS: dict[str, dict[str, Any]] = {
    "r3d_18": {"clip_frames": 4, "size": [48, 32]},
    "r2plus1d_18": {"clip_frames": 4, "size": [48, 32]},
    "mc3_18": {"clip_frames": 4, "size": [48, 32]},
    "s3d": {"clip_frames": 16},
    "mvit_v2_s": {},
    "swin3d_t": {"clip_frames": 4, "size": [64, 48]},
}


@needs_torchvision
@pytest.mark.parametrize(
    "architecture",
    # which takes clips of one shape only, and 8 s for one
    [pytest.param(name, marks=pytest.mark.slow if name == "mvit_v2_s" else ()) for name in torchvision_video.PUBLISHED],
)
def test_features_are_what_torchvision_classifies(architecture: torchvision_video.Architecture, tmp_path: Path) -> None:
    reference = torchvision_model(architecture, num_classes=7)
    torch.save(reference.state_dict(), tmp_path / "w.pth")
    extractor = build(
        "torchvision_video",
        architecture=architecture,
        weights=tmp_path / "w.pth",
        **TORCHVISION_CLIPS[architecture],
    )
    published = torchvision_video.PUBLISHED[architecture]
    clips = noise(extractor.settings)
    features = torch.from_numpy(extractor(clips))
    assert features.shape == (1, published.dim)
    head = getattr(reference, published.head)
    with torch.inference_mode():
        classified = head(features[..., None, None, None] if architecture == "s3d" else features).flatten(1)
        scores = reference(pixels_of(clips, 255 * np.float32(published.mean), 255 * np.float32(published.std)))
        assert error(classified, scores) < 1e-5


@needs_torchvision
@pytest.mark.parametrize("architecture", torchvision_video.PUBLISHED)
def test_torchvision_clips_are_the_published_ones(architecture: torchvision_video.Architecture) -> None:
    settings = load("extractors", {"kind": "torchvision_video", "architecture": architecture})
    weights = torchvision_video._models().get_model_weights(architecture).DEFAULT
    published, preset = torchvision_video.PUBLISHED[architecture], weights.transforms()
    assert list(settings.size) == preset.crop_size[::-1]
    sides = settings.resize[::-1] if isinstance(settings.resize, tuple) else (settings.resize,)
    assert list(sides) == preset.resize_size
    assert (list(published.mean), list(published.std)) == (preset.mean, preset.std)
    assert f"clip_len={settings.clip_frames}" in weights.meta["_docs"]
    assert f"frame_rate={30 / settings.stride:g}" in weights.meta["_docs"]


@needs_torchvision
def test_torchvision_preprocessing_gives_the_published_input() -> None:
    """A clip of the published crop goes in as torchvision's own transform would have it."""
    settings = load("extractors", {"kind": "torchvision_video", "architecture": "mvit_v2_s", "clip_frames": 2})
    clips = noise(settings)
    seen: list[Tensor] = []
    network = torchvision_video.Network("mvit_v2_s")
    network.body = nn.Identity()
    seen.append(network(torch.from_numpy(clips)))
    weights = torchvision_video._models().get_model_weights("mvit_v2_s").DEFAULT
    # its own scaling of a square picture to the crop's size is no scaling
    preset = weights.transforms(resize_size=(224,))
    torch.testing.assert_close(seen[0], preset(torch.from_numpy(clips).permute(0, 1, 4, 2, 3)))


@needs_torchvision
@pytest.mark.parametrize("form", ["pth", "safetensors", "wrapped"])
def test_torchvision_weights_in_every_form(form: str, tmp_path: Path) -> None:
    settings = zoo_settings("torchvision_video", tmp_path)
    expected = build(**settings)
    state = torchvision_model("mc3_18").state_dict()
    path = tmp_path / f"copy.{'safetensors' if form == 'safetensors' else 'pth'}"
    if form == "safetensors":
        save_file(state, path)
    else:
        prefix = "module." if form == "wrapped" else ""
        torch.save({"epoch": 3, "state_dict": {prefix + name: tensor for name, tensor in state.items()}}, path)
    found = build(**{**settings, "weights": path})
    clips = noise(found.settings)
    np.testing.assert_array_equal(found(clips), expected(clips))
    assert found.digest == hashlib.sha256(path.read_bytes()).hexdigest()


@needs_torchvision
def test_torchvision_weights_of_another_architecture(tmp_path: Path) -> None:
    settings = zoo_settings("torchvision_video", tmp_path)
    with pytest.raises(
        WeightsError,
        match=r"layer2\.0\.conv1\.0\.weight must be \(128, 64, 3, 3, 3\), got \(128, 64, 1, 3, 3\)",
    ):
        build(**{**settings, "architecture": "r3d_18"})
    with pytest.raises(
        ConfigError, match=r"no file and no published weights of mc3_18 'KINETICS9'; published: KINETICS400_V1"
    ):
        build(**{**settings, "weights": "KINETICS9"})


@needs_torchvision
def test_published_torchvision_weights_go_by_their_name(offline: None) -> None:
    with pytest.raises(WeightsError, match=r"cannot download mc3_18-a90a0ba3\.pth"):
        build("torchvision_video", architecture="mc3_18", weights="KINETICS400_V1")


@needs_torchvision
def test_s3d_says_that_its_clips_are_too_small() -> None:
    with pytest.raises(ConfigError, match="s3d takes no clips of 16 frames of 64x64 pixels"):
        build("torchvision_video", architecture="s3d", clip_frames=16, size=(64, 64))


@needs_torchvision
def test_a_network_that_was_trained_elsewhere_gives_its_own_classes() -> None:
    path = package_file("fight_detection", "model_16_m3_0.8888.pth")
    if path is None:
        pytest.skip("the weights' package Feight-Detection-From-Surveillance-Cameras is not installed")
    extractor = build("torchvision_video", architecture="mc3_18", weights=path)
    clips = noise(extractor.settings, batch=2)
    clips[1] //= 2
    features = extractor(clips)
    assert features.shape == (2, 512)
    state = torch.load(path, map_location="cpu", weights_only=True)
    reference = torchvision_video._models().get_model("mc3_18", num_classes=2).eval()
    reference.load_state_dict(state)
    published = torchvision_video.PUBLISHED["mc3_18"]
    with torch.inference_mode():
        scores = reference(pixels_of(clips, 255 * np.float32(published.mean), 255 * np.float32(published.std)))
    assert error(features @ state["fc.weight"].numpy().T + state["fc.bias"].numpy(), scores) < 1e-4


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
@pytest.mark.parametrize("kind", ZOO)
def test_openvino_agrees_with_torch(kind: str, tmp_path: Path) -> None:
    settings = zoo_settings(kind, tmp_path)
    clips = noise(load("extractors", settings))
    assert error(build(**settings, runtime="openvino-f32")(clips), build(**settings)(clips)) < 1e-4


@needs_mmaction
@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "clips"), [(MVIT, {}), (VIDEOMAE, {}), (SWIN, {"clip_frames": 4, "size": [64, 64]}), (TSM, {})]
)
def test_transformers_and_shifts_convert_too(config: str, clips: dict[str, Any], tmp_path: Path) -> None:
    settings = {
        "kind": "mmaction",
        "config": config,
        "weights": save_mmengine(recogniser(config), tmp_path / "w.pth"),
        **clips,
    }
    pixels = noise(load("extractors", settings))
    assert error(build(**settings, runtime="openvino-f32")(pixels), build(**settings)(pixels)) < 1e-4


@needs_mmaction
def test_relative_positions_are_mmactions_own() -> None:
    """Against the function that is replaced, which is read from its file afresh."""
    _mmaction._registry()
    spec = importlib.util.find_spec("mmaction.models.backbones.mvit")
    assert spec is not None
    assert spec.loader is not None
    original = importlib.util.module_from_spec(spec)
    source = Path(str(spec.origin)).read_text().replace("@MODELS.register_module()", "")
    exec(compile(source, str(spec.origin), "exec"), original.__dict__)
    torch.manual_seed(0)
    for token in (True, False):
        query, attention = torch.randn(2, 3, 24 + token, 8), torch.randn(2, 3, 24 + token, 8 + token)
        rest = (query, (2, 3, 4), (2, 2, 2), torch.randn(9, 8), torch.randn(9, 8), torch.randn(5, 8), token)
        found = _mmaction._with_relative_positions(attention, *rest)
        torch.testing.assert_close(found, original.add_decomposed_rel_pos(attention.clone(), *rest))


def test_kinds_are_their_files() -> None:
    for kind in ("mmaction", "slowfast", "torchvision_video"):
        assert settings_class("extractors", kind).model_fields["kind"].default == kind
