"""Do stored features say what they should? Compared with the videos they were made from, or with a reference."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vad.config import load
from vad.extractor import VIEWS, Extractor
from vad.files import sha256
from vad.pipeline import feature_stream
from vad.store import Store, StoredVideo, StoreError, values_sha256
from vad.types import Array
from vad.video import Video

TOLERANCE = {"f32": 1e-3, "bf16": 3e-2, "unknown": 1e-3}  # relative error, by the precision of a store


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two sets of rows of one video agree."""

    rows: int  # compared
    cosine_min: float  # of the worst row, in [-1, 1]
    cosine_mean: float
    max_error: float  # largest difference of two values
    relative_error: float  # norm of the difference by norm of the reference, of the worst row


@dataclass(frozen=True, slots=True)
class Finding:
    """What verification says about one video."""

    name: str
    agreement: Agreement | None
    problem: str = ""  # why it is not verified; empty when it is
    note: str = ""


def compare(values: Array, reference: Array) -> Agreement:
    """Row by row over (T, …); cosine of two zero rows is 1.

    >>> compare(np.float32([[3, 4]]), np.float32([[3, 0]])).relative_error
    1.3333333730697632
    """
    ours, theirs = (which.reshape(len(which), -1).astype(np.float64) for which in (values, reference))
    lengths = np.linalg.norm(ours, axis=1), np.linalg.norm(theirs, axis=1)
    product = lengths[0] * lengths[1]
    both_zero = (lengths[0] == 0) & (lengths[1] == 0)
    cosine = np.where(both_zero, 1.0, (ours * theirs).sum(1) / np.where(product > 0, product, 1.0))
    difference = np.linalg.norm(ours - theirs, axis=1)
    relative = np.where(difference == 0, 0.0, difference / np.maximum(lengths[1], np.finfo(np.float32).tiny))
    return Agreement(
        len(ours),
        float(cosine.min()),
        float(cosine.mean()),
        float(np.abs(ours - theirs).max()),
        float(np.float32(relative.max())),
    )


def sample(names: Sequence[str], count: int, seed: int) -> list[str]:
    """``count`` of the names, the same for the same seed; all of them when there are no more."""
    if count >= len(names):
        return list(names)
    return sorted(np.random.default_rng(seed).choice(list(names), count, replace=False).tolist())


def recompute(
    store: Store, names: Sequence[str], *, snippets: int, tolerance: float | None, find: Callable[[StoredVideo], Path]
) -> Iterator[Finding]:
    """Extract the first ``snippets`` rows of each video again; ``find`` says where the video lies.

    Raises StoreError when the store cannot be recomputed here at all.
    """
    if store.manifest.extractor is None:
        raise StoreError(
            f"{store.folder}: was imported ({store.manifest.layout}), so it can be verified --against only"
        )
    limit = TOLERANCE[store.manifest.precision] if tolerance is None else tolerance
    extractors: dict[str, Extractor] = {}
    for name in names:
        video = store.read(name)
        if problem := _integrity(video):
            yield Finding(name, None, problem)
            continue
        path = find(video)
        if not path.is_file():
            yield Finding(name, None, f"its video is not at {path}; give --source")
            continue
        if sha256(path) != video.record.source.sha256:
            yield Finding(name, None, f"{path} is another file than the one it was made from")
            continue
        runtime = video.record.runtime
        if runtime not in extractors:
            extractors[runtime] = load("extractors", {**store.manifest.extractor, "runtime": runtime}).build()
            if extractors[runtime].digest != store.manifest.weights:
                raise StoreError(
                    f"{store.folder}: was made with weights {store.manifest.weights[:12]}…, "
                    f"here are {extractors[runtime].digest[:12]}…; set extractor.weights to the same ones"
                )
        extractor = extractors[runtime]
        rows = (features for _, features in feature_stream(Video(path), extractor) if features is not None)
        again = np.concatenate(list(itertools.islice(rows, min(snippets, len(video.values)))))
        if len(again) < min(snippets, len(video.values)):
            yield Finding(name, None, f"{len(video.values)} rows are stored, its video gives {len(again)}")
            continue
        found = compare(again, video.values[: len(again)].astype(np.float32))
        note = f"{extractor.runtime} instead of {runtime}" if extractor.runtime != runtime else ""
        yield Finding(name, found, _beyond(found, limit), note)


def against(
    store: Store, reference: Callable[[str], Array | None], names: Sequence[str], *, tolerance: float | None
) -> Iterator[Finding]:
    """Compare stored features with those of ``reference``, by name."""
    limit = TOLERANCE[store.manifest.precision] if tolerance is None else tolerance
    for name in names:
        video = store.read(name)
        theirs = reference(name)
        if problem := _integrity(video):
            yield Finding(name, None, problem)
        elif theirs is None:
            yield Finding(name, None, "the reference has no such video")
        elif theirs.shape[1:] != video.values.shape[1:]:
            yield Finding(name, None, f"rows have shape {video.values.shape[1:]}, the reference's {theirs.shape[1:]}")
        else:
            ours = video.values.astype(np.float32)
            rows = min(len(ours), len(theirs))
            found = compare(ours[:rows], theirs[:rows])
            note = _crop_order(ours[:rows], theirs[:rows])
            problem = _beyond(found, limit)
            if len(ours) != len(theirs):
                lengths = f"{len(ours)} rows, the reference has {len(theirs)}"
                # published extractions count the tail or not, and some lose the last whole snippet
                note = f"{lengths}; {note}".removesuffix("; ")
                problem = problem or (lengths if abs(len(ours) - len(theirs)) > 1 else "")
            yield Finding(name, found, problem, note)


def _integrity(video: StoredVideo) -> str:
    return (
        "" if values_sha256(video.values) == video.record.values_sha256 else "its values changed after it was written"
    )


def _beyond(found: Agreement, limit: float) -> str:
    return "" if found.relative_error <= limit else f"relative error {found.relative_error:.2g} is beyond {limit:g}"


def _crop_order(ours_TKD: Array, theirs_TKD: Array) -> str:
    """Whether the reference's crops come in another order than ours, and in which."""
    if ours_TKD.ndim != 3 or ours_TKD.shape[1] > len(VIEWS):
        return ""
    units = (
        which / np.maximum(np.linalg.norm(which, axis=-1, keepdims=True), 1e-12) for which in (ours_TKD, theirs_TKD)
    )
    cosine_KK = np.einsum("tkd,tjd->kj", *units)
    order = cosine_KK.argmax(1).tolist()
    if order == sorted(order) or sorted(order) != list(range(len(order))):
        return ""
    return f"the reference has our crops at places {order}"
