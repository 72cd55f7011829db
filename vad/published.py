"""Feature sets as the literature publishes them: read into a store, and written from one.

Every layout is plain arrays or text; a pickle inside an ``.npy`` is refused. What such a set does not say (frame
counts, frame rates, how exactly it was made) is unknown in the store too, never guessed.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vad.extractor import VIEWS
from vad.files import replacing, sha256
from vad.store import Manifest, Record, Source, Store, StoreError, values_sha256, writing
from vad.streamed import Rows
from vad.types import Array

# The places of our views among those of torchvision's TenCrop: it has the centre last of each five, and numbers the
# corners of the mirrored picture by where they lie in that, so that its sixth is our mirrored top right.
_TEN_CROP = (4, 0, 1, 2, 3, 9, 6, 5, 8, 7)


@dataclass(frozen=True, slots=True)
class Layout:
    """How one family of published features lies on the disk."""

    about: str
    form: Literal["crop files", "array", "text"]
    suffix: str = ""  # of the file's name, before its type
    hop: int | None = 16  # source frames per row; None: the video was cut into equal shares
    crops: int | None = None  # None: as many as there are
    torchvision_order: bool = False
    rows: int | None = None


LAYOUTS: Mapping[str, Layout] = {
    "ucf-i3d": Layout(
        "UCF-Crime I3D, NAME.npy or NAME__0.npy, NAME__1.npy … NAME__9.npy (XDVioDet, UR-DMU, PEL4VAD)",
        "crop files",
        crops=10,
    ),
    "xd-i3d": Layout("XD-Violence I3D, NAME__0.npy … NAME__4.npy (Wu et al. 2020)", "crop files", crops=5),
    "rtfm": Layout(
        "I3D ResNet-50, NAME_i3d.npy of (T, 10, D) (RTFM, MGFN)",
        "array",
        suffix="_i3d",
        crops=10,
        torchvision_order=True,
    ),
    "vadclip": Layout("CLIP, NAME__0.npy … of (T, 512) (VadCLIP, TPWNG)", "crop files"),
    "lagovad": Layout("CLIP on every 8th frame, NAME.npy of (T, 512) (LaGoVAD)", "array", hop=8, crops=1),
    "c3d": Layout("C3D fc6, NAME.txt of 32 lines, one a segment (Sultani et al. 2018)", "text", hop=None, rows=32),
}


def find(folder: Path, layout: str) -> dict[str, list[Path]]:
    """The files of each video of a published set, crops in their order. Raises StoreError."""
    form = LAYOUTS[layout]
    if not folder.is_dir():
        raise StoreError(f"{folder}: is not a folder of published features")
    groups: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for path in sorted(folder.rglob("*.txt" if form.form == "text" else "*.npy")):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if form.form == "crop files":
            if match := re.fullmatch(r"(.+)__(\d+)", stem):
                groups[match[1]].append((int(match[2]), path))
            elif form.crops:
                groups[stem].append((0, path))  # the first crop is released under the bare name, too
        elif stem.endswith(form.suffix):
            groups[stem.removesuffix(form.suffix)].append((0, path))
    if not groups:
        raise StoreError(f"{folder}: no file of layout {layout}: {form.about}")
    for name, crops in groups.items():
        crops.sort()
        expected = list(range(form.crops or len(crops))) if form.form == "crop files" else [0]
        if [number for number, _ in crops] != expected:
            missing = sorted(set(expected) - {number for number, _ in crops})
            what = f"crop {missing[0]} is missing" if missing else f"{len(crops)} crops, {len(expected)} expected"
            raise StoreError(f"{folder / name}: {what}; the layout is {form.about}")
    return {name: [path for _, path in groups[name]] for name in sorted(groups)}


def read(files: Sequence[Path], layout: str) -> Array:
    """One video's rows, (T, D) or (T, K, D) with K in our order of views. Raises StoreError naming the file."""
    form = LAYOUTS[layout]
    arrays = [_load(path, form) for path in files]
    if form.form == "crop files":
        for path, array in zip(files, arrays, strict=True):
            if array.ndim != 2:
                raise StoreError(f"{path}: has shape {array.shape}; the layout is {form.about}")
            if array.shape != arrays[0].shape:
                raise StoreError(
                    f"{path}: crops of one video must be alike; it has {array.shape}, {files[0]} {arrays[0].shape}"
                )
        values = np.stack(arrays, 1) if len(arrays) > 1 else arrays[0]  # one view needs no axis
    else:
        (values,) = arrays
        shape = (form.rows or len(values), *(() if form.crops in (None, 1) else (form.crops,)))
        if values.ndim != len(shape) + 1 or values.shape[:-1] != shape:
            raise StoreError(f"{files[0]}: has shape {values.shape}; the layout is {form.about}")
        if form.torchvision_order:
            values = values[:, _TEN_CROP]
    if not len(values):
        raise StoreError(f"{files[0]}: has no rows; get this file again")
    if not np.isfinite(values).all():
        raise StoreError(f"{files[0]}: holds values that are not finite; get this file again")
    return np.ascontiguousarray(values, np.float32)


