"""Layers over the snippets of videos (B, T, C), of which only some exist: what pads a row never reaches another one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def visible(there_BT: Tensor, *, causal: bool) -> Tensor:
    """(B, T, T) True where the snippet of the first T may look at that of the second.

    >>> visible(torch.tensor([[True, True, False]]), causal=True).int()[0].tolist()
    [[1, 0, 0], [1, 1, 0], [1, 1, 0]]
    """
    count = there_BT.shape[1]
    seen_BTT = there_BT[:, None, :].expand(-1, count, -1)
    return seen_BTT.tril() if causal else seen_BTT


class SnippetConv(nn.Conv1d):
    """A convolution over the snippets of (B, T, C) that takes zeros for what does not exist.

    ``causal`` pads the past only, so that a row never sees a later one; else both sides alike.
    """

    def __init__(
        self,
        dim: int,
        out: int,
        size: int,
        *,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        causal: bool,
    ) -> None:
        super().__init__(dim, out, size, dilation=dilation, groups=groups, bias=bias)
        self.causal = causal
        reach = (size - 1) * dilation
        self.pad = (reach, 0) if causal else (reach // 2, reach - reach // 2)

    def forward(self, rows_BTC: Tensor, there_BT: Tensor) -> Tensor:  # type: ignore[override]
        """(B, T, C) -> (B, T, E)."""
        rows_BCT = rows_BTC.masked_fill(~there_BT[..., None], 0).transpose(1, 2)
        return super().forward(F.pad(rows_BCT, self.pad)).transpose(1, 2)


class SnippetNorm(nn.BatchNorm1d):
    """Batch norm of (B, T, C) whose statistics, in training, are those of the existing snippets of the batch."""

    def forward(self, rows_BTC: Tensor, there_BT: Tensor) -> Tensor:  # type: ignore[override]
        """(B, T, C) -> (B, T, C)."""
        if not self.training:
            return super().forward(rows_BTC.flatten(0, 1)).view_as(rows_BTC)
        normed_BTC = torch.zeros_like(rows_BTC)
        normed_BTC[there_BT] = super().forward(rows_BTC[there_BT])
        return normed_BTC


def start_in_the_present(head: nn.Module) -> None:
    """Let the causal convolutions of fresh weights see the present only; training opens the past.

    Random causal filters answer late, by half their length per layer, and a head that learns from labels of whole
    videos has no reason to undo the delay. Centred filters have none.
    """
    for module in head.modules():
        if isinstance(module, SnippetConv) and module.causal:
            nn.init.zeros_(module.weight[..., :-1])
