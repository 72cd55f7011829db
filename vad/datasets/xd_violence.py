"""XD-Violence: 800 test videos, 500 abnormal, 24 fps.

Wu et al. "Not only Look, but also Listen: Learning Multimodal Violence Detection under Weak Supervision", ECCV 2020,
https://arxiv.org/abs/2007.04687. Three files are known by their form:

- ``annotations.txt`` of the authors: ``NAME START END START END …``, one line for each of the 500 abnormal videos and
  none for the 300 normal ones, which are known by ``frames`` alone: their names say ``label_A``. The
  ground truth in circulation (XDVioDet, PEL4VAD) marks [start, end), from 0, cut to the video: the default here. It
  also takes one frame less per video than there is, and drops the tail (``dropped-tail`` does the latter).
- a CSV ``video,num_frames,intervals_half_open``, intervals like ``157-180;185-244``.
- the JSON of LaGoVAD, see ``lagovad``.

Categories come from the name: ``…_label_B2-B6-0`` is shooting and car accident. Which interval shows which is not
annotated: the intervals of a video with several categories have none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from vad.datasets import lagovad
from vad.datasets.annotation import AnnotationError, Benchmark
from vad.datasets.assembly import Source, Written, assemble, listing, no_split
from vad.datasets.conventions import Reading
from vad.datasets.files import lines, pairs, table, video_name, whole, written_frames

CATEGORIES = {
    "B1": "Fighting",
    "B2": "Shooting",
    "B4": "Riot",
    "B5": "Abuse",
    "B6": "Car accident",
    "G": "Explosion",
}
_NORMAL = "A"


def categories(name: str, where: str) -> tuple[str, ...]:
    """Categories that a video's name says, none for a normal one. Raises AnnotationError.

    >>> categories("Bad.Boys.1995__#01-11-55_01-12-40_label_G-B2-B6", "file:1")
    ('Explosion', 'Shooting', 'Car accident')
    >>> categories("About.Time.2013__#00-23-50_00-24-31_label_A", "file:1")
    ()
    """
    label = re.search(r"_label_([0-9A-Z-]+)$", name)
    codes = [code for code in label[1].split("-") if code != "0"] if label else []
    if codes == [_NORMAL]:
        return ()
    if not codes or not set(codes) <= set(CATEGORIES):
        raise AnnotationError(f"{where}: {name} must end in a label such as label_A or label_B1-0-0")
    return tuple(dict.fromkeys(CATEGORIES[code] for code in codes))


def read(name: str, path: Path, split: str | None, reading: Reading) -> Benchmark:
    """The test set. Raises AnnotationError."""
    no_split(name, split)
    kind = path.suffix.lower()
    if kind == ".json":
        source = Source(name, lagovad.ABOUT, unit="shares", fps=24, videos=800, abnormal=500)
        found = [replace(each, categories=categories(each.name, each.where)) for each in lagovad.videos(path)]
        return assemble(source, found, reading)
    if kind == ".csv":
        source = Source(name, "CSV of half-open frames", fps=24, videos=800, abnormal=500)
        return assemble(source, _table(path), reading)
    source = Source(name, "annotation text of the authors", ends="half-open", fps=24, videos=800, abnormal=500)
    abnormal = list(_text(path))
    return assemble(source, [*abnormal, *_unlisted(path, abnormal, reading)], reading)


def _text(path: Path) -> Iterator[Written]:
    for where, line in lines(path):
        video, *numbers = line.split()
        found = pairs(numbers, where)
        if not found:
            raise AnnotationError(f"{where}: {video} has no interval; only abnormal videos have a line")
        name = video_name(video)
        kinds = categories(name, where)
        if not kinds:
            raise AnnotationError(f"{where}: {name} is normal by its name, but has intervals")
        yield Written(name, where, found, kinds)


def _unlisted(path: Path, listed: list[Written], reading: Reading) -> Iterator[Written]:
    """The videos without a line: normal, if their names say so."""
    have = {each.name for each in listed}
    others = [name for name in reading.known() if name not in have]
    if abnormal := [name for name in others if categories(name, "list of frame counts")]:
        raise AnnotationError(f"{path}: has no line for {listing(abnormal)}, abnormal by name")
    for name in others:
        yield Written(name, "list of frame counts")


def _table(path: Path) -> Iterator[Written]:
    for where, row in table(path, ["video", "num_frames", "intervals_half_open"]):
        name = video_name(row["video"])
        kinds, found = categories(name, where), written_frames(row["intervals_half_open"], where)
        if bool(kinds) != bool(found):
            raise AnnotationError(
                f"{where}: {name} is {'abnormal' if kinds else 'normal'} by its name, not by intervals"
            )
        yield Written(name, where, found, kinds, whole(row["num_frames"], where, "a frame count"))
