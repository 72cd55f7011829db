"""All features of a split in one file that is mapped, not read: a batch costs the rows it takes and no open files.

A block is a raw file of rows and a small index beside it that names it. Both appear whole or not at all, and the index
comes last: a build that was killed leaves the block that was there before.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ValidationError
from torch import Tensor

from vad.config import Config
from vad.datasets.annotation import repeated
from vad.datasets.assembly import listing
from vad.files import replacing
from vad.store import Record, Store
from vad.streamed import Dtype

FORMAT = 1
SUFFIX = ".rows"
Values = npt.NDArray[np.floating[Any]]


class BlockError(ValueError):
    """A block that is not there, is damaged, or was made from features that have changed: build it again."""


class Index(Config):
    """What a block holds, in the order in which it lies in the file."""

    format: int = FORMAT
    origin: str  # digest of what the features have in common, or words where they come from no store
    names: tuple[str, ...]
    labels: tuple[bool, ...]  # True is abnormal
    rows: tuple[int, ...]  # of each video
    stamps: tuple[str, ...]  # digest of each video's stored values; empty where they come from no store
    crops: int
    dim: int
    dtype: Dtype
    sha256: str  # of the raw file

    def bytes(self) -> int:
        """Size of the raw file."""
        return sum(self.rows) * self.crops * self.dim * np.dtype(self.dtype).itemsize

    def digest(self) -> str:
        """Equal digests, equal blocks."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class Block:
    """Rows (T, K, D) of many videos. ``open`` maps one, ``build`` makes one, ``prepare`` does what is needed."""

    def __init__(self, path: Path, index: Index, values: Values) -> None:
        self.path, self.index = path, index
        self.digest = index.digest()
        self.labels: Mapping[str, bool] = dict(zip(index.names, index.labels, strict=True))
        self._values = values
        with warnings.catch_warnings():
            # torch warns that it could write to memory that is read-only; see tensor()
            warnings.simplefilter("ignore", UserWarning)
            self._tensor = torch.from_numpy(values)
        self._ends = np.cumsum(index.rows) * (index.crops * index.dim)
        self._at = {name: i for i, name in enumerate(index.names)}

    def __len__(self) -> int:
        return len(self.index.names)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the videos, in order."""
        return self.index.names

    def rows(self, i: int) -> Values:
        """Of video ``i``: (T, K, D), a read-only view of the file."""
        return self._values[self._span(i)].reshape(self.index.rows[i], self.index.crops, self.index.dim)

    def tensor(self, i: int) -> Tensor:
        """The same view as a tensor. It must not be written to: the memory is read-only."""
        return self._tensor[self._span(i)].view(self.index.rows[i], self.index.crops, self.index.dim)

    def _span(self, i: int) -> slice:
        end = int(self._ends[i])
        return slice(end - self.index.rows[i] * self.index.crops * self.index.dim, end)

    def at(self, name: str) -> int:
        """The place of a video. Raises ValueError for a name that the block does not hold."""
        try:
            return self._at[name]
        except KeyError:
            raise ValueError(f"{self.path}: holds no video {name!r} (it has {len(self)})") from None

    def check_labels(self, labels: Mapping[str, bool]) -> None:
        """Raises ValueError for names that the block does not hold, or labels that contradict it."""
        if wrong := [name for name, label in labels.items() if self.index.labels[self.at(name)] != bool(label)]:
            raise ValueError(f"{self.path}: holds the opposite label for {listing(wrong)}")

    @classmethod
    def open(cls, path: Path, store: Store | None = None, *also: Store) -> Block:
        """Map a block; with its stores, make sure that their features are still what it was built from.

        Raises BlockError: absent, damaged, or out of date.
        """
        try:
            file = json.loads(path.read_text(encoding="utf-8"))
            index = Index.model_validate(file["index"])
            data = path.parent / str(file["data"])
        except FileNotFoundError as cause:
            raise BlockError(f"{path}: there is no such block") from cause
        except (UnicodeDecodeError, json.JSONDecodeError, ValidationError, KeyError, TypeError) as cause:
            raise BlockError(f"{path}: is not a block's index, or a damaged one; build the block again") from cause
        if index.digest() != file.get("sha256"):
            raise BlockError(f"{path}: does not match its own digest; build the block again")
        size = data.stat().st_size if data.is_file() else 0
        if size != index.bytes():
            raise BlockError(f"{data}: has {size} bytes, its index says {index.bytes()}; build the block again")
        # asarray: slices of a memmap object cost more than the rows they give
        values = np.asarray(np.memmap(data, np.dtype(index.dtype), mode="r"))
        block = cls(path, index, values)
        if store is not None and (reason := block.outdated(store, *also)):
            raise BlockError(f"{path}: {reason}; build the block again")
        return block

    def outdated(self, *stores: Store) -> str | None:
        """Why this block is not what these stores hold by now; None when it is. Reads headers only."""
        if _origin(stores) != self.index.origin:
            return "was built from features that were made in another way"
        found = _find(stores, self.names)
        stamps = tuple(found[name][1].values_sha256 if name in found else "" for name in self.names)
        changed = [name for name, old, new in zip(self.names, self.index.stamps, stamps, strict=True) if old != new]
        return f"the stored features have changed since it was built: {listing(changed)}" if changed else None

    def check(self) -> None:
        """Read the whole file and compare it with its digest. Raises BlockError."""
        if hashlib.sha256(self._values.view(np.uint8).data).hexdigest() != self.index.sha256:
            raise BlockError(f"{self.path}: its rows are damaged; build the block again")

    @classmethod
    def prepare(
        cls,
        path: Path,
        store: Store,
        names: Sequence[str],
        labels: Sequence[bool],
        *,
        also: Sequence[Store] = (),
        dtype: Dtype | None = None,
    ) -> Block:
        """The block at ``path`` if it still holds these videos as they are stored, else a new one in its place.

        A block is a copy of a store: making it anew loses nothing. Raises as ``build``.
        """
        try:
            block = cls.open(path, store, *also)
        except BlockError:
            return cls.build(path, store, names, labels, also=also, dtype=dtype)
        wanted = (tuple(names), tuple(map(bool, labels)), dtype or store.manifest.dtype)
        if wanted == (block.index.names, block.index.labels, block.index.dtype):
            return block
        return cls.build(path, store, names, labels, also=also, dtype=dtype)

    @classmethod
    def build(
        cls,
        path: Path,
        store: Store,
        names: Sequence[str],
        labels: Sequence[bool],
        *,
        also: Sequence[Store] = (),
        dtype: Dtype | None = None,
    ) -> Block:
        """Pack the stored features of the listed videos; one video at a time is in memory.

        ``labels`` say for each name whether it is abnormal. ``also`` are further stores of the same extractor, for
        videos that the first has not. ``dtype`` is as stored unless given. Raises ValueError about the list, features
        of different extractors or widths, features that are not finite; StoreError for a damaged store; OSError.
        """
        _check_list(names, labels)
        stores = (store, *also)
        for other in also:
            # dtype: values are cast on the way when one is asked for
            theirs = other.manifest.model_copy(update={"dtype": store.manifest.dtype}) if dtype else other.manifest
            if difference := store.manifest.difference(theirs):
                raise ValueError(
                    f"{store.folder} and {other.folder} cannot lie in one block: the first has {difference}"
                )
        found = _find(stores, names)
        if absent := [name for name in names if name not in found]:
            folders = " and ".join(str(each.folder) for each in stores)
            raise ValueError(f"{folders}: no features of {listing(absent)}; extract them, or take them off the list")
        _check_shapes({name: where.shape(name) for name, (where, _) in found.items()})
        videos = ((name, found[name][0].read(name).values, label) for name, label in zip(names, labels, strict=True))
        stamps = [found[name][1].values_sha256 for name in names]
        return cls.write(path, videos, origin=_origin(stores), dtype=dtype or store.manifest.dtype, stamps=stamps)

    @classmethod
    def write(
        cls,
        path: Path,
        videos: Iterable[tuple[str, Values, bool]],
        *,
        origin: str,
        dtype: Dtype,
        stamps: Sequence[str] = (),
    ) -> Block:
        """Make a block of any rows (T, D) or (T, K, D): name, rows, label. ``origin`` says where they come from.

        Raises ValueError for rows that are not finite or do not fit each other, and OSError.
        """
        before = _data_of(path)
        data = path.parent / f"{path.stem}-{secrets.token_hex(6)}{SUFFIX}"
        names: list[str] = []
        labels: list[bool] = []
        shapes: list[tuple[int, int, int]] = []
        digest = hashlib.sha256()
        try:
            with replacing(data) as temporary, open(temporary, "wb") as file:
                for name, values, label in videos:
                    rows_TKD = _checked(name, values, dtype)
                    if shapes and rows_TKD.shape[1:] != shapes[0][1:]:
                        raise ValueError(_unlike(name, rows_TKD.shape, names[0], shapes[0]))
                    content = rows_TKD.reshape(-1).view(np.uint8).data
                    digest.update(content)
                    file.write(content)
                    names.append(name)
                    labels.append(bool(label))
                    count, crops, dim = rows_TKD.shape
                    shapes.append((count, crops, dim))
                _check_list(names, labels)
            index = Index(
                origin=origin,
                names=tuple(names),
                labels=tuple(labels),
                rows=tuple(count for count, _, _ in shapes),
                stamps=tuple(stamps),
                crops=shapes[0][1],
                dim=shapes[0][2],
                dtype=dtype,
                sha256=digest.hexdigest(),
            )
            with replacing(path) as temporary:
                content_of_index = {"index": index.model_dump(), "data": data.name, "sha256": index.digest()}
                temporary.write_text(json.dumps(content_of_index) + "\n", encoding="utf-8")
        except BaseException:
            data.unlink(missing_ok=True)
            raise
        if before is not None:
            before.unlink(missing_ok=True)  # who has it mapped keeps it
        return cls.open(path)


def _check_list(names: Sequence[str], labels: Sequence[bool]) -> None:
    if len(names) != len(labels):
        raise ValueError(f"need one label per video, got {len(names)} names and {len(labels)} labels")
    if not names:
        raise ValueError("a block needs at least one video, got an empty list")
    if odd := [f"{name} = {label!r}" for name, label in zip(names, labels, strict=True) if label not in (0, 1)]:
        raise ValueError(f"a label is True (abnormal) or False (normal), got {listing(odd)}")
    first: dict[str, bool] = {}
    if both := [name for name, label in zip(names, labels, strict=True) if first.setdefault(name, label) != label]:
        raise ValueError(f"listed both as normal and as abnormal: {listing(both)}")
    if twice := repeated(names):
        raise ValueError(f"listed more than once: {listing(twice)}")


def _find(stores: Sequence[Store], names: Sequence[str]) -> dict[str, tuple[Store, Record]]:
    found = {}
    for name in names:
        for store in stores:
            if (record := store.record(name)) is not None:
                found[name] = (store, record)
                break
    return found


def _origin(stores: Iterable[Store]) -> str:
    """Digest of how the features were made."""
    return hashlib.sha256("".join(sorted(store.key("") for store in stores)).encode()).hexdigest()


def _check_shapes(shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Before anything is copied: all videos have the crops and the width of the first."""
    first: tuple[str, tuple[int, ...]] | None = None
    for name, shape in shapes.items():
        three = _three(name, shape)
        if first is None:
            first = (name, three)
        if three[1:] != first[1][1:]:
            raise ValueError(_unlike(name, three, *first))


