"""What scoring leaves on the disk: ``curve.csv``, ``events.json``, ``run.json`` and the pictures.

All files of a video are written under temporary names first and renamed together, ``run.json`` last.
"""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vad.files import replacing
from vad.types import Event, Gap, ScoreCurve


def write(
    folder: Path,
    *,
    curve: ScoreCurve,
    events: list[Event],
    record: Mapping[str, Any],
    pictures: Mapping[str, Callable[[Path], None]],
) -> None:
    """Write the results of one video into ``folder``.

    ``pictures`` maps file names to functions that draw them. Raises OSError, and then leaves what was there.
    """
    writers: dict[str, Callable[[Path], None]] = {
        "run.json": lambda path: _write_json(path, record),
        "curve.csv": lambda path: write_curve(path, curve),
        "events.json": lambda path: _write_json(path, plain_events(events)),
        **pictures,
    }
    with contextlib.ExitStack() as stack:  # leaves in reverse order: run.json is renamed last
        for name, writer in writers.items():
            writer(stack.enter_context(replacing(folder / name)))


def write_curve(path: Path, curve: ScoreCurve) -> None:
    """``frame,pts_s,raw,score``, one row per decoded frame; raw and score are empty where nothing could be scored."""
    with open(path, "w", newline="", encoding="ascii") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("frame", "pts_s", "raw", "score"))
        for frame, (pts, raw, score) in enumerate(zip(curve.pts_N, curve.raw_N, curve.score_N, strict=True)):
            writer.writerow((frame, f"{pts:.6f}", _number(raw), _number(score)))


def read_curve(path: Path) -> ScoreCurve:
    """The curve that ``write_curve`` wrote."""
    table = np.genfromtxt(path, delimiter=",", skip_header=1, ndmin=2)
    return ScoreCurve(table[:, 1], table[:, 2].astype(np.float32), table[:, 3].astype(np.float32))


def plain_events(events: list[Event]) -> list[dict[str, float]]:
    """Events as plain data, seconds."""
    return [
        {
            "start": round(e.start, 6),
            "end": round(e.end, 6),
            "peak": round(e.peak, 6),
            "peak_time": round(e.peak_time, 6),
        }
        for e in events
    ]


def plain_gaps(gaps: list[Gap]) -> list[dict[str, float | str]]:
    """Gaps as plain data, seconds."""
    return [{"start": round(g.start, 6), "end": round(g.end, 6), "reason": g.reason} for g in gaps]


def _number(value: np.float32) -> str:
    return "" if np.isnan(value) else f"{value:.9g}"


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
