"""The feature store: the contract between extraction, training and evaluation.

A folder with ``manifest.json`` (what all features in it have in common), one safetensors file per video below
``features/`` and ``failed.jsonl`` (what could not be extracted, and why). The header of each file says what its video
is and how its features were made. A file appears whole or not at all; nothing else has state, so a run that was
killed is resumed by running it again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from vad import __version__, streamed
from vad.config import Config
from vad.extractor import PLACES
from vad.files import replacing, writable_folder
from vad.streamed import Dtype, Rows
from vad.types import Array, FeatureSequence, Times, to_frames

FORMAT = 1
MANIFEST, FEATURES, FAILED = "manifest.json", "features", "failed.jsonl"
SUFFIX = ".safetensors"
_STALE = 3600.0  # seconds; a temporary file that is older was left by a run that was killed


class StoreError(ValueError):
    """A folder that is not a store, or not one that this run can use."""


class WriteError(OSError):
    """The store could not be written: the run has to stop, unlike where a video cannot be read."""


class Manifest(Config):
    """What all features of a store have in common."""

    format: int = FORMAT
    vadwatch: str = __version__
    extractor: dict[str, Any] | None  # resolved settings; None where the features were imported
    layout: str | None = None  # of the published features that were imported
    weights: str = Field(description="sha256 of the extractor's weights, or empty where unknown")
    precision: Literal["f32", "bf16", "unknown"]
    normalisation: str = Field(description="what is done to a pixel value before the network")
    views: tuple[str, ...] = Field(description="the crops along axis K; empty without such an axis")
    dtype: Dtype = "float32"

    def difference(self, other: Manifest) -> str | None:
        """The first setting in which features differ, as ``name = ours, theirs``; None when they can lie together."""
        mine, theirs = (_comparable(which) for which in (self, other))
        for name in sorted(mine.keys() | theirs.keys(), key=lambda name: (name != "layout", name)):
            if mine.get(name) != theirs.get(name):
                return f"{name} = {mine.get(name)!r}, not {theirs.get(name)!r}"
        return None


class Source(Config):
    """The file that features were made from."""

    path: str  # as it was given, for finding it again
    bytes: int
    mtime_ns: int
    sha256: str


class Record(Config):
    """What is known about one video and its features; written into the header of its file."""

    name: str
    key: str  # digest of source, settings and weights: equal keys, equal features
    source: Source
    width: int | None = None  # as shown, pixels
    height: int | None = None
    fps: float | None = None  # as probed; None where published features do not say
    frames: int | None = None  # decoded, not claimed; None where published features do not say
    codec: str | None = None
    hop_frames: int | None = None  # source frames from one snippet to the next; None when the video was cut into shares
    gaps: tuple[dict[str, float | str], ...] = ()
    runtime: str = ""
    versions: dict[str, str] = Field(default_factory=dict)
    seconds: float = 0.0  # that the extraction took
    date: str = ""
    values_sha256: str


class Failure(Config):
    """A line of ``failed.jsonl``."""

    name: str
    path: str
    reason: str
    attempts: int = 1
    date: str


@dataclass(frozen=True, slots=True)
class StoredVideo:
    """Features of one video as they were stored."""

    record: Record
    values: npt.NDArray[np.floating[Any]]  # (T, D), (T, K, D) or (T, h, w, D), float32 or float16
    spans_T2: npt.NDArray[np.int64] | None  # source frames [start, end) of each row; None where they are not known
    pts_N: Times | None  # seconds of each source frame; None where they are not known
    breaks: npt.NDArray[np.int64]  # frames at which the stream began anew, or that are damaged

    @property
    def sequence(self) -> FeatureSequence:
        """The rows in the form that heads take."""
        if self.record.hop_frames is None:
            raise StoreError(f"{self.record.name}: was cut into {len(self.values)} shares, it has no snippets")
        return FeatureSequence(self.values.astype(np.float32), self.record.hop_frames, self.record.fps)


@dataclass(frozen=True, slots=True)
class Grid:
    """How the rows of a video lie over its frames."""

    spans_T2: npt.NDArray[np.int64]
    num_frames: int
    breaks: npt.NDArray[np.int64]

    def hold(self, values_T: Array) -> Array:
        """A value per row -> a value per frame (N,); NaN where no row stands for a frame."""
        return to_frames(values_T, self.spans_T2, num_frames=self.num_frames, breaks=self.breaks)


class Store:
    """A folder of features. ``open`` reads one, ``prepare`` makes one or checks that it fits."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def open(cls, folder: Path) -> Store:
        """A store that exists. Raises StoreError."""
        path = folder / MANIFEST
        if not path.is_file():
            raise StoreError(f"{folder}: is not a feature store (it has no {MANIFEST}); make one with: vad extract")
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(data, dict) and data.get("format") != FORMAT:
                raise StoreError(
                    f"{folder}: is a store of format {data.get('format')}, this vadwatch {__version__} reads format "
                    f"{FORMAT}; extract it again"
                )
            return cls(folder, Manifest.model_validate(data))
        except (json.JSONDecodeError, UnicodeDecodeError, ValidationError) as cause:
            raise StoreError(
                f"{folder}: its {MANIFEST} is damaged; restore it, or extract into another --out"
            ) from cause

    @classmethod
    def prepare(cls, folder: Path, manifest: Manifest) -> Store:
        """Make a store, or open one whose features were made in the same way. Raises StoreError, OSError."""
        if (folder / MANIFEST).exists():
            store = cls.open(folder)
            if difference := store.manifest.difference(manifest):
                raise StoreError(
                    f"{folder}: was written with {difference} as asked for now; "
                    "give another --out, or the same settings"
                )
            return store
        check_target(folder)
        writable_folder(folder / FEATURES)
        with replacing(folder / MANIFEST) as temporary:
            temporary.write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return cls(folder, manifest)

    def names(self) -> list[str]:
        """Of all stored videos, sorted."""
        root = self.folder / FEATURES
        files = (path.relative_to(root) for path in root.rglob(f"*{SUFFIX}") if not path.name.startswith("."))
        return sorted(path.as_posix().removesuffix(SUFFIX) for path in files)

    def path(self, name: str) -> Path:
        """Where the features of a video lie, or would. Raises StoreError for a name that leads out of the store."""
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts:
            raise StoreError(f"{name!r} cannot be the name of a video in a store")
        return self.folder / FEATURES / f"{name}{SUFFIX}"

    def record(self, name: str) -> Record | None:
        """The header of a video's features; None when there are none. Raises StoreError for a damaged file."""
        from safetensors import SafetensorError, safe_open

        path = self.path(name)
        try:
            with safe_open(path, framework="numpy") as file:
                return Record.model_validate_json((file.metadata() or {})["vadwatch"])
        except FileNotFoundError:
            return None
        except (SafetensorError, KeyError, ValidationError) as cause:
            raise StoreError(f"{path}: is damaged; remove it and extract its video again") from cause

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the features of a stored video, read from its header."""
        from safetensors import safe_open

        with safe_open(self.path(name), framework="numpy") as file:
            return tuple(file.get_slice("features").get_shape())

    def read(self, name: str) -> StoredVideo:
        """Features of one video. Raises StoreError when there are none or the file is damaged."""
        from safetensors.numpy import load_file

        record = self.record(name)
        if record is None:
            raise StoreError(f"{self.folder}: has no features of {name!r}")
        tensors = load_file(self.path(name))
        return StoredVideo(
            record, tensors["features"], tensors.get("spans"), tensors.get("pts"), tensors.get("breaks", _NO_BREAKS)
        )

    def grid(self, name: str) -> Grid | None:
        """Where the rows of a stored video lie; None where its features do not say."""
        from safetensors import safe_open

        record = self.record(name)
        if record is None or record.frames is None:
            return None
        with safe_open(self.path(name), framework="numpy") as file:
            if "spans" not in file.keys():  # noqa: SIM118  # a file is no dict
                return None
            breaks = file.get_tensor("breaks") if "breaks" in file.keys() else _NO_BREAKS  # noqa: SIM118
            return Grid(file.get_tensor("spans"), record.frames, breaks)

    def key(self, source_sha256: str) -> str:
        """What decides about the features of a source in this store."""
        parts = [source_sha256, _comparable(self.manifest)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def write(self, record: Record, rows: Rows, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
        """Put the features of one video into the store, whole or not at all. Raises WriteError."""
        path = self.path(record.name)
        with writing(path), replacing(path) as temporary:
            streamed.write(temporary, rows, tensors, metadata={"vadwatch": record.model_dump_json()})
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())

    def failures(self) -> dict[str, Failure]:
        """What could not be extracted, by name."""
        path = self.folder / FAILED
        if not path.is_file():
            return {}
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        try:
            return {failure.name: failure for failure in map(Failure.model_validate_json, lines)}
        except ValidationError as cause:
            raise StoreError(f"{path}: is damaged; remove it, it is written anew") from cause

    def note_failures(self, failures: Sequence[Failure], *, settled: Sequence[str]) -> None:
        """Add failures, and strike out the names that are settled by now. Raises WriteError."""
        known = self.failures()
        kept = {name: failure for name, failure in known.items() if name not in settled}
        kept |= {failure.name: failure for failure in failures}
        path = self.folder / FAILED
        if kept == known:
            return
        with writing(path):
            if not kept:
                path.unlink(missing_ok=True)
                return
            with replacing(path) as temporary:
                lines = (kept[name].model_dump_json() for name in sorted(kept))
                temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def remove_leftovers(self) -> None:
        """Remove what killed runs left behind; a file that another run is writing just now is younger."""
        for path in (self.folder / FEATURES).rglob(f".*{SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _STALE:
                    path.unlink()


def check_target(folder: Path) -> None:
    """Refuse to put a new store where something else lies. Raises StoreError."""
    if folder.is_file():
        raise StoreError(f"{folder}: is a file; give a folder for the store")
    if folder.is_dir() and any(folder.iterdir()):
        raise StoreError(f"{folder}: holds something that is not a feature store; give another --out")


_NO_BREAKS = np.zeros(0, np.int64)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a WriteError about ``path``."""
    try:
        yield
    except WriteError:
        raise
    except OSError as cause:
        raise WriteError(cause.errno or errno.EIO, cause.strerror or str(cause), str(path)) from cause


def values_sha256(values: npt.NDArray[Any]) -> str:
    """Digest of feature values as they lie in a file."""
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def _comparable(manifest: Manifest) -> dict[str, Any]:
    """What decides about feature values, flat; where weights lie and what computes is not of it."""
    settings = {f"extractor.{key}": value for key, value in (manifest.extractor or {}).items() if key not in PLACES}
    facts = manifest.model_dump(mode="json", include={"layout", "weights", "precision", "normalisation", "dtype"})
    return settings | facts
