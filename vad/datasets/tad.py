"""TAD, traffic anomalies seen by surveillance cameras: 100 test videos, 60 abnormal.

Lv et al. "Localizing Anomalies from Weakly-Labeled Videos", TIP 2021, https://arxiv.org/abs/2008.08944. The authors'
``vals.txt``: ``01_Accident_004.mp4 190 53 118`` and ``Normal_012.mp4 70 -1 -1``: name, frames, starts and ends. Some
starts are 0 and some ends the frame count, so pairs are read as half-open from 0; others include the end
(``inclusive-ends``). Or a ``.json`` of LaGoVAD, see ``lagovad``.

Format as described in public loaders, with numbers that agree with LaGoVAD's; not checked against the original file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vad.datasets import lagovad
from vad.datasets.annotation import AnnotationError, Benchmark
from vad.datasets.assembly import Source, Written, assemble, no_split
from vad.datasets.conventions import Reading
from vad.datasets.files import lines, pairs, video_name, whole


def read(name: str, path: Path, split: str | None, reading: Reading) -> Benchmark:
    """The test set. Raises AnnotationError."""
    no_split(name, split)
    if path.suffix.lower() == ".json":
        return assemble(
            Source(name, lagovad.ABOUT, unit="shares", videos=100, abnormal=60), lagovad.videos(path), reading
        )
    source = Source(name, "vals.txt of the authors", ends="half-open", videos=100, abnormal=60)
    return assemble(source, _text(path), reading)


def _text(path: Path) -> Iterator[Written]:
    for where, line in lines(path):
        fields = line.split()
        if len(fields) < 4 or len(fields) % 2:
            raise AnnotationError(f"{where}: expected NAME FRAMES START END, got {len(fields)} fields")
        name, found = video_name(fields[0]), pairs(fields[2:], where, none=-1)
        normal = name.startswith("Normal")
        if normal == bool(found):
            raise AnnotationError(f"{where}: {name} has {'' if found else 'no '}intervals, against its name")
        parts = name.split("_")  # 01_Accident_004
        category = parts[1] if len(parts) > 2 else parts[0]
        yield Written(name, where, found, () if normal else (category,), whole(fields[1], where, "a frame count"))
