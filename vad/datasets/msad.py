"""MSAD: 14 scenarios, under one of two protocols that are not comparable.

Zhu et al. "Advancing Video Anomaly Detection: A Concise Review and a New Dataset", NeurIPS 2024,
https://arxiv.org/abs/2402.04857. The authors' ``anomaly_annotation.csv`` has
``name,scenario,total frames,starting frame of anomaly,ending frame of anomaly`` for the 240 abnormal videos, training
ones too: ``Assault_1,shop,426,55,426``. Frames are taken from 1, the end included (no start is 0, most ends are the
last frame). Normal videos have no line, their counts come from ``frames``.

- ``protocol-ii`` (the default): 120 abnormal and 120 normal test videos. The authors' list of them (``*test*.list``,
  lines like ``…/Assault_2_i3d.npy``) is looked for in the folder of the CSV.
- ``protocol-i``: all 240 abnormal videos and 120 normal ones; training is on normal videos only. Which normal ones, a
  list or ``frames`` says: names that begin MSAD_normal.

A ``.json`` of LaGoVAD holds protocol ii, see ``lagovad``. The list was checked against the authors' repository, the CSV
is as described in public loaders; not checked against the original file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vad.datasets import lagovad
from vad.datasets.annotation import AnnotationError, Benchmark
from vad.datasets.assembly import Source, Written, assemble
from vad.datasets.conventions import Reading
from vad.datasets.files import check, list_of_tests, names, only_file, table, video_name, whole

_ABNORMAL = {"protocol-i": 240, "protocol-ii": 120}  # and 120 normal ones each
_NORMAL = 120
_START, _END = "starting frame of anomaly", "ending frame of anomaly"


def read(name: str, path: Path, split: str | None, reading: Reading) -> Benchmark:
    """The test set of a protocol. Raises AnnotationError, FileNotFoundError."""
    protocol = split or "protocol-ii"
    if protocol not in _ABNORMAL:
        raise AnnotationError(
            f"{name} knows --split protocol-i (240 abnormal, 120 normal test videos) and protocol-ii (120 and 120), "
            f"which are never compared; got {split!r}"
        )
    abnormal = _ABNORMAL[protocol]
    size = abnormal + _NORMAL
    if path.suffix.lower() == ".json":
        if protocol != "protocol-ii":
            raise AnnotationError(f"{path}: LaGoVAD's JSON holds protocol-ii, not {protocol}")
        source = Source(name, f"{protocol}, {lagovad.ABOUT}", unit="shares", videos=size, abnormal=abnormal)
        return assemble(source, lagovad.videos(path), reading)
    file = only_file(path, "*annotation*.csv", "the annotation of abnormal videos")
    source = Source(name, f"{protocol}, CSV of the authors", ends="matlab", videos=size, abnormal=abnormal)
    return assemble(source, _tested(file, protocol, reading), reading)


def _tested(path: Path, protocol: str, reading: Reading) -> Iterator[Written]:
    annotated = {each.name: each for each in _table(path)}
    listed = list_of_tests(path.parent)
    if listed is None:
        if protocol == "protocol-ii" and len(annotated) > _ABNORMAL[protocol]:
            raise AnnotationError(
                f"{path}: annotates {len(annotated)} videos, training ones too; protocol-ii needs the authors' list of "
                "its test videos (*test*.list) beside it"
            )
        yield from annotated.values()
        for name in reading.known():
            if name.startswith("MSAD_normal"):
                yield Written(name, "list of frame counts")
        return
    tested = [(where, name) for where, name, _ in names(listed)]
    if protocol == "protocol-i":
        yield from annotated.values()
        tested = [(where, name) for where, name in tested if name not in annotated]
    for where, name in tested:
        if name not in annotated and "normal" not in name.lower():
            raise AnnotationError(f"{where}: {name} is abnormal by its name, but {path.name} has no line for it")
        yield annotated.get(name) or Written(name, where)


def _table(path: Path) -> Iterator[Written]:
    seen: dict[str, str] = {}
    for where, row in table(path, ["name", "total frames", _START, _END], optional=["scenario"]):
        name = video_name(row["name"])
        if name in seen:
            raise AnnotationError(f"{where}: {name} is annotated already, at {seen[name]}")
        seen[name] = where
        pair = whole(row[_START], where, "a frame number"), whole(row[_END], where, "a frame number")
        check(*pair, where)
        category = name.rpartition("_")[0] or name
        yield Written(name, where, [pair], (category,), whole(row["total frames"], where, "a frame count"))
