"""What a head is to a stream; what normal-only heads share, and a bounded sample of footage to fit them from.

A head is fitted in one pass over the features of normal footage and gives back the raw scores of that
footage, each judged by a fit without its own part of it ("leave one out"): calibration needs scores of
normal moments that the head has not seen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from vad.config import Config
from vad.types import Array, HeadScores

Context = Literal["everywhere", "row", "place"]
FOLDS = 8  # parts that normal footage is split into for leave-one-out, when there are fewer videos than this


class StreamHead(Protocol):
    """What scores a stream, snippet by snippet. It may remember what it has seen: one object per stream."""

    def score(self, features: Array) -> HeadScores:
        """Raw scores of the next snippets (B, …), in order."""


class TooLittleFootageError(ValueError):
    """Not enough normal snippets to fit on."""


class NormalHeadSettings(Config):
    """Settings that every head fitted on normal footage has."""

    kind: str
    pool: int = Field(
        3, ge=1, description="a place's feature is the mean over this many places each way; odd, 1 is itself"
    )
    unit_length: bool = Field(True, description="compare directions: features are scaled to length 1")
    reduce: int | None = Field(128, ge=1, description="principal components kept; null keeps the features as they are")
    context: Context = Field("row", description="what a place is compared with: everywhere, its picture row, or itself")
    equalise: bool = Field(False, description="measure each context in units of its own farthest normal place")
    top: int = Field(10, ge=1, description="a snippet's score is the mean of its this many highest places")
    fit_memory_mb: int = Field(1024, ge=1, description="normal snippets kept while fitting; longer footage is sampled")
    seed: int = 0

    @field_validator("pool")
    @classmethod
    def _pool_is_odd(cls, pool: int) -> int:
        if pool % 2 == 0:
            raise ValueError("pool must be odd, so that a place stands in the middle of its neighbours")
        return pool

    @abstractmethod
    def build(self) -> NormalHead:
        """An empty head, to be fitted or restored."""


class NormalHead(nn.Module, ABC):
    """A head that learns from normal footage of one camera.

    Features are rows (B, D) or maps of places (B, h, w, D); a row is a map with one place.
    Raw scores are distances: 0 and up, higher is more anomalous.
    """

    mean_D: Tensor
    basis_DE: Tensor
    scale_C: Tensor

    def __init__(self, settings: NormalHeadSettings) -> None:
        super().__init__()
        self.settings = settings
        for name in ("mean_D", "basis_DE", "scale_C", *self.tables):
            self.register_buffer(name, torch.empty(0))

    tables: tuple[str, ...] = ()  # names of the buffers that a subclass fits

    @abstractmethod
    def _fit_contexts(self, samples_NCPE: Tensor, groups_N: Tensor) -> Tensor:
        """Fit all contexts; returns leave-one-out distances (N, C, P)."""

    @abstractmethod
    def _distances(self, features_BCPE: Tensor) -> Tensor:
        """Distance of each place to normal: (B, C, P)."""

    def fit(self, batches: Iterable[tuple[int, Array]]) -> Array:
        """One pass over (video number, features of consecutive snippets); returns leave-one-out raw scores.

        The scores belong to the sampled snippets, in the order of the footage. Raises TooLittleFootageError.
        """
        sample = _Sample(self.settings.fit_memory_mb * 2**20, self.settings.seed)
        for video, features in batches:
            sample.add(video, self._prepare(torch.from_numpy(_as_maps(features))).numpy())
        maps_NHWD, groups_N = sample.take()
        self.mean_D, self.basis_DE = principal_components(maps_NHWD, self.settings.reduce)
        samples = torch.cat([self._project(part.float()) for part in maps_NHWD.split(64)])
        distances = self._fit_contexts(self._contexts(samples), groups_N)
        self.scale_C = self._units(distances)
        return np.asarray(self._raw(distances / self.scale_C[:, None]).numpy())

    def score(self, features: Array) -> HeadScores:
        """Raw scores of a batch of snippets, with a heat map where the features have places."""
        if self.mean_D.numel() == 0:
            raise ValueError("this head has not been fitted")
        maps_BHWD = torch.from_numpy(_as_maps(features))
        if maps_BHWD.shape[-1] != len(self.mean_D):
            raise ValueError(
                f"features have {maps_BHWD.shape[-1]} values per place, this head was fitted on {len(self.mean_D)}"
            )
        with torch.inference_mode():
            _, height, width, _ = maps_BHWD.shape
            distances = self._distances(self._contexts(self._project(self._prepare(maps_BHWD)))) / self.scale_C[:, None]
            heat = self._heat(distances, height, width).numpy() if height * width > 1 else None
            return HeadScores(np.asarray(self._raw(distances).numpy()), heat)

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take the tables that ``state_dict`` gave."""
        for name in ("mean_D", "basis_DE", "scale_C", *self.tables):
            setattr(self, name, state[name])

    def _prepare(self, maps_BHWD: Tensor) -> Tensor:
        """Average with the neighbouring places, then scale to length 1."""
        size = self.settings.pool
        if size > 1 and maps_BHWD.shape[1] * maps_BHWD.shape[2] > 1:
            channels_first = maps_BHWD.permute(0, 3, 1, 2)
            pooled = F.avg_pool2d(channels_first, size, stride=1, padding=size // 2, count_include_pad=False)
            maps_BHWD = pooled.permute(0, 2, 3, 1)
        return F.normalize(maps_BHWD, dim=-1) if self.settings.unit_length else maps_BHWD

    def _project(self, maps_BHWD: Tensor) -> Tensor:
        centred = maps_BHWD - self.mean_D
        return centred @ self.basis_DE if self.basis_DE.numel() else centred

    def _contexts(self, maps_BHWE: Tensor) -> Tensor:
        """(B, h, w, E) -> (B, C contexts, P places in each, E)."""
        batch, height, width, size = maps_BHWE.shape
        shape = {"everywhere": (1, height * width), "row": (height, width), "place": (height * width, 1)}
        return maps_BHWE.reshape(batch, *shape[self.settings.context], size)

    def _units(self, distances_NCP: Tensor) -> Tensor:
        """What counts as one unit of distance in each context, (C,): contexts get an equal share of false alarms."""
        if not self.settings.equalise:
            return torch.ones(distances_NCP.shape[1])
        return distances_NCP.amax((0, 2)).clamp_min(1e-6)

    def _heat(self, distances_BCP: Tensor, height: int, width: int) -> Tensor:
        return distances_BCP.reshape(len(distances_BCP), height, width)

    def _raw(self, distances_BCP: Tensor) -> Tensor:
        places = distances_BCP.flatten(1)
        return places.topk(min(self.settings.top, places.shape[1]), dim=1).values.mean(1)


class _Sample:
    """A uniform sample of a stream of snippets, bounded in bytes (reservoir sampling, float16 maps)."""

    def __init__(self, budget: int, seed: int) -> None:
        self._budget = budget
        self._random = np.random.default_rng(seed)
        self._kept: list[tuple[int, int, Array]] = []  # (position in the footage, video, map)
        self._seen = 0

    def add(self, video: int, maps_BHWD: Array) -> None:
        for features in maps_BHWD.astype(np.float16):
            limit = max(self._budget // features.nbytes, 2)
            item = (self._seen, video, features)
            if len(self._kept) < limit:
                self._kept.append(item)
            elif (slot := int(self._random.integers(self._seen + 1))) < limit:
                self._kept[slot] = item
            self._seen += 1

    def take(self) -> tuple[Tensor, Tensor]:
        """Maps (N, h, w, D) float16 in the order of the footage, and the leave-one-out group of each."""
        if len(self._kept) < 2 * FOLDS:
            raise TooLittleFootageError(
                f"too little normal footage to fit on: {len(self._kept)} snippets, at least "
                f"{2 * FOLDS} are needed; give longer or more videos, or a smaller hop"
            )
        self._kept.sort(key=lambda item: item[0])
        maps = torch.from_numpy(np.stack([features for _, _, features in self._kept]))
        videos = np.unique([video for _, video, _ in self._kept], return_inverse=True)[1]
        # few videos: cut the footage into consecutive parts instead
        groups = videos if videos.max() + 1 >= FOLDS else np.arange(len(videos)) * FOLDS // len(videos)
        self._kept = []
        return maps, torch.from_numpy(groups)


def principal_components(maps_NHWD: Tensor, keep: int | None) -> tuple[Tensor, Tensor]:
    """Mean (D,) and the ``keep`` directions of largest variance (D, keep) over all places; empty basis keeps all."""
    rows = maps_NHWD.flatten(0, 2)
    size = rows.shape[1]
    total = torch.zeros(size, dtype=torch.float64)
    outer = torch.zeros(size, size, dtype=torch.float64)
    for part in rows.split(16384):
        values = part.float()
        total += values.sum(0, dtype=torch.float64)
        outer += (values.T @ values).double()
    mean = total / len(rows)
    if keep is None or keep >= size:
        return mean.float(), torch.empty(0)
    covariance = outer / len(rows) - torch.outer(mean, mean)
    vectors = torch.linalg.eigh(covariance).eigenvectors
    return mean.float(), vectors[:, -keep:].flip(1).float().contiguous()


def _as_maps(features: Array) -> Array:
    if features.ndim == 2:
        return features[:, None, None, :]
    if features.ndim == 4:
        return features
    raise ValueError(f"features must be (B, D) or (B, h, w, D), got {features.shape}")
