"""Which frames of a video make a clip, and the size of their pictures: all that a process which only decodes needs."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vad.config import Config

Side = Annotated[int, Field(ge=1)]
Resize = Literal["stretch", "crop"] | Side | tuple[Side, Side]
Resample = Literal["bilinear", "bicubic", "pillow-bilinear", "pillow-bicubic"]


class Sampling(Config):
    """How clips are cut from a video."""

    kind: str
    clip_frames: int = Field(16, ge=1, description="frames in one clip")
    stride: int = Field(1, ge=1, description="sampled frames from one clip frame to the next")
    hop: int = Field(16, ge=1, description="sampled frames from one snippet to the next")
    clip_at: Literal["end", "start"] = Field("end", description="where in its snippet a clip lies")
    fps: float | None = Field(None, gt=0, description="sample the video at this rate; null takes every frame")
    tick: Literal["nearest", "before"] = Field(
        "nearest", description="the frame that stands for a tick of fps: the nearest, or the last one before it"
    )
    size: tuple[int, int] = Field((224, 224), description="width, height of what the network sees, in pixels")
    resize: Resize = Field(
        "stretch",
        description="stretch: see the whole picture; crop: cover size and cut the centre out; "
        "a number: scale the short side to it, then cut; [width, height]: stretch to it, then cut",
    )
    resample: Resample = Field("bilinear", description="filter that scales; pillow's are slow and the field's own")
    crops: Literal[1, 5, 10] = Field(1, description="1: centre; 5: and the corners; 10: and all of them mirrored")

    @property
    def span(self) -> int:
        """Sampled frames from the first to the last of a clip, both counted."""
        return (self.clip_frames - 1) * self.stride + 1

    @property
    def first_end(self) -> int:
        """Sampled frames until the first clip is whole: the first multiple of ``hop`` that holds one."""
        return -(-self.span // self.hop) * self.hop

    @model_validator(mode="after")
    def _places_fit(self) -> Self:
        if self.clip_at == "start" and self.span > self.hop:
            raise ValueError(
                f"a clip at the start of its snippet must fit into it: it spans {self.span} frames, hop is {self.hop}"
            )
        if self.crops > 1 and isinstance(self.resize, str):
            raise ValueError(
                f"{self.crops} crops need a picture larger than size: set resize to a short side or [width, height]"
            )
        least = self.resize if isinstance(self.resize, tuple) else (self.resize, self.resize)
        if any(isinstance(have, int) and have < want for have, want in zip(least, self.size, strict=True)):
            raise ValueError(f"resize {self.resize} is smaller than size {self.size}, which is cut out of it")
        return self
