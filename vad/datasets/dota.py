"""DoTA, dashcam videos: 1,402 test videos, all abnormal, 10 fps.

Yao et al. "DoTA: Unsupervised Detection of Traffic Anomaly in Driving Videos", TPAMI 2022,
https://arxiv.org/abs/2004.03044. The authors' metadata JSON, an object per video name: ``anomaly_start``,
``anomaly_end``, ``anomaly_class``, ``num_frames``, ``subset``; those with subset "test" or "val" are tested, all where
none is. Pairs are read as half-open from 0. Or a ``.json`` of LaGoVAD, see ``lagovad``.

Format as described in the dataset's README; not checked against the original file, nor what its ends mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vad.datasets import lagovad
from vad.datasets.annotation import AnnotationError, Benchmark
from vad.datasets.assembly import Source, Written, assemble, no_split
from vad.datasets.conventions import Reading
from vad.datasets.files import check


def read(name: str, path: Path, split: str | None, reading: Reading) -> Benchmark:
    """The test set. Raises AnnotationError."""
    no_split(name, split)
    loaded = lagovad.load(path)
    if isinstance(loaded, list):
        source = Source(name, lagovad.ABOUT, unit="shares", fps=10, videos=1402, abnormal=1402)
        return assemble(source, lagovad.videos(path), reading)
    if not isinstance(loaded, dict):
        raise AnnotationError(f"{path}: must hold an object per video name")
    source = Source(name, "metadata of the authors", ends="half-open", fps=10, videos=1402, abnormal=1402)
    return assemble(source, _videos(path, loaded), reading)


def _videos(path: Path, loaded: dict[str, Any]) -> Iterator[Written]:
    for name, each in loaded.items():
        where = f"{path}: {name}"
        try:
            start, end, frames, kind = (
                each[key] for key in ("anomaly_start", "anomaly_end", "num_frames", "anomaly_class")
            )
            subset = each.get("subset", "test")
        except (KeyError, TypeError, AttributeError) as cause:
            raise AnnotationError(f"{where}: needs anomaly_start, anomaly_end, num_frames and anomaly_class") from cause
        if subset not in ("test", "val"):
            continue
        if not all(type(number) is int for number in (start, end, frames)):
            raise AnnotationError(f"{where}: frame numbers must be whole, got {start!r}, {end!r}, {frames!r}")
        check(start, end, where)
        yield Written(name, where, [(start, end)], (str(kind),), frames)