def _three(name: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Shape of the rows as (T, K, D)."""
    if len(shape) not in (2, 3):
        raise ValueError(f"{name}: features must be (T, D) or (T, K, D), got {shape}; maps of places have no bags")
    if 0 in shape:
        raise ValueError(f"{name}: has no features, their shape is {shape}; take it off the list")
    return (shape[0], shape[1] if len(shape) == 3 else 1, shape[-1])


def _unlike(name: str, shape: tuple[int, ...], other: str, theirs: tuple[int, ...]) -> str:
    if shape[2] != theirs[2]:
        return f"{name}: features are {shape[2]} wide, those of {other} {theirs[2]}; one block takes one extractor"
    return f"{name}: has {shape[1]} crops, {other} has {theirs[1]}; one block takes one way of cropping"


def _checked(name: str, values: Values, dtype: Dtype) -> Values:
    rows_TKD = np.ascontiguousarray(values).reshape(_three(name, values.shape))
    if not np.isfinite(rows_TKD).all():
        bad = np.flatnonzero(~np.isfinite(rows_TKD).all(axis=(1, 2)))
        raise ValueError(f"{name}: features hold NaN or infinity in {len(bad)} rows, first in row {bad[0]}")
    if rows_TKD.dtype == dtype:
        return rows_TKD
    if (highest := float(np.abs(rows_TKD).max())) > float(np.finfo(dtype).max):
        raise ValueError(f"{name}: features reach {highest:g}, more than {dtype} can hold; use float32")
    return rows_TKD.astype(dtype)


def _data_of(path: Path) -> Path | None:
    """The raw file of the block at ``path``, for removing it once another has taken its place."""
    try:
        name = str(json.loads(path.read_text(encoding="utf-8"))["data"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    ours = name.startswith(f"{path.stem}-") and name.endswith(SUFFIX) and Path(name).name == name
    return path.parent / name if ours else None


def each(block: Block) -> Iterator[tuple[str, Values, bool]]:
    """Name, rows (T, K, D) and label of every video, as ``Block.write`` takes them."""
    for i, (name, label) in enumerate(block.labels.items()):
        yield name, block.rows(i), label
