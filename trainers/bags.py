"""Bags: a fixed number of rows for each video, in batches of as many abnormal videos as normal ones.

The order is a function of the seed and of the number of batches given so far, so that number is the whole state: a run
that is resumed sees what it would have seen. Reading is a copy out of a mapped file; a thread may read one batch ahead.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainers.block import Block, Values, each
from vad.types import Array

Indices = npt.NDArray[np.int64]
Crops = Literal["all", "mean", "one"]
Sampling = Literal["mean", "mean_faithful", "uniform", "jitter"]

_PIECE = 1 << 15  # values; torch splits larger operations among its threads
_ORDER, _DRAW = 0, 1  # what a random stream is for: no two streams of a run are the same


def boundaries(rows: int, count: int) -> Indices:
    """``count + 1`` boundaries between 0 and ``rows``, evenly spaced, halves rounded up.

    >>> boundaries(5, 2).tolist()
    [0, 3, 5]
    """
    return (2 * np.arange(count + 1) * rows + count) // (2 * count)


def segments(rows_TKD: Values, count: int) -> Array:
    """Means of ``count`` even shares of the rows: (count, K, D) float32.

    Every row lies in exactly one share. With fewer rows than shares a row fills several shares, in order.
    """
    bounds = boundaries(len(rows_TKD), count)
    return _means(rows_TKD, np.minimum(bounds[:-1], len(rows_TKD) - 1), bounds[1:])


def segments_faithful(rows_TKD: Values, count: int = 32) -> Array:
    """Shares as the authors of the ranking loss cut them: boundaries round(linspace(1, T, count + 1)), from one.

    Sultani, Chen, Shah, CVPR 2018, https://arxiv.org/abs/1801.04264, their script for 32 segments. No share ends
    after row T - 1, so with more than ``count`` rows the last row is never used; with fewer, a share without rows
    repeats the row at its start, which may be the last.
    """
    bounds = boundaries(len(rows_TKD) - 1, count)
    return _means(rows_TKD, bounds[:-1], bounds[1:])


def _means(rows_TKD: Values, starts_S: Indices, ends_S: Indices) -> Array:
    """Mean of rows [start, end) of each share; the row at the start where that is none."""
    widths_S = np.maximum(ends_S - starts_S, 1)
    if (widths_S == 1).all():
        return rows_TKD[starts_S].astype(np.float32)
    means_SKD = np.empty((len(starts_S), *rows_TKD.shape[1:]), np.float32)
    # a sum per share, not one reduceat: that takes up to 12 times as long on rows of 10 crops
    for mean_KD, start, width in zip(means_SKD, starts_S, widths_S, strict=True):
        np.add.reduce(rows_TKD[start : start + width], axis=0, dtype=np.float32, out=mean_KD)
    means_SKD /= widths_S[:, None, None].astype(np.float32)
    return means_SKD


def uniform(rows_TKD: Values, length: int, *, jitter: np.random.Generator | None = None) -> Array:
    """``length`` rows, evenly spaced from the first to the last: (length, K, D) float32.

    With ``jitter`` one row by chance out of each even share. With fewer rows than ``length`` rows repeat, in order.

    >>> uniform(np.arange(7, dtype=np.float32).reshape(7, 1, 1), 3).ravel().tolist()
    [0.0, 3.0, 6.0]
    """
    return rows_TKD[places(len(rows_TKD), length, jitter=jitter)].astype(np.float32)


def places(rows: int, length: int, *, jitter: np.random.Generator | None = None) -> Indices:
    """Which rows ``uniform`` takes: (length,)."""
    if jitter is None:
        return np.arange(length) * (rows - 1) // max(length - 1, 1)
    bounds = boundaries(rows, length)
    starts_S = np.minimum(bounds[:-1], rows - 1)
    return jitter.integers(starts_S, np.maximum(bounds[1:], starts_S + 1))


def l2(rows: Array) -> Array:
    """Each row brought to length 1; a row of zeros stays."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1), np.float32)


@dataclass(frozen=True, slots=True)
class Batch:
    """As many abnormal bags as normal ones, the abnormal ones first."""

    features_BKSD: Tensor  # float32
    labels_B: Tensor  # True is abnormal
    names: tuple[str, ...]


class State(TypedDict):
    """Where a run of batches stands."""

    given: int  # batches since the start
    bags: str  # digest of what decides about the batches


