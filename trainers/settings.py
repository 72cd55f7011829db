"""What a training run is made from: the sections of a config below ``configs/train/``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator
from torch import Tensor

from trainers.bags import Crops, Sampling
from trainers.losses import Parts
from vad.config import Config, ConfigError, Document, available, settings_class
from vad.extractor import ExtractorSettings
from vad.weak import WeakHeadSettings

Select = Literal["held-out", "test"]


class Listing(Config):
    """Which videos there are, and how label, category and source of each are known."""

    train: str | None = Field(
        None, description="list of the training videos: names, or a CSV video,label[,group]; null: all with features"
    )
    normal: tuple[str, ...] = Field(
        (), description="patterns of the names of normal videos, all others being abnormal; a CSV is checked by them"
    )
    categories: Literal["ucf-crime", "xd-violence", "list"] | None = Field(
        None, description="where the category of an abnormal video is read: its name, or the list's label"
    )
    groups: str = Field(
        "each", description="which videos share a source: number-blocks:N, ucf-crime, xd-violence, list, each"
    )
    shared: Literal["refuse", "leave_out", "keep"] = Field(
        "refuse", description="training videos that share a source with a test video; published results keep them"
    )
    held_out: float = Field(0.2, gt=0, lt=1, description="share of the training videos that chooses the checkpoint")


class Test(Config):
    """Test videos: with their annotation frame by frame, or a share of the listed ones, by whole videos."""

    __test__ = False

    dataset: str | None = Field(None, description="whose annotation it is, as for vad eval")
    annotations: str | None = Field(None, description="file or folder, below data")
    split: str | None = None
    frames: str | None = Field(None, description="CSV video,frames[,fps]; null: as the features say")
    conventions: tuple[str, ...] = ()
    metric: Literal["auc", "ap", "ap_trapezoid"] = Field("auc", description="the benchmark's headline")
    share: float | None = Field(None, gt=0, lt=1, description="set whole sources aside, where there is no annotation")

    @model_validator(mode="after")
    def _one_way(self) -> Test:
        if (self.dataset is None) != (self.annotations is None):
            raise ValueError("dataset and annotations go together")
        if (self.dataset is None) == (self.share is None):
            raise ValueError("give dataset and annotations, or a share")
        return self


class BagSettings(Config):
    """How a video becomes a bag."""

    segments: int = Field(32, ge=1, description="rows of a bag")
    sampling: Sampling = "mean"
    crops: Crops = "all"
    pairs: int = Field(30, ge=1, description="abnormal bags in a batch, and normal ones, for each device")


class Optimiser(Config):
    """One of torch's, by name."""

    kind: Literal["adagrad", "adam", "adamw"] = "adam"
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    eps: float | None = Field(None, gt=0, description="null: torch's own")


class Schedule(Config):
    """How the learning rate goes on from its start."""

    kind: Literal["constant", "cosine", "drops"] = "constant"
    length: int | None = Field(None, ge=1, description="cosine: steps down to 0; null: all of them")
    at: tuple[int, ...] = Field((), description="drops: the steps after which the rate is multiplied by factor")
    factor: float = Field(0.1, gt=0, lt=1)
    warm_up: int = Field(0, ge=0, description="steps of a rising rate at the start")


class Lightning(Config):
    """Lightning's own settings, under its own names."""

    accelerator: str = "auto"
    devices: int | str | tuple[int, ...] = "auto"
    num_nodes: int = Field(1, ge=1)
    strategy: str = "auto"
    precision: Literal["32-true", "16-mixed", "bf16-mixed", "64-true"] = "32-true"
    gradient_clip_val: float | None = Field(None, gt=0)
    deterministic: bool = True


class _Sections(Config):
    data: str | None = Field(None, description="folder that the other paths lie in")
    out: str | None = Field(None, description="run folder")
    extractor: Any = None
    features: str | None = Field(None, description="feature store; null: data/features, or out/features to extract")
    blocks: str | None = Field(None, description="folder for the packed copy of the features; null: out")
    videos: str | None = Field(None, description="folder of the videos, below data, to extract what is missing")
    listing: Listing = Listing()
    test: Test | None = None
    bags: BagSettings = BagSettings()
    head: Any
    loss: dict[str, float] = Field(default_factory=dict, description="weights and margins other than the head's own")
    optimiser: Optimiser = Optimiser()
    schedule: Schedule = Schedule()
    steps: int = Field(1000, ge=1)
    check_every: int = Field(100, ge=1, description="steps between two looks at the held-out videos")
    patience: int | None = Field(None, ge=1, description="looks without a better one after which training ends")
    select: Select = Field("held-out", description="what chooses the checkpoint; test repeats what the literature does")
    seed: int = Field(0, ge=0)
    lightning: Lightning = Lightning()
    loggers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ("tensorboard",)


