"""What every extractor is: a network that turns clips into features, compiled for one runtime.

The files in ``extractors/`` add the networks; what they share is here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from torch import Tensor, nn

from vad.runtime import Compiled, Runtime, compile_network
from vad.sampling import Sampling
from vad.types import Array, Pixels

# Published features number their crops like this: the centre, the corners row by row, then the same mirrored.
CROPS = ("centre", "top left", "top right", "bottom left", "bottom right")
VIEWS = (*CROPS, *(f"{name}, mirrored" for name in CROPS))
# Settings that say where something lies or what computes it, not what is computed: a digest stands for them.
PLACES = frozenset({"runtime", "weights", "model", "revision", "sha256"})


class ExtractorSettings(Sampling, ABC):
    """How clips are cut from a video and how the network runs. Each extractor narrows the defaults."""

    runtime: Runtime = "auto"

    @abstractmethod
    def build(self) -> Extractor:
        """Load weights and compile. Raises WeightsError when there are none."""


class TextTower(Protocol):
    """Words into the same space as an extractor's features."""

    dim: int
    digest: str  # sha256 of the weights

    def __call__(self, texts: list[str]) -> Array:
        """float32 (len(texts), dim), each row of length 1."""
        ...


class Extractor:
    """Clips in, features out; rows of a batch do not see each other."""

    def __init__(
        self,
        network: nn.Module,
        settings: ExtractorSettings,
        *,
        dim: int,
        digest: str,
        name: str,
        normalisation: str,
    ) -> None:
        self.settings = settings
        self.dim = dim
        self.digest = digest  # sha256 of the weights, or of the code's own version where there are none
        self.normalisation = normalisation  # what is done to a pixel x in 0 … 255, for the record
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
        """uint8 RGB (B, clip_frames, H, W, 3) -> float32 (B, D), or (B, h, w, D) for maps of places.

        With several crops the clips hold whole pictures, and K views of each are cut here: (B, K, D).
        """
        settings = self.settings
        if settings.crops == 1:
            return self._compiled(clips_BTHWC)
        features = self._compiled(clips_BTHWC, lambda clips: cut(clips, settings.size, settings.crops))
        return features.reshape(len(clips_BTHWC), settings.crops, *features.shape[1:])


def cut(clips_BTHWC: Tensor, size: tuple[int, int], crops: int) -> list[Tensor]:
    """Views of clips, in the order of ``VIEWS``: (B, T, H, W, 3) -> ``crops`` times (B, T, height, width, 3).

    >>> import torch
    >>> [view.shape for view in cut(torch.zeros(2, 16, 256, 340, 3), (224, 200), 5)][:1]
    [torch.Size([2, 16, 200, 224, 3])]
    """
    width, height = size
    down, right = clips_BTHWC.shape[2] - height, clips_BTHWC.shape[3] - width
    if down < 0 or right < 0:
        raise ValueError(f"cannot cut {width}x{height} out of {clips_BTHWC.shape[3]}x{clips_BTHWC.shape[2]} pixels")
    corners = ((down // 2, right // 2), (0, 0), (0, right), (down, 0), (down, right))
    views = [clips_BTHWC[:, :, top : top + height, left : left + width] for top, left in corners[: min(crops, 5)]]
    return views + [view.flip(3) for view in views] if crops == 10 else views
