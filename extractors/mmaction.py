"""Any recogniser of mmaction2's model zoo by the name of its config: X3D, MViT, VideoMAE, Swin, SlowOnly, C3D, …

https://github.com/open-mmlab/mmaction2 1.2.0, whose configs name the papers. The feature is the input of the head's
classification layer, after the head's own pooling. Differs from the configs' tests: one view of a clip instead of
several views of a whole video, averaged.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from extractors import _zoo
from vad.extractor import Extractor, ExtractorSettings


class Settings(ExtractorSettings):
    """A config; the clips are its own unless they are set."""

    kind: Literal["mmaction"] = "mmaction"
    config: str = Field(description="name of a recogniser's config in mmaction2, without .py")
    weights: Path | None = Field(None, description="checkpoint (.pth or .safetensors); null downloads the published")

    @model_validator(mode="before")
    @classmethod
    def _clips_of_the_config(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("config"), str):
            return values
        own = {"clip_frames", "stride", "size", "resize"} - values.keys()
        if not own:
            return values  # nothing is looked up, so what was written down can be read without mmaction2
        from extractors import _mmaction

        return _zoo.completed(values, _mmaction.geometry(values["config"]))

    def build(self) -> Extractor:
        """Load weights and compile. Raises WeightsError when there are none, ConfigError when clips do not fit."""
        from extractors import _mmaction

        return _mmaction.build(self, config=self.config, weights=self.weights)
