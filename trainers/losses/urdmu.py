"""Loss of the dual memory head: bags of scores, memories, a triplet of snippets, uncertainty and latent lengths.

Zhou, Yu, Yang. "Dual Memory Units with Uncertainty Regulation for Weakly Supervised Video Anomaly Detection",
AAAI 2023, https://arxiv.org/abs/2302.05160. ``faithful`` repeats the published code, whose divergence is summed over
the snippets of a video and averaged over features; ``fixed`` sums it over features and averages over snippets, as a
divergence of distributions is. Both differ in what equal numbers of full bags hide: parts are means over videos of
means over existing snippets, and when a batch holds more videos of one kind, those of the other take turns as their
partners.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.losses import Parts
from vad.heads.urdmu import UrDmuOutput
from vad.weak import Variant, existing, top_mean


def loss(
    output: UrDmuOutput,
    labels_V: Tensor,
    *,
    crops: int = 1,
    lengths_B: Tensor | None = None,
    variant: Variant = "fixed",
    memory: float = 0.1,
    triplet: float = 0.1,
    divergence: float = 1e-3,
    distance: float = 1e-4,
) -> Parts:
    """Parts ``bag``, ``memory``, ``triplet``, ``divergence`` and ``distance``, with these weights.

    ``labels_V`` is True for abnormal videos, of which ``crops`` rows of the output each are bags of their own;
    ``lengths_B`` is as the head got it. A bag is judged by its highest sixteenth of snippets and one more. Raises
    ValueError for a batch with one kind of video only.
    """
    abnormal_B = labels_V.bool().repeat_interleave(crops)
    normal_B = ~abnormal_B
    if abnormal_B.all() or normal_B.all():
        raise ValueError("a batch needs abnormal and normal videos, got one kind only")
    there_BT = existing(lengths_B, output.scores_BT)
    k_B = there_BT.sum(1) // 16 + 1
    scores_BT = torch.where(abnormal_B[:, None], output.scores_BT, output.sampled_scores_BT)
    bag_B = top_mean(scores_BT, there_BT, k_B)

    # what stands for a video in the triplet and the distance: its snippets most like one of the memories
    like_normal_BT = top(output.normal_BT, there_BT, k_B)
    like_abnormal_BT = top(output.abnormal_BT, there_BT, k_B)
    first, second = partners(abnormal_B)
    anchor_PE = mean_of(output.hidden_BTE, like_normal_BT)[second]
    positive_PE = mean_of(output.hidden_BTE, like_normal_BT)[first]
    negative_PE = mean_of(output.hidden_BTE, like_abnormal_BT)[first]
    abnormal_PE = mean_of(output.abnormal_latent_BTE, like_abnormal_BT)[first]
    normal_PE = mean_of(output.normal_latent_BTE, like_normal_BT)[second]
    return {
        "bag": F.binary_cross_entropy(bag_B, abnormal_B.to(bag_B.dtype)),
        "memory": memory * memories(output, abnormal_B, there_BT, k_B),
        "triplet": triplet * closer(anchor_PE, positive_PE, negative_PE),
        "divergence": divergence
        * uncertainty(
            output.normal_mean_BTE[normal_B], output.normal_logvar_BTE[normal_B], there_BT[normal_B], variant=variant
        ),
        "distance": distance * lengths_apart(abnormal_PE, normal_PE),
    }


def memories(output: UrDmuOutput, abnormal_B: Tensor, there_BT: Tensor, k_B: Tensor) -> Tensor:
    """Cross-entropies of the likeness to each memory.

    Some of an abnormal video is like the abnormal memory and some is unlike the normal one; all of a normal video is
    like the normal memory and unlike the abnormal one.
    """
    normal_B = ~abnormal_B
    found_B = top_mean(output.abnormal_BT, there_BT, k_B)[abnormal_B]
    unlike_B = top_mean(1 - output.normal_BT, there_BT, k_B)[abnormal_B]
    there_NT = there_BT[normal_B]
    known_NT, alien_NT = output.normal_BT[normal_B], output.abnormal_BT[normal_B]
    known_NT = F.binary_cross_entropy(known_NT, torch.ones_like(known_NT), reduction="none")
    alien_NT = F.binary_cross_entropy(alien_NT, torch.zeros_like(alien_NT), reduction="none")
    return (
        F.binary_cross_entropy(found_B, torch.ones_like(found_B))
        + F.binary_cross_entropy(unlike_B, torch.ones_like(unlike_B))
        + mean_of((known_NT + alien_NT)[..., None], there_NT).mean()
    )


def uncertainty(mean_BTE: Tensor, logvar_BTE: Tensor, there_BT: Tensor, *, variant: Variant = "fixed") -> Tensor:
    """Divergence of the readouts' normal distributions from the standard one.

    ``fixed`` sums over features and averages over snippets; ``faithful`` sums over snippets and averages over features.

    >>> ones, there = torch.ones(1, 200, 512), torch.ones(1, 200, dtype=torch.bool)
    >>> uncertainty(ones, 0 * ones, there).item(), uncertainty(ones, 0 * ones, there, variant="faithful").item()
    (256.0, 100.0)
    """
    each_BTE = (mean_BTE.square() + logvar_BTE.exp() - 1 - logvar_BTE) / 2
    if variant == "faithful":
        return each_BTE.masked_fill(~there_BT[..., None], 0).sum(1).mean()
    return mean_of(each_BTE, there_BT).sum(-1).mean()


def closer(anchor_PE: Tensor, positive_PE: Tensor, negative_PE: Tensor, *, margin: float = 1.0) -> Tensor:
    """Hinge on how much nearer the anchor is to the positive than to the negative, all scaled to length 1."""
    anchor_PE, positive_PE, negative_PE = (F.normalize(x, dim=-1) for x in (anchor_PE, positive_PE, negative_PE))
    return F.triplet_margin_loss(anchor_PE, positive_PE, negative_PE, margin=margin)


def lengths_apart(abnormal_PE: Tensor, normal_PE: Tensor, *, margin: float = 100.0) -> Tensor:
    """Hinge on how much longer the abnormal latents are than the normal ones.

    >>> lengths_apart(torch.zeros(2, 8), torch.zeros(2, 8))
    tensor(100.)
    """
    return (margin - abnormal_PE.norm(dim=-1) + normal_PE.norm(dim=-1)).clamp_min(0).mean()


def partners(abnormal_B: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of abnormal and of normal videos, paired in order; the fewer ones take turns.

    >>> partners(torch.tensor([False, True, True, True, False]))
    (tensor([1, 2, 3]), tensor([0, 4, 0]))
    """
    first, second = abnormal_B.nonzero()[:, 0], (~abnormal_B).nonzero()[:, 0]
    turn = torch.arange(max(len(first), len(second)), device=abnormal_B.device)
    return first[turn % len(first)], second[turn % len(second)]


def top(values_BT: Tensor, there_BT: Tensor, k_B: Tensor) -> Tensor:
    """(B, T) True at the ``k_B`` highest existing values of each row.

    >>> top(torch.tensor([[0.1, 0.9, 0.5]]), torch.tensor([[True, True, True]]), torch.tensor([2]))
    tensor([[False,  True,  True]])
    """
    order_BT = values_BT.masked_fill(~there_BT, -torch.inf).argsort(dim=1, descending=True, stable=True)
    rank_BT = order_BT.argsort(dim=1)
    return (rank_BT < k_B[:, None]) & there_BT


def mean_of(values_BTE: Tensor, chosen_BT: Tensor) -> Tensor:
    """Mean over the chosen snippets: (B, T, E) -> (B, E)."""
    return values_BTE.masked_fill(~chosen_BT[..., None], 0).sum(1) / chosen_BT.sum(1)[:, None].clamp_min(1)
