"""Magnitude-contrastive glance-and-focus network: attention over the video, then convolutions over neighbours.

Chen, Liu, Zhang, Fok, Qi, Wu. "MGFN: Magnitude-Contrastive Glance-and-Focus Network for Weakly-Supervised Video
Anomaly Detection", AAAI 2023, https://arxiv.org/abs/2211.15098. The focus convolution shares one kernel per head of
channels, as Li et al. "UniFormer", ICLR 2022, https://arxiv.org/abs/2201.04676, do.

``faithful`` sees the whole video. ``fixed`` differs from the paper: glance attention is masked to the past and all
convolutions are padded to it; in fresh weights convolutions see the present only and attention adds nothing. The sizes
are the same, so weights fit both. Both variants otherwise start from PyTorch's own initial weights, and compute the
magnitude of a row here, where the authors store it as one more value of the row. The dropout of 0.7 falls on the
choice of snippets in the loss alone.

What stands behind a video's length is zero for every convolution and unseen by attention. Batch norm (in focus) counts
existing snippets only; in training its statistics are the batch's, and this is the one place where videos see each
other (in evaluation nothing does).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from vad.snippets import SnippetConv, SnippetNorm, start_in_the_present, visible
from vad.weak import WeakHead, WeakHeadSettings, WeakOutput, existing

FOCUS_SIZE = 5  # snippets that a focus convolution spans


class Settings(WeakHeadSettings):
    """Widths and depths of the three stages: the first glances, the others focus."""

    kind: Literal["mgfn"] = "mgfn"
    dim: int = Field(2048, ge=1, description="values per feature row, without its magnitude")
    widths: tuple[int, int, int] = (64, 128, 1024)
    depths: tuple[int, int, int] = (3, 3, 2)
    head_width: int = Field(64, ge=1, description="channels of one attention or focus head")
    amplification: float = Field(0.1, ge=0, description="weight of the embedded magnitude in a token")

    @model_validator(mode="after")
    def _whole_heads(self) -> Settings:
        if any(width < 1 or width % self.head_width for width in self.widths):
            raise ValueError(f"widths must be multiples of head_width {self.head_width}, got {self.widths}")
        return self

    def build(self) -> Mgfn:
        """A head with fresh weights (PyTorch's own initialisation)."""
        return Mgfn(self)


@dataclass(frozen=True, slots=True)
class MgfnOutput(WeakOutput):
    """Scores, and the features whose magnitudes the loss contrasts."""

    features_BTE: Tensor  # after the last norm; 0 where there is no snippet


class Mgfn(WeakHead[MgfnOutput]):
    """Tokens of features and magnitudes, three stages of blocks, one linear layer."""

    settings: Settings

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        causal = settings.variant == "fixed"
        first, _, last = settings.widths
        self.tokens = SnippetConv(settings.dim, first, 3, causal=causal)
        self.magnitude = SnippetConv(1, first, 3, causal=causal)
        mixers: tuple[type[Glance | Focus], ...] = (Glance, Focus, Focus)
        self.stages = nn.ModuleList(
            nn.ModuleList(
                Block(mixer(width, settings.head_width, causal=causal), width, causal=causal) for _ in range(depth)
            )
            for mixer, width, depth in zip(mixers, settings.widths, settings.depths, strict=True)
        )
        self.widen = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, wider))
            for width, wider in zip(settings.widths, settings.widths[1:], strict=False)
        )
        self.norm = nn.LayerNorm(last)
        self.classify = nn.Linear(last, 1)
        start_in_the_present(self)

    def forward(self, features_BTD: Tensor, lengths_B: Tensor | None = None) -> MgfnOutput:
        """Score the snippets (B, T, D) of B videos or crops."""
        there_BT = existing(lengths_B, features_BTD[..., 0])
        features_BTD = features_BTD.masked_fill(~there_BT[..., None], 0)
        magnitude_BT1 = torch.linalg.vector_norm(features_BTD, dim=-1, keepdim=True)
        amplified_BTC = self.settings.amplification * self.magnitude(magnitude_BT1, there_BT)
        rows_BTC = self.tokens(features_BTD, there_BT) + amplified_BTC
        for number, stage in enumerate(self.stages):
            if number:
                rows_BTC = self.widen[number - 1](rows_BTC)
            for block in stage:  # type: ignore[attr-defined]  # a ModuleList of ModuleLists
                rows_BTC = block(rows_BTC, there_BT)
        features_BTE = self.norm(rows_BTC).masked_fill(~there_BT[..., None], 0)
        scores_BT = torch.sigmoid(self.classify(features_BTE)[..., 0])
        return MgfnOutput(scores_BT.masked_fill(~there_BT, 0), features_BTE)


class Block(nn.Module):
    """Three residual steps: a short convolution, a mixer over snippets, two dense layers per snippet."""

    def __init__(self, mixer: Glance | Focus, width: int, *, causal: bool) -> None:
        super().__init__()
        self.short = SnippetConv(width, width, 3, causal=causal)
        self.mixer = mixer
        self.dense = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, rows_BTC: Tensor, there_BT: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        rows_BTC = rows_BTC + self.short(rows_BTC, there_BT)
        rows_BTC = rows_BTC + self.mixer(rows_BTC, there_BT)
        return rows_BTC + self.dense(rows_BTC)


class Glance(nn.Module):
    """Softmax attention over the snippets of the video."""

    def __init__(self, width: int, head_width: int, *, causal: bool) -> None:
        super().__init__()
        self.head_width, self.causal = head_width, causal
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        if causal:  # starts as nothing: else what was seen once marks all that follows before training begins
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def forward(self, rows_BTC: Tensor, there_BT: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        heads = self.project(self.norm(rows_BTC)).unflatten(-1, (3, -1, self.head_width))
        query_BHTE, key_BHTE, value_BHTE = heads.permute(2, 0, 3, 1, 4)
        itself_TT = torch.eye(rows_BTC.shape[1], dtype=torch.bool, device=rows_BTC.device)  # padding sees no other
        seen_BTT = visible(there_BT, causal=self.causal) | itself_TT
        mixed = F.scaled_dot_product_attention(query_BHTE, key_BHTE, value_BHTE, attn_mask=seen_BTT[:, None])
        return self.out(mixed.transpose(1, 2).flatten(2))


class Focus(nn.Module):
    """A convolution over neighbours with one kernel per head, shared by the head's channels."""

    def __init__(self, width: int, head_width: int, *, causal: bool) -> None:
        super().__init__()
        heads = width // head_width
        self.head_width = head_width
        self.norm = SnippetNorm(width)
        self.project = nn.Linear(width, width, bias=False)
        self.near = SnippetConv(heads, heads, FOCUS_SIZE, groups=heads, causal=causal)
        self.out = nn.Linear(width, width)

    def forward(self, rows_BTC: Tensor, there_BT: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        batch, count, _ = rows_BTC.shape
        values = self.project(self.norm(rows_BTC, there_BT)).unflatten(-1, (-1, self.head_width))
        rows = values.permute(0, 3, 1, 2).flatten(0, 1)  # one row per video and channel of a head: (B*E, T, H)
        near = self.near(rows, there_BT.repeat_interleave(self.head_width, dim=0))
        return self.out(near.unflatten(0, (batch, -1)).permute(0, 2, 3, 1).reshape(batch, count, -1))
