"""Two memories of normal and abnormal prototypes over a transformer that looks both globally and nearby.

Zhou, Yu, Yang. "Dual Memory Units with Uncertainty Regulation for Weakly Supervised Video Anomaly Detection",
AAAI 2023, https://arxiv.org/abs/2302.05160. ``fixed`` differs from the paper: attention and the distance branch see
the past only and the convolution is padded to the past, so that no score depends on later video and any number of
snippets is scored. ``faithful`` sees the whole video. The parameters are the same, so weights fit both.

Both variants differ from the published code in two ways. What stands behind a video's length is zero for the
convolution and unseen by attention. And forward needs no labels: the code samples the normal readout of the normal
half of a training batch; here training scores every row twice, with the mean and with a sample, and the loss takes the
sample where the video is normal. Scores in evaluation use the means, as published.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vad.snippets import SnippetConv, visible
from vad.weak import WeakHead, WeakHeadSettings, WeakOutput, existing


class Settings(WeakHeadSettings):
    """Sizes; the defaults are the paper's."""

    kind: Literal["urdmu"] = "urdmu"
    width: int = Field(512, ge=1, description="values per snippet inside, and per prototype")
    layers: int = Field(2, ge=1, description="transformer layers")
    attention_heads: int = Field(4, ge=1)
    attention_width: int = Field(128, ge=1, description="values per attention head")
    prototypes: int = Field(60, ge=1, description="rows of each of the two memories")
    dropout: float = Field(0.5, ge=0, lt=1, description="after each projection in the transformer, in training")

    def build(self) -> UrDmu:
        """A head with fresh weights."""
        return UrDmu(self)


@dataclass(frozen=True, slots=True)
class UrDmuOutput(WeakOutput):
    """Scores, and what the loss needs; all values are 0 where there is no snippet."""

    sampled_scores_BT: Tensor  # like the scores, with the sampled normal readout; in evaluation the scores themselves
    normal_BT: Tensor  # likeness in [0, 1] to the normal memory
    abnormal_BT: Tensor  # likeness in [0, 1] to the abnormal memory
    hidden_BTE: Tensor  # after the transformer
    normal_mean_BTE: Tensor  # mean and log variance of the readout of the normal memory
    normal_logvar_BTE: Tensor
    normal_latent_BTE: Tensor  # a sample of that readout; in evaluation its mean
    abnormal_latent_BTE: Tensor  # mean of the readout of the abnormal memory


class UrDmu(WeakHead[UrDmuOutput]):
    """Convolution, transformer, two memories, classifier."""

    settings: Settings

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        width, causal = settings.width, settings.variant == "fixed"
        self.embed = SnippetConv(settings.dim, width, 3, causal=causal)
        self.layers = nn.ModuleList(Layer(settings) for _ in range(settings.layers))
        self.normal = Memory(settings.prototypes, width)
        self.abnormal = Memory(settings.prototypes, width)
        self.mean = nn.Linear(width, width)
        self.logvar = nn.Linear(width, width)
        self.classify = nn.Sequential(nn.Linear(2 * width, 128), nn.ReLU(), nn.Linear(128, 1))

    def forward(self, features_BTD: Tensor, lengths_B: Tensor | None = None) -> UrDmuOutput:
        """Score the snippets (B, T, D) of B videos or crops."""
        there_BT = existing(lengths_B, features_BTD[..., 0])
        hidden_BTE = self._context(features_BTD, there_BT)
        normal_BT, normal_BTE = self.normal(hidden_BTE)
        abnormal_BT, abnormal_BTE = self.abnormal(hidden_BTE)
        mean_BTE, logvar_BTE = self.mean(normal_BTE), self.logvar(normal_BTE)
        abnormal_latent_BTE = self.mean(abnormal_BTE)
        scores_BT = sampled_BT = self._score(hidden_BTE, abnormal_latent_BTE + mean_BTE)
        latent_BTE = mean_BTE
        if self.training:
            latent_BTE = mean_BTE + torch.randn_like(mean_BTE) * (logvar_BTE / 2).exp()
            sampled_BT = self._score(hidden_BTE, abnormal_latent_BTE + latent_BTE)
        per_snippet = (scores_BT, sampled_BT, normal_BT, abnormal_BT)
        per_value = (hidden_BTE, mean_BTE, logvar_BTE, latent_BTE, abnormal_latent_BTE)
        return UrDmuOutput(
            *(values_BT.masked_fill(~there_BT, 0) for values_BT in per_snippet),
            *(values_BTE.masked_fill(~there_BT[..., None], 0) for values_BTE in per_value),
        )

    def _context(self, features_BTD: Tensor, there_BT: Tensor) -> Tensor:
        hidden_BTE = F.relu(self.embed(features_BTD, there_BT))
        seen_BTT = visible(there_BT, causal=self.settings.variant == "fixed")
        for layer in self.layers:
            hidden_BTE = layer(hidden_BTE, seen_BTT)
        return hidden_BTE

    def _score(self, hidden_BTE: Tensor, readout_BTE: Tensor) -> Tensor:
        return torch.sigmoid(self.classify(torch.cat([hidden_BTE, readout_BTE], dim=-1))[..., 0])


