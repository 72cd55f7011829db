"""UBnormal: 211 test videos, 158 abnormal, 30 fps.

Acsintoae et al. "UBnormal: New Benchmark for Supervised Open-Set Video Anomaly Detection", CVPR 2022,
https://arxiv.org/abs/2111.08644. Known by their form, below the folder that is given:

- ``NAME/ground_truth_frame_level.txt`` as the authors' script writes it: one label per line, 0 or 1.
- ``NAME_annotations/NAME_tracks.txt``: ``object,start,end`` per line. The authors' script marks [start, end], from 0,
  the end included: the default here. ``abnormal_test_video_names.txt`` and ``normal_test_video_names.txt`` of their
  repository say which videos are tested; without them all tracks are, and videos of ``frames`` called normal_….
- a ``.json`` of LaGoVAD, see ``lagovad``.

As described in the authors' scripts; not checked against the original annotation files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vad.datasets import lagovad
from vad.datasets.annotation import AnnotationError, Benchmark
from vad.datasets.assembly import Source, Written, assemble, listing, no_split
from vad.datasets.conventions import Reading
from vad.datasets.files import Pairs, check, lines, names, real, runs

_LEVEL = "ground_truth_frame_level.txt"


def read(name: str, path: Path, split: str | None, reading: Reading) -> Benchmark:
    """The test set. Raises AnnotationError, FileNotFoundError."""
    no_split(name, split)
    if path.is_file():
        source = Source(name, lagovad.ABOUT, unit="shares", fps=30, videos=211, abnormal=158)
        return assemble(source, lagovad.videos(path), reading)
    if levels := sorted(path.rglob(_LEVEL)):
        source = Source(name, "a label per frame", unit="labels", fps=30, videos=211, abnormal=158)
        return assemble(source, (_labels(each) for each in levels), reading)
    tracks = {each.name.removesuffix("_tracks.txt"): each for each in sorted(path.rglob("*_tracks.txt"))}
    if not tracks:
        raise FileNotFoundError(f"{path}: holds neither NAME_tracks.txt nor {_LEVEL}")
    source = Source(name, "tracks of the authors", ends="inclusive", fps=30, videos=211, abnormal=158)
    return assemble(source, _tested(path, tracks, reading), reading)


def _labels(path: Path) -> Written:
    labels = np.array([real(line, where, "a label") for where, line in lines(path)])
    return Written(path.parent.name, str(path), runs(labels, str(path)), frames=labels.size)


def _tested(root: Path, tracks: dict[str, Path], reading: Reading) -> Iterator[Written]:
    lists = {kind: sorted(root.rglob(f"{kind}_test_video_names.txt")) for kind in ("abnormal", "normal")}
    if all(lists.values()):
        abnormal, normal = ([name for _, name, _ in names(lists[kind][0])] for kind in ("abnormal", "normal"))
    else:
        abnormal = list(tracks)
        normal = [name for name in reading.known() if name.startswith("normal_")]
    if missing := [name for name in abnormal if name not in tracks]:
        raise AnnotationError(f"{root}: holds no tracks of abnormal videos {listing(missing)}")
    for name in abnormal:
        yield Written(name, str(tracks[name]), list(_pairs(tracks[name])), ("Abnormal",))
    for name in normal:
        yield Written(name, "list of normal videos")


def _pairs(path: Path) -> Iterator[tuple[int, int]]:
    found: Pairs = []
    for where, line in lines(path):
        fields = line.split(",")
        if len(fields) != 3:
            raise AnnotationError(f"{where}: expected OBJECT,START,END, got {len(fields)} fields")
        start, end = (real(field, where, "a frame number") for field in fields[1:])
        if start % 1 or end % 1:
            raise AnnotationError(f"{where}: a frame number must be a whole number, got {line!r}")
        check(start, end, where)
        found.append((int(start), int(end)))
    yield from sorted(set(found))
