"""UCSD Ped1 (36 test clips) and Ped2 (12), 10 fps.

Mahadevan, Li, Bhalodia, Vasconcelos. "Anomaly Detection in Crowded Scenes", CVPR 2010. Known by their form:

- ``UCSDped1.m``, ``UCSDped2.m`` of the authors, or a folder with it: one line per clip in order,
  ``TestVideoFile{end+1}.gt_frame = [5:90, 140:200];``, MATLAB ranges: from 1, the end included. Frame counts are those
  of ``TestNNN/*.tif`` beside the file, else of ``frames``; every clip of Ped1 has 200 frames. Clips are named
  Test001, Test002 ….
- ``ped1.mat``, ``ped2.mat`` of Liu et al. (CVPR 2018): the same ranges, see ``files.events``.
- a CSV ``video,num_frames,start_frame,end_frame``, one half-open interval per clip.

Pixel masks: the authors' ``TestNNN_gt/*.bmp``, one picture per frame, not 0 where something is abnormal; or an
``.npz`` with an array per clip, (N, H, W / 8), packed with ``numpy.packbits`` along the last axis.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vad.datasets.annotation import AnnotationError, Benchmark
from vad.datasets.assembly import Source, Written, assemble, no_split
from vad.datasets.conventions import Reading
from vad.datasets.files import Pairs, array, array_names, check, events, lines, only_file, table, video_name, whole

_CLIPS = {"ped1": 36, "ped2": 12}
_PED1_FRAMES = 200


def read(name: str, path: Path, split: str | None, reading: Reading) -> Benchmark:
    """The test set. Raises AnnotationError, FileNotFoundError."""
    no_split(name, split)
    clips = _CLIPS[name]
    if path.suffix.lower() == ".csv":
        source = Source(name, "CSV of half-open frames", fps=10, videos=clips, abnormal=clips)
        return assemble(source, _table(path), reading)
    if path.suffix.lower() == ".mat":
        source = Source(name, "events file of Liu et al.", ends="matlab", fps=10, videos=clips, abnormal=clips)
        found = list(enumerate(events(path), start=1))
        return assemble(source, (_clip(name, path, number, pairs) for number, pairs in found), reading)
    file = only_file(path, f"UCSD{name}.m", "the list of abnormal frames")
    source = Source(name, f"{file.name} of the authors", ends="matlab", fps=10, videos=clips, abnormal=clips)
    return assemble(source, (_clip(name, file, number, pairs) for number, pairs in _ranges(file)), reading)


def pixel_masks(path: Path, video: str) -> npt.NDArray[np.bool_]:
    """(N, H, W), True where something is abnormal, of a clip named ``01`` or ``Test001``.

    ``path`` is a packed ``.npz`` or the folder of ``TestNNN_gt``. Raises AnnotationError.
    """
    return Masks(path)[video]


class Masks(Mapping[str, npt.NDArray[np.bool_]]):
    """Pixel masks by clip, each read when it is asked for. Raises AnnotationError for a clip without masks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.is_dir():
            folders = sorted(each for each in path.rglob("Test*_gt") if each.is_dir())
            self._folders = {each.name.removesuffix("_gt"): each for each in folders}
            self._names = list(self._folders)
        else:
            self._folders, self._names = {}, array_names(path)
        if not self._names:
            raise AnnotationError(f"{path}: holds no masks: neither TestNNN_gt folders nor packed arrays")

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, video: object) -> bool:
        return isinstance(video, str) and self._same(video) is not None

    def __getitem__(self, video: str) -> npt.NDArray[np.bool_]:
        name = self._same(video)
        if name is None:
            raise AnnotationError(f"{self._path}: no masks for {video!r}; available: {', '.join(self._names)}")
        return _pictures(self._folders[name]) if self._folders else _unpacked(self._path, name)

    def _same(self, video: str) -> str | None:
        """Its name here: 01 and Test001 are the same clip."""
        wanted = video_name(video)
        return next((name for name in self._names if name == wanted or _number(name) == _number(wanted)), None)


def _number(name: str) -> int | str:
    match = re.fullmatch(r"(?:Test)?(\d+)", name)
    return int(match[1]) if match else name


def _unpacked(path: Path, name: str) -> npt.NDArray[np.bool_]:
    packed = array(path, name)
    if packed.ndim != 3 or packed.dtype != np.uint8:
        raise AnnotationError(
            f"{path}: {name} must be packed masks (N, H, W / 8) uint8, got {packed.dtype} {packed.shape}"
        )
    return np.unpackbits(packed, axis=-1).astype(bool)


def _pictures(folder: Path) -> npt.NDArray[np.bool_]:
    from PIL import Image

    files = sorted(folder.glob("*.bmp"))
    if not files:
        raise AnnotationError(f"{folder}: holds no .bmp")
    pictures: list[npt.NDArray[Any]] = []
    for file in files:
        try:
            with Image.open(file) as picture:
                pictures.append(np.asarray(picture.convert("L")) > 0)
        except OSError as cause:
            raise AnnotationError(f"{file}: is not a readable picture; get this file again") from cause
        if pictures[-1].shape != pictures[0].shape:
            raise AnnotationError(f"{file}: has another size than {files[0].name}")
    return np.stack(pictures)


def _ranges(path: Path) -> Iterator[tuple[int, Pairs]]:
    clips = 0
    for where, line in lines(path):
        if "gt_frame" not in line or line.startswith("%"):
            continue
        clips += 1
        match = re.search(r"=\s*\[([\d:,\s]*)\]", line)
        found: Pairs = []
        for part in filter(None, re.split(r"[,\s]+", match[1].strip() if match else "?")):
            ends = re.fullmatch(r"(\d+)(?::(\d+))?", part)
            if not ends:
                raise AnnotationError(f"{where}: expected gt_frame = [START:END, START:END], got {line!r}")
            pair = int(ends[1]), int(ends[2] or ends[1])
            check(*pair, where)
            found.append(pair)
        yield clips, found
    if not clips:
        raise AnnotationError(f"{path}: has no line of gt_frame")


def _clip(name: str, path: Path, number: int, pairs: Pairs) -> Written:
    clip = f"Test{number:03d}"
    pictures = len(list((path.parent / clip).glob("*.tif")))
    frames = pictures or (_PED1_FRAMES if name == "ped1" else None)
    return Written(clip, f"{path}: clip {number}", pairs, frames=frames)


def _table(path: Path) -> Iterator[Written]:
    for where, row in table(path, ["video", "num_frames", "start_frame", "end_frame"]):
        pair = (
            whole(row["start_frame"], where, "a frame number"),
            whole(row["end_frame"], where, "a frame number"),
        )
        check(*pair, where)
        yield Written(video_name(row["video"]), where, [pair], frames=whole(row["num_frames"], where, "a frame count"))