def import_into(out: Path, folder: Path, layout: str, *, frames: Mapping[str, int] | None = None) -> Store:
    """Read a published set into a store; ``frames`` gives frame counts by name where they are known.

    Raises StoreError for files that do not fit the layout, and when a frame count contradicts the number of rows.
    """
    form, store = LAYOUTS[layout], None
    shape: tuple[int, ...] | None = None
    for name, files in find(folder, layout).items():
        values = read(files, layout)
        if shape not in (None, values.shape[1:]):
            raise StoreError(
                f"{files[0]}: its rows have shape {values.shape[1:]}, those of the files before {shape}; "
                "import sets of one kind"
            )
        shape = values.shape[1:]
        count = None
        if frames is not None:
            if name not in frames:
                raise StoreError(f"no frame count for {name!r} ({files[0]}); add it to the list")
            count = frames[name]
            _check_length(name, len(values), count, form.hop)
        if store is None:
            views = VIEWS[: values.shape[1]] if values.ndim == 3 else ()
            store = Store.prepare(
                out,
                Manifest(
                    extractor=None,
                    layout=layout,
                    weights="",
                    precision="unknown",
                    normalisation="unknown",
                    views=views,
                ),
            )
        source = _source(files)
        record = Record(
            name=name,
            key=store.key(source.sha256),
            source=source,
            frames=count,
            hop_frames=form.hop,
            values_sha256=values_sha256(values),
        )
        spans = _spans(len(values), form.hop, count)
        with tempfile.TemporaryFile(dir=out, buffering=0) as file:
            rows = Rows(file, "float32")
            with writing(out):
                rows.add(values)
            store.write(record, rows, {} if spans is None else {"spans": spans})
    assert store is not None
    return store


def export(store: Store, out: Path, layout: str) -> int:
    """Write a store in a published layout; the number of videos. Raises StoreError when it does not fit."""
    form = LAYOUTS[layout]
    names = store.names()
    if not names:
        raise StoreError(f"{store.folder}: holds no features; extract some first")
    for name in names:
        values = store.read(name).values.astype(np.float32)
        views = values.shape[1] if values.ndim == 3 else 1
        if values.ndim > 3 or (form.crops or views) != views or (form.rows or len(values)) != len(values):
            raise StoreError(f"{name}: features of shape {values.shape} cannot be written as {layout}: {form.about}")
        target = out / name
        if form.form == "crop files":
            for crop, rows in enumerate(values.reshape(len(values), views, -1).swapaxes(0, 1)):
                _save(target.with_name(f"{target.name}__{crop}.npy"), rows)
        elif form.form == "array":
            ordered = values[:, np.argsort(_TEN_CROP)] if form.torchvision_order else values
            _save(target.with_name(f"{target.name}{form.suffix}.npy"), ordered)
        else:
            path = target.with_name(f"{target.name}.txt")
            with replacing(path) as temporary:
                np.savetxt(temporary, values.reshape(len(values), -1), fmt="%.9g")
    return len(names)


def read_frame_counts(path: Path) -> dict[str, int]:
    """``name,frames`` a line (a first line of words is skipped). Raises StoreError."""
    counts: dict[str, int] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as cause:
        raise StoreError(f"{path}: is not a text file; write name,frames a line") from cause
    for number, line in enumerate(lines, start=1):
        name, comma, count = line.rpartition(",")
        if comma and count.strip().isdecimal():
            counts[name.strip()] = int(count)
        elif number > 1 and line.strip():
            raise StoreError(f"{path}:{number}: cannot read {line!r}; write name,frames a line")
    return counts


def _load(path: Path, form: Layout) -> npt.NDArray[Any]:
    try:
        if form.form == "text":
            return np.loadtxt(path, np.float32, ndmin=2)
        array: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as cause:
        if "allow_pickle" in str(cause):
            raise StoreError(f"{path}: holds Python objects (a pickle), which are never loaded") from cause
        raise StoreError(f"{path}: is not a readable array; get this file again") from cause
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        raise StoreError(f"{path}: must hold one array of floating-point numbers")
    return array


def _check_length(name: str, rows: int, frames: int, hop: int | None) -> None:
    """Whole snippets, the tail counted or not, or one fewer (some extractions lose the last whole one)."""
    if hop is not None and not max(frames // hop - 1, 1) <= rows <= -(-frames // hop):
        raise StoreError(f"{name}: {rows} rows of {hop} frames are {rows * hop} frames, but the video has {frames}")


def _spans(rows: int, hop: int | None, frames: int | None) -> npt.NDArray[np.int64] | None:
    """Source frames of each row: snippets of ``hop`` frames, or equal shares of a known number of frames."""
    if hop is not None:
        starts = np.arange(rows, dtype=np.int64) * hop
        ends = starts + hop
        return np.stack([starts, ends if frames is None else np.minimum(ends, frames)], 1)
    if frames is None:
        return None
    edges = np.arange(rows + 1, dtype=np.int64) * frames // rows
    return np.stack([edges[:-1], edges[1:]], 1)


def _source(files: Sequence[Path]) -> Source:
    facts = [path.stat() for path in files]
    digests = [sha256(path) for path in files]
    digest = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    return Source(
        path=os.path.abspath(files[0]),
        bytes=sum(fact.st_size for fact in facts),
        mtime_ns=max(fact.st_mtime_ns for fact in facts),
        sha256=digest,
    )


def _save(path: Path, values: Array) -> None:
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.save(file, np.ascontiguousarray(values), allow_pickle=False)
