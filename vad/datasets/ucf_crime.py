"""UCF-Crime: 290 test videos, 140 abnormal, 30 fps.

Sultani, Chen, Shah. "Real-world Anomaly Detection in Surveillance Videos", CVPR 2018,
https://arxiv.org/abs/1801.04264. Three files are known by their form:

- ``Temporal_Anomaly_Annotation_for_Testing_Videos.txt`` of the authors: ``Abuse028_x264.mp4  Abuse  165  240  -1  -1``,
  -1 where there is no interval. Their MATLAB evaluation sets ``GT(start:end) = 1``: frames from 1, the end included.
  That is the default here; RTFM counts from 0 and includes the end (``inclusive-ends``), and others leave the end out
  (``half-open-ends``). The file has no frame counts. Theirs are duration x 30 (``30fps``).
- a CSV ``video,category,num_frames,start1,end1,start2,end2``, half-open from 0, -1 for none.
- the JSON of LaGoVAD, see ``lagovad``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vad.datasets import lagovad
from vad.datasets.annotation import AnnotationError, Benchmark
from vad.datasets.assembly import Source, Written, assemble, no_split
from vad.datasets.conventions import Reading
from vad.datasets.files import Pairs, lines, pairs, table, video_name, whole

_COLUMNS = ("video", "category", "num_frames", "start1", "end1", "start2", "end2")


def read(name: str, path: Path, split: str | None, reading: Reading) -> Benchmark:
    """The test set. Raises AnnotationError."""
    no_split(name, split)
    kind = path.suffix.lower()
    if kind == ".json":
        source = Source(name, lagovad.ABOUT, unit="shares", fps=30, videos=290, abnormal=140)
        return assemble(source, lagovad.videos(path), reading)
    if kind == ".csv":
        source = Source(name, "CSV of half-open frames", fps=30, videos=290, abnormal=140)
        return assemble(source, _table(path), reading)
    source = Source(name, "annotation text of the authors", ends="matlab", fps=30, videos=290, abnormal=140)
    return assemble(source, _text(path), reading)


def _text(path: Path) -> Iterator[Written]:
    for where, line in lines(path):
        fields = line.split()
        if len(fields) < 4 or len(fields) % 2:
            raise AnnotationError(f"{where}: expected NAME CATEGORY START END START END, got {len(fields)} fields")
        yield _video(where, fields[0], fields[1], pairs(fields[2:], where, none=-1))


def _table(path: Path) -> Iterator[Written]:
    for where, row in table(path, _COLUMNS):
        found = pairs([row[column] for column in _COLUMNS[3:]], where, none=-1)
        frames = whole(row["num_frames"], where, "a frame count")
        yield _video(where, row["video"], row["category"], found, frames)


def _video(where: str, video: str, category: str, found: Pairs, frames: int | None = None) -> Written:
    normal = category == "Normal"
    if normal and found:
        raise AnnotationError(f"{where}: {video} is Normal, but has intervals")
    if not normal and not found:
        raise AnnotationError(f"{where}: {video} is {category}, but has no interval")
    return Written(video_name(video), where, found, () if normal else (category,), frames)
