"""Mean colour: the smallest honest extractor. It needs no weights; tests and first tries use it."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vad.extractor import Extractor, ExtractorSettings
from vad.runtime import Runtime

Places = Annotated[int, Field(ge=1)]


class Settings(ExtractorSettings):
    """Clips, and whether the mean is over the picture or over each place of a grid."""

    kind: Literal["colour"] = "colour"
    size: tuple[int, int] = Field((64, 64), description="width, height of the clip in pixels")
    runtime: Runtime = "torch"  # a mean is not worth a conversion
    output: Literal["pooled", "grid"] = Field("pooled", description="one mean colour, or a map of mean colours")
    grid: tuple[Places, Places] = Field((4, 4), description="rows, columns of the map")

    def build(self) -> Extractor:
        """Compile; there is nothing to load."""
        grid = self.grid if self.output == "grid" else None
        name = "colour" if grid is None else f"colour-{grid[0]}x{grid[1]}"
        return Extractor(
            Network(grid),
            self,
            dim=3,
            digest=hashlib.sha256(b"colour 1").hexdigest(),
            name=name,
            normalisation="x / 255",
        )


class Network(nn.Module):
    """uint8 clips (B, T, H, W, 3) -> mean colours in [0, 1]: (B, 3), or (B, h, w, 3) on a grid."""

    def __init__(self, grid: tuple[int, int] | None) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, clips_BTHWC: Tensor) -> Tensor:
        """Every frame counts the same; where the grid does not divide the picture, its places overlap."""
        pictures_B3HW = clips_BTHWC.float().mean(1).permute(0, 3, 1, 2) / 255
        colours_B3hw = F.adaptive_avg_pool2d(pictures_B3HW, self.grid or (1, 1))
        return colours_B3hw.permute(0, 2, 3, 1) if self.grid else colours_B3hw.flatten(1)
