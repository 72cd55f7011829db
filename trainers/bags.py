"""Bags: a fixed number of rows for each video, in batches of as many abnormal videos as normal ones.

A batch is a function of the seed and of its number, so that number is the whole state of a run: one
that is resumed sees what it would have seen. Reading is a copy out of a mapped file; a thread may read one ahead.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

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


@dataclass(frozen=True, slots=True)
class Batch:
    """As many abnormal bags as normal ones, the abnormal ones first."""

    features_BKSD: Tensor  # float32
    labels_B: Tensor  # True is abnormal
    names: tuple[str, ...]


class Bags:
    """Balanced batches of bags, numbered since the start.

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
        self.sampling, self.crops = sampling, crops
        self._classes = [  # abnormal first
            np.array([block.at(name) for name, label in labels.items() if bool(label) is which], np.int64)
            for which in (True, False)
        ]
        for which, videos in zip(("abnormal", "normal"), self._classes, strict=True):
            if not len(videos):
                raise ValueError(f"no {which} video among the {len(labels)} listed; a batch needs both classes")
        settings = [block.digest, segments, sampling, crops, batch_pairs, seed]
        parts = [*settings, *(videos.tolist() for videos in self._classes)]
        self.digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-max(map(len, self._classes)) // self.batch_pairs)

    def batches(self, numbers: Sequence[int]) -> Iterator[Batch]:
        """These batches, the next one read while this one is worked on if ``ahead``."""
        return _ahead(self.batch, numbers) if self.ahead else map(self.batch, numbers)

    def batch(self, number: int) -> Batch:
        """Batch ``number`` since the start; nothing else decides about it but the seed."""
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
        if self.crops != "mean":
            _copy(segments_SKD.transpose(0, 1), bag_KSD)
            return
        bag_KSD.numpy()[:] = _float32(segments_SKD).mean(1, keepdims=True).swapaxes(0, 1)

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


def condense(path: Path, block: Block, count: int) -> Block:
    """A block of each video's ``count`` segment means, for runs that use no other sampling.

    A batch of it reads ``count`` rows a video instead of all: about a tenth for surveillance videos of minutes.
    """
    rows = ((name, segments(values, count), label) for name, values, label in each(block))
    origin = f"means of {count} segments of {block.digest}"
    return Block.write(path, rows, origin=origin, dtype=block.index.dtype)
