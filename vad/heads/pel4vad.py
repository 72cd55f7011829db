"""Context that blends global and local attention from one similarity map, and a causal classifier.

Pu, Wu, Yang, Wang. "Learning Prompt-Enhanced Context Features for Weakly-Supervised Video Anomaly Detection", IEEE
TIP 2024, https://arxiv.org/abs/2306.14451. Published settings: UCF-Crime as the defaults; XD-Violence ``classifier``
3, ``prior_slope`` 0.06, ``prior_shift`` 0.02, ``temperature`` 0.05, ``normalise`` false; ShanghaiTech ``window`` 5,
``classifier`` 3, ``prior_slope`` 0.08, ``prior_shift`` 0.1, ``temperature`` 0.2.

``fixed`` differs from the paper: attention sees the past only, the window is the last ``window`` snippets, and the
attended rows are scaled to length 1 over their features. ``faithful`` sees the whole video, centres the window, and,
like the published code, scales each feature over all snippets of the video. The parameters are the same.

Both variants: what stands behind a video's length is unseen by attention and by the scaling; the slope of the signed
root is 0 at 0, where the published one is infinite. The published results also smooth the scores, in part with later
snippets; that is not part of the head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vad.weak import WeakHead, WeakHeadSettings, WeakOutput, existing


class Settings(WeakHeadSettings):
    """Sizes and priors; the defaults are the paper's for UCF-Crime."""

    kind: Literal["pel4vad"] = "pel4vad"
    attention_width: int = Field(128, ge=1, description="values per snippet in attention")
    text_width: int = Field(512, ge=1, description="values per snippet that are compared with text embeddings")
    width: int = Field(300, ge=1, description="values per snippet that the classifier sees")
    window: int = Field(9, ge=1, description="snippets that local attention sees")
    classifier: int = Field(9, ge=1, description="snippets that the classifier sees, up to the scored one")
    prior_slope: float = Field(0.6, description="gamma at the start: how fast attention falls with squared distance")
    prior_shift: float = Field(0.2, description="b at the start: where attention falls from")
    temperature: float = Field(0.09, gt=0, description="of the likeness to text, at the start")
    normalise: bool = Field(True, description="signed root and unit length of attended rows")
    dropout: float = Field(0.1, ge=0, lt=1, description="after both dense layers, in training")

    def build(self) -> Pel4Vad:
        """A head with fresh weights."""
        return Pel4Vad(self)


@dataclass(frozen=True, slots=True)
class Pel4VadOutput(WeakOutput):
    """Scores, and what is compared with text."""

    visual_BTE: Tensor  # 0 where there is no snippet
    inverse_temperature: Tensor  # scalar that likeness to text is multiplied with


class Pel4Vad(WeakHead[Pel4VadOutput]):
    """Attention, two dense layers, causal classifier."""

    settings: Settings

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.attention = BlendedAttention(settings)
        self.norm = nn.LayerNorm(settings.dim)
        self.visual = nn.Linear(settings.dim, settings.text_width)
        self.reduce = nn.Linear(settings.text_width, settings.width)
        self.dropout = nn.Dropout(settings.dropout)
        self.classify = nn.Conv1d(settings.width, 1, settings.classifier)
        self.log_inverse_temperature = nn.Parameter(torch.tensor(-math.log(settings.temperature)))

    def forward(self, features_BTD: Tensor, lengths_B: Tensor | None = None) -> Pel4VadOutput:
        """Score the snippets (B, T, D) of B videos or crops."""
        there_BT = existing(lengths_B, features_BTD[..., 0])
        rows_BTD = features_BTD.masked_fill(~there_BT[..., None], 0)
        rows_BTD = self.norm(rows_BTD + self.attention(rows_BTD, there_BT))
        visual_BTE = self.dropout(F.gelu(self.visual(rows_BTD)))
        reduced_BTC = self.dropout(F.gelu(self.reduce(visual_BTE)))
        return Pel4VadOutput(
            self.score(reduced_BTC).masked_fill(~there_BT, 0),
            visual_BTE.masked_fill(~there_BT[..., None], 0),
            self.log_inverse_temperature.exp(),
        )

    def score(self, reduced_BTC: Tensor) -> Tensor:
        """Classify each snippet from itself and those before it, zeros before the first: (B, T, C) -> (B, T)."""
        past_BCT = F.pad(reduced_BTC.transpose(1, 2), (self.settings.classifier - 1, 0))
        return torch.sigmoid(self.classify(past_BCT)[:, 0])


