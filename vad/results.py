"""What scoring leaves on the disk: ``curve.csv``, ``events.json``, ``run.json`` and the pictures.

All files of a video are written under temporary names first and renamed together, ``run.json`` last.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

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
    """The curve that ``write_curve`` wrote. Raises ValueError for another file."""
    table = read_table(path, needed=("pts_s", "raw", "score"), known=("frame",))
    return ScoreCurve(table["pts_s"], table["raw"].astype(np.float32), table["score"].astype(np.float32))


def read_table(path: Path, *, needed: Sequence[str], known: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
    """Columns of numbers by their names in the header; an empty cell is NaN.

    Raises ValueError: a column that is missing or unknown, a cell that is not a number, no rows.
    """
    header, _, text = path.read_text(encoding="utf-8-sig").partition("\n")
    columns = [name.strip() for name in header.split(",")]
    for name in needed:
        if name not in columns:
            raise ValueError(f"{path}:1: needs a column {name!r}, has {', '.join(columns)}")
    for name in columns:
        if name not in (*needed, *known):
            raise ValueError(f"{path}:1: unknown column {name!r}; columns are {', '.join((*needed, *known))}")
    if not text.strip():
        raise ValueError(f"{path}: has a header but no rows")
    text = text.replace("\r", "").replace(",,", ",nan,").replace(",,", ",nan,").replace(",\n", ",nan\n")
    if text.endswith(","):
        text += "nan"
    try:
        table = np.loadtxt(io.StringIO(text), delimiter=",", ndmin=2)
    except ValueError as cause:
        raise ValueError(f"{path}: cannot be read as numbers: {str(cause).partition(';')[0]}") from cause
    if table.shape[1] != len(columns):
        raise ValueError(f"{path}: the header names {len(columns)} columns, the rows have {table.shape[1]}")
    return {name: table[:, i] for i, name in enumerate(columns)}


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
