"""Reading annotation files: text, tables, arrays, lists of names. Every refusal names the file, and the line."""

from __future__ import annotations

import csv
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vad.datasets.annotation import AnnotationError

Pairs = list[tuple[int, int]]

_TYPES = re.compile(
    r"\.(mp4|avi|mkv|mov|m4v|mpg|mpeg|webm|wmv|flv|npy|npz|csv|txt|mat|json|bmp|jpg|jpeg|png|tif|tiff)$", re.IGNORECASE
)
_BROKEN = (ValueError, EOFError, OSError, KeyError, zipfile.BadZipFile, zlib.error)
_NAMED = "an .npz of named arrays"
_CROP = re.compile(r"__\d$")


@dataclass(frozen=True, slots=True)
class FrameCount:
    """How long a video is."""

    frames: int
    fps: float | None = None  # None: unknown

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise AnnotationError(f"a frame count must be at least 1, got {self.frames}")
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise AnnotationError(f"a frame rate must be positive, got {self.fps}")


def video_name(text: str) -> str:
    """A video's name without folders, known file type and crop number; other dots belong to the name.

    >>> video_name("features/About.Time.2013__#00-23-50_00-24-31_label_A__0.npy")
    'About.Time.2013__#00-23-50_00-24-31_label_A'
    >>> video_name("Abuse" + chr(92) + "Abuse028_x264.mp4")
    'Abuse028_x264'
    """
    name = re.split(r"[/\\]", text.strip())[-1]
    while (shorter := _CROP.sub("", _TYPES.sub("", name))) != name and shorter:
        name = shorter
    return name


def read_frame_counts(path: Path) -> dict[str, FrameCount]:
    """Frame counts by video name, of a CSV with header ``video,frames[,fps]``.

    Raises FileNotFoundError, and AnnotationError with the line of what cannot be read.
    """
    counts: dict[str, FrameCount] = {}
    for where, row in table(existing(path, what="list of frame counts"), ["video", "frames"], optional=["fps"]):
        name, rate = video_name(row["video"]), row.get("fps", "").strip()
        if name in counts:
            raise AnnotationError(f"{where}: {name} has a frame count already")
        frames = whole(row["frames"], where, "a frame count")
        fps = real(rate, where, "a frame rate") if rate else None
        try:
            counts[name] = FrameCount(frames, fps)
        except AnnotationError as cause:
            raise AnnotationError(f"{where}: {name}: {cause}") from cause
    return counts


def existing(path: Path, *, what: str = "annotation file") -> Path:
    """The path, if it is there. Raises FileNotFoundError."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such {what}")
    return path


def only_file(path: Path, pattern: str, what: str) -> Path:
    """The path itself, or the one file below a folder that matches. Raises AnnotationError, FileNotFoundError."""
    if path.is_file():
        return path
    found = sorted(each for each in path.rglob(pattern) if each.is_file())
    if not found:
        raise FileNotFoundError(f"{path}: holds no {pattern}, {what}")
    if len(found) > 1:
        raise AnnotationError(f"{path}: holds {len(found)} files {pattern}, {what}; give the file")
    return found[0]


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """Where (``file:line``) and what, of the lines that are not blank. Raises AnnotationError."""
    if path.is_dir():
        raise AnnotationError(f"{path}: is a folder; give the annotation file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as cause:
        raise AnnotationError(f"{path}: is not a text file") from cause
    if not text.strip():
        raise AnnotationError(f"{path}: is empty")
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield f"{path}:{number}", line.strip()


def header(path: Path) -> list[str]:
    """The column names of a CSV. Raises AnnotationError."""
    _, first = next(lines(path))
    return [name.strip() for name in next(csv.reader([first]))]


def table(path: Path, required: Sequence[str], *, optional: Sequence[str] = ()) -> Iterator[tuple[str, dict[str, str]]]:
    """Where and what, of the rows of a CSV that has these columns and no others. Raises AnnotationError."""
    columns = header(path)
    wanted = ",".join(required) + "".join(f"[,{name}]" for name in optional)
    if len(set(columns)) < len(columns) or not set(required) <= set(columns) <= {*required, *optional}:
        raise AnnotationError(f"{path}:1: has columns {','.join(columns)}; expected {wanted}")
    rows = lines(path)
    next(rows)
    empty = True
    for where, line in rows:
        fields = next(csv.reader([line]))
        if len(fields) != len(columns):
            raise AnnotationError(f"{where}: has {len(fields)} fields, the header has {len(columns)}")
        yield where, dict(zip(columns, fields, strict=True))
        empty = False
    if empty:
        raise AnnotationError(f"{path}: lists no video")


def whole(text: str, where: str, what: str) -> int:
    """A whole number. Raises AnnotationError."""
    if not re.fullmatch(r"[+-]?[0-9]{1,15}", text.strip()):
        raise AnnotationError(f"{where}: {what} must be a whole number, got {text.strip()!r}")
    return int(text)


def real(text: str, where: str, what: str) -> float:
    """A finite number. Raises AnnotationError."""
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not np.isfinite(number):
        raise AnnotationError(f"{where}: {what} must be a number, got {text.strip()!r}")
    return number


def pairs(fields: Sequence[str], where: str, *, none: int | None = None) -> Pairs:
    """Starts and ends in turn; a pair of ``none`` says that there is no interval. Raises AnnotationError."""
    if len(fields) % 2:
        raise AnnotationError(f"{where}: starts and ends must come in pairs, got {len(fields)} numbers")
    numbers = [whole(field, where, "a frame number") for field in fields]
    found: Pairs = []
    for start, end in zip(numbers[::2], numbers[1::2], strict=True):
        if none is not None and (start, end) == (none, none):
            continue
        check(start, end, where)
        found.append((start, end))
    return found


def check(start: float, end: float, where: str) -> None:
    """Raises AnnotationError for an interval before the video, or that ends before it starts."""
    got = " to ".join(str(int(number) if number % 1 == 0 else number) for number in (start, end))
    if start < 0:
        raise AnnotationError(f"{where}: an interval cannot start before the video, got {got}")
    if end < start:
        raise AnnotationError(f"{where}: an interval ends before it starts, got {got}")


def written(text: str, where: str) -> list[tuple[float, float]]:
    """Intervals like ``12-40;80-95``, of whole numbers or decimals. Raises AnnotationError."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*-\s*([0-9]+(?:\.[0-9]+)?)", part)
        if not match:
            raise AnnotationError(f"{where}: cannot read interval {part!r}; write START-END;START-END")
        start, end = float(match[1]), float(match[2])
        check(start, end, where)
        found.append((start, end))
    return found


