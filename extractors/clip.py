"""CLIP and SigLIP: single pictures in a space that they share with words.

Radford et al. "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
https://arxiv.org/abs/2103.00020. Zhai et al. "Sigmoid Loss for Language Image Pre-Training", ICCV 2023,
https://arxiv.org/abs/2303.15343, and SigLIP 2 at fixed resolution, which has the same architecture. The networks are
those of transformers; any folder or hub id of these types will do (ViT-B/32, B/16, L/14, SigLIP base …).

``pooled`` is the image embedding as the model projects it, not of length 1: published features (VadCLIP, LaGoVAD) are
stored like that, and heads that compare directions normalise anyway. Several frames in a clip give the mean of theirs.

``patches`` is each patch token, projected as the pooled token is. For SigLIP, whose projection is an attention
pooling, that means pooling a patch alone, as in Zhou et al. "Extract Free Dense Labels from CLIP", ECCV 2022,
https://arxiv.org/abs/2112.01071. In ``patches-vv`` a second path begins ``vv_layers`` before the end and adds up the
attention of values to values, which looks at alike places instead of at one global place: Li et al. "CLIP Surgery",
https://arxiv.org/abs/2304.05653, and Deng et al. "AnoVL", https://arxiv.org/abs/2308.15939. Differs from both: no
removal of what all texts share and no adapter tuned on the test picture; those would be a head's work. As in CLIP
Surgery the values come from the unchanged first path, and the second has no feed-forward layers.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from extractors import _hub
from vad.extractor import Extractor, ExtractorSettings, TextTower
from vad.sampling import Resample
from vad.types import Array

Output = Literal["pooled", "patches", "patches-vv"]

# Mean and deviation of pixels where the model's folder states none: OpenAI's, and Google's.
NORMALISATION = {
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "siglip": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
# How published features were made. VadCLIP, https://arxiv.org/abs/2308.11681: CLIP's own preprocessing, except that
# the long side is rounded here and cut off there (320x240: 299 and 298 pixels). LaGoVAD,
# https://arxiv.org/abs/2503.13160: the whole picture squeezed; with which filter is not documented, CLIP's is taken.
PRESETS: dict[str, dict[str, Any]] = {
    "vadclip": {"hop": 16, "resize": 224, "resample": "pillow-bicubic"},
    "lagovad": {"hop": 8, "resize": "stretch", "resample": "pillow-bicubic"},
}
_TEXTS_AT_ONCE = 64


class TruncatedTextWarning(UserWarning):
    """A text was longer than the model reads; the rest of it does not count."""


class Settings(ExtractorSettings):
    """Single pictures: the first frame of each snippet."""

    kind: Literal["clip"] = "clip"
    preset: Literal["vadclip", "lagovad"] | None = Field(
        None, description="defaults of published features for the settings that are not written"
    )
    clip_frames: int = Field(1, ge=1, description="frames in one clip; the feature is their mean")
    clip_at: Literal["end", "start"] = Field("start", description="where in its snippet a clip lies")
    resample: Resample = Field("bicubic", description="filter that scales; pillow's are slow and the field's own")
    model: str = Field("openai/clip-vit-base-patch16", description="hub id, or folder in the hub's format")
    revision: str | None = Field(None, description="the hub's branch, tag or commit")
    sha256: str | None = Field(None, pattern="^[0-9a-fA-F]{64}$", description="pinned digest of the weights")
    output: Output = Field(
        "pooled", description="pooled, or the map of patches; patches-vv attends to alike places, for heat maps"
    )
    vv_layers: int = Field(6, ge=1, description="last layers whose values attend to values in patches-vv")

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: Any) -> Any:
        preset = values.get("preset") if isinstance(values, Mapping) else None
        return {**PRESETS.get(preset, {}), **values} if isinstance(preset, str) else values

    def build(self) -> Extractor:
        """Load weights and compile. Raises WeightsError when there are none."""
        folder = self._folder()
        model = _load(folder)
        vision = model.config.vision_config
        width, height = self.size
        if width % vision.patch_size or height % vision.patch_size:
            raise ValueError(
                f"size must be a multiple of the model's {vision.patch_size}-pixel patches, got {self.size}"
            )
        if self.output == "patches-vv" and self.vv_layers > vision.num_hidden_layers:
            raise ValueError(f"vv_layers must be at most the model's {vision.num_hidden_layers}, got {self.vv_layers}")
        normalise = _hub.Normalise(*folder.normalisation(otherwise=NORMALISATION[folder.model_type]))
        network = Network(
            model,
            normalise,
            grid=(height // vision.patch_size, width // vision.patch_size),
            vv_layers={"pooled": None, "patches": 0, "patches-vv": self.vv_layers}[self.output],
        )
        layers = f"-{self.vv_layers}" if self.output == "patches-vv" else ""
        return Extractor(
            network,
            self,
            dim=_embedding_width(model),
            digest=folder.digest,
            name=f"clip-{self.output}{layers}-{folder.key}",
            normalisation=normalise.formula,
        )

    def build_text(self) -> TextTower:
        """The model's other half; raises WeightsError when there are no weights or no tokenizer."""
        return Words(self._folder(words=True))

    def _folder(self, *, words: bool = False) -> _hub.Folder:
        return _hub.find(self.model, revision=self.revision, sha256=self.sha256, known=NORMALISATION, words=words)


