"""Loss of the dual branch head: bags of scores, bags of classes, texts apart; and prompts that make those texts.

Wu et al. "VadCLIP", AAAI 2024, https://arxiv.org/abs/2308.11681. A video's bag is its highest sixteenth of snippets
and one more: of the classifier's probabilities (not of its logits), and of the likeness to each class by itself. The
published weight of ``apart`` is 0.1 (UCF-Crime) and 1e-4 (XD-Violence).

DSANet, AAAI 2026, https://arxiv.org/abs/2511.10334, adds a reconstruction: normal snippets lie near a prototype, and a
snippet is as badly reconstructed as it is anomalous. Published ``alignment`` 1.1 (UCF-Crime) and 5 (XD-Violence),
``smoothing`` 0.1; the weights of both parts of the reconstruction are ours. Its contrast of events with background is
left out. Both variants have the same loss. Differs from the papers: what stands behind a video's length has no part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.losses import Parts
from vad.heads.dual_branch import DualBranchOutput, Reconstruction, calmest
from vad.weak import Variant, existing, top_mean


def loss(
    output: DualBranchOutput,
    labels_V: Tensor,
    *,
    crops: int = 1,
    lengths_B: Tensor | None = None,
    variant: Variant = "fixed",
    classes_V: Tensor | None = None,
    alignment: float = 1.0,
    smoothing: float = 0.0,
    apart: float = 0.1,
    gather: float = 1.0,
    consistency: float = 1.0,
) -> Parts:
    """Parts ``bag`` and ``apart``; ``classes`` when they are given; ``gather`` and ``consistency`` with prototypes.

    ``labels_V`` is True for abnormal videos, of which ``crops`` rows of the output each are bags of their own;
    ``lengths_B`` is as the head got it; ``classes_V`` is each video's class, 0 for normal. ``smoothing`` is the share
    of the class target that is spread over all classes. ``variant`` is there for a common signature. Raises ValueError
    for classes that the head lacks or that contradict the labels.
    """
    labels_B = labels_V.bool().repeat_interleave(crops)
    there_BT = existing(lengths_B, output.logits_BT)
    k_B = there_BT.sum(1) // 16 + 1
    parts = {"bag": bag(output.logits_BT, labels_B, there_BT, k_B), "apart": apart * likeness(output.texts_CE)}
    if classes_V is not None:
        classes_B = classes_V.repeat_interleave(crops)
        _check(classes_B, labels_B, classes=output.class_logits_BTC.shape[-1])
        pooled_BC = class_bags(output.class_logits_BTC, there_BT, k_B)
        parts["classes"] = alignment * F.cross_entropy(pooled_BC, classes_B.long(), label_smoothing=smoothing)
    if output.reconstruction is not None:
        parts["gather"] = gather * gathered(output.reconstruction, output.logits_BT, there_BT)
        parts["consistency"] = consistency * agreement(output.reconstruction, output.logits_BT, there_BT)
    return parts


def bag(logits_BT: Tensor, labels_B: Tensor, there_BT: Tensor, k_B: Tensor) -> Tensor:
    """Cross-entropy of the mean of the highest probabilities; in float32 at least, also under autocast.

    >>> there, k = torch.tensor([[True, True]]), torch.tensor([2])
    >>> bag(torch.tensor([[3.0, -1.0]]), torch.tensor([True]), there, k).neg().exp()
    tensor(0.6108)
    """
    with torch.autocast(logits_BT.device.type, enabled=False):
        wide_BT = logits_BT.to(torch.promote_types(logits_BT.dtype, torch.float32))
        bag_B = top_mean(wide_BT.sigmoid(), there_BT, k_B)
        return F.binary_cross_entropy(bag_B, labels_B.to(bag_B.dtype))


def class_bags(logits_BTC: Tensor, there_BT: Tensor, k_B: Tensor) -> Tensor:
    """Mean of the highest logits of each class by itself: (B, C)."""
    classes = logits_BTC.shape[-1]
    logits_RT = logits_BTC.transpose(1, 2).flatten(0, 1)  # a row per video and class
    pooled_R = top_mean(logits_RT, there_BT.repeat_interleave(classes, 0), k_B.repeat_interleave(classes))
    return pooled_R.unflatten(0, (-1, classes))


def likeness(texts_CE: Tensor) -> Tensor:
    """Mean size of the cosine between the text of normal video, the first, and the others.

    >>> likeness(torch.tensor([[3.0, 4.0], [-6.0, -8.0], [4.0, -3.0]]))
    tensor(0.5000)
    """
    units_CE = F.normalize(texts_CE, dim=-1)
    return (units_CE[1:] @ units_CE[0]).abs().mean()


def gathered(found: Reconstruction, logits_BT: Tensor, there_BT: Tensor) -> Tensor:
    """Mean distance of the least anomalous snippets of each video to their nearest prototypes, over videos."""
    return mean_of(found.distances_BT, calmest(logits_BT, there_BT)).mean()


def agreement(found: Reconstruction, logits_BT: Tensor, there_BT: Tensor) -> Tensor:
    """Mean square of what lies between probability and error of reconstruction, over videos."""
    return mean_of((logits_BT.sigmoid() - found.errors_BT).square(), there_BT).mean()


def mean_of(values_BT: Tensor, chosen_BT: Tensor) -> Tensor:
    """Mean over the chosen snippets: (B,)."""
    return values_BT.masked_fill(~chosen_BT, 0).sum(1) / chosen_BT.sum(1)


class Prompts(nn.Module):
    """Texts of classes whose names stand between learned tokens that all classes share.

    Give its result to the head in training, as ``texts_CE``, and to ``give_texts`` of the head in the end. The text
    encoder is only called: it is no part of this module, so it is neither trained nor saved with it; freeze it, so that
    it collects no gradients either. ``encode`` takes token embeddings (C, L, E) without positions, and the place of the
    end token of each (C,), and gives (C, text_width); what stands behind the end token is zero and must not matter, as
    in a causal encoder.
    """

    tokens_CLE: Tensor
    ends_C: Tensor

    def __init__(
        self,
        names: Sequence[Tensor],
        *,
        start_E: Tensor,
        end_E: Tensor,
        encode: Callable[[Tensor, Tensor], Tensor],
        before: int = 10,
        after: int = 10,
    ) -> None:
        """``names`` are the token embeddings (N, E) of each class name, normal video first, without start and end."""
        super().__init__()
        self.encode = partial(encode)  # a bare module would become part of this one
        self.before_PE = nn.Parameter(0.02 * torch.randn(before, len(start_E)))
        self.after_PE = nn.Parameter(0.02 * torch.randn(after, len(start_E)))
        gap_PE, tail_PE = start_E.new_zeros(before, len(start_E)), start_E.new_zeros(after, len(start_E))
        rows = [torch.cat([start_E[None], gap_PE, name_NE, tail_PE, end_E[None]]) for name_NE in names]
        self.register_buffer("tokens_CLE", nn.utils.rnn.pad_sequence(rows, batch_first=True).detach())
        self.register_buffer("ends_C", torch.tensor([len(row) - 1 for row in rows]))

    def forward(self) -> Tensor:
        """Embeddings of the classes as the prompts stand: (C, text_width)."""
        tokens_CLE = self.tokens_CLE.clone()
        before, after = len(self.before_PE), len(self.after_PE)
        tokens_CLE[:, 1 : 1 + before] = self.before_PE.to(tokens_CLE.dtype)
        for row, end in enumerate(self.ends_C.tolist()):
            tokens_CLE[row, end - after : end] = self.after_PE.to(tokens_CLE.dtype)
        return self.encode(tokens_CLE, self.ends_C)


def _check(classes_B: Tensor, labels_B: Tensor, *, classes: int) -> None:
    if classes_B.min() < 0 or classes_B.max() >= classes:
        raise ValueError(f"classes_B must be classes of the head, 0 to {classes - 1}, got {classes_B.tolist()}")
    if ((classes_B > 0) != labels_B).any():
        raise ValueError("classes_B must be 0 for normal videos and above for abnormal ones, as labels_B says")
