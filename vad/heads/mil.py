"""Multiple-instance ranking head: three dense layers that see one row at a time.

Sultani, Chen, Shah. "Real-World Anomaly Detection in Surveillance Videos", CVPR 2018,
https://arxiv.org/abs/1801.04264. The paper's rows are the means of 32 equal segments of a video, scaled to length 1.
Differs from the paper: any number of rows, so that a network trained on segments scores single snippets of a stream.
The variants are one network; what the published evaluation adds (32 segments, 30 frames per second) is done to its
input and output.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vad.weak import WeakHead, WeakHeadSettings, WeakOutput, existing


class Settings(WeakHeadSettings):
    """Sizes of the layers are the paper's."""

    kind: Literal["mil"] = "mil"
    dim: int = Field(4096, ge=1, description="values per feature row")
    unit_length: bool = Field(True, description="scale each row to length 1 first, as the paper does")
    dropout: float = Field(0.6, ge=0, lt=1, description="after both hidden layers, in training")

    def build(self) -> Mil:
        """A head with fresh weights (Glorot normal, biases zero)."""
        return Mil(self)


class Mil(WeakHead[WeakOutput]):
    """D -> 512 ReLU -> 32 -> 1 sigmoid; the middle layer is linear, as published."""

    settings: Settings
    lookahead = 0
    receptive = 1

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.layers = nn.Sequential(
            nn.Linear(settings.dim, 512),
            nn.ReLU(),
            nn.Dropout(settings.dropout),
            nn.Linear(512, 32),
            nn.Dropout(settings.dropout),
            nn.Linear(32, 1),
        )
        for layer in self.dense:
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    @property
    def dense(self) -> list[nn.Linear]:
        """The layers whose weights are decayed."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def forward(self, features_BTD: Tensor, lengths_B: Tensor | None = None) -> WeakOutput:
        """Score every row (B, T, D) on its own."""
        there_BT = existing(lengths_B, features_BTD[..., 0])
        rows_BTD = features_BTD.masked_fill(~there_BT[..., None], 0)  # a NaN there would reach the weights' gradient
        rows_BTD = F.normalize(rows_BTD, dim=-1) if self.settings.unit_length else rows_BTD
        scores_BT = torch.sigmoid(self.layers(rows_BTD)[..., 0])
        return WeakOutput(scores_BT.masked_fill(~there_BT, 0))
