"""What weakly supervised heads share: the snippets of a video in, one score in [0, 1] per snippet out.

They learn from labels of whole videos. A head file is inference maths; its training loss lies in ``trainers/losses/``.
Every head has two variants: ``fixed``, the default, is what the product uses; ``faithful`` repeats the published code
with its quirks and serves to check a published number only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from vad.config import Config

Variant = Literal["fixed", "faithful"]


class WeakHeadSettings(Config):
    """Settings that every head trained on labels of videos has."""

    kind: str
    dim: int = Field(1024, ge=1, description="values per feature row")
    variant: Variant = "fixed"

    @abstractmethod
    def build(self) -> WeakHead[WeakOutput]:
        """A head with fresh weights."""


@dataclass(frozen=True, slots=True)
class WeakOutput:
    """What every head says; heads whose loss needs more return a dataclass of their own that extends this."""

    scores_BT: Tensor  # in [0, 1], 0 where there is no snippet


OutputT = TypeVar("OutputT", bound=WeakOutput, covariant=True)


class WeakHead(nn.Module, ABC, Generic[OutputT]):
    """A head over the snippets of videos. Crops are rows of their own: the caller averages their scores."""

    settings: WeakHeadSettings

    @property
    def lookahead(self) -> int | None:
        """Snippets of later video that a score depends on: 0 is causal, as ``fixed`` is, None the whole sequence."""
        return 0 if self.settings.variant == "fixed" else None

    @property
    def receptive(self) -> int | None:
        """Snippets of earlier video that a score depends on, itself included; None the whole past."""
        return None

    @abstractmethod
    def forward(self, features_BTD: Tensor, lengths_B: Tensor | None = None) -> OutputT:
        """Score the snippets (B, T, D) of B videos, of which the first ``lengths_B`` exist (None: all do).

        What stands behind the length never changes a score, and neither do the other videos of the batch.
        """


def existing(lengths_B: Tensor | None, like_BT: Tensor) -> Tensor:
    """(B, T) True where there is a snippet."""
    batch, count = like_BT.shape[:2]
    if lengths_B is None:
        return torch.ones(batch, count, dtype=torch.bool, device=like_BT.device)
    return torch.arange(count, device=like_BT.device) < lengths_B[:, None].to(like_BT.device)


def top_mean(values_BT: Tensor, there_BT: Tensor, k_B: Tensor) -> Tensor:
    """Mean of the ``k_B`` highest existing values of each row, k at least 1 and at most what exists: (B,).

    >>> top_mean(torch.tensor([[0.1, 0.9, 0.5]]), torch.tensor([[True, True, True]]), torch.tensor([2]))
    tensor([0.7000])
    """
    ranked = values_BT.masked_fill(~there_BT, -torch.inf).sort(dim=1, descending=True).values
    k_B = k_B.clamp(min=1).minimum(there_BT.sum(1))
    chosen_BT = torch.arange(values_BT.shape[1], device=values_BT.device) < k_B[:, None]
    return ranked.masked_fill(~chosen_BT, 0).sum(1) / k_B
