"""The one place that knows mmaction2 1.2.0: its configs, its recognisers, its checkpoints, and how to live with it.

https://github.com/open-mmlab/mmaction2 is no longer maintained; each workaround stands below with its reason. Its
transforms are not used (numpy 2 breaks one of them): pictures come from ``vad.video``. Nothing of it is imported
before a config is looked up or a network is built.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import logging
import sys
import types
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from extractors import _zoo
from vad.config import ConfigError
from vad.extractor import Extractor, ExtractorSettings
from vad.files import sha256
from vad.weights import WeightsError

_INSTALL = "run: pip install 'vadwatch[zoo]'"
_SPREAD = 64  # frames that mmaction2's DenseSampleFrames spreads its pictures over


class _Nothing:
    """Stands in for what a training run leaves in a checkpoint beside the weights, and forgets it."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


# mmengine's runner saves the loss curves with the weights, so torch's weights_only refuses its checkpoints. These
# names, and no others, become _Nothing instead of what they say: none of the code that they name runs.
_FORGOTTEN = [
    (_Nothing, name)
    for name in (
        "mmengine.logging.history_buffer.HistoryBuffer",
        "builtins.getattr",  # how HistoryBuffer names its own methods
        "numpy.ndarray",
        "numpy.dtype",
        "numpy.core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
    )
]


def build(settings: ExtractorSettings, *, config: str, weights: Path | None) -> Extractor:
    """The recogniser of a shipped config without its last layer, its weights loaded, compiled.

    Raises ConfigError for a config or clips that cannot be used, WeightsError for weights.
    """
    network = Network(config)
    _zoo.check(network, settings, dim=network.dim, name=f"mmaction config {config!r}")
    url = published_url(config)
    source = weights if weights is not None else _published(config, url)
    if not source.is_file():
        raise WeightsError(f"no weights at {source}; set 'weights' to an existing file, or to null to download them")
    digest = sha256(source)
    path = _zoo.converted(source, digest, functools.partial(_zoo.read, allowed=_FORGOTTEN))
    # what the authors left in the config's published file does no harm; another file may be of a deeper network
    is_published = url is not None and url.endswith(f"/{source.name}")
    leftover = ("",) if is_published else ("cls_head.", "data_preprocessor.")
    _zoo.fit(network.recogniser, _zoo.read(path), source=source, leftover=leftover)
    return Extractor(
        network,
        settings,
        dim=network.dim,
        digest=digest,
        name=f"mmaction-{config}",
        normalisation=network.normalisation,
    )


