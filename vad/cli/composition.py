"""From a config to objects: the sections of a pipeline, checked, and everything they build."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from streaming.config import Settings as Monitoring
from streaming.events import Settings as EventSettings
from streaming.smoothing import EmaSettings
from streaming.smoothing import Settings as SmoothingSettings
from trainers.settings import Settings as Training
from vad.calibration import Scale, unchanged
from vad.config import Config, ConfigError, Document, available, settings_class
from vad.extractor import PLACES, Extractor, ExtractorSettings
from vad.head import NormalHead, NormalHeadSettings, StreamHead
from vad.model import Model, ModelError, load
from vad.streamed import Dtype
from vad.weak import WeakHead, WeakHeadSettings, WeakOutput, WeakStream
from vad.weights import WeightsError


class _Sections(Config):
    """Sections that have no folder of kinds; the others pass through unchecked."""

    extractor: Any
    head: Any
    smoothing: SmoothingSettings = EmaSettings()
    events: EventSettings = EventSettings()


@dataclass(frozen=True, slots=True)
class Composition:
    """The settings of one pipeline."""

    extractor: ExtractorSettings
    head: NormalHeadSettings | WeakHeadSettings
    smoothing: SmoothingSettings
    events: EventSettings

    @classmethod
    def of(cls, document: Document) -> Composition:
        """Check every section. Raises ConfigError with one line per mistake."""
        mistakes: list[str] = []
        checked: dict[str, Any] = {}
        try:
            sections = document.validate(_Sections, document.data)
            checked = {"smoothing": sections.smoothing, "events": sections.events}
        except ConfigError as error:
            mistakes.append(str(error))
        for section, package in (("extractor", "extractors"), ("head", "vad.heads")):
            if section in document.data:
                try:
                    checked[section] = document.component(package, section)
                except ConfigError as error:
                    mistakes.append(str(error))
        if isinstance(checked.get("head"), NormalHeadSettings) and getattr(checked.get("extractor"), "crops", 1) > 1:
            place = document.place(("extractor", "crops"))
            mistakes.append(f"{place}: heads fitted on normal footage take one view of a clip; set crops: 1")
        if mistakes:
            raise ConfigError("\n".join(mistakes))
        return cls(**checked)

    @classmethod
    def read(cls, path: Path, *, overrides: list[str], runtime: str | None) -> Composition:
        """From a YAML file, with command-line overrides on top."""
        return cls.to_fit(Document.read(path).override(_with_runtime(overrides, runtime)))

    @classmethod
    def to_fit(cls, document: Document) -> Composition:
        """A pipeline that is fitted on normal footage. Raises ConfigError for a head that learns otherwise."""
        settings = cls.of(document)
        if not isinstance(settings.head, NormalHeadSettings):
            place = document.place(("head", "kind"))
            kinds = (
                k for k in available("vad.heads") if issubclass(settings_class("vad.heads", k), NormalHeadSettings)
            )
            raise ConfigError(
                f"{place}: {settings.head.kind!r} learns from labels of videos, with vad train; on normal footage fit "
                f"one of: {', '.join(kinds)}"
            )
        return settings

    def resolved(self) -> dict[str, Any]:
        """Every setting, defaults included, as plain data."""
        return {
            name: getattr(self, name).model_dump(mode="json") for name in ("extractor", "head", "smoothing", "events")
        }


class _StoreSettings(Config):
    dtype: Dtype = Field("float32", description="of the stored features; float16 halves the store")


class _ExtractionSections(Config):
    extractor: Any
    store: _StoreSettings = _StoreSettings()


@dataclass(frozen=True, slots=True)
class Extraction:
    """The settings of features without a head."""

    extractor: ExtractorSettings
    dtype: Dtype

    @classmethod
    def of(cls, document: Document) -> Extraction:
        """Check every section; of a whole pipeline only its extractor. Raises ConfigError."""
        if "head" in document.data:
            return cls(Composition.of(document).extractor, "float32")
        sections = document.validate(_ExtractionSections, document.data)
        extractor: Any = document.component("extractors", "extractor")
        return cls(extractor, sections.store.dtype)

    @classmethod
    def read(cls, path: Path, *, overrides: list[str], runtime: str | None) -> Extraction:
        """From a YAML file, with command-line overrides on top."""
        return cls.of(Document.read(path).override(_with_runtime(overrides, runtime)))

    def resolved(self) -> dict[str, Any]:
        """Every setting, defaults included, as plain data."""
        return {"extractor": self.extractor.model_dump(mode="json"), "store": {"dtype": self.dtype}}


def read_config(path: Path, *, overrides: list[str]) -> Composition | Extraction | Training | Monitoring:
    """A config of any form: cameras to watch, steps to train, a head to fit, or features alone."""
    document = Document.read(path).override(overrides)
    if "cameras" in document.data:
        return Monitoring.read(path, overrides=overrides)
    if "steps" in document.data:
        return Training.of(document)
    features_only = "extractor" in document.data and not {"head", "smoothing", "events"} & document.data.keys()
    return Extraction.of(document) if features_only else Composition.to_fit(document)


@dataclass(frozen=True, slots=True)
class Scorer:
    """A fitted model, ready to score."""

    settings: Composition
    extractor: Extractor
    head: NormalHead | WeakHead[WeakOutput]
    calibration: Scale
    model: Model

    def stream(self) -> StreamHead:
        """The head, with nothing seen yet."""
        return WeakStream(self.head) if isinstance(self.head, WeakHead) else self.head


def scorer(folder: Path, *, overrides: list[str], runtime: str | None) -> Scorer:
    """Load a model directory and build what it needs.

    Overrides of the extractor or the head that would change their features are refused: the model was
    fitted with them.
    """
    model = load(folder)
    if "extractor" not in model.config:
        raise ModelError(
            f"{folder}: was trained on features that were imported, and nothing here makes such from video; "
            "score imported ones: vad score STORE"
        )
    document = Document(str(folder), model.config, {}).override(_with_runtime(overrides, runtime))
    settings = Composition.of(document)
    fitted = Composition.of(Document(str(folder), model.config, {}))
    for name, free in (("extractor", PLACES), ("head", {"top", "past"})):
        before, after = (getattr(which, name).model_dump() for which in (fitted, settings))
        changed = (
            [key for key in before if key not in free and before[key] != after.get(key)]
            if before.keys() == after.keys()
            else ["kind"]
        )
        if changed:
            raise ModelError(
                f"{folder}: was fitted with {name}.{changed[0]} = {before[changed[0]]!r}; to change that, fit it again"
            )
    extractor = settings.extractor.build()
    if extractor.digest != model.extractor_digest:
        raise WeightsError(
            f"{folder}: was fitted with other {settings.extractor.kind} weights "
            f"({model.extractor_digest[:12]}…, found {extractor.digest[:12]}…); set extractor.weights or fit it again"
        )
    head = settings.head.build()
    model.restore(head)
    return Scorer(settings, extractor, head, model.calibration or unchanged, model)


def _with_runtime(overrides: list[str], runtime: str | None) -> list[str]:
    return overrides if runtime is None else [*overrides, f"extractor.runtime={runtime}"]
