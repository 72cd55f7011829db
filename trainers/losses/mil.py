"""Multiple-instance ranking loss.

Sultani, Chen, Shah. "Real-World Anomaly Detection in Surveillance Videos", CVPR 2018,
https://arxiv.org/abs/1801.04264. As the authors train it: the hinge is taken over all pairs of an abnormal and a
normal video, and its sum is divided by the number of normal videos (the paper writes one pair). Differs: a batch may
hold unequal numbers of the two, scores are averaged over crops first, and the weight decay is a function of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainers.losses import Parts
from vad.heads.mil import Mil
from vad.weak import Variant, WeakOutput, existing


def loss(
    output: WeakOutput,
    labels_V: Tensor,
    *,
    crops: int = 1,
    lengths_B: Tensor | None = None,
    variant: Variant = "fixed",
    margin: float = 1.0,
    sparsity: float = 8e-5,
    smoothness: float = 8e-5,
) -> Parts:
    """Parts ``ranking``, ``sparsity`` and ``smoothness`` of V videos, of which ``labels_V`` names the abnormal ones.

    ``crops`` rows of the output belong to each video, one after the other; ``lengths_B`` is as the head got it.
    ``variant`` is there for a common signature: both have the same loss. Raises ValueError: one class only.
    """
    refuse_one_kind(labels_V)
    scores_VT = output.scores_BT.unflatten(0, (-1, crops)).mean(1)
    there_VT = existing(None if lengths_B is None else lengths_B[::crops], scores_VT)
    highest_V = scores_VT.masked_fill(~there_VT, 0).amax(1)
    abnormal_AT, there_AT = scores_VT[labels_V], there_VT[labels_V]
    return {
        "ranking": ranking(highest_V[labels_V], highest_V[~labels_V], margin=margin),
        "sparsity": sparsity * abnormal_AT[there_AT].sum(),
        "smoothness": smoothness * roughness(abnormal_AT, there_AT),
    }


def refuse_one_kind(labels_V: Tensor) -> None:
    """Raise ValueError unless there are abnormal and normal videos: a loss that compares them needs both."""
    if labels_V.all() or not labels_V.any():
        raise ValueError(
            f"a batch needs abnormal and normal videos, got {int(labels_V.sum())} abnormal of {len(labels_V)}"
        )


def ranking(abnormal_A: Tensor, normal_N: Tensor, *, margin: float = 1.0) -> Tensor:
    """Hinge between each abnormal and each normal video's highest score, summed over the former, mean of the latter.

    >>> ranking(torch.tensor([0.9, 0.4]), torch.tensor([0.1, 0.6]))
    tensor(1.4000)
    """
    return (margin - abnormal_A[:, None] + normal_N).clamp_min(0).sum(0).mean()


def roughness(scores_VT: Tensor, there_VT: Tensor) -> Tensor:
    """Sum of the squared steps from one existing snippet of a video to its next."""
    steps = scores_VT.diff(dim=1).masked_fill(~there_VT[:, 1:], 0)
    return steps.square().sum()


def weight_l2(head: Mil, *, weight: float = 1e-3) -> Tensor:
    """Squared weights of the dense layers, biases left out, times ``weight``: to be added to the loss.

    An optimiser's own decay is half as strong at the same number and, in adaptive ones, another thing.
    """
    return weight * torch.stack([layer.weight.square().sum() for layer in head.dense]).sum()