class Bags:
    """Balanced batches of bags; iterating gives what is left of an epoch, the next iteration the next epoch.

    In an epoch every video of the larger class comes at least once; each class is gone through in an order of its own
    by chance, and anew until the batches are full. ``crops`` gives all crops, their mean, or one by chance for each
    bag. ``sampling`` says how rows become a bag's segments, see the functions of this file.
    """

    def __init__(
        self,
        block: Block,
        labels: Mapping[str, bool],
        *,
        segments: int = 32,
        sampling: Sampling = "mean",
        l2: bool = False,
        crops: Crops = "all",
        batch_pairs: int,
        seed: int,
        ahead: bool = False,
    ) -> None:
        """``labels`` names the videos to draw from; ``ahead`` reads the next batch while this one is worked on.

        Raises ValueError: names that the block has not, labels that contradict it, a class without videos.
        """
        for name, number in (("segments", segments), ("batch_pairs", batch_pairs)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        for name, value, allowed in (("crops", crops, get_args(Crops)), ("sampling", sampling, get_args(Sampling))):
            if value not in allowed:
                raise ValueError(f"unknown {name} {value!r}; available: {', '.join(allowed)}")
        block.check_labels(labels)
        self.block, self.segments, self.batch_pairs, self.seed, self.ahead = block, segments, batch_pairs, seed, ahead
        self.sampling, self.l2, self.crops = sampling, l2, crops
        self._classes = [  # abnormal first
            np.array([block.at(name) for name, label in labels.items() if bool(label) is which], np.int64)
            for which in (True, False)
        ]
        for which, videos in zip(("abnormal", "normal"), self._classes, strict=True):
            if not len(videos):
                raise ValueError(f"no {which} video among the {len(labels)} listed; a batch needs both classes")
        self._given = 0
        settings = [block.digest, segments, sampling, l2, crops, batch_pairs, seed]
        parts = [*settings, *(videos.tolist() for videos in self._classes)]
        self._digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-max(map(len, self._classes)) // self.batch_pairs)

    @property
    def epoch(self) -> int:
        """Of the batch that comes next, from 0."""
        return self._given // len(self)

    def state(self) -> State:
        """What ``restore`` needs to go on after the last batch that was given."""
        return {"given": self._given, "bags": self._digest}

    def restore(self, state: State) -> None:
        """Go on as the bags would have that gave this state. Raises ValueError for the state of other bags."""
        if state["bags"] != self._digest:
            raise ValueError("this state is of other bags: their videos, features, settings or seed differ")
        self._given = int(state["given"])

    def __iter__(self) -> Iterator[Batch]:
        numbers = range(self._given, (self.epoch + 1) * len(self))
        read = _ahead(self.batch, numbers) if self.ahead else map(self.batch, numbers)
        for number, batch in zip(numbers, read, strict=True):
            self._given = number + 1
            yield batch

    def batch(self, number: int) -> Batch:
        """Batch ``number`` since the start, whatever was given before."""
        epoch, within = divmod(number, len(self))
        chosen_B = np.concatenate([self._turn(c, epoch, within) for c in range(2)])
        draw = np.random.default_rng((self.seed, _DRAW, number))
        crops = self.block.index.crops if self.crops == "all" else 1
        features_BKSD = torch.empty(len(chosen_B), crops, self.segments, self.block.index.dim, dtype=torch.float32)
        for bag_KSD, i in zip(features_BKSD, chosen_B, strict=True):
            self._fill(bag_KSD, self.block.tensor(int(i)), draw)
        return Batch(
            features_BKSD,
            torch.arange(len(chosen_B)) < self.batch_pairs,
            tuple(self.block.names[i] for i in chosen_B),
        )

    def _turn(self, c: int, epoch: int, within: int) -> Indices:
        """The videos of class ``c`` whose turn it is."""
        videos = self._classes[c]
        first, size = within * self.batch_pairs, len(videos)
        places = np.arange(first, first + self.batch_pairs)
        rounds = range(first // size, places[-1] // size + 1)
        orders = [np.random.default_rng((self.seed, _ORDER, epoch, c, r)).permutation(size) for r in rounds]
        return videos[np.concatenate(orders)[places - rounds[0] * size]]

    def _fill(self, bag_KSD: Tensor, rows_TKD: Tensor, draw: np.random.Generator) -> None:
        if self.crops == "one":
            crop = int(draw.integers(rows_TKD.shape[1]))
            rows_TKD = rows_TKD[:, crop : crop + 1]
        segments_SKD = self._sample(rows_TKD, draw)
        if self.crops != "mean" and not self.l2:
            _copy(segments_SKD.transpose(0, 1), bag_KSD)
            return
        values_SKD = _float32(segments_SKD)
        if self.crops == "mean":
            values_SKD = values_SKD.mean(1, keepdims=True)
        bag_KSD.numpy()[:] = (l2(values_SKD) if self.l2 else values_SKD).swapaxes(0, 1)

    def _sample(self, rows_TKD: Tensor, draw: np.random.Generator) -> Tensor:
        """Rows (segments, K, D), as stored where none are averaged."""
        if self.sampling in ("uniform", "jitter"):
            jitter = draw if self.sampling == "jitter" else None
            return rows_TKD[torch.from_numpy(places(len(rows_TKD), self.segments, jitter=jitter))]
        if self.sampling == "mean_faithful":
            return torch.from_numpy(segments_faithful(_float32(rows_TKD), self.segments))
        if len(rows_TKD) == self.segments:
            return rows_TKD
        return torch.from_numpy(segments(_float32(rows_TKD), self.segments))


def _copy(source_KTD: Tensor, target_KTD: Tensor) -> None:
    """Copy and cast in pieces that torch leaves to one thread.

    It casts float16 seven times as fast as NumPy, but its threads cost more than that where cores are shared.
    """
    step = max(1, _PIECE // source_KTD.shape[2])
    for source_TD, target_TD in zip(source_KTD, target_KTD, strict=True):
        for t in range(0, len(source_TD), step):
            target_TD[t : t + step].copy_(source_TD[t : t + step])


def _float32(rows_TKD: Tensor) -> Array:
    cast_TKD = torch.empty(rows_TKD.shape, dtype=torch.float32)
    _copy(rows_TKD.transpose(0, 1), cast_TKD.transpose(0, 1))
    return cast_TKD.numpy()


def _ahead(read: Callable[[int], Batch], numbers: Sequence[int]) -> Iterator[Batch]:
    """Read each batch while the one before it is worked on."""
    with ThreadPoolExecutor(1, thread_name_prefix="bags") as reader:
        coming = [reader.submit(read, number) for number in numbers[:1]]
        for number in numbers[1:]:
            batch = coming.pop().result()
            coming.append(reader.submit(read, number))
            yield batch
        for last in coming:
            yield last.result()


@dataclass(frozen=True, slots=True)
class Videos:
    """Whole videos, zeros behind their ends."""

    features_BKTD: Tensor  # float32
    lengths_B: Tensor  # rows of each video
    labels_B: Tensor  # True is abnormal
    names: tuple[str, ...]


def videos(
    block: Block,
    labels: Mapping[str, bool] | None = None,
    *,
    max_rows: int = 4096,
    crops: Literal["all", "mean"] = "all",
    l2: bool = False,
) -> Iterator[Videos]:
    """Every video once, whole, the short ones first, in batches of at most ``max_rows`` rows with their padding.

    A longer video is a batch of its own. Raises ValueError as ``Bags`` for names and labels.
    """
    labels = block.labels if labels is None else labels
    block.check_labels(labels)
    taken: list[int] = []
    for i in sorted((block.at(name) for name in labels), key=lambda i: (block.index.rows[i], i)):
        if taken and block.index.rows[i] * (len(taken) + 1) > max_rows:
            yield _padded(block, taken, crops, scale=l2)
            taken = []
        taken.append(i)
    if taken:
        yield _padded(block, taken, crops, scale=l2)


def _padded(block: Block, taken: Sequence[int], crops: str, *, scale: bool) -> Videos:
    lengths = [block.index.rows[i] for i in taken]
    kept = 1 if crops == "mean" else block.index.crops
    features_BKTD = torch.zeros(len(taken), kept, max(lengths), block.index.dim, dtype=torch.float32)
    for video_KTD, i in zip(features_BKTD, taken, strict=True):
        rows_TKD = _float32(block.tensor(i))
        if crops == "mean":
            rows_TKD = rows_TKD.mean(1, keepdims=True)
        video_KTD.numpy()[:, : len(rows_TKD)] = (l2(rows_TKD) if scale else rows_TKD).swapaxes(0, 1)
    return Videos(
        features_BKTD,
        torch.tensor(lengths),
        torch.tensor([block.index.labels[i] for i in taken]),
        tuple(block.names[i] for i in taken),
    )


def condense(path: Path, block: Block, count: int) -> Block:
    """A block of each video's ``count`` segment means, for runs that use no other sampling.

    A batch of it reads ``count`` rows a video instead of all: about a tenth for surveillance videos of minutes.
    """
    rows = ((name, segments(values, count), label) for name, values, label in each(block))
    origin = f"means of {count} segments of {block.digest}"
    return Block.write(path, rows, origin=origin, dtype=block.index.dtype)
