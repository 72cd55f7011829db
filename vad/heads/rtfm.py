"""Robust temporal feature magnitude: a multi-scale temporal network whose features grow long on anomalies.

Tian, Pang, Chen, Singh, Verjans, Carneiro. "Weakly-supervised Video Anomaly Detection with Robust Temporal Feature
Magnitude Learning", ICCV 2021, https://arxiv.org/abs/2101.10030. The self-attention is the dot-product form of Wang,
Girshick, Gupta, He. "Non-local Neural Networks", CVPR 2018, https://arxiv.org/abs/1711.07971, with a zero-initialised
last norm.

``faithful`` sees the whole video. ``fixed`` differs from the paper: convolutions are padded to the past and attention
is masked to it, its sum divided by the number of snippets seen so far; fresh convolutions see the present only. The
sizes are the same, so weights fit both.

Both variants: what stands behind a video's length is zero for every convolution and unseen by attention. Batch norm
counts existing snippets only; in training its statistics are the batch's, and this is the one place where videos
see each other (in evaluation nothing does). It stays in ``fixed`` because a norm over the features of one snippet
would make all magnitudes alike, and magnitude is what this head learns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vad.snippets import SnippetConv, SnippetNorm, start_in_the_present, visible
from vad.weak import WeakHead, WeakHeadSettings, WeakOutput, existing


class Settings(WeakHeadSettings):
    """The widths inside follow from ``dim`` as published (a quarter each for four branches)."""

    kind: Literal["rtfm"] = "rtfm"
    dim: int = Field(2048, ge=4, multiple_of=4, description="values per feature row")
    dropout: float = Field(0.7, ge=0, lt=1, description="on the features and after both hidden layers, in training")

    def build(self) -> Rtfm:
        """A head with fresh weights (Glorot uniform, biases zero)."""
        return Rtfm(self)


@dataclass(frozen=True, slots=True)
class RtfmOutput(WeakOutput):
    """Scores, and the features whose length the loss works on."""

    features_BTD: Tensor  # after the temporal network and its dropout; 0 where there is no snippet


class Rtfm(WeakHead[RtfmOutput]):
    """Multi-scale temporal network, then D -> 512 -> 128 -> 1."""

    settings: Settings

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        dim, branch, causal = settings.dim, settings.dim // 4, settings.variant == "fixed"
        self.scales = nn.ModuleList(
            SnippetConv(dim, branch, 3, dilation=dilation, causal=causal) for dilation in (1, 2, 4)
        )
        self.scale_norms = nn.ModuleList(SnippetNorm(branch) for _ in self.scales)
        self.reduce = nn.Linear(dim, branch, bias=False)
        self.attention = NonLocal(branch, causal=causal)
        self.fuse = SnippetConv(dim, dim, 3, bias=False, causal=causal)
        self.fuse_norm = SnippetNorm(dim)
        self.hidden = nn.Linear(dim, 512)
        self.narrow = nn.Linear(512, 128)
        self.classify = nn.Linear(128, 1)
        self.dropout = nn.Dropout(settings.dropout)
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        start_in_the_present(self)

    def forward(self, features_BTD: Tensor, lengths_B: Tensor | None = None) -> RtfmOutput:
        """Score the snippets (B, T, D) of B videos or crops."""
        there_BT = existing(lengths_B, features_BTD[..., 0])
        rows_BTD = features_BTD.masked_fill(~there_BT[..., None], 0)
        rows_BTD = self.dropout(self.temporal(rows_BTD, there_BT)).masked_fill(~there_BT[..., None], 0)
        hidden = self.dropout(F.relu(self.hidden(rows_BTD)))
        hidden = self.dropout(F.relu(self.narrow(hidden)))
        scores_BT = torch.sigmoid(self.classify(hidden)[..., 0])
        return RtfmOutput(scores_BT.masked_fill(~there_BT, 0), rows_BTD)

    def temporal(self, features_BTD: Tensor, there_BT: Tensor) -> Tensor:
        """The multi-scale temporal network: three dilations and attention, fused, plus what came in."""
        branches = [
            norm(F.relu(scale(features_BTD, there_BT)), there_BT)
            for scale, norm in zip(self.scales, self.scale_norms, strict=True)
        ]
        branches.append(self.attention(F.relu(self.reduce(features_BTD)), there_BT))
        fused_BTD = F.relu(self.fuse(torch.cat(branches, dim=-1), there_BT))
        return self.fuse_norm(fused_BTD, there_BT) + features_BTD


class NonLocal(nn.Module):
    """Dot-product attention without softmax: each snippet adds the mean of what the ones it sees have for it."""

    def __init__(self, dim: int, *, causal: bool) -> None:
        super().__init__()
        inner = max(1, dim // 2)
        self.causal = causal
        self.query, self.key, self.value = nn.Linear(dim, inner), nn.Linear(dim, inner), nn.Linear(dim, inner)
        self.out = nn.Linear(inner, dim)
        self.norm = SnippetNorm(dim)
        nn.init.zeros_(self.norm.weight)  # starts as the identity

    def forward(self, rows_BTC: Tensor, there_BT: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        seen_BTT = visible(there_BT, causal=self.causal)
        weights_BTT = (self.query(rows_BTC) @ self.key(rows_BTC).transpose(1, 2)).masked_fill(~seen_BTT, 0)
        mixed_BTC = weights_BTT @ self.value(rows_BTC) / seen_BTT.sum(-1, keepdim=True).clamp_min(1)
        return self.norm(self.out(mixed_BTC), there_BT) + rows_BTC
