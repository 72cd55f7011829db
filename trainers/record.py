"""A run folder: what a run is made from, where it was made, and what came out of it."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from trainers.settings import Settings
from vad.config import Document, to_yaml
from vad.files import replacing
from vad.versions import versions

CONFIG, RUN, RESULT, HISTORY, MODEL = "config.yaml", "run.json", "result.json", "metrics.csv", "model"
FREE = {"data", "out", "blocks", "loggers"}  # settings that a resumed run may have otherwise: they decide no weight


class RunError(ValueError):
    """A folder that holds something else than this run."""


@dataclass(frozen=True, slots=True)
class Column:
    """A checkpoint, and what it is worth; None where there was nothing to measure it on."""

    step: int
    held_out_auc: float
    held_out_loss: float
    test: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a finished run has to say."""

    selected: str  # "held-out" or "test": which column the exported model is
    held_out: Column
    on_test: Column | None  # the literature's column: the checkpoint that is best on the test set
    test_metric: str | None
    steps: int
    model: str


def finished(out: Path) -> Outcome | None:
    """The outcome of a run that is done. Raises RunError when it cannot be read."""
    path = out / RESULT
    if not path.is_file():
        return None
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        columns = {name: None if plain[name] is None else Column(**plain[name]) for name in ("held_out", "on_test")}
        return Outcome(**{**plain, **columns})
    except (ValueError, KeyError, TypeError) as cause:
        raise RunError(f"{path}: is damaged; remove it, and the same command writes it anew") from cause


def finish(out: Path, outcome: Outcome) -> None:
    """Say that a run is done."""
    _write(out / RESULT, json.dumps(asdict(outcome), indent=1) + "\n")


def check(settings: Settings) -> None:
    """Refuse a folder that holds something else, or a run with other settings. Raises RunError."""
    out = settings.out
    if out.is_file() or (out.is_dir() and not (out / CONFIG).is_file() and any(map(_foreign, out.iterdir()))):
        raise RunError(f"{out}: holds something that is not a training run; give another out=FOLDER")
    if not (out / CONFIG).is_file():
        return
    before = flat(Document.read(out / CONFIG).data)
    now = flat(json.loads(json.dumps(settings.resolved())))
    changed = [
        f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and key.split(".")[0] not in FREE
    ]
    if changed:
        raise RunError(
            f"{out}: holds a run with other settings: {'; '.join(changed)}; give the same settings, or another out"
        )


def _foreign(path: Path) -> bool:
    """Whether a file is none that a run makes before it has begun: features, and blocks of them."""
    return path.name != "features" and re.fullmatch(r"(block|segments-\d+)(-\w+)?\.(json|rows)", path.name) is None


def begin(settings: Settings, *, digests: Mapping[str, str], facts: Mapping[str, Any]) -> None:
    """Put down what the run is made from; of a run that goes on, that it is the same."""
    out = settings.out
    now = {"date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), **surroundings()}
    if (out / RUN).is_file():
        record = json.loads((out / RUN).read_text(encoding="utf-8"))
        if record["digests"] != digests:
            raise RunError(
                f"{out}: the features or the lists have changed since this run began; give another out=FOLDER"
            )
        record["started"].append(now)
    else:
        record = {"digests": digests, "seed": settings.sections.seed, **facts, "started": [now]}
    _write(out / RUN, json.dumps(record, indent=1) + "\n")
    _write(out / CONFIG, to_yaml(settings.resolved()))


def surroundings() -> dict[str, Any]:
    """Machine, versions, and the state of the source tree where there is one."""
    where = Path(__file__).parent.parent
    commit = _git(where, "rev-parse", "HEAD")
    return {
        "versions": {**versions(), "lightning": importlib.metadata.version("lightning")},
        "machine": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "git": None if commit is None else {"commit": commit, "changed": bool(_git(where, "status", "--porcelain"))},
    }


def _git(folder: Path, *arguments: str) -> str | None:
    if not (folder / ".git").exists():
        return None
    try:
        done = subprocess.run(  # noqa: S603
            ["git", "-C", str(folder), *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def flat(values: Mapping[str, Any], under: str = "") -> dict[str, Any]:
    """Settings by their dotted names.

    >>> flat({"head": {"kind": "mil", "dim": 4}, "seed": 0})
    {'head.kind': 'mil', 'head.dim': 4, 'seed': 0}
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{under}{key}.") if isinstance(value, Mapping) and value else {f"{under}{key}": value}
    return found


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