class Layer(nn.Module):
    """Pre-norm transformer layer whose attention has a second branch, weighted by distance alone."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        width, inner = settings.width, settings.attention_heads * settings.attention_width
        self.attention_heads = settings.attention_heads
        self.attention_norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, 4 * inner, bias=False)  # query, key, value, value of the distance branch
        self.join = nn.Sequential(nn.Linear(2 * inner, width), nn.Dropout(settings.dropout))
        self.dense = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Dropout(settings.dropout),
            nn.Linear(width, width),
            nn.Dropout(settings.dropout),
        )

    def forward(self, rows_BTE: Tensor, seen_BTT: Tensor) -> Tensor:
        """(B, T, E) -> (B, T, E); ``seen_BTT`` is True where the first snippet may look at the second."""
        heads = (self.attention_heads, -1)
        parts = self.project(self.attention_norm(rows_BTE)).chunk(4, dim=-1)
        query, key, value, near_value = (part.unflatten(-1, heads).transpose(1, 2) for part in parts)  # (B, H, T, C)
        far = F.scaled_dot_product_attention(query, key, value, attn_mask=seen_BTT[:, None])
        near = distance_weights(seen_BTT, kind=near_value.dtype)[:, None] @ near_value
        joined_BTE = self.join(torch.cat([far, near], dim=-1).transpose(1, 2).flatten(2))
        rows_BTE = rows_BTE + joined_BTE
        return rows_BTE + self.dense(rows_BTE)


class Memory(nn.Module):
    """Prototypes that a snippet is compared with and read out from."""

    def __init__(self, prototypes: int, width: int) -> None:
        super().__init__()
        self.rows_ME = nn.Parameter(torch.empty(prototypes, width))
        nn.init.uniform_(self.rows_ME, -1 / math.sqrt(width), 1 / math.sqrt(width))

    def forward(self, hidden_BTE: Tensor) -> tuple[Tensor, Tensor]:
        """Likeness (B, T) in [0, 1], the mean of the best sixteenth of prototypes and one more, and readout (B, T, E).

        >>> likeness_BT, readout_BTE = Memory(60, 8)(torch.zeros(1, 1, 8))
        >>> likeness_BT.item()
        0.5
        """
        attention_BTM = torch.sigmoid(hidden_BTE @ self.rows_ME.T / math.sqrt(self.rows_ME.shape[1]))
        best = min(len(self.rows_ME) // 16 + 1, len(self.rows_ME))
        return attention_BTM.topk(best, dim=-1).values.mean(-1), attention_BTM @ self.rows_ME


def distance_weights(seen_BTT: Tensor, *, kind: torch.dtype = torch.float32) -> Tensor:
    """Weights exp(-distance / e) of the snippets that each one sees, summing to 1: (B, T, T).

    >>> distance_weights(torch.ones(1, 2, 2, dtype=torch.bool))[0, 0]
    tensor([0.5909, 0.4091])
    """
    at_T = torch.arange(seen_BTT.shape[-1], device=seen_BTT.device)
    weights_TT = (-(at_T[:, None] - at_T).abs().to(kind) / math.e).exp()
    weights_BTT = weights_TT * seen_BTT
    return weights_BTT / weights_BTT.sum(-1, keepdim=True).clamp_min(torch.finfo(kind).tiny)
