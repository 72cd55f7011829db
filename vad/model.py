"""A model as a directory: ``manifest.json`` and the head's tables or weights as safetensors.

The manifest names the weight file by its digest and is written last, so a directory always holds one whole
model: the old one or the new one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from vad import __version__
from vad.calibration import Calibration
from vad.files import replacing, sha256
from vad.store import Manifest

FORMAT = 1
MANIFEST = "manifest.json"


class ModelError(ValueError):
    """A directory that is not a model this version can use."""


class Head(Protocol):
    """Any head that can be kept."""

    def state_dict(self) -> dict[str, Any]:
        """Its tensors by name."""

    def restore(self, state: dict[str, Any]) -> None:
        """Take tensors that ``state_dict`` gave."""


@dataclass(frozen=True, slots=True)
class Model:
    """What a model directory says, before anything heavy is built."""

    folder: Path
    config: dict[str, Any]  # resolved: sections extractor (none: only features can be scored), head, smoothing, events
    extractor_digest: str  # empty where features were imported
    calibration: Calibration | None  # None: the head's scores are in [0, 1] by themselves
    fitted: dict[str, Any]  # videos, snippets, date …
    features: Manifest | None  # of the store that it was trained from; None where it was fitted on videos
    weights: Path
    digest: str  # sha256 of the weights

    def restore(self, head: Head) -> None:
        """Give ``head`` its tables. Raises ModelError when the weight file is not the one that was saved."""
        from safetensors.torch import load_file

        if not self.weights.is_file():
            raise ModelError(f"{self.folder}: its weight file {self.weights.name} is missing; copy the whole directory")
        if sha256(self.weights) != self.digest:
            raise ModelError(
                f"{self.folder}: {self.weights.name} was changed after it was fitted; "
                "copy the directory again or fit it anew"
            )
        head.restore(load_file(self.weights))


def check_target(folder: Path) -> None:
    """Refuse to put a model where something else lies. Raises ModelError."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file()):
        raise ModelError(f"{folder}: holds something that is not a model; give another --out")


def save(
    folder: Path,
    *,
    config: dict[str, Any],
    extractor_digest: str,
    head: Head,
    calibration: Calibration | None,
    fitted: dict[str, Any],
    features: Manifest | None = None,
) -> None:
    """Write a model directory; an older model in it is replaced once the new one is whole."""
    from safetensors.torch import save as to_bytes

    check_target(folder)
    older = set(folder.glob("head-*.safetensors"))
    data = to_bytes({name: tensor.contiguous() for name, tensor in head.state_dict().items()})
    digest = hashlib.sha256(data).hexdigest()
    weights = folder / f"head-{digest[:12]}.safetensors"
    manifest = {
        "format": FORMAT,
        "vadwatch": __version__,
        "config": config,
        "extractor": {"digest": extractor_digest},
        "weights": {"file": weights.name, "sha256": digest},
        "calibration": None if calibration is None else calibration.model_dump(mode="json"),
        "fitted": fitted,
        "features": None if features is None else features.model_dump(mode="json"),
    }
    with replacing(weights) as temporary:
        temporary.write_bytes(data)
    with replacing(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    for path in older - {weights}:
        path.unlink()


def load(folder: Path) -> Model:
    """Read a model directory's manifest. Raises ModelError with the remedy."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ModelError(
            f"{folder}: is not a model directory (it has no {MANIFEST}); make one with: vad fit, or vad train"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest.get("format") != FORMAT:
            raise ModelError(
                f"{folder}: is a model of format {manifest.get('format')} (vadwatch {manifest.get('vadwatch')}), "
                f"this vadwatch {__version__} reads format {FORMAT}; fit it again"
            )
        weights = manifest["weights"]
        if Path(weights["file"]).name != weights["file"]:
            raise ModelError(f"{folder}: its weight file {weights['file']!r} lies outside of it; fit it again")
        return Model(
            folder,
            manifest["config"],
            manifest["extractor"]["digest"],
            None if manifest["calibration"] is None else Calibration.model_validate(manifest["calibration"]),
            manifest["fitted"],
            None if manifest.get("features") is None else Manifest.model_validate(manifest["features"]),
            folder / weights["file"],
            weights["sha256"],
        )
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError, ValidationError) as cause:
        raise ModelError(f"{folder}: its {MANIFEST} is damaged; copy the directory again or fit it anew") from cause
