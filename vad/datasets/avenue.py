"""CUHK Avenue: 21 test videos, all abnormal, 25 fps.

Lu, Shi, Jia. "Abnormal Event Detection at 150 FPS in MATLAB", ICCV 2013. Known by their form:

- the authors' folder ``testing_label_mask`` with ``1_label.mat`` … ``21_label.mat``: a variable ``volLabel``, one cell
  per frame with a mask; a frame is abnormal when its mask is not all 0. Videos are named 01 … as their files are.
- ``avenue.mat`` of Liu et al. (CVPR 2018): ranges from 1, the end included, see ``files.events``; no frame counts.

The form of the masks is that of the authors' ``ground_truth_show.m``; not checked against the original files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vad.datasets.annotation import AnnotationError, Benchmark
from vad.datasets.assembly import Source, Written, assemble, no_split
from vad.datasets.conventions import Reading
from vad.datasets.files import events, matrices, runs


def read(name: str, path: Path, split: str | None, reading: Reading) -> Benchmark:
    """The test set. Raises AnnotationError, FileNotFoundError."""
    no_split(name, split)
    if path.is_file():
        source = Source(name, "events file of Liu et al.", ends="matlab", fps=25, videos=21, abnormal=21)
        found = list(enumerate(events(path), start=1))
        listed = (Written(f"{number:02d}", f"{path}: video {number}", pairs) for number, pairs in found)
        return assemble(source, listed, reading)
    source = Source(name, "a mask per frame", unit="labels", fps=25, videos=21, abnormal=21)
    return assemble(source, _masks(path), reading)


def _masks(folder: Path) -> Iterator[Written]:
    numbered = [
        (int(match[1]), each) for each in folder.rglob("*.mat") if (match := re.match(r"(\d+)_label", each.name))
    ]
    if not numbered:
        raise FileNotFoundError(f"{folder}: holds no N_label.mat (testing_label_mask)")
    for number, path in sorted(numbered):
        cells = matrices(path, "volLabel")
        if cells.dtype != object or not cells.size:
            raise AnnotationError(f"{path}: volLabel must have one cell per frame")
        labels = np.array([bool(np.any(cell)) for cell in cells.ravel()])
        yield Written(f"{number:02d}", str(path), runs(labels, str(path)), frames=labels.size)
