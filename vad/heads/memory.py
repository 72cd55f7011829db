"""Nearest-normal memory: how far is this place from everything normal that was seen in its context?

Patch memories for anomaly detection go back to Roth et al., "Towards Total Recall in Industrial Anomaly
Detection", CVPR 2022, https://arxiv.org/abs/2106.08265 (PatchCore). Differs from it: features are video
clips'; each picture row of a fixed camera has a memory of its own, because size and speed depend on the
distance from the camera; features are compared by direction, after principal components; the score is the
mean of the few highest places; the coreset takes several far points at a time.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from vad.head import NormalHead, NormalHeadSettings


class Settings(NormalHeadSettings):
    """Size of the memory and number of neighbours."""

    kind: Literal["memory"] = "memory"
    capacity: int = Field(4096, ge=1, description="normal features kept per context")
    candidates: int = Field(16384, ge=1, description="features per context that the coreset is chosen from")
    neighbours: int = Field(1, ge=1, description="distance is the mean over this many nearest")

    def build(self) -> Memory:
        """An empty memory, to be fitted or restored."""
        return Memory(self)


class Memory(NormalHead):
    """Mean Euclidean distance to the nearest normal features of the same context."""

    bank_CME: Tensor
    tables = ("bank_CME",)
    settings: Settings

    def _fit_contexts(self, samples_NCPE: Tensor, groups_N: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.settings.seed)
        count, contexts, places, size = samples_NCPE.shape
        banks, distances = [], []
        owner_R = groups_N.repeat_interleave(places)
        for context in range(contexts):
            rows = samples_NCPE[:, context].reshape(count * places, size)
            chosen = coreset(rows, self.settings.capacity, candidates=self.settings.candidates, generator=generator)
            banks.append(rows[chosen])
            distances.append(self._leave_one_out(rows, owner_R, rows[chosen], owner_R[chosen]).reshape(count, places))
        self._remember(torch.stack(banks))
        return torch.stack(distances, 1)

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take the tables that ``state_dict`` gave."""
        super().restore(state)
        self._remember(self.bank_CME)

    def _remember(self, bank_CME: Tensor) -> None:
        self.bank_CME = bank_CME
        self._half_norms = half_norms(bank_CME)

    def _leave_one_out(self, rows: Tensor, owners: Tensor, bank: Tensor, bank_owners: Tensor) -> Tensor:
        distances = torch.empty(len(rows))
        for group in owners.unique():
            mine = owners == group
            distances[mine] = self._nearest(rows[None, mine], bank[None, bank_owners != group])[0]
        return distances

    def _distances(self, features_BCPE: Tensor) -> Tensor:
        batch, contexts, places, size = features_BCPE.shape
        queries = features_BCPE.transpose(0, 1).reshape(contexts, batch * places, size)
        return self._nearest(queries, self.bank_CME).reshape(contexts, batch, places).transpose(0, 1)

    def _nearest(self, queries_CQE: Tensor, bank_CME: Tensor) -> Tensor:
        """Mean distance to the nearest neighbours: (C, Q). In parts, so that memory stays bounded."""
        neighbours = min(self.settings.neighbours, bank_CME.shape[1])
        half_norms_C1M = self._half_norms if bank_CME is self.bank_CME else half_norms(bank_CME)
        parts = []
        for queries in queries_CQE.split(max(1, 2**24 // bank_CME.shape[:2].numel()), dim=1):
            # half the squared distance, less the query's own norm: one matrix product
            near = torch.baddbmm(half_norms_C1M, queries, bank_CME.transpose(1, 2), alpha=-1)
            lowest = near.amin(-1, keepdim=True) if neighbours == 1 else near.topk(neighbours, largest=False).values
            squared = 2 * lowest + queries.square().sum(-1, keepdim=True)
            parts.append(squared.clamp_min(0).sqrt().mean(-1))
        return torch.cat(parts, 1)


def half_norms(bank_CME: Tensor) -> Tensor:
    """Half the squared length of each memory, (C, 1, M)."""
    return bank_CME.square().sum(-1)[:, None] / 2


def coreset(rows: Tensor, size: int, *, candidates: int, generator: torch.Generator, step: int = 64) -> Tensor:
    """Indices of ``size`` rows that cover all: repeatedly those farthest from the ones chosen so far.

    Chosen from a random subset of ``candidates`` rows; ``step`` farthest rows are taken at a time (16 times
    fewer passes than one by one). With at most ``size`` candidates, all of them.
    """
    pool = torch.randperm(len(rows), generator=generator)[:candidates]
    if len(pool) <= size:
        return pool
    points = rows[pool]
    norms = points.square().sum(1)
    nearest = torch.full((len(pool),), torch.inf)
    chosen = [pool.new_zeros(1)]
    while sum(map(len, chosen)) < size:
        latest = chosen[-1]
        squared = norms[:, None] - 2 * points @ points[latest].T + norms[latest]
        nearest = torch.minimum(nearest, squared.amin(1))
        chosen.append(nearest.topk(min(step, size - sum(map(len, chosen)))).indices)
    return pool[torch.cat(chosen)]