class Network(nn.Module):
    """uint8 clips (B, T, H, W, 3) -> (B, D), the input of the recogniser's classification layer."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: str) -> None:
        super().__init__()
        model = read_config(config).model
        preprocessor = model.pop("data_preprocessor")
        self.register_buffer("mean", torch.tensor(preprocessor.mean), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessor.std), persistent=False)
        self.normalisation = f"(x - {list(preprocessor.mean)}) / {list(preprocessor.std)}"
        self.frames_are_pictures = model.type == "Recognizer2D"
        if len(preprocessor.mean) != 3:
            raise ConfigError(f"mmaction config {config!r} sees optical flow, not pictures; choose an rgb one")
        for part in (model.backbone, model.cls_head):
            for key in ("pretrained", "init_cfg"):  # the checkpoint of the whole network follows: no downloads
                part.pop(key, None)
        if model.backbone.type == "UniFormerV2":
            model.backbone.clip_pretrained = False
        self.recogniser = _build_recogniser(config, model)
        self.dim = _open_head(config, self.recogniser.cls_head)

    def forward(self, clips_BTHWC: Tensor) -> Tensor:
        """Normalise, then everything but the classification."""
        x = (clips_BTHWC.float() - self.mean) / self.std
        # as mmaction2 lays them out: (B, T, C, H, W) for networks that see pictures, (B, views, C, T, H, W) for clips
        x = x.permute(0, 1, 4, 2, 3) if self.frames_are_pictures else x.permute(0, 4, 1, 2, 3)[:, None]
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        with _quiet() if tracing else nullcontext():
            features: Tensor = self.recogniser.extract_feat(x, stage="head")[0]
        return features


def read_config(name: str) -> Any:
    """The shipped config of a recogniser. Raises ConfigError, with the nearest name for an unknown one."""
    root = _configs()
    files = {path.stem: path for path in root.rglob("*.py")}
    if name not in files:
        close = difflib.get_close_matches(name, files, n=1)
        hint = f'did you mean "{close[0]}"?' if close else f"they lie in {root}"
        raise ConfigError(f"unknown mmaction config {name!r}; {hint}")
    config = _mmengine().Config.fromfile(str(files[name]))
    if config.model.type not in ("Recognizer2D", "Recognizer3D"):
        raise ConfigError(f"mmaction config {name!r} is a {config.model.type}, which takes more than clips")
    return config


def geometry(name: str) -> dict[str, Any]:
    """``clip_frames``, ``stride``, ``size`` and ``resize`` of a config: how it validates, with one view of a video.

    Where it tests only, the same of one of its views. Raises ConfigError.
    """
    config = read_config(name)
    steps = config.get("val_pipeline") or config.get("test_pipeline") or []
    sampler = next((step for step in steps if "clip_len" in step), None)
    scaler = next((step for step in steps if step.type == "Resize"), None)
    cropper = next((step for step in steps if step.type.endswith("Crop")), None)
    if sampler is None or scaler is None or cropper is None:
        raise ConfigError(f"mmaction config {name!r} has no test; set clip_frames, stride, size and resize")
    frames, stride = sampler.clip_len, sampler.get("frame_interval")
    if config.model.type == "Recognizer2D" and frames == 1:
        frames, stride = sampler.num_clips, None
    return {
        "clip_frames": frames,
        # a config that spreads its frames over the whole video has no interval
        "stride": stride if stride is not None else max(1, _SPREAD // frames),
        "size": (cropper.crop_size, cropper.crop_size),
        "resize": scaler.scale[1],  # of (-1, short side)
    }


def published_url(name: str) -> str | None:
    """Where mmaction2 publishes the checkpoint of a config, if it does."""
    from ruamel.yaml import YAML

    url = None
    for metafile in _configs().rglob("metafile.yml"):
        for model in YAML(typ="safe", pure=True).load(metafile.read_text(encoding="utf-8"))["Models"]:
            if model["Name"] == name:
                return str(model["Weights"])
            if model["Config"].endswith(f"/{name}.py"):  # weights by another name, converted from elsewhere
                url = str(model["Weights"])
    return url


def _published(config: str, url: str | None) -> Path:
    if url is None:
        raise WeightsError(f"mmaction2 publishes no weights for config {config!r}; set 'weights' to a file")
    return _zoo.fetched(url)


def _configs() -> Path:
    spec = importlib.util.find_spec("mmaction")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"mmaction2 is not installed; {_INSTALL}")
    return Path(spec.submodule_search_locations[0]) / ".mim" / "configs" / "recognition"


def _build_recogniser(config: str, model: Any) -> Any:
    registry = _registry()
    with _quiet(), _mmengine().DefaultScope.overwrite_default_scope("mmaction"):
        try:
            return registry.build(model)
        except (ImportError, KeyError) as cause:  # KeyError: of a backbone in a package that is not there
            raise ConfigError(f"mmaction config {config!r} needs a package that is not installed: {cause}") from cause


def _open_head(config: str, head: Any) -> int:
    """Take the classification layer away, so that the head gives what it would have classified; returns its size."""
    layers = [
        (name, layer)
        for name, layer in head.named_children()
        if isinstance(layer, nn.Linear) and layer.out_features == head.num_classes
    ]
    if len(layers) != 1:
        raise ConfigError(f"mmaction config {config!r} classifies in more than one layer, so it has no feature")
    name, layer = layers[0]
    setattr(head, name, nn.Identity())
    return layer.in_features


@functools.cache
def _mmengine() -> Any:
    try:
        import mmengine
    except ImportError as cause:
        raise ConfigError(f"mmengine is not installed; {_INSTALL}") from cause
    return mmengine


@functools.cache
def _registry() -> Any:
    """mmaction2's registry of models, filled."""
    # the wheel lacks this subpackage, a localiser, that mmaction.models imports
    for name in ("mmaction.models.localizers.drn", "mmaction.models.localizers.drn.drn"):
        stub = types.ModuleType(name)
        stub.DRN = None  # type: ignore[attr-defined]
        sys.modules.setdefault(name, stub)
    try:
        with _quiet():
            from mmaction.utils import dependency

            # its multimodal models import names that transformers 5 does not have; no recogniser needs them
            dependency.WITH_MULTIMODAL = False
            import mmaction.models  # noqa: F401  # fills the registry
            from mmaction.models.backbones import mvit
            from mmaction.registry import MODELS

            mvit.add_decomposed_rel_pos = _with_relative_positions
    # mmaction2 imports importlib_metadata without declaring it, mmengine needs setuptools < 82 for pkg_resources,
    # and mmaction2 asserts an mmcv before 2.2.0: the extra pins all three
    except (ImportError, AssertionError) as cause:
        raise ConfigError(f"mmaction2 cannot be imported ({cause}); {_INSTALL}") from cause
    return MODELS


def _with_relative_positions(
    attention: Tensor,
    query: Tensor,
    query_shape: Sequence[int],
    key_shape: Sequence[int],
    height_table: Tensor,
    width_table: Tensor,
    time_table: Tensor,
    with_cls_token: bool = False,
) -> Tensor:
    """MViTv2's decomposed relative positions added to attention (B, heads, queries, keys): equation 4 of its paper.

    In place of mmaction2's function of the same result, which writes into a view: OpenVINO cannot convert that.
    """
    from mmaction.models.backbones.mvit import resize_decomposed_rel_pos

    skipped = int(with_cls_token)
    places = query[:, :, skipped:].unflatten(2, tuple(query_shape))  # (B, heads, t, h, w, width)
    bias = torch.zeros(())
    for axis, (letter, table) in enumerate(zip("thw", (time_table, height_table, width_table), strict=True)):
        table = resize_decomposed_rel_pos(table, query_shape[axis], key_shape[axis])
        part = torch.einsum(f"bnthwc,{letter}kc->bnthwk", places, table)
        bias = bias + part.unflatten(5, [-1 if other == axis else 1 for other in range(3)])
    return attention + F.pad(bias.flatten(5).flatten(2, 4), (skipped, 0, skipped, 0))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings and the reports of each layer that mmaction2 gives when all is well."""
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
        warnings.filterwarnings("ignore", "Fail to import ``MultiScaleDeformableAttention``")  # of the full mmcv
        warnings.filterwarnings("ignore", r"torch\.meshgrid")
        # Swin rounds sizes with numpy; while torch traces, sizes are tensors
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        warnings.filterwarnings("ignore", "__array_wrap__ must accept context", DeprecationWarning)
        try:
            yield
        finally:
            logger.setLevel(level)
