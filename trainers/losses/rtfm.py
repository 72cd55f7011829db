"""Loss of the robust temporal feature magnitude head.

Tian, Pang, Chen, Singh, Verjans, Carneiro. "Weakly-supervised Video Anomaly Detection with Robust Temporal Feature
Magnitude Learning", ICCV 2021, https://arxiv.org/abs/2101.10030. As the authors train it: the paper's hinge on
magnitudes is a square here, and sparsity is the length of all abnormal scores taken as one vector.

``faithful`` compares the i-th abnormal with the i-th normal row only and takes smoothness over the abnormal videos
laid end to end, so that it ties the end of each to the start of the next. ``fixed`` compares all pairs, the mean that
random partners give (so that a batch may hold unequal numbers of the two), and smooths inside each video.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.losses import Parts
from trainers.losses.mil import refuse_one_kind, roughness
from vad.heads.rtfm import RtfmOutput
from vad.weak import Variant, existing


def loss(
    output: RtfmOutput,
    labels_V: Tensor,
    *,
    crops: int = 1,
    lengths_B: Tensor | None = None,
    variant: Variant = "fixed",
    k: int = 3,
    selection_dropout: float = 0.7,
    margin: float = 100.0,
    magnitude: float = 1e-4,
    sparsity: float = 8e-3,
    smoothness: float = 8e-4,
) -> Parts:
    """Parts ``classification``, ``magnitude``, ``sparsity`` and ``smoothness`` of V videos.

    ``labels_V`` is True for the abnormal ones; ``crops`` rows of the output belong to each video, one after the
    other; ``lengths_B`` is as the head got it. ``selection_dropout`` hides that share of the snippets from the choice
    of the ``k`` a video is judged by; give 0 outside training. Raises ValueError: one class only, or in ``faithful``
    unequal numbers of the two.
    """
    refuse_one_kind(labels_V)
    scores_VT = output.scores_BT.unflatten(0, (-1, crops)).mean(1)
    features_VCTD = output.features_BTD.unflatten(0, (-1, crops))
    there_VT = existing(None if lengths_B is None else lengths_B[::crops], scores_VT)
    index_VK, weight_VK = select(features_VCTD, there_VT, k=k, dropout=selection_dropout)
    judged_V = (scores_VT.gather(1, index_VK) * weight_VK).sum(1)
    chosen_VCD = (gather_snippets(features_VCTD, index_VK) * weight_VK[:, None, :, None]).sum(2)
    lengths_VC = torch.linalg.vector_norm(chosen_VCD, dim=-1)
    abnormal_AT, there_AT = scores_VT[labels_V], there_VT[labels_V]
    paired = variant == "faithful"
    return {
        "classification": F.binary_cross_entropy(judged_V, labels_V.to(judged_V.dtype)),
        "magnitude": magnitude
        * separation(lengths_VC[labels_V].flatten(), lengths_VC[~labels_V].flatten(), margin=margin, paired=paired),
        "sparsity": sparsity * torch.linalg.vector_norm(abnormal_AT[there_AT]),
        "smoothness": smoothness
        * (abnormal_AT[there_AT].diff().square().sum() if paired else roughness(abnormal_AT, there_AT)),
    }


def separation(abnormal_A: Tensor, normal_N: Tensor, *, margin: float, paired: bool) -> Tensor:
    """Mean square of what an abnormal row lacks to the margin plus what a normal row is long.

    >>> separation(torch.zeros(2), torch.zeros(3), margin=100, paired=False)
    tensor(10000.)
    """
    lacking_A = (margin - abnormal_A).abs()
    if not paired:
        return (lacking_A[:, None] + normal_N).square().mean()
    refuse_unequal(abnormal_A, normal_N)
    return (lacking_A + normal_N).square().mean()


def refuse_unequal(abnormal_A: Tensor, normal_N: Tensor) -> None:
    """Raise ValueError unless each abnormal row has a normal partner."""
    if len(abnormal_A) != len(normal_N):
        raise ValueError(
            f"the faithful variant pairs rows one to one, got {len(abnormal_A)} abnormal and {len(normal_N)} normal"
        )


def select(features_VCTD: Tensor, there_VT: Tensor, *, k: int, dropout: float) -> tuple[Tensor, Tensor]:
    """Where the ``k`` longest features of each video are, by mean over crops: places and weights, both (V, K).

    The weights average: 1/k each. A video of fewer than k snippets names its last one again, with weight 0.
    """
    magnitude_VT = torch.linalg.vector_norm(features_VCTD.detach(), dim=-1).mean(1)
    magnitude_VT = F.dropout(magnitude_VT, dropout).masked_fill(~there_VT, -torch.inf)
    order_VT = magnitude_VT.argsort(dim=1, descending=True, stable=True)
    count_V1 = there_VT.sum(1, keepdim=True).clamp(min=1, max=k)
    rank_K = torch.arange(k, device=order_VT.device)
    index_VK = order_VT.gather(1, rank_K.minimum(count_V1 - 1))
    return index_VK, (rank_K < count_V1).to(features_VCTD.dtype) / count_V1


def gather_snippets(features_VCTD: Tensor, index_VK: Tensor) -> Tensor:
    """The named snippets of every crop: (V, C, K, D)."""
    _, crops, _, dim = features_VCTD.shape
    return features_VCTD.gather(2, index_VK[:, None, :, None].expand(-1, crops, -1, dim))
