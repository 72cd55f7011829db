"""Loss of the magnitude-contrastive glance-and-focus network.

Chen, Liu, Zhang, Fok, Qi, Wu. "MGFN: Magnitude-Contrastive Glance-and-Focus Network for Weakly-Supervised Video
Anomaly Detection", AAAI 2023, https://arxiv.org/abs/2211.15098. A row's magnitudes are the L1 lengths of its k chosen
features; rows of one class are drawn together, rows of different classes pushed to a margin.

``faithful`` repeats the authors' training: the i-th abnormal row meets the i-th normal row only, the first half of a
class its second half only, and sparsity acts on the normal videos. ``fixed`` contrasts all pairs, as the paper
writes, and puts sparsity on the abnormal videos, where it keeps anomalies short; a batch may hold unequal numbers of
the two classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.losses import Parts
from trainers.losses.mil import refuse_one_kind, roughness
from trainers.losses.rtfm import gather_snippets, refuse_unequal, select
from vad.heads.mgfn import MgfnOutput
from vad.weak import Variant, existing


def loss(
    output: MgfnOutput,
    labels_V: Tensor,
    *,
    crops: int = 1,
    lengths_B: Tensor | None = None,
    variant: Variant = "fixed",
    k: int = 3,
    selection_dropout: float = 0.7,
    margin: float = 200.0,
    contrast: float = 1e-6,
    within: float = 1e-3,
    sparsity: float = 8e-3,
    smoothness: float = 8e-4,
) -> Parts:
    """Parts ``classification``, ``contrast``, ``within_abnormal``, ``within_normal``, ``sparsity``, ``smoothness``.

    ``labels_V`` is True for the abnormal ones of V videos; ``crops`` rows of the output belong to each video, one
    after the other; ``lengths_B`` is as the head got it. ``selection_dropout`` hides that share of the snippets from
    the choice of the ``k`` a video is judged by; give 0 outside training. Raises ValueError: one class only, or in
    ``faithful`` unequal numbers of the two or an odd number of rows.
    """
    refuse_one_kind(labels_V)
    scores_VT = output.scores_BT.unflatten(0, (-1, crops)).mean(1)
    features_VCTE = output.features_BTE.unflatten(0, (-1, crops))
    there_VT = existing(None if lengths_B is None else lengths_B[::crops], scores_VT)
    index_VK, weight_VK = select(features_VCTE, there_VT, k=k, dropout=selection_dropout)
    judged_V = (scores_VT.gather(1, index_VK) * weight_VK).sum(1)
    magnitude_VCK = gather_snippets(features_VCTE, index_VK).abs().sum(-1)
    abnormal_AK, normal_NK = magnitude_VCK[labels_V].flatten(0, 1), magnitude_VCK[~labels_V].flatten(0, 1)
    if variant == "faithful":
        refuse_unequal(abnormal_AK, normal_NK)
        apart = short_of(F.pairwise_distance(abnormal_AK, normal_NK), margin).mean()
        spread_abnormal, spread_normal = between_halves(abnormal_AK), between_halves(normal_NK)
        sparse_V = ~labels_V
    else:
        apart = short_of(F.pairwise_distance(abnormal_AK[:, None], normal_NK[None]), margin).mean()
        spread_abnormal, spread_normal = between_all(abnormal_AK), between_all(normal_NK)
        sparse_V = labels_V
    return {
        "classification": F.binary_cross_entropy(judged_V, labels_V.to(judged_V.dtype)),
        "contrast": contrast * apart,
        "within_abnormal": within * spread_abnormal,
        "within_normal": within * spread_normal,
        "sparsity": sparsity * torch.linalg.vector_norm(scores_VT[sparse_V][there_VT[sparse_V]]),
        "smoothness": smoothness * roughness(scores_VT, there_VT),
    }


def short_of(distance: Tensor, margin: float) -> Tensor:
    """Square of what each distance lacks to the margin."""
    return (margin - distance).clamp_min(0).square()


def between_halves(rows_NK: Tensor) -> Tensor:
    """Mean squared distance from each row of the first half to its partner in the second.

    >>> between_halves(torch.tensor([[1.0], [2.0], [1.0], [4.0]]))
    tensor(2.)
    """
    if len(rows_NK) % 2:
        raise ValueError(f"the faithful variant compares two halves of a class, got {len(rows_NK)} rows")
    first_HK, second_HK = rows_NK.chunk(2)
    return (first_HK - second_HK).square().sum(1).mean()


def between_all(rows_NK: Tensor) -> Tensor:
    """Mean squared distance over all pairs of different rows; 0 where there is one row only.

    >>> between_all(torch.tensor([[0.0], [1.0], [3.0]]))
    tensor(4.6667)
    """
    count = len(rows_NK)
    squared_NN = (rows_NK[:, None] - rows_NK[None]).square().sum(-1)
    return squared_NN.sum() / max(1, count * (count - 1))
