"""One linear map of each snippet; a video is as abnormal as its most abnormal snippet.

Multiple-instance logistic regression, with the maximum in the place of a soft one: Ray, Craven. "Supervised versus
Multiple Instance Learning: An Empirical Comparison", ICML 2005. The head for few labelled videos: it has one weight per
feature, and on some hundred videos the networks of the literature do no better. Rows are brought to length 1, each
value to its signed root, and then to mean 0 and deviation 1 over the training snippets, which are kept with the
weights. The variants are the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vad.weak import WeakHead, WeakHeadSettings, WeakOutput, existing

_LEAST = 1e-3  # of the mean deviation: what hardly varies is not blown up


class Settings(WeakHeadSettings):
    """What is done to a row first."""

    kind: Literal["linear"] = "linear"
    unit_length: bool = Field(True, description="scale each row to length 1 first")
    root: bool = Field(True, description="signed square root of each value: features of networks have long tails")

    def build(self) -> Linear:
        """A head that scores one half everywhere."""
        return Linear(self)


class Linear(WeakHead[WeakOutput]):
    """D -> 1 sigmoid."""

    settings: Settings
    mean_D: Tensor
    deviation_D: Tensor
    lookahead = 0
    receptive = 1

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("mean_D", torch.zeros(settings.dim))
        self.register_buffer("deviation_D", torch.ones(settings.dim))
        self.layer = nn.Linear(settings.dim, 1)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def prepare(self, videos: Iterable[Tensor]) -> None:
        """Take mean and deviation over the rows (T, K, D) of the training videos."""
        count, total_D, squares_D = 0, torch.zeros(()), torch.zeros(())
        for rows_TKD in videos:
            rows_RD = self._shaped(rows_TKD.flatten(0, 1).float()).double()
            count += len(rows_RD)
            total_D = total_D + rows_RD.sum(0)
            squares_D = squares_D + rows_RD.square().sum(0)
        mean_D = total_D / count
        deviation_D = (squares_D / count - mean_D.square()).clamp_min(0).sqrt()
        self.mean_D.copy_(mean_D)
        self.deviation_D.copy_(deviation_D + _LEAST * deviation_D.mean() + 1e-12)

    def forward(self, features_BTD: Tensor, lengths_B: Tensor | None = None) -> WeakOutput:
        """Score every row (B, T, D) on its own."""
        there_BT = existing(lengths_B, features_BTD[..., 0])
        rows_BTD = self._shaped(features_BTD.masked_fill(~there_BT[..., None], 0))
        logits_BT = self.layer((rows_BTD - self.mean_D) / self.deviation_D)[..., 0]
        return WeakOutput(torch.sigmoid(logits_BT).masked_fill(~there_BT, 0))

    def _shaped(self, rows_RD: Tensor) -> Tensor:
        rows_RD = F.normalize(rows_RD, dim=-1) if self.settings.unit_length else rows_RD
        # the slope of a root is infinite at 0
        return rows_RD.sign() * (rows_RD.abs() + 1e-12).sqrt() if self.settings.root else rows_RD
