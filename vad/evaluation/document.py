"""``metrics.json``: an evaluation or a comparison as plain data; a number that is not defined is null."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vad import __version__
from vad.config import Config
from vad.evaluation.comparison import Difference
from vad.evaluation.measure import Evaluation
from vad.files import replacing


def of_evaluation(evaluation: Evaluation, inputs: Mapping[str, str]) -> dict[str, Any]:
    """``evaluation`` with what it was made from (digests of the files by their role)."""
    return {"kind": "evaluation", **_made(), "inputs": dict(inputs), **plain(evaluation)}


def of_comparison(
    differences: Sequence[Difference], evaluations: Sequence[Evaluation], inputs: Mapping[str, str]
) -> dict[str, Any]:
    """All differences, and each system's own numbers."""
    return {
        "kind": "comparison",
        **_made(),
        "inputs": dict(inputs),
        "differences": plain(differences),
        "systems": plain(evaluations),
    }


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write it whole or not at all. Raises OSError."""
    text = json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def plain(value: Any) -> Any:
    """Dataclasses, settings, arrays and numbers as what JSON knows; NaN and infinity become None.

    >>> plain({"a": float("nan"), "b": np.float32(0.5), "c": (1, 2)})
    {'a': None, 'b': 0.5, 'c': [1, 2]}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Config):
        return plain(value.model_dump())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def _made() -> dict[str, str]:
    return {
        "vadwatch": __version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
