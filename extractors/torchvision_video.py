"""torchvision's video networks, Kinetics-400: R3D, R(2+1)D, MC3, S3D, MViTv2-S and Swin3D-T.

Tran et al. "A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR 2018,
https://arxiv.org/abs/1711.11248 (r3d_18, r2plus1d_18, mc3_18). Xie et al. "Rethinking Spatiotemporal Feature
Learning", ECCV 2018, https://arxiv.org/abs/1712.04851 (s3d). Li et al. "MViTv2", CVPR 2022,
https://arxiv.org/abs/2112.01526 (mvit_v2_s). Liu et al. "Video Swin Transformer", CVPR 2022,
https://arxiv.org/abs/2106.13230 (swin3d_t). The feature is the input of the classification layer. Differs from
torchvision's own tests: one view of a clip; the rate at which it samples videos is a stride, of 30 frames/s.
"""

from __future__ import annotations

import importlib.util
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from extractors import _zoo
from vad.config import ConfigError
from vad.extractor import Extractor, ExtractorSettings
from vad.files import sha256
from vad.weights import WeightsError

Architecture = Literal["r3d_18", "r2plus1d_18", "mc3_18", "s3d", "mvit_v2_s", "swin3d_t"]
Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Clips:
    """What an architecture was published with: the defaults of its settings."""

    clip_frames: int
    stride: int
    size: tuple[int, int]
    resize: int | tuple[int, int]


@dataclass(frozen=True, slots=True)
class Published:
    """One architecture: its clips, its normalisation of pixels in [0, 1], its last part and what goes into that."""

    clips: Clips
    mean: Triple
    std: Triple
    head: str
    dim: int


_RESNET_CLIPS = Clips(clip_frames=16, stride=2, size=(112, 112), resize=(171, 128))
_KINETICS: tuple[Triple, Triple] = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
PUBLISHED: dict[Architecture, Published] = {
    "r3d_18": Published(_RESNET_CLIPS, *_KINETICS, "fc", 512),
    "r2plus1d_18": Published(_RESNET_CLIPS, *_KINETICS, "fc", 512),
    "mc3_18": Published(_RESNET_CLIPS, *_KINETICS, "fc", 512),
    "s3d": Published(Clips(128, 2, (224, 224), (256, 256)), *_KINETICS, "classifier", 1024),
    "mvit_v2_s": Published(Clips(16, 4, (224, 224), 256), (0.45,) * 3, (0.225,) * 3, "head", 768),
    "swin3d_t": Published(Clips(32, 2, (224, 224), 256), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "head", 768),
}


class Settings(ExtractorSettings):
    """An architecture; clips are those that it was published with unless they are set."""

    kind: Literal["torchvision_video"] = "torchvision_video"
    architecture: Architecture = "r3d_18"
    weights: Path | None = Field(
        None,
        description="state dict (.pth or .safetensors), or the name of published weights; null takes the newest",
    )

    @model_validator(mode="before")
    @classmethod
    def _clips_of_the_architecture(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        published = PUBLISHED.get(values.get("architecture", cls.model_fields["architecture"].default))
        return values if published is None else _zoo.completed(values, asdict(published.clips))

    def build(self) -> Extractor:
        """Load weights and compile. Raises WeightsError when there are none."""
        published = PUBLISHED[self.architecture]
        network = Network(self.architecture)
        _zoo.check(network, self, dim=published.dim, name=self.architecture)
        source = weights_file(self.architecture, self.weights)
        if not source.is_file():
            raise WeightsError(f"no weights at {source}; set 'weights' to an existing file, or leave it out")
        digest = sha256(source)
        path = _zoo.converted(source, digest, _zoo.read)
        # the classes, however many, stay behind
        _zoo.fit(network.body, _zoo.read(path), source=source, leftover=(f"{published.head}.",))
        return Extractor(
            network,
            self,
            dim=published.dim,
            digest=digest,
            name=f"torchvision-{self.architecture}",
            normalisation=f"(x / 255 - {list(published.mean)}) / {list(published.std)}",
        )


class Network(nn.Module):
    """uint8 clips (B, T, H, W, 3) -> (B, D), the input of the classification layer."""

    mean: Tensor
    std: Tensor

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        published = PUBLISHED[architecture]
        self.register_buffer("mean", torch.tensor(published.mean), persistent=False)
        self.register_buffer("std", torch.tensor(published.std), persistent=False)
        self.body = _models().get_model(architecture, weights=None)
        setattr(self.body, published.head, nn.Identity())

    def forward(self, clips_BTHWC: Tensor) -> Tensor:
        """Normalise, then everything but the classification."""
        x = (clips_BTHWC.float() / 255 - self.mean) / self.std
        features: Tensor = self.body(x.permute(0, 4, 1, 2, 3))
        return features


def weights_file(architecture: Architecture, chosen: Path | None) -> Path:
    """A file, or published weights by their name, downloaded once. Raises WeightsError."""
    published = _models().get_model_weights(architecture)
    name = "DEFAULT" if chosen is None else str(chosen)
    if name in published.__members__:
        return _zoo.fetched(published[name].url)
    assert chosen is not None
    if chosen.parent == Path() and not chosen.suffix and not chosen.exists():
        names = ", ".join(weights.name for weights in published)
        raise ConfigError(f"no file and no published weights of {architecture} {name!r}; published: {names}")
    return chosen


def _models() -> Any:
    if importlib.util.find_spec("torchvision") is None:
        raise ConfigError("torchvision is not installed; run: pip install 'vadwatch[zoo]'")
    from torchvision import models

    return models