def written_frames(text: str, where: str) -> Pairs:
    """Intervals like ``12-40;80-95``, of frame numbers. Raises AnnotationError."""
    found = written(text, where)
    if "." in text:
        raise AnnotationError(f"{where}: frame numbers must be whole, got {text.strip()!r}")
    return [(int(start), int(end)) for start, end in found]


def names(path: Path) -> list[tuple[str, str, list[str]]]:
    """Where, video name and further fields, of a list of one video a line: ``NAME``, ``NAME,…`` or a feature file.

    Raises AnnotationError.
    """
    found = []
    for where, line in lines(path):
        first, *rest = [field.strip() for field in line.split(",")]
        found.append((where, video_name(first).removesuffix("_i3d"), rest))
    return found


def list_of_tests(folder: Path) -> Path | None:
    """The list of test videos in a folder, ``*test*.txt`` or ``.list``, None without one. Raises AnnotationError."""
    found = sorted(
        each
        for each in folder.iterdir()
        if each.is_file() and "test" in each.name.lower() and each.suffix.lower() in (".txt", ".list")
    )
    if len(found) > 1:
        raise AnnotationError(
            f"{folder}: holds several test lists ({', '.join(each.name for each in found)}); keep one"
        )
    return found[0] if found else None


def array(path: Path, key: str | None = None) -> npt.NDArray[Any]:
    """The array in an ``.npy``, or one of an ``.npz``. Raises AnnotationError; nothing is ever unpickled."""
    try:
        with open(path, "rb") as file:  # numpy leaves files open that it cannot read
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray) == (key is not None):
                raise AnnotationError(f"{path}: is not {'a .npy of one array' if key is None else _NAMED}")
            return loaded if key is None else loaded[key]
    except _BROKEN as cause:
        raise _unreadable(path, cause) from cause


def array_names(path: Path) -> list[str]:
    """The names in an ``.npz``. Raises AnnotationError."""
    try:
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                raise AnnotationError(f"{path}: is not {_NAMED}")
            return list(loaded.files)
    except _BROKEN as cause:
        raise _unreadable(path, cause) from cause


def matrices(path: Path, variable: str) -> npt.NDArray[Any]:
    """A variable of a MATLAB file. Raises AnnotationError."""
    from scipy.io import loadmat

    try:
        found = loadmat(path)
    except Exception as cause:  # a broken file raises whatever its bytes lead to; NotImplementedError is version 7.3
        how = "; save it with -v7" if isinstance(cause, NotImplementedError) else "; get this file again"
        raise AnnotationError(f"{path}: is not a MATLAB file that can be read{how}") from cause
    if variable not in found:
        raise AnnotationError(f"{path}: holds no variable {variable}")
    return found[variable]


def events(path: Path) -> list[Pairs]:
    """Pairs per test video, of the ``.mat`` files that Liu et al. (CVPR 2018) distribute for Ped1, Ped2, Avenue.

    A variable ``gt``: one cell per video in order of names, (2, K) starts and ends, from 1, the end included. Raises
    AnnotationError.
    """
    cells = matrices(path, "gt").ravel()
    found: list[Pairs] = []
    for number, cell in enumerate(cells, start=1):
        values = np.asarray(cell)
        if values.dtype.kind not in "iuf" or values.ndim != 2 or values.shape[0] != 2:
            raise AnnotationError(f"{path}: the events of video {number} must be starts over ends (2, K)")
        found.append([])
        for start, end in values.T.tolist():
            check(start, end, f"{path}: video {number}")
            found[-1].append((int(start), int(end)))
    return found


def runs(labels: npt.NDArray[Any], where: str) -> Pairs:
    """Half-open stretches of ones in (N,) labels of 0 and 1, (1, N) allowed. Raises AnnotationError.

    >>> import numpy as np
    >>> runs(np.array([0, 1, 1, 0, 1]), "file")
    [(1, 3), (4, 5)]
    """
    values = labels.reshape(-1) if labels.ndim == 2 and 1 in labels.shape else labels
    if values.ndim != 1 or not values.size or values.dtype.kind not in "biuf" or not np.isin(values, (0, 1)).all():
        raise AnnotationError(f"{where}: must hold one label per frame, 0 or 1, got {labels.dtype} {labels.shape}")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], values.astype(np.int8), [0]])))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def _unreadable(path: Path, cause: Exception) -> AnnotationError:
    if isinstance(cause, AnnotationError):
        return cause
    if "Object arrays" in str(cause) or _begins_as_pickle(path):
        return AnnotationError(
            f"{path}: holds Python objects (a pickle), which are never loaded; convert it to plain arrays first"
        )
    return AnnotationError(f"{path}: is not a readable array file; get this file again")


def _begins_as_pickle(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(1) == b"\x80"