class Network(nn.Module):
    """uint8 clips (B, T, H, W, 3) -> (B, D) embeddings, or (B, h, w, D) maps with a place per patch.

    ``vv_layers``: None for the embedding; for maps the layers of the second path, 0 for a plain map.
    """

    position_PD: Tensor

    def __init__(self, model: Any, normalise: nn.Module, *, grid: tuple[int, int], vv_layers: int | None) -> None:
        super().__init__()
        self.normalise = normalise
        self.grid = grid
        self.vv_layers = vv_layers
        vision = model.vision_model
        is_clip = model.config.model_type == "clip"
        self.patch = vision.embeddings.patch_embedding
        self.token = nn.Parameter(vision.embeddings.class_embedding[None, None]) if is_clip else None
        self.before = vision.pre_layrnorm if is_clip else nn.Identity()
        self.layers = vision.encoder.layers
        self.after = vision.post_layernorm
        self.project = model.visual_projection if is_clip else vision.head
        positions = interpolated(vision.embeddings.position_embedding.weight.detach(), grid, has_token=is_clip)
        self.register_buffer("position_PD", positions, persistent=False)

    def forward(self, clips_BTHWC: Tensor) -> Tensor:
        """Features of each frame, then their mean."""
        batch, frames = clips_BTHWC.shape[:2]
        x = self.patch(self.normalise(clips_BTHWC.flatten(0, 1))).flatten(2).transpose(1, 2)
        if self.token is not None:
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        x = self.before(x + self.position_PD)
        features = self._embedding(x) if self.vv_layers is None else self._map(x, self.vv_layers)
        return features.unflatten(0, (batch, frames)).mean(1)

    def _embedding(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = _apply(layer, x)
        # the same order as published: CLIP cuts its token out first, SigLIP pools what is normalised
        return self.project(self.after(x if self.token is None else x[:, 0]))

    def _map(self, x: Tensor, vv_layers: int) -> Tensor:
        plain = len(self.layers) - vv_layers
        for layer in self.layers[:plain]:
            x = _apply(layer, x)
        seen = x
        for layer in self.layers[plain:]:
            seen = seen + values_to_values(layer.self_attn, layer.layer_norm1(x))
            x = _apply(layer, x)
        if self.token is not None:
            return self.project(self.after(seen[:, 1:])).unflatten(1, self.grid)
        tokens = self.after(seen).flatten(0, 1)
        return self.project(tokens[:, None]).unflatten(0, (-1, *self.grid))  # the pooling sees one token at a time


def _apply(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x, None)


def values_to_values(attention: Any, x_BPD: Tensor) -> Tensor:
    """What an attention layer gives when its values are its queries and keys too: (B, P, D) -> (B, P, D)."""
    values = attention.v_proj(x_BPD).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
    seen = F.scaled_dot_product_attention(values, values, values)
    return attention.out_proj(seen.transpose(1, 2).flatten(2))


def interpolated(position_PD: Tensor, grid: tuple[int, int], *, has_token: bool) -> Tensor:
    """Position embeddings of a square grid of patches for another grid, bicubic: (P, D) -> (1, P', D).

    >>> interpolated(torch.zeros(1 + 7 * 7, 8), (4, 6), has_token=True).shape
    torch.Size([1, 25, 8])
    """
    token, patches = position_PD[: int(has_token)], position_PD[int(has_token) :]
    side = round(len(patches) ** 0.5)
    if grid != (side, side):
        square = patches.unflatten(0, (side, side)).permute(2, 0, 1)[None]
        patches = F.interpolate(square, grid, mode="bicubic", align_corners=False)[0].flatten(1).T
    return torch.cat([token, patches])[None]


class Words:
    """The text tower: words into the space of ``pooled``, rows of length 1."""

    def __init__(self, folder: _hub.Folder) -> None:
        self.digest = folder.digest
        self._tokenizer = _hub.load_tokenizer(folder)
        self._model = _load(folder)
        del self._model.vision_model  # the larger half, which texts do not need
        self._most = self._model.config.text_config.max_position_embeddings
        # SigLIP reads its last token, which in training was padding more often than not
        self._padding: str | bool = "max_length" if folder.model_type == "siglip" else True
        self.dim = _embedding_width(self._model)

    def __call__(self, texts: list[str]) -> Array:
        """float32 (len(texts), dim); warns of texts longer than the model reads (CLIP 77 tokens, SigLIP 64)."""
        rows = np.zeros((len(texts), self.dim), np.float32)
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            part = texts[start : start + _TEXTS_AT_ONCE]
            with torch.inference_mode():
                features = self._model.get_text_features(self._tokens(part)).pooler_output
            rows[start : start + len(part)] = F.normalize(features, dim=-1).numpy()
        return rows

    def _tokens(self, texts: list[str]) -> Tensor:
        if self._padding == "max_length":
            texts = [text.lower() for text in texts]  # as in training; SigLIP 2's tokenizer leaves it to us
        for text, tokens in zip(texts, self._tokenizer(texts)["input_ids"], strict=True):
            if len(tokens) > self._most:
                warnings.warn(
                    f"text of {len(tokens)} tokens cut to the {self._most} that the model reads: {text[:40]!r}…",
                    TruncatedTextWarning,
                    stacklevel=3,
                )
        padded = self._tokenizer(
            texts, padding=self._padding, truncation=True, max_length=self._most, return_tensors="pt"
        )
        return padded["input_ids"]  # the mask is left out: CLIP's is causal, SigLIP was trained without


def _load(folder: _hub.Folder) -> Any:
    import transformers

    return _hub.load({"clip": transformers.CLIPModel, "siglip": transformers.SiglipModel}[folder.model_type], folder)


def _embedding_width(model: Any) -> int:
    config = model.config
    return int(config.projection_dim if config.model_type == "clip" else config.vision_config.hidden_size)
