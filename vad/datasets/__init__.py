"""Annotations of the benchmarks, as their authors distribute them, read into one form.

``read`` imports only the importer that is asked for. What a file looks like, how its ends are read by default, and
whether that could be checked, is in the docstring of each importer.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vad.datasets import annotation
from vad.datasets.annotation import AnnotatedVideo, AnnotationError, Benchmark, Interval
from vad.datasets.conventions import CONVENTIONS, Convention, Reading
from vad.datasets.files import FrameCount, existing, read_frame_counts, video_name

__all__ = [
    "CONVENTIONS",
    "NAMES",
    "AnnotatedVideo",
    "AnnotationError",
    "Benchmark",
    "Convention",
    "FrameCount",
    "Interval",
    "annotation",
    "masks",
    "read",
    "read_frame_counts",
    "video_name",
]

_IMPORTERS: Mapping[str, str] = {
    "avenue": "avenue",
    "custom": "custom",
    "dota": "dota",
    "lad": "lad",
    "lagovad": "lagovad",
    "msad": "msad",
    "nwpu-campus": "nwpu_campus",
    "ped1": "ucsd",
    "ped2": "ucsd",
    "shanghaitech": "shanghaitech",
    "tad": "tad",
    "ubnormal": "ubnormal",
    "ucf-crime": "ucf_crime",
    "xd-violence": "xd_violence",
}

NAMES: tuple[str, ...] = tuple(_IMPORTERS)


def read(
    name: str,
    path: Path,
    *,
    split: str | None = None,
    frames: Mapping[str, FrameCount] | None = None,
    conventions: Sequence[str] = (),
    rows: Mapping[str, int] | None = None,
    hop: int | None = None,
) -> Benchmark:
    """The test set of a benchmark, from its own annotation file or folder.

    ``frames`` gives frame counts by video name and overrides those of the file. ``conventions`` (see ``Convention``)
    changes how ends are read and how long videos are taken to be; ``rows`` and ``hop`` are for ``x16`` only.
    Raises AnnotationError, and FileNotFoundError.
    """
    if name not in _IMPORTERS:
        raise AnnotationError(f"unknown dataset {name!r}; available: {', '.join(NAMES)}")
    reading = Reading.of(conventions, frames=frames, rows=rows, hop=hop)
    importer = importlib.import_module(f"vad.datasets.{_IMPORTERS[name]}")
    benchmark: Benchmark = importer.read(name, existing(path), split, reading)
    return benchmark


def masks(name: str, path: Path) -> Mapping[str, npt.NDArray[np.bool_]]:
    """Pixel masks (N, H, W) by video name, True where something is abnormal; each is read when it is asked for.

    For ped1 and ped2: a packed ``.npz``, or the folder of ``TestNNN_gt``. Raises AnnotationError, FileNotFoundError.
    """
    if name not in ("ped1", "ped2"):
        raise AnnotationError(f"no pixel masks for {name!r}; available: ped1, ped2")
    from vad.datasets.ucsd import Masks

    return Masks(existing(path))
