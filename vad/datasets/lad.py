"""LAD2000: 14 kinds of anomalies, 560 test videos, 280 abnormal.

Wan et al. "Anomaly detection in video sequences: A benchmark and computational model", IET Image Processing 2021,
https://arxiv.org/abs/2106.08570. The authors' folder of ``gt_Crash_a_s017_c001.mat``, one label per frame in a variable
``gt`` (1, N), for the video v_Crash_a_s017_c001; ``_a_`` is abnormal, ``_n_`` normal. A list of the test videos
(``*test*.txt``, one name a line) in the same folder says which are tested; without it all are. Or a ``.json`` of
LaGoVAD, see ``lagovad``.

Format as described in the authors' ``gt_creater.py``; not checked against the original files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vad.datasets import lagovad
from vad.datasets.annotation import AnnotationError, Benchmark
from vad.datasets.assembly import Source, Written, assemble, no_split
from vad.datasets.conventions import Reading
from vad.datasets.files import list_of_tests, matrices, names, runs


def read(name: str, path: Path, split: str | None, reading: Reading) -> Benchmark:
    """The test set. Raises AnnotationError, FileNotFoundError."""
    no_split(name, split)
    if path.is_file():
        return assemble(
            Source(name, lagovad.ABOUT, unit="shares", videos=560, abnormal=280), lagovad.videos(path), reading
        )
    source = Source(name, "a label per frame", unit="labels", videos=560, abnormal=280)
    return assemble(source, _tested(path), reading)


def _tested(folder: Path) -> Iterator[Written]:
    found = {each.stem.replace("gt_", "v_", 1): each for each in sorted(folder.rglob("gt_*.mat"))}
    if not found:
        raise FileNotFoundError(f"{folder}: holds no gt_NAME.mat")
    listed = list_of_tests(folder)
    tested = [(where, name) for where, name, _ in names(listed)] if listed else [("", name) for name in found]
    for where, name in tested:
        parts = name.split("_")  # v_Crash_a_s017_c001
        if len(parts) < 4 or parts[-3] not in ("a", "n"):
            raise AnnotationError(f"{where or found[name]}: {name} is not a name like v_Crash_a_s017_c001")
        normal = parts[-3] == "n"
        if name not in found:
            if not normal:
                raise AnnotationError(f"{where}: {name} is abnormal by its name, but has no .mat")
            yield Written(name, where)
            continue
        labels = matrices(found[name], "gt")
        pairs = runs(labels, str(found[name]))
        if normal == bool(pairs):
            raise AnnotationError(f"{found[name]}: has {'' if pairs else 'no '}abnormal frames, against its name")
        yield Written(name, str(found[name]), pairs, () if normal else ("_".join(parts[1:-3]),), labels.size)
