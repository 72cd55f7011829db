"""Two branches over one view of the video: a classifier of anomaly, and likeness to a text per class.

Wu, Zhou, Pang, Zhou, Yan, Wang, Zhang. "VadCLIP: Adapting Vision-Language Models for Weakly Supervised Video Anomaly
Detection", AAAI 2024, https://arxiv.org/abs/2308.11681. Optional reconstruction from prototypes of normal video, and
the text adapter: DSANet, AAAI 2026, https://arxiv.org/abs/2511.10334. Published settings: UCF-Crime as the defaults,
with its 14 ``classes``; XD-Violence ``window`` 64, ``layers`` 1, ``score`` text and seven ``classes``. DSANet
``prototypes`` 16 and ``adapter_mix`` 0.1 (UCF-Crime) or 0.6 (XD-Violence); ``adapter_mix`` 0 is VadCLIP.

``faithful`` cuts the video into blocks, gives each place of a block a learned position and local attention its window
of the block, and lets graphs and the video's summary see the whole block. As in the published code, zeros that fill
the last window up are seen by attention; here there are as many however far the caller pads. ``fixed`` differs:

- No positions, since a stream has no first snippet. Attention sees the last ``window`` snippets, graphs the last
  ``block``, and each snippet has texts of its own, changed by the summary of the last ``block`` snippets up to it. That
  costs one pass of dense layers per snippet and class, where ``faithful`` needs one per block and class.
- Prototypes are learned and the same for all videos; ``faithful`` gathers those of a block from its least anomalous
  snippets, which in a stream would make the measure of normality drift with what was just seen.

Only ``faithful`` has positions and the attention that gathers, so weights of one variant do not fit the other.

Both variants differ from the papers:

- Texts come from outside and are kept in the weights, so that no text encoder is needed;
  ``trainers.losses.dual_branch.Prompts`` makes them from learnable prompts. They are scaled to one length, since text
  encoders differ in it and the summary has length 1; ``text_length`` null keeps them as they are.
- The adapter changes the embedding of a class, not the first layers of the encoder.
- With ``texts`` learned there is no text: embeddings are parameters that start in random directions at right angles,
  for features that no text encoder matches. Features of another ``dim`` than ``width`` are projected.
- In fresh weights attention and graphs add nothing, so that learning starts from single snippets; otherwise each
  snippet knows from its neighbours what happens in its video, and labels of videos do not tell it where.
- Where our sources leave a size open we chose: two layers per graph, each half as wide as the network and with a linear
  map of the snippet itself; decoder layers that do not add their input, so that it cannot pass unchanged.
- DSANet's contrast of events with background is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from vad.weak import WeakHead, WeakHeadSettings, WeakOutput, existing

ALIKE = 0.7  # cosine from which two snippets are neighbours
CALM = 0.8  # least anomalous share of the snippets, which stands for normal video


class Settings(WeakHeadSettings):
    """Sizes; the defaults are VadCLIP's for UCF-Crime, but for its classes."""

    kind: Literal["dual_branch"] = "dual_branch"
    dim: int = Field(512, ge=1, description="values per feature row")
    classes: tuple[str, ...] = Field(("normal", "abnormal"), min_length=2, description="names, normal video first")
    texts: Literal["given", "learned"] = Field(
        "learned", description="class embeddings from a text encoder, or parameters that start at random"
    )
    score: Literal["binary", "text"] = Field("binary", description="branch that scores: text is 1 - p(normal)")
    width: int = Field(512, ge=2, description="values per snippet inside, where it is compared with texts")
    text_width: int = Field(512, ge=1, description="values per given text; other than width, they are projected")
    text_length: float | None = Field(
        10.0, gt=0, description="length of texts, next to a summary of length 1; null leaves given ones as they are"
    )
    adapter_mix: float = Field(0.1, ge=0, le=1, description="share of the adapter in a given text; 0 leaves it plain")
    window: int = Field(8, ge=1, description="snippets that local attention sees")
    layers: int = Field(2, ge=1, description="of local attention")
    attention_heads: int = Field(1, ge=1)
    expansion: int = Field(4, ge=1, description="hidden values per value of dense blocks; fixed has one per text too")
    temperature: float = Field(0.07, gt=0, description="that likeness to texts is divided by")
    block: int = Field(256, ge=1, description="snippets that graphs and the summary see: a block, or the past (fixed)")
    prototypes: int | None = Field(None, ge=1, description="of normal video, for reconstruction; null leaves it out")
    decoder_layers: int = Field(8, ge=1, description="of the reconstruction")

    @model_validator(mode="after")
    def _sizes_fit(self) -> Settings:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes must have different names, got {self.classes}")
        if self.width % self.attention_heads:
            raise ValueError(f"width must be a multiple of attention_heads {self.attention_heads}, got {self.width}")
        if self.window > self.block:
            raise ValueError(f"window must be at most block {self.block}, got {self.window}")
        return self

    def build(self) -> DualBranch:
        """A head with fresh weights, in which neither attention nor graphs add anything yet."""
        return DualBranch(self)


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """How well prototypes of normal video explain the snippets; 0 where there is no snippet."""

    errors_BT: Tensor  # half the cosine distance to what the prototypes make of the snippet, in [0, 1]
    distances_BT: Tensor  # cosine distance to the nearest prototype, in [0, 2]
    prototypes_BNPE: Tensor  # of each of N blocks; fixed has one set


