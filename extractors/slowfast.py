"""SlowFast R50 8x8, Kinetics-400: 8 pictures see what there is, 32 see how it moves.

Feichtenhofer, Fan, Malik, He. "SlowFast Networks for Video Recognition", ICCV 2019,
https://arxiv.org/abs/1812.03982. Network and weights are those of mmaction2's config. The feature is the input of
the classification layer: both pathways, averaged over times and places. Differs from the paper: one view of a clip
instead of thirty of a video.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from extractors import _zoo
from vad.extractor import Extractor, ExtractorSettings
from vad.sampling import Resize

CONFIG = "slowfast_r50_8xb8-8x8x1-256e_kinetics400-rgb"


class Settings(ExtractorSettings):
    """32 frames of 64, and the weights."""

    kind: Literal["slowfast"] = "slowfast"
    clip_frames: int = Field(32, ge=4, multiple_of=4, description="frames in one clip; the slow pathway sees a quarter")
    stride: int = Field(2, ge=1, description="sampled frames from one clip frame to the next")
    resize: Resize = 256
    weights: Path | None = Field(None, description="checkpoint (.pth or .safetensors); null downloads the published")

    @model_validator(mode="before")
    @classmethod
    def _side_goes_with_size(cls, values: Any) -> Any:
        return _zoo.completed(values, {}) if isinstance(values, dict) else values

    def build(self) -> Extractor:
        """Load weights and compile: (B, 2304). Raises WeightsError when there are none."""
        from extractors import _mmaction

        return _mmaction.build(self, config=CONFIG, weights=self.weights)
