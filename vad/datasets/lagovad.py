"""The one JSON form in which LaGoVAD distributes the test sets of seven benchmarks.

Liu et al. "Language-guided Open-world Video Anomaly Detection", https://arxiv.org/abs/2503.13160. UCF-Crime,
XD-Violence, MSAD, UBnormal, TAD, LAD and DoTA, each a list of objects: ``video_path``, ``class_name`` ("Normal", or
what happens) and ``anomaly_span``, shares of the video: [[0.25, 0.5], …]. There are no frame counts. Start and end are
round(share x N); a share a little over 1 (UCF-Crime has five) is cut.

The shares are written frame numbers over N, whatever these meant: those of MSAD never start at 0
(frames from 1) and those of UBnormal never reach 1 (end included), so both are one frame off at one end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vad.datasets.annotation import AnnotationError, Benchmark
from vad.datasets.assembly import Source, Written, assemble, no_split
from vad.datasets.conventions import Reading
from vad.datasets.files import check, video_name

ABOUT = "LaGoVAD JSON of shares of each video"


def read(name: str, path: Path, split: str | None, reading: Reading) -> Benchmark:
    """The test set in such a file, whichever it is. Raises AnnotationError."""
    no_split(name, split)
    return assemble(Source(name, ABOUT, unit="shares"), videos(path), reading)


def load(path: Path) -> Any:
    """What a JSON file holds. Raises AnnotationError."""
    if path.is_dir():
        raise AnnotationError(f"{path}: is a folder; give the annotation file")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as cause:
        raise AnnotationError(f"{path}: is not JSON: {cause}") from cause


def videos(path: Path) -> Iterator[Written]:
    """The videos of such a file. Raises AnnotationError."""
    listed = load(path)
    if not isinstance(listed, list):
        raise AnnotationError(f"{path}: must hold a list of videos")
    for number, each in enumerate(listed, start=1):
        where = f"{path}: video {number}"
        try:
            video, kind = str(each["video_path"]), str(each["class_name"])
            spans = [(float(start), float(end)) for start, end in each["anomaly_span"] or []]
        except (KeyError, TypeError, ValueError) as cause:
            raise AnnotationError(f"{where}: needs video_path, class_name and anomaly_span of [start, end]") from cause
        for start, end in spans:
            check(start, end, where)
            if not start <= 1:  # NaN too
                raise AnnotationError(f"{where}: a share of the video cannot be {start:g}")
        if (kind == "Normal") == bool(spans):
            raise AnnotationError(f"{where}: {video} is {kind}, but has {'' if spans else 'no '}anomaly_span")
        yield Written(video_name(video), where, spans, () if kind == "Normal" else (kind,))
