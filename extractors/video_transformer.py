"""Video transformers: VideoMAE, V-JEPA 2 and X-CLIP, the networks of transformers with any weights of theirs.

Tong et al. "VideoMAE", NeurIPS 2022, https://arxiv.org/abs/2203.12602. Feature: the mean of all tokens, through the
normalisation that stands before the classifier where the weights have one (fine-tuned models), which is what that
classifier sees. Differs from the paper: pretrained models without a classifier get the same mean.

Assran et al. "V-JEPA 2", https://arxiv.org/abs/2506.09985. Feature: the mean of the encoder's tokens. Differs from
the paper, whose classifiers pool with attention: that pooling is trained for one data set's labels and most published
weights come without it, while the mean exists for all of them and is of the same kind for each.

Ni et al. "Expanding Language-Image Pretrained Models for General Video Recognition" (X-CLIP), ECCV 2022,
https://arxiv.org/abs/2208.02816. Feature: the video embedding, before it is brought to length 1.

How many frames of which size a model takes is fixed by its weights; ``build`` says what to set.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from extractors import _hub
from vad.extractor import Extractor, ExtractorSettings

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
KNOWN = ("videomae", "vjepa2", "xclip")


class Settings(ExtractorSettings):
    """Clips of the length and pace of VideoMAE's; X-CLIP and V-JEPA 2 need others."""

    kind: Literal["video_transformer"] = "video_transformer"
    stride: int = Field(4, ge=1, description="sampled frames from one clip frame to the next")
    model: str = Field("MCG-NJU/videomae-base-finetuned-kinetics", description="hub id, or folder in the hub's format")
    revision: str | None = Field(None, description="the hub's branch, tag or commit")
    sha256: str | None = Field(None, pattern="^[0-9a-fA-F]{64}$", description="pinned digest of the weights")

    def build(self) -> Extractor:
        """Load weights and compile. Raises WeightsError without weights, ValueError for clips that do not fit them."""
        folder = _hub.find(self.model, revision=self.revision, sha256=self.sha256, known=KNOWN)
        backbone, config, dim = _backbone(folder)
        frames, side, tubelet = _wanted(config)
        # V-JEPA 2 turns its tokens by their time, so that clips may have any number of tubelets
        fits = self.clip_frames % tubelet == 0 if folder.model_type == "vjepa2" else self.clip_frames == frames
        if not fits or self.size != (side, side):
            raise ValueError(
                f"{self.model} takes clips of {frames} frames of {side}x{side} pixels, got {self.clip_frames} of "
                f"{self.size[0]}x{self.size[1]}; set clip_frames: {frames} and size: [{side}, {side}]"
            )
        normalise = _hub.Normalise(*folder.normalisation(otherwise=IMAGENET))
        return Extractor(
            Network(normalise, backbone),
            self,
            dim=dim,
            digest=folder.digest,
            name=f"{folder.model_type}-{folder.key}",
            normalisation=normalise.formula,
        )


class Network(nn.Module):
    """uint8 clips (B, T, H, W, 3) -> (B, D)."""

    def __init__(self, normalise: nn.Module, backbone: nn.Module) -> None:
        super().__init__()
        self.normalise = normalise
        self.backbone = backbone

    def forward(self, clips_BTHWC: Tensor) -> Tensor:
        """The pooled representation that would go into a classifier."""
        return self.backbone(self.normalise(clips_BTHWC))


# The backbones hold the layers of transformers' models, not the models: tracing one of those warns of its own aliases.


class VideoMAE(nn.Module):
    """(B, T, 3, H, W) -> the mean of the tokens, normalised if the model has a classifier."""

    def __init__(self, model: Any, norm: nn.Module | None) -> None:
        super().__init__()
        self.embeddings = model.embeddings
        self.encoder = model.encoder
        self.after_each = nn.Identity() if model.layernorm is None else model.layernorm
        self.after_mean = nn.Identity() if norm is None else norm

    def forward(self, pixels_BTCHW: Tensor) -> Tensor:
        """(B, D)."""
        tokens_BPD = self.encoder(self.embeddings(pixels_BTCHW, None)).last_hidden_state
        return self.after_mean(self.after_each(tokens_BPD).mean(1))


class VJEPA2(nn.Module):
    """(B, T, 3, H, W) -> the mean of the encoder's tokens."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder = model.encoder

    def forward(self, pixels_BTCHW: Tensor) -> Tensor:
        """(B, D)."""
        return self.encoder(pixels_BTCHW).last_hidden_state.mean(1)


class XCLIP(nn.Module):
    """(B, T, 3, H, W) -> the video embedding: a transformer over the projected embeddings of the frames."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        vision = model.vision_model
        self.embeddings = vision.embeddings
        self.before = vision.pre_layernorm
        self.encoder = vision.encoder
        self.after = vision.post_layernorm
        self.project = model.visual_projection
        self.integrate = model.mit

    def forward(self, pixels_BTCHW: Tensor) -> Tensor:
        """(B, D)."""
        batch, frames = pixels_BTCHW.shape[:2]
        tokens = self.encoder(self.before(self.embeddings(pixels_BTCHW.flatten(0, 1)))).last_hidden_state
        embeddings_BTD = self.project(self.after(tokens[:, 0])).unflatten(0, (batch, frames))
        return self.integrate(embeddings_BTD).pooler_output


def _backbone(folder: _hub.Folder) -> tuple[nn.Module, Any, int]:
    """The network, its config and its feature's size."""
    import transformers

    if folder.model_type == "xclip":
        model = _hub.load(transformers.XCLIPModel, folder)
        return XCLIP(model), model.config, model.config.projection_dim
    if folder.model_type == "vjepa2":
        model = _hub.load(transformers.VJEPA2Model, folder)
        return VJEPA2(model), model.config, model.config.hidden_size
    if "VideoMAEForVideoClassification" in (folder.config.get("architectures") or ()):
        classifier = _hub.load(transformers.VideoMAEForVideoClassification, folder)
        model, norm = classifier.videomae, classifier.fc_norm
    else:
        model, norm = _hub.load(transformers.VideoMAEModel, folder), None
    return VideoMAE(model, norm), model.config, model.config.hidden_size


def _wanted(config: Any) -> tuple[int, int, int]:
    """Frames and side of a model's clips, and the frames that make one token."""
    if config.model_type == "xclip":
        return config.vision_config.num_frames, config.vision_config.image_size, 1
    if config.model_type == "vjepa2":
        return config.frames_per_clip, config.crop_size, config.tubelet_size
    return config.num_frames, config.image_size, config.tubelet_size