@dataclass(frozen=True, slots=True)
class Settings:
    """A training config, checked: the plain sections, and the two components that are chosen by kind."""

    sections: _Sections
    extractor: ExtractorSettings | None
    head: WeakHeadSettings

    @classmethod
    def of(cls, document: Document) -> Settings:
        """Check everything that can be checked without data. Raises ConfigError with one line per mistake."""
        mistakes: list[str] = []
        sections, extractor, head = None, None, None
        for section, package in (("extractor", "extractors"), ("head", "vad.heads")):
            try:
                if section == "head" or document.data.get("extractor") is not None:
                    found: Any = document.component(package, section)
                    extractor, head = (found, head) if section == "extractor" else (extractor, found)
            except ConfigError as error:
                mistakes.append(str(error))
        try:
            sections = document.validate(_Sections, document.data)
        except ConfigError as error:
            mistakes.append(str(error))
        if head is not None and not isinstance(head, WeakHeadSettings):
            kinds = ", ".join(weak_kinds())
            place = document.place(("head", "kind"))
            mistakes.append(f"{place}: {head.kind!r} learns from normal footage, with vad fit; here: {kinds}")
        elif head is not None and sections is not None:
            known = loss_settings(head.kind)
            mistakes += [
                f"{document.place(('loss', name))}: {head.kind} has no such loss setting; known: {', '.join(known)}"
                for name in sections.loss
                if name not in known
            ]
        if sections is not None and sections.steps % sections.check_every:
            mistakes.append(f"{document.place(('steps',))}: must be a multiple of check_every, {sections.check_every}")
        if sections is not None and sections.select == "test" and sections.test is None:
            mistakes.append(f"{document.place(('select',))}: there is no section test to select on")
        if mistakes:
            raise ConfigError("\n".join(mistakes))
        assert sections is not None
        assert head is not None
        return cls(sections, extractor, head)

    @classmethod
    def read(cls, path: Path, assignments: list[str], *, needs_paths: bool = True) -> Settings:
        """A YAML file with ``key=value`` on top. Raises ConfigError."""
        settings = cls.of(Document.read(path).override(assignments))
        for key in ("data", "out"):
            if needs_paths and getattr(settings.sections, key) is None:
                raise ConfigError(f"{path}: {key} is not set; add {key}=FOLDER to the command")
        return settings

    @property
    def data(self) -> Path:
        """The folder that the other paths lie in."""
        return Path(self.sections.data or ".")

    @property
    def out(self) -> Path:
        """The run folder."""
        return Path(self.sections.out or ".")

    @property
    def videos(self) -> Path | None:
        """The folder of the videos, where they are to be extracted."""
        return None if self.sections.videos is None else self.data / self.sections.videos

    @property
    def store(self) -> Path:
        """Where the features are, or will be."""
        if self.sections.features is not None:
            return self.data / self.sections.features
        return (self.data if self.videos is None else self.out) / "features"

    def resolved(self) -> dict[str, Any]:
        """Every setting, defaults included, as plain data."""
        extractor = None if self.extractor is None else self.extractor.model_dump(mode="json")
        return {
            **self.sections.model_dump(mode="json", exclude={"extractor", "head"}),
            "extractor": extractor,
            "head": self.head.model_dump(mode="json"),
        }


Loss = Callable[..., Parts]
_GIVEN = {"crops", "lengths_B", "variant", "texts_CE", "classes_V"}  # by the run, not by the config


def loss_of(kind: str) -> Loss:
    """The loss function of a head."""
    function: Loss = import_module(f"trainers.losses.{kind}").loss
    return function


def loss_settings(kind: str) -> Mapping[str, float]:
    """Names and defaults of what a config may set about a head's loss."""
    parameters = inspect.signature(loss_of(kind)).parameters.values()
    own = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in _GIVEN}
    if (decay := decay_of(kind)) is not None:
        own["decay"] = inspect.signature(decay).parameters["weight"].default
    return own


def decay_of(kind: str) -> Callable[..., Tensor] | None:
    """What a head's loss adds for the size of its weights; None for most."""
    return getattr(import_module(f"trainers.losses.{kind}"), "weight_l2", None)


def weak_kinds() -> list[str]:
    """Heads that learn from labels of videos."""
    return [kind for kind in available("vad.heads") if issubclass(settings_class("vad.heads", kind), WeakHeadSettings)]
