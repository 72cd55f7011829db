"""What every extractor is: a network that turns clips into features, compiled for one runtime.

The files in ``extractors/`` add the networks; what they share is here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal

from pydantic import Field
from torch import nn

from vad.config import Config
from vad.runtime import Compiled, Runtime, compile_network
from vad.types import Array, Pixels


class ExtractorSettings(Config, ABC):
    """How clips are cut from a video and how the network runs. Each extractor narrows the defaults."""

    kind: str
    clip_frames: int = Field(16, ge=1, description="frames in one clip")
    stride: int = Field(1, ge=1, description="sampled frames from one clip frame to the next")
    hop: int = Field(16, ge=1, description="sampled frames from one snippet to the next")
    fps: float | None = Field(None, gt=0, description="sample the video at this rate; null takes every frame")
    size: tuple[int, int] = Field((224, 224), description="width, height of the clip in pixels")
    resize: Literal["stretch", "crop"] = Field("stretch", description="see the whole picture, or cut the centre out")
    runtime: Runtime = "auto"
    weights: Path | None = Field(None, description="weight file; null takes the installed package's")

    @property
    def span(self) -> int:
        """Sampled frames from the first to the last of a clip, both counted."""
        return (self.clip_frames - 1) * self.stride + 1

    @property
    def first_end(self) -> int:
        """Sampled frames until the first clip is whole: the first multiple of ``hop`` that holds one."""
        return -(-self.span // self.hop) * self.hop

    @abstractmethod
    def build(self) -> Extractor:
        """Load weights and compile. Raises WeightsError when there are none."""


class Extractor:
    """Clips in, features out; rows of a batch do not see each other."""

    def __init__(self, network: nn.Module, settings: ExtractorSettings, *, dim: int, digest: str, name: str) -> None:
        self.settings = settings
        self.dim = dim
        self.digest = digest  # sha256 of the weights, or of the code's own version where there are none
        width, height = settings.size
        self._compiled: Compiled = compile_network(
            network,
            runtime=settings.runtime,
            clip_shape=(settings.clip_frames, height, width),
            digest=digest,
            name=name,
        )

    @property
    def runtime(self) -> str:
        """The runtime in use, never ``auto``."""
        return self._compiled.runtime

    def __call__(self, clips_BTHWC: Pixels) -> Array:
        """uint8 RGB (B, clip_frames, H, W, 3) -> float32 (B, D), or (B, h, w, D) for maps of places."""
        return self._compiled(clips_BTHWC)
