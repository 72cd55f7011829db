"""``vad info`` and ``vad check-config``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import typer

from vad import model
from vad.cli.composition import read_config
from vad.config import to_yaml
from vad.video import probe


def info(target: Path, *, as_json: bool) -> int:
    """Print what a video or a model directory is; the exit code."""
    facts = _model_facts(target) if target.is_dir() else _video_facts(target)
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        typer.echo(to_yaml(facts), nl=False)
    return 0


def check_config(file: Path, *, overrides: list[str]) -> int:
    """Check a config and print it resolved; the exit code."""
    typer.echo(to_yaml(read_config(file, overrides=overrides).resolved()), nl=False)
    return 0


def _video_facts(path: Path) -> dict[str, Any]:
    facts = dataclasses.asdict(probe(path))
    return {**facts, "path": str(path), "fps": round(facts["fps"], 4), "duration": round(facts["duration"], 3)}


def _model_facts(folder: Path) -> dict[str, Any]:
    loaded = model.load(folder)
    calibration = loaded.calibration
    return {
        "model": str(folder),
        "weights": {"file": loaded.weights.name, "sha256": loaded.digest, "bytes": loaded.weights.stat().st_size},
        "extractor_sha256": loaded.extractor_digest,
        "calibration": None
        if calibration is None
        else {
            "normal_moments": calibration.count,
            "median": calibration.quantiles[len(calibration.quantiles) // 2],
            "tail_starts_at": calibration.quantiles[-1],
            "tail_scale": calibration.tail_scale,
        },
        "fitted": loaded.fitted,
        "config": loaded.config,
    }
