"""Score sets: what a system said about the videos of a benchmark, in any of the three forms in use.

* a folder of ``curve.csv`` (one row per frame, column ``score``), each in a folder named after its video, or of
  ``VIDEO.csv``;
* a folder of ``VIDEO.npy``, one score per snippet of ``hop`` frames;
* one ``.npz`` with ``names`` (V,) and ``scores`` (V, S): every video in S equal segments, 32 as a rule.

Nothing is read by pickle. ``provenance.json`` beside the scores says how they were made; it may be missing.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from vad import results
from vad.config import Document
from vad.datasets.annotation import repeated
from vad.metrics.audit import Provenance

PROVENANCE = "provenance.json"
Form = Literal["frames", "snippets", "segments"]
Values = npt.NDArray[np.float64]


class ScoresError(ValueError):
    """Scores that cannot be read, or that do not belong to the annotation."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of one video as they were given, and how they lie over its frames."""

    values: Values  # one per frame, snippet or segment; NaN where a frame could not be scored
    form: Form
    hop: int = 1  # source frames per snippet
    fps: float | None = None  # by the times in the file, where it has any

    def on_frames(self, num_frames: int) -> Values:
        """(num_frames,) scores. Raises ScoresError with both lengths when they do not belong to so many frames.

        Frames: one score each. Snippets: frame n takes snippet n // hop, and the frames of a last incomplete snippet
        that has no score of its own take the one before. Segments: frame n takes segment floor(S n / N).

        >>> Scores(np.array([1.0, 2.0]), "snippets", hop=2).on_frames(5).tolist()
        [1.0, 1.0, 2.0, 2.0, 2.0]
        """
        count = len(self.values)
        if self.form == "segments":
            return self.values[np.arange(num_frames) * count // num_frames]
        if self.form == "frames":
            if count != num_frames:
                raise ScoresError(f"{count} scores, the annotation has {num_frames} frames")
            return self.values
        if count not in (max(num_frames // self.hop, 1), -(-num_frames // self.hop)):
            raise ScoresError(
                f"{count} scores of {self.hop} frames stand for {count * self.hop} frames, "
                f"the annotation has {num_frames}"
            )
        return self.values[np.minimum(np.arange(num_frames) // self.hop, count - 1)]

    def tail(self, num_frames: int) -> int:
        """How many frames at the end take the score of a snippet that ended before them."""
        return max(num_frames - len(self.values) * self.hop, 0) if self.form == "snippets" else 0


@dataclass(frozen=True, slots=True)
class ScoreSet:
    """What one system said about many videos."""

    name: str
    form: Form
    videos: Mapping[str, Scores]
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        if not self.videos:
            raise ScoresError(f"{self.name}: there are no scores")


def read(path: Path, *, hop: int | None = None) -> ScoreSet:
    """Read a score set. ``hop`` is needed for snippet scores whose provenance does not say it.

    Raises ScoresError, ConfigError for a wrong ``provenance.json``, and FileNotFoundError.
    """
    if path.is_dir():
        return _folder(path, hop)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such scores; give a folder of curve.csv or .npy files, or one .npz")
    if path.suffix != ".npz":
        raise ScoresError(f"{path}: not a score set; give a folder of curve.csv or .npy files, or one .npz")
    if hop is not None:
        raise ScoresError(f"{path}: a .npz has equal segments, not snippets; leave out --hop")
    return ScoreSet(path.stem, "segments", _segments(path), _provenance(path.with_suffix(".provenance.json")))


def _folder(folder: Path, hop: int | None) -> ScoreSet:
    provenance = _provenance(folder / PROVENANCE)
    curves = [*folder.rglob("curve.csv"), *(path for path in folder.glob("*.csv") if path.name != "curve.csv")]
    arrays = sorted(folder.rglob("*.npy"))
    if curves and arrays:
        raise ScoresError(f"{folder}: has both .csv and .npy scores; keep one kind in a folder")
    if not curves and not arrays:
        raise ScoresError(f"{folder}: no curve.csv, no .csv and no .npy in it")
    paths = sorted(curves) or arrays
    names = [path.parent.name if path.name == "curve.csv" else path.name[:-4] for path in paths]
    if twice := repeated(names):
        raise ScoresError(f"{folder}: more than one file of scores for: {', '.join(twice)}")
    if curves:
        if hop is not None:
            raise ScoresError(f"{folder}: a .csv has one row per frame; leave out --hop")
        provenance = provenance if (folder / PROVENANCE).exists() else _of_runs(paths)
        return ScoreSet(
            folder.name, "frames", {name: _curve(path) for name, path in zip(names, paths, strict=True)}, provenance
        )
    hop = hop or provenance.hop_frames
    if hop is None:
        raise ScoresError(f"{folder}: .npy scores are one per snippet; say how many frames that is with --hop")
    form: Form = "snippets"
    scores = {name: Scores(_array(path), form, hop=hop) for name, path in zip(names, paths, strict=True)}
    return ScoreSet(folder.name, form, scores, provenance)


def _curve(path: Path) -> Scores:
    table = results.read_table(path, needed=("score",), known=("frame", "pts_s", "raw"))
    if "frame" in table:
        wrong = np.flatnonzero(table["frame"] != np.arange(len(table["frame"])))
        if len(wrong):
            raise ScoresError(
                f"{path}:{wrong[0] + 2}: frame {table['frame'][wrong[0]]:g} stands where frame {wrong[0]} should: "
                "rows must be frames 0, 1, 2 … each once"
            )
    pts = table.get("pts_s")
    fps = None
    if pts is not None and len(pts) > 1 and pts[-1] > pts[0]:
        fps = float((len(pts) - 1) / (pts[-1] - pts[0]))
    return Scores(table["score"], "frames", fps=fps)


def _array(path: Path) -> Values:
    with open(path, "rb") as file:
        if file.read(6) != b"\x93NUMPY":
            raise ScoresError(f"{path}: is not a NumPy array file")
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as cause:
        if "pickle" in str(cause):
            raise ScoresError(f"{path}: is pickled, which could run any code; save a plain array of numbers") from cause
        raise ScoresError(f"{path}: is not a NumPy array file") from cause
    if not isinstance(values, np.ndarray) or not np.issubdtype(values.dtype, np.number):
        raise ScoresError(f"{path}: must hold numbers, one per snippet")
    if values.ndim != 1 or not len(values):
        raise ScoresError(f"{path}: must be (T,), one score per snippet, got {values.shape}; average crops first")
    return values.astype(np.float64)


def _segments(path: Path) -> dict[str, Scores]:
    if not zipfile.is_zipfile(path):
        raise ScoresError(f"{path}: is not a NumPy .npz file")
    try:
        with np.load(path, allow_pickle=False) as file:
            if not {"names", "scores"} <= set(file.files):
                raise ScoresError(f"{path}: needs the arrays names (V,) and scores (V, S), has {', '.join(file.files)}")
            names, scores = file["names"], file["scores"]
    except ScoresError:
        raise
    except (ValueError, zipfile.BadZipFile, EOFError) as cause:
        if "pickle" in str(cause):
            raise ScoresError(f"{path}: is pickled, which could run any code; save plain arrays") from cause
        raise ScoresError(f"{path}: is not a NumPy .npz file") from cause
    if names.ndim != 1 or scores.ndim != 2 or len(names) != len(scores) or not scores.shape[1]:
        raise ScoresError(f"{path}: names must be (V,) and scores (V, S), got {names.shape} and {scores.shape}")
    if not np.issubdtype(scores.dtype, np.number):
        raise ScoresError(f"{path}: scores must be numbers, got {scores.dtype}")
    listed = [str(name) for name in names]
    if twice := repeated(listed):
        raise ScoresError(f"{path}: videos listed more than once: {', '.join(twice)}")
    form: Form = "segments"
    return {name: Scores(row, form) for name, row in zip(listed, scores.astype(np.float64), strict=True)}


def _provenance(path: Path) -> Provenance:
    if not path.exists():
        return Provenance()
    document = Document.read(path)
    return document.validate(Provenance, document.data)


def _of_runs(paths: Sequence[Path]) -> Provenance:
    """What the ``run.json`` beside each curve say, where all of them agree that this product made the scores."""
    labels: set[str] = set()
    systems: set[str] = set()
    chosen: set[str | None] = set()
    data: set[str | None] = set()
    for path in paths:
        try:
            run = json.loads(path.with_name("run.json").read_text(encoding="utf-8"))
            labels.add(run["label"])
            systems.add(run["model"]["name"])
            fitted = run["model"].get("fitted", {})
            chosen.add(fitted.get("checkpoint"))
            data.add(fitted.get("trained_on"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return Provenance()
    if len(labels) != 1:
        return Provenance()
    (label,) = labels
    lookahead = 0.0 if label == "causal" else float(label.removeprefix("lookahead = ").removesuffix(" s"))
    # what follows from the way vad score works, whatever the model: each video by itself, one fixed calibration
    return Provenance(
        system=", ".join(sorted(systems)),
        checkpoint=chosen.pop() if len(chosen) == 1 else None,
        trained_on=tuple(sorted(map(str, data))) if None not in data else None,
        lookahead_s=lookahead,
        per_video_normalisation=False,
        state_across_videos=False,
        position_prior=False,
    )
