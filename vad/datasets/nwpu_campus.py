"""NWPU Campus: 242 test videos.

Cao et al. "A New Comprehensive Benchmark for Semi-supervised Video Anomaly Detection and Anticipation", CVPR 2023,
https://arxiv.org/abs/2305.13611. The authors' ``gt.npz``: one array of 0 and 1 per test video, by name (D001_03).

Format as described in public loaders; not checked against the original file.
"""

from __future__ import annotations

from pathlib import Path

from vad.datasets.annotation import Benchmark
from vad.datasets.assembly import Source, Written, assemble, no_split
from vad.datasets.conventions import Reading
from vad.datasets.files import array, array_names, only_file, runs, video_name


def read(name: str, path: Path, split: str | None, reading: Reading) -> Benchmark:
    """The test set. Raises AnnotationError, FileNotFoundError."""
    no_split(name, split)
    file = only_file(path, "gt.npz", "the labels of all test videos")
    source = Source(name, "a label per frame", unit="labels", videos=242)
    return assemble(source, (_video(file, each) for each in array_names(file)), reading)


def _video(path: Path, name: str) -> Written:
    where = f"{path}: {name}"
    labels = array(path, name)
    return Written(video_name(name), where, runs(labels, where), frames=labels.size)
