"""Loss of multiple-instance logistic regression.

Ray, Craven. "Supervised versus Multiple Instance Learning: An Empirical Comparison", ICML 2005: the cross-entropy of a
bag's probability, here that of its highest snippet; and the squared weights, which few videos need.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from trainers.losses import Parts
from vad.heads.linear import Linear
from vad.weak import Variant, WeakOutput, existing


def loss(
    output: WeakOutput,
    labels_V: Tensor,
    *,
    crops: int = 1,
    lengths_B: Tensor | None = None,
    variant: Variant = "fixed",
) -> Parts:
    """Part ``bag``. ``labels_V`` is True for abnormal videos, of which ``crops`` rows each count by their mean.

    ``lengths_B`` is as the head got it; ``variant`` is there for a common signature.
    """
    scores_VT = output.scores_BT.unflatten(0, (-1, crops)).mean(1)
    there_VT = existing(None if lengths_B is None else lengths_B[::crops], scores_VT)
    highest_V = scores_VT.masked_fill(~there_VT, 0).amax(1)
    return {"bag": F.binary_cross_entropy(highest_V, labels_V.to(highest_V.dtype))}


def weight_l2(head: Linear, *, weight: float = 1.0) -> Tensor:
    """Squared weights times ``weight``, to be added to the loss; the bias is free."""
    return weight * head.layer.weight.square().sum()