class BlendedAttention(nn.Module):
    """One similarity map with a distance prior, used over everything and over a window, and the two blended."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.causal, self.window = settings.variant == "fixed", settings.window
        self.normalise = settings.normalise
        self.query = nn.Linear(settings.dim, settings.attention_width)
        self.key = nn.Linear(settings.dim, settings.attention_width)
        self.value = nn.Linear(settings.dim, settings.attention_width)
        self.out = nn.Linear(settings.attention_width, settings.dim)
        self.prior_slope = nn.Parameter(torch.tensor(settings.prior_slope))
        self.prior_shift = nn.Parameter(torch.tensor(settings.prior_shift))
        self.blend = nn.Parameter(torch.tensor(0.0))  # logit of the global share

    def forward(self, rows_BTD: Tensor, there_BT: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D), without the residual."""
        query, key, value_BTC = self.query(rows_BTD), self.key(rows_BTD), self.value(rows_BTD)
        behind_TT = behind(rows_BTD.shape[1], device=rows_BTD.device)
        map_BTT = query @ key.transpose(1, 2) / math.sqrt(key.shape[-1])
        map_BTT = map_BTT + distance_prior(behind_TT, slope=self.prior_slope, shift=self.prior_shift)

        wide_BTT = there_BT[:, None, :] & (behind_TT >= 0) if self.causal else there_BT[:, None, :]
        near_BTT = wide_BTT & in_window(behind_TT, self.window, causal=self.causal)
        share = torch.sigmoid(self.blend)
        mixed_BTT = share * attend(map_BTT, wide_BTT) + (1 - share) * attend(map_BTT, near_BTT)
        mixed_BTC = mixed_BTT @ value_BTC
        if self.normalise:
            mixed_BTC = signed_root(mixed_BTC).masked_fill(~there_BT[..., None], 0)
            mixed_BTC = F.normalize(mixed_BTC, dim=-1 if self.causal else 1)
        return self.out(mixed_BTC)


def attend(map_BTT: Tensor, seen_BTT: Tensor) -> Tensor:
    """Softmax over what is seen; a snippet that sees nothing (behind the length) gets finite weights nobody uses."""
    return map_BTT.masked_fill(~seen_BTT, torch.finfo(map_BTT.dtype).min).softmax(-1)


def behind(count: int, *, device: torch.device | None = None) -> Tensor:
    """How many snippets the second lies behind the first; negative where it comes later: (T, T).

    >>> behind(3)[2]
    tensor([2, 1, 0])
    """
    at_T = torch.arange(count, device=device)
    return at_T[:, None] - at_T


def distance_prior(behind_TT: Tensor, *, slope: Tensor, shift: Tensor) -> Tensor:
    """What distance d adds to the similarity: exp(-|slope · d² - shift|).

    >>> distance_prior(torch.tensor([0, 1, 2]), slope=torch.tensor(0.6), shift=torch.tensor(0.2))
    tensor([0.8187, 0.6703, 0.1108])
    """
    return (-(slope * behind_TT.square() - shift).abs()).exp()


def in_window(behind_TT: Tensor, window: int, *, causal: bool) -> Tensor:
    """True for the ``window`` snippets up to one's own (``causal``), or for those around it.

    >>> in_window(behind(5), 3, causal=True).int()[2].tolist(), in_window(behind(5), 3, causal=False).int()[2].tolist()
    ([1, 1, 1, 0, 0], [0, 1, 1, 1, 0])
    """
    if causal:
        return (behind_TT >= 0) & (behind_TT < window)
    return (behind_TT <= window // 2) & (behind_TT >= window // 2 - window + 1)


def signed_root(values: Tensor) -> Tensor:
    """sign(x) √|x|, with slope 0 at 0.

    >>> signed_root(torch.tensor([4.0, -9.0, 0.0]))
    tensor([ 2., -3.,  0.])
    """
    return values.sign() * values.abs().clamp_min(1e-12).sqrt()
