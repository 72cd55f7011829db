"""Loss of the prompt-enhanced head: bags of scores, and likeness of snippets to texts about their class.

Pu, Wu, Yang, Wang. "Learning Prompt-Enhanced Context Features for Weakly-Supervised Video Anomaly Detection", IEEE
TIP 2024, https://arxiv.org/abs/2306.14451. An abnormal video gives two features: its snippets weighted by their
scores, which should be like the text of its class, and weighted the other way, which should be like the text of normal
video; a normal video gives the latter only. Published weights of the text part: 1 (UCF-Crime, XD-Violence),
9 (ShanghaiTech). The published Kullback-Leibler divergence from a one-hot target is written as what it is, the
cross-entropy. Differs from the paper: what stands behind a video's length has no weight.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.losses import Parts
from vad.heads.pel4vad import Pel4VadOutput
from vad.weak import Variant, existing, top_mean


def loss(
    output: Pel4VadOutput,
    labels_V: Tensor,
    *,
    crops: int = 1,
    lengths_B: Tensor | None = None,
    variant: Variant = "fixed",
    texts_CE: Tensor | None = None,
    classes_V: Tensor | None = None,
    text: float = 1.0,
) -> Parts:
    """Part ``bag``, and ``text`` with its weight when there are texts.

    ``labels_V`` is True for abnormal videos, of which ``crops`` rows of the output each are bags of their own;
    ``lengths_B`` is as the head got it. ``texts_CE`` has one embedding per class, normal video first; ``classes_V`` is
    each video's row in it. ``variant`` is there for a common signature: both have the same loss. Raises ValueError for
    texts without classes and the reverse, for texts of another width, and for classes that are not rows of the texts
    or contradict the labels.
    """
    labels_B = labels_V.bool().repeat_interleave(crops)
    there_BT = existing(lengths_B, output.scores_BT)
    k_B = torch.where(labels_B, there_BT.sum(1) // 16 + 1, 1)
    bag_B = top_mean(output.scores_BT, there_BT, k_B)
    parts = {"bag": F.binary_cross_entropy(bag_B, labels_B.to(bag_B.dtype))}
    if (texts_CE is None) != (classes_V is None):
        raise ValueError("texts_CE and classes_V go together, got one of them only")
    if texts_CE is not None and classes_V is not None:
        classes_B = classes_V.repeat_interleave(crops)
        _check(texts_CE, classes_B, labels_B, width=output.visual_BTE.shape[-1])
        parts["text"] = text * alignment(output, labels_B, there_BT, texts_CE, classes_B)
    return parts


def alignment(output: Pel4VadOutput, labels_B: Tensor, there_BT: Tensor, texts_CE: Tensor, classes_B: Tensor) -> Tensor:
    """Cross-entropy of the likeness to each text, over the features of all videos."""
    abnormal_BE = weighted(output.visual_BTE, output.scores_BT, there_BT)[labels_B]
    normal_BE = weighted(output.visual_BTE, 1 - output.scores_BT, there_BT)
    features_FE = F.normalize(torch.cat([abnormal_BE, normal_BE]), dim=-1)
    likeness_FC = output.inverse_temperature * features_FE @ F.normalize(texts_CE.to(features_FE.dtype), dim=-1).T
    return F.cross_entropy(likeness_FC, torch.cat([classes_B[labels_B], torch.zeros_like(classes_B)]))


def weighted(visual_BTE: Tensor, scores_BT: Tensor, there_BT: Tensor, *, sharpness: float = 10.0) -> Tensor:
    """Mean of the existing snippets, each weighted by exp(sharpness · score) - 1: (B, T, E) -> (B, E)."""
    weights_BT = (sharpness * scores_BT).expm1().masked_fill(~there_BT, 0)
    return (F.normalize(weights_BT, p=1, dim=1)[:, None] @ visual_BTE)[:, 0]


def _check(texts_CE: Tensor, classes_B: Tensor, labels_B: Tensor, *, width: int) -> None:
    if texts_CE.ndim != 2 or texts_CE.shape[1] != width:
        raise ValueError(f"texts_CE must be (C, {width}), as the head's text_width, got {tuple(texts_CE.shape)}")
    if classes_B.min() < 0 or classes_B.max() >= len(texts_CE):
        raise ValueError(f"classes_B must be rows of texts_CE, 0 to {len(texts_CE) - 1}, got {classes_B.tolist()}")
    if ((classes_B > 0) != labels_B).any():
        raise ValueError("classes_B must be 0 for normal videos and above for abnormal ones, as labels_B says")