@dataclass(frozen=True, slots=True)
class DualBranchOutput(WeakOutput):
    """Scores, and what both branches say; values of snippets are 0 where there is none."""

    class_scores_BTC: Tensor  # sum to 1 over classes, of which the first is normal
    class_logits_BTC: Tensor  # cosine of snippet and text over the temperature
    logits_BT: Tensor  # of the classifier; their sigmoid is the score when ``score`` is binary
    texts_CE: Tensor  # before the video changes them
    reconstruction: Reconstruction | None = None


class DualBranch(WeakHead[DualBranchOutput]):
    """Local attention, two graphs, then a classifier and texts."""

    settings: Settings
    texts_CE: Tensor

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.faithful = settings.variant == "faithful"
        width, half = settings.width, settings.width // 2
        self.embed = nn.Identity() if settings.dim == width else nn.Linear(settings.dim, width)
        self.place_TE = nn.Parameter(0.02 * torch.randn(settings.block, width)) if self.faithful else None
        self.layers = nn.ModuleList(Layer(settings) for _ in range(settings.layers))
        self.alike = nn.ModuleList([Graph(width, half), Graph(half, half)])
        self.near = nn.ModuleList([Graph(width, half), Graph(half, half)])
        self.join = nn.Linear(2 * half, width)
        self.dense = dense(settings)
        self.classify = nn.Linear(width, 1)
        self.text_dense = dense(settings)
        self.adapter: nn.Module = nn.Identity()
        if settings.texts == "learned":
            texts_CE = nn.init.orthogonal_(torch.empty(len(settings.classes), width), gain=settings.text_length or 1.0)
            self.texts_CE = nn.Parameter(texts_CE)
        else:
            self.adapter = Adapter(settings)
            self.register_buffer("texts_CE", torch.full((len(settings.classes), settings.text_width), torch.nan))
        self.reconstruct = None if settings.prototypes is None else Reconstruct(settings, settings.prototypes)

    @property
    def receptive(self) -> int | None:
        """The reach of attention, graphs and summary, each from where the next begins."""
        settings = self.settings
        if self.faithful:
            return None
        return 1 + settings.layers * (settings.window - 1) + (len(self.alike) + 1) * (settings.block - 1)

    def give_texts(self, texts_CE: Tensor) -> None:
        """Keep the embeddings of the classes (C, text_width), normal video first, in the weights.

        Raises ValueError for another shape, and for a head whose texts are learned.
        """
        if self.settings.texts == "learned":
            raise ValueError("this head learns its class embeddings; build it with texts: given")
        self._check(texts_CE)
        self.texts_CE.copy_(texts_CE.detach())

    def forward(
        self, features_BTD: Tensor, lengths_B: Tensor | None = None, *, texts_CE: Tensor | None = None
    ) -> DualBranchOutput:
        """Score the snippets (B, T, D) of B videos or crops.

        ``texts_CE``, of prompts in training, stands in for the head's own texts. Raises ValueError when there are none.
        """
        there_BT = existing(lengths_B, features_BTD[..., 0])
        rows_BTD = features_BTD.masked_fill(~there_BT[..., None], 0)
        texts_CE = self._texts(texts_CE)

        # from here on N blocks of all videos, which in fixed are the videos
        size = self._block(there_BT.shape[1])
        there_NT = blocks(there_BT, size)
        rows_NTE, seen_NTT = self._context(self.embed(blocks(rows_BTD, size)), there_NT)
        logits_NT = self.classify(rows_NTE + self.dense(rows_NTE))[..., 0]
        class_logits_NTC = self._likeness(rows_NTE, self._summary(rows_NTE, logits_NT, seen_NTT), texts_CE)
        explained = None
        if self.reconstruct is not None:
            prototypes_NPE, errors_NT, distances_NT = self.reconstruct(rows_NTE, logits_NT, there_NT)
            explained = Reconstruction(
                videos(errors_NT, there_BT),
                videos(distances_NT, there_BT),
                prototypes_NPE.unflatten(0, (len(rows_BTD), -1)),
            )
        logits_BT, class_logits_BTC = videos(logits_NT, there_BT), videos(class_logits_NTC, there_BT)
        class_scores_BTC = class_logits_BTC.softmax(-1).masked_fill(~there_BT[..., None], 0)
        scores_BT = logits_BT.sigmoid() if self.settings.score == "binary" else 1 - class_scores_BTC[..., 0]
        return DualBranchOutput(
            scores_BT.masked_fill(~there_BT, 0), class_scores_BTC, class_logits_BTC, logits_BT, texts_CE, explained
        )

    def _texts(self, texts_CE: Tensor | None) -> Tensor:
        if texts_CE is None and self.settings.texts == "given" and self.texts_CE.isnan().any():
            raise ValueError("the head has no class texts yet; call give_texts, or build it with texts: learned")
        if texts_CE is not None:
            self._check(texts_CE)
        return self.adapter(self.texts_CE if texts_CE is None else texts_CE)

    def _check(self, texts_CE: Tensor) -> None:
        if texts_CE.shape != self.texts_CE.shape:
            raise ValueError(f"texts_CE must be {tuple(self.texts_CE.shape)}, got {tuple(texts_CE.shape)}")

    def _block(self, count: int) -> int:
        """Snippets of a block: all of the video, or as many as fill the windows of a short one."""
        if not self.faithful:
            return count
        window = self.settings.window
        return min(self.settings.block, -(-count // window) * window)

    def _context(self, rows_NTE: Tensor, there_NT: Tensor) -> tuple[Tensor, Tensor]:
        """Rows that know their neighbours, and (N, T, T) True where the first snippet may look at the second."""
        at_T = torch.arange(rows_NTE.shape[1], device=rows_NTE.device)
        behind_TT = at_T[:, None] - at_T
        if self.place_TE is not None:
            rows_NTE = rows_NTE + self.place_TE[: len(at_T)]
            local_TT = (at_T[:, None] // self.settings.window) == (at_T // self.settings.window)
            seen_NTT = there_NT[:, None].expand(-1, len(at_T), -1)
        else:
            local_TT = (behind_TT >= 0) & (behind_TT < self.settings.window)
            seen_NTT = ((behind_TT >= 0) & (behind_TT < self.settings.block)).expand(len(rows_NTE), -1, -1)
        for layer in self.layers:
            rows_NTE = layer(rows_NTE, local_TT)

        alike_NTT, near_NTT = alike(rows_NTE, seen_NTT), near(behind_TT, seen_NTT, kind=rows_NTE.dtype)
        alike_NTE = near_NTE = rows_NTE
        for alike_graph, near_graph in zip(self.alike, self.near, strict=True):
            alike_NTE, near_NTE = alike_graph(alike_NTE, alike_NTT), near_graph(near_NTE, near_NTT)
        return self.join(torch.cat([alike_NTE, near_NTE], dim=-1)), seen_NTT

    def _summary(self, rows_NTE: Tensor, logits_NT: Tensor, seen_NTT: Tensor) -> Tensor:
        """Direction of what is seen, weighted by how anomalous it is: (N, S, E), S snippets or 1 for the block."""
        views_NST = seen_NTT[:, :1] if self.faithful else seen_NTT
        return F.normalize(views_NST.to(rows_NTE.dtype) @ (logits_NT[..., None] * rows_NTE), dim=-1)

    def _likeness(self, rows_NTE: Tensor, summary_NSE: Tensor, texts_CE: Tensor) -> Tensor:
        """Cosine to the texts that the summary has changed, over the temperature: (N, T, C)."""
        texts_NSCE = texts_CE + summary_NSE[:, :, None]
        texts_NSCE = F.normalize(texts_NSCE + self.text_dense(texts_NSCE), dim=-1)
        rows_NSGE = F.normalize(rows_NTE, dim=-1).unflatten(1, (summary_NSE.shape[1], -1))  # G rows share a summary
        return (rows_NSGE @ texts_NSCE.transpose(2, 3)).flatten(1, 2) / self.settings.temperature


class Attention(nn.Module):
    """Rows look at others, or at themselves."""

    def __init__(self, width: int, attention_heads: int) -> None:
        super().__init__()
        self.attention_heads = attention_heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, rows_NTE: Tensor, others_NSE: Tensor, seen: Tensor | None = None) -> Tensor:
        """(N, T, E) from (N, S, E), of which ``seen`` (…, T, S) is True where a row may look."""
        parts = self.query(rows_NTE), self.key(others_NSE), self.value(others_NSE)
        query, key, value = (part.unflatten(-1, (self.attention_heads, -1)).transpose(1, 2) for part in parts)
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        return self.out(found.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Pre-norm transformer layer."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(settings.width)
        self.attention = Attention(settings.width, settings.attention_heads)
        nn.init.zeros_(self.attention.out.weight)
        nn.init.zeros_(self.attention.out.bias)
        self.dense = nn.Sequential(nn.LayerNorm(settings.width), dense(settings))

    def forward(self, rows_NTE: Tensor, seen_TT: Tensor) -> Tensor:
        """(N, T, E) -> (N, T, E)."""
        normed_NTE = self.norm(rows_NTE)
        rows_NTE = rows_NTE + self.attention(normed_NTE, normed_NTE, seen_TT)
        return rows_NTE + self.dense(rows_NTE)


class Graph(nn.Module):
    """Sum over neighbours, and a linear map of the snippet itself."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.others = nn.Linear(dim, out, bias=False)
        self.own = nn.Linear(dim, out)
        nn.init.zeros_(self.others.weight)

    def forward(self, rows_NTE: Tensor, weights_NTT: Tensor) -> Tensor:
        """(N, T, E) -> (N, T, C)."""
        return F.gelu(weights_NTT @ self.others(rows_NTE) + self.own(rows_NTE))


class Adapter(nn.Module):
    """Given texts in the network's width and of one length, with a share of a small network's opinion."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        width, inner = settings.width, max(settings.width // 4, 1)
        self.mix, self.length = settings.adapter_mix, settings.text_length
        self.project = nn.Identity() if settings.text_width == width else nn.Linear(settings.text_width, width)
        self.change = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width)) if self.mix else None

    def forward(self, texts_CE: Tensor) -> Tensor:
        """(C, text_width) -> (C, E)."""
        texts_CE = self.project(texts_CE)
        if self.length is not None:
            texts_CE = self.length * F.normalize(texts_CE, dim=-1)
        return texts_CE if self.change is None else torch.lerp(texts_CE, self.change(texts_CE), self.mix)


class Reconstruct(nn.Module):
    """Snippets made of prototypes of normal video."""

    def __init__(self, settings: Settings, prototypes: int) -> None:
        super().__init__()
        width, heads = settings.width, settings.attention_heads
        self.prototypes_PE = nn.Parameter(torch.randn(prototypes, width) / math.sqrt(width))
        self.gather = Attention(width, heads) if settings.variant == "faithful" else None
        self.attend = nn.ModuleList(Attention(width, heads) for _ in range(settings.decoder_layers))
        self.dense = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), dense(settings)) for _ in range(settings.decoder_layers)
        )

    def forward(self, rows_NTE: Tensor, logits_NT: Tensor, there_NT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Prototypes (N, P, E), errors (N, T) and distances (N, T)."""
        prototypes_NPE = self.prototypes_PE.expand(len(rows_NTE), -1, -1)
        if self.gather is not None:
            prototypes_NPE = self.gather(prototypes_NPE, rows_NTE, calmest(logits_NT, there_NT)[:, None, None])
        made_NTE = rows_NTE
        for attend, change in zip(self.attend, self.dense, strict=True):
            made_NTE = attend(made_NTE, prototypes_NPE)  # nothing of the snippet but where it looks
            made_NTE = made_NTE + change(made_NTE)
        return prototypes_NPE, error(rows_NTE, made_NTE), distance(rows_NTE, prototypes_NPE)


def dense(settings: Settings) -> nn.Sequential:
    """Two layers per row."""
    inner = settings.expansion * settings.width
    return nn.Sequential(nn.Linear(settings.width, inner), nn.GELU(), nn.Linear(inner, settings.width))


def blocks(values_BT: Tensor, size: int) -> Tensor:
    """Consecutive blocks of all videos, the last of each filled up with zeros: (B, T, …) -> (N, size, …).

    >>> blocks(torch.tensor([[1, 2, 3], [4, 5, 6]]), 2).tolist()
    [[1, 2], [3, 0], [4, 5], [6, 0]]
    """
    lack = -values_BT.shape[1] % size
    filled_BT = torch.cat([values_BT, values_BT.new_zeros(len(values_BT), lack, *values_BT.shape[2:])], dim=1)
    return filled_BT.unflatten(1, (-1, size)).flatten(0, 1)


def videos(values_NT: Tensor, there_BT: Tensor) -> Tensor:
    """Blocks put together again, 0 where there is no snippet: (N, size, …) -> (B, T, …).

    >>> videos(torch.tensor([[1, 2], [3, 9], [4, 5], [6, 9]]), torch.tensor([[True] * 3, [True, True, False]])).tolist()
    [[1, 2, 3], [4, 5, 0]]
    """
    batch, count = there_BT.shape
    values_BT = values_NT.unflatten(0, (batch, -1)).flatten(1, 2)[:, :count]
    return values_BT.masked_fill(~there_BT.view(batch, count, *[1] * (values_BT.ndim - 2)), 0)


def alike(rows_NTE: Tensor, seen_NTT: Tensor) -> Tensor:
    """Softmax over what is seen of cosines, those up to the threshold taken as 0: (N, T, T).

    >>> rows = torch.tensor([[[1.0, 0.0], [3.0, 4.0], [4.0, 3.0]]])
    >>> alike(rows, torch.ones(1, 3, 3, dtype=torch.bool))[0, 0]  # cosines 1, 0.6 and 0.8
    tensor([0.4573, 0.1682, 0.3744])
    """
    units_NTE = F.normalize(rows_NTE, dim=-1)
    cosine_NTT = units_NTE @ units_NTE.transpose(1, 2)
    cosine_NTT = cosine_NTT.where(cosine_NTT > ALIKE, 0)
    return cosine_NTT.masked_fill(~seen_NTT, torch.finfo(cosine_NTT.dtype).min).softmax(-1)


def near(behind_TT: Tensor, seen_NTT: Tensor, *, kind: torch.dtype = torch.float32) -> Tensor:
    """Weights exp(-distance / e) of what is seen: (N, T, T).

    >>> near(torch.tensor([[0, -1], [1, 0]]), torch.ones(1, 2, 2, dtype=torch.bool).tril())
    tensor([[[1.0000, 0.0000],
             [0.6922, 1.0000]]])
    """
    return (-behind_TT.abs().to(kind) / math.e).exp() * seen_NTT


def calmest(logits_NT: Tensor, there_NT: Tensor, *, share: float = CALM) -> Tensor:
    """(N, T) True for the least anomalous share of the existing snippets, at least one; all where none exists.

    >>> logits = torch.tensor([[3.0, 1.0, 5.0, 2.0, 4.0, 0.0]])
    >>> calmest(logits, torch.tensor([[True, True, True, True, True, False]])).int().tolist()
    [[1, 1, 0, 1, 1, 0]]
    """
    rank_NT = logits_NT.masked_fill(~there_NT, torch.inf).argsort(dim=1, stable=True).argsort(dim=1)
    count_N1 = there_NT.sum(1, keepdim=True)
    return torch.where(count_N1 > 0, rank_NT < (share * count_N1).long().clamp(min=1), True)


def error(rows_NTE: Tensor, made_NTE: Tensor) -> Tensor:
    """Half the cosine distance, in [0, 1].

    >>> error(torch.tensor([1.0, 0.0]), torch.tensor([[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    return ((1 - F.cosine_similarity(rows_NTE, made_NTE, dim=-1)) / 2).clamp(0, 1)


def distance(rows_NTE: Tensor, prototypes_NPE: Tensor) -> Tensor:
    """Cosine distance to the nearest prototype, in [0, 2]: (N, T).

    >>> distance(torch.eye(3)[None], 5 * torch.eye(3)[None, :2])
    tensor([[0., 0., 1.]])
    """
    cosine_NTP = F.normalize(rows_NTE, dim=-1) @ F.normalize(prototypes_NPE, dim=-1).transpose(1, 2)
    return 1 - cosine_NTP.amax(-1)
