"""What weakly supervised heads share: the snippets of a video in, one score in [0, 1] per snippet out.

They learn from labels of whole videos. A head file is inference maths; its training loss lies in ``trainers/losses/``.
Every head has two variants: ``fixed``, the default, is what the product uses; ``faithful`` repeats the published code
with its quirks and serves to check a published number only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from vad.config import Config
from vad.types import Array, HeadScores

Variant = Literal["fixed", "faithful"]


class WeakHeadSettings(Config):
    """Settings that every head trained on labels of videos has."""

    kind: str
    dim: int = Field(1024, ge=1, description="values per feature row")
    variant: Variant = "fixed"
    past: int = Field(
        256, ge=1, description="snippets, the scored one included, that a head without a limit of its own may look at"
    )

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

    @property
    def context(self) -> int:
        """Snippets that a score is made from, the scored one included: what a stream has to remember."""
        return self.settings.past if self.receptive is None else self.receptive

    def prepare(self, videos: Iterable[Tensor]) -> None:
        """Learn what needs no gradient from the rows (T, K, D) of the training videos; most heads need nothing."""

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take the weights that ``state_dict`` gave."""
        self.load_state_dict(state)

    @abstractmethod
    def forward(self, features_BTD: Tensor, lengths_B: Tensor | None = None) -> OutputT:
        """Score the snippets (B, T, D) of B videos, of which the first ``lengths_B`` exist (None: all do).

        What stands behind the length never changes a score, and neither do the other videos of the batch.
        """


class WeakStream:
    """A causal head on one stream, snippet by snippet. What it has seen is its state: one object per video."""

    def __init__(self, head: WeakHead[WeakOutput]) -> None:
        if head.lookahead != 0:
            raise ValueError(
                f"{head.settings.kind}, {head.settings.variant}, looks at the whole video and cannot score it as a "
                "stream; extract features and score the store, or train with head.variant=fixed"
            )
        self._head = head.eval()
        self._rows: list[Tensor] = []  # (K, D) each, the last one newest

    @torch.inference_mode()
    def score(self, features: Array) -> HeadScores:
        """Score the next snippet (1, D), or (1, K, D) of K crops, whose scores are averaged."""
        rows_KD = torch.from_numpy(features[0]).view(-1, features.shape[-1])
        check_width(self._head, rows_KD.shape[-1])
        self._rows = [*self._rows[1 - self._head.context :], rows_KD] if self._head.context > 1 else [rows_KD]
        scores_KT = self._head(torch.stack(self._rows, dim=1)).scores_BT
        return HeadScores(np.asarray(scores_KT[:, -1].mean(0, keepdim=True).numpy()))


@torch.inference_mode()
def score_rows(
    head: WeakHead[WeakOutput], rows_TKD: Tensor, *, at_once: int = 4096, approximate: bool = False
) -> Tensor:
    """Scores (T,) of a whole video's rows, as ``WeakStream`` gives them; a head that is not causal sees all rows.

    Crops are averaged. About ``at_once`` rows go through the head together. ``approximate`` is for looks during
    training: where a head has no limit of its own, each score sees one to two windows instead of exactly one, which
    costs as many times less as a window is long.
    """
    check_width(head, rows_TKD.shape[-1])
    rows_KTD = rows_TKD.transpose(0, 1).float()
    count = rows_KTD.shape[1]
    if head.lookahead != 0 or count <= head.context:
        return torch.cat([head(part_KTD).scores_BT for part_KTD in rows_KTD.split(max(at_once // count, 1))]).mean(0)
    crops = len(rows_KTD)
    if head.receptive is not None or approximate:
        # neighbours share their past: pieces with as much of it in front as a score is made from
        step = head.context if head.receptive is None else max(at_once // crops, head.receptive)
        pieces = [head(rows_KTD[:, max(s - head.context + 1, 0) : s + step]).scores_BT for s in range(0, count, step)]
        lengths = [min(step, count - s) for s in range(0, count, step)]
        return torch.cat([p[:, -n:] for p, n in zip(pieces, lengths, strict=True)], dim=1).mean(0)
    window = head.context
    scores_KT = [head(rows_KTD[:, :window]).scores_BT]
    windows_KNWD = rows_KTD[:, 1:].unfold(1, window, 1).transpose(2, 3)
    for part_KNWD in windows_KNWD.split(max(at_once // (window * crops), 1), dim=1):
        last_B = head(part_KNWD.flatten(0, 1)).scores_BT[:, -1]
        scores_KT.append(last_B.view(crops, -1))
    return torch.cat(scores_KT, dim=1).mean(0)


def check_width(head: WeakHead[WeakOutput], width: int) -> None:
    """Raise ValueError when features are not as wide as the head's."""
    if width != head.settings.dim:
        raise ValueError(f"features are {width} wide, this head was trained on {head.settings.dim}")


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
