"""Gaussian of normal features: Mahalanobis distance with a shrunk covariance, in closed form.

Rippel, Mertens, Merhof. "Modeling the Distribution of Normal Data in Pre-Trained Deep Features for Anomaly
Detection", ICPR 2020, https://arxiv.org/abs/2005.14140. Shrinkage: Chen, Wiesel, Eldar, Hero. "Shrinkage
Algorithms for MMSE Covariance Estimation", IEEE TSP 2010, https://arxiv.org/abs/0907.4698 (OAS). Differs
from the former: OAS instead of Ledoit-Wolf, because it needs the covariance alone; one Gaussian per context.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from vad.head import NormalHead, NormalHeadSettings


class Settings(NormalHeadSettings):
    """How much the covariance is shrunk."""

    kind: Literal["gaussian"] = "gaussian"
    shrinkage: float | None = Field(None, ge=0, le=1, description="weight of the sphere; null estimates it (OAS)")

    def build(self) -> Gaussian:
        """An unfitted head."""
        return Gaussian(self)


class Gaussian(NormalHead):
    """Mahalanobis distance to the mean of the context."""

    centre_CE: Tensor
    whitener_CEE: Tensor  # maps a centred feature to one whose length is the distance
    tables = ("centre_CE", "whitener_CEE")
    settings: Settings

    def _fit_contexts(self, samples_NCPE: Tensor, groups_N: Tensor) -> Tensor:
        distances = torch.empty(samples_NCPE.shape[:3])
        for group in groups_N.unique():
            mine = groups_N == group
            self._estimate(samples_NCPE[~mine])
            distances[mine] = self._distances(samples_NCPE[mine])
        self._estimate(samples_NCPE)
        return distances

    def _estimate(self, samples_NCPE: Tensor) -> None:
        rows_CRE = samples_NCPE.transpose(0, 1).flatten(1, 2).double()
        count = rows_CRE.shape[1]
        self.centre_CE = rows_CRE.mean(1).float()
        centred = rows_CRE - rows_CRE.mean(1, keepdim=True)
        covariance = shrink(centred.transpose(1, 2) @ centred / count, count, self.settings.shrinkage)
        identity = torch.eye(covariance.shape[-1], dtype=torch.float64).expand_as(covariance)
        try:
            factor = torch.linalg.cholesky(covariance)
        except RuntimeError as cause:  # torch.linalg.LinAlgError, which torch does not export to type checkers
            raise ValueError(
                f"the features do not vary in all of their {covariance.shape[-1]} directions: "
                "set a smaller head.reduce, or a larger head.shrinkage"
            ) from cause
        self.whitener_CEE = torch.linalg.solve_triangular(factor, identity, upper=False).float()

    def _distances(self, features_BCPE: Tensor) -> Tensor:
        batch, contexts, places, size = features_BCPE.shape
        centred = (features_BCPE - self.centre_CE[:, None]).transpose(0, 1).reshape(contexts, batch * places, size)
        return (
            (centred @ self.whitener_CEE.transpose(1, 2)).norm(dim=-1).reshape(contexts, batch, places).transpose(0, 1)
        )


def shrink(covariance_CEE: Tensor, count: int, weight: float | None) -> Tensor:
    """Mix each covariance with the sphere of the same mean variance; ``weight`` None takes the OAS estimate.

    OAS: rho = ((1 - 2/E) tr(S²) + tr²(S)) / ((n + 1 - 2/E) (tr(S²) - tr²(S)/E)), at most 1.
    """
    size = covariance_CEE.shape[-1]
    trace = covariance_CEE.diagonal(dim1=-2, dim2=-1).sum(-1)
    if weight is None:
        squared = covariance_CEE.square().sum((-2, -1))
        spread = (count + 1 - 2 / size) * (squared - trace.square() / size)
        mixed = ((1 - 2 / size) * squared + trace.square()) / spread.clamp_min(1e-30)
        rho = mixed.clamp(0, 1)
    else:
        rho = torch.full_like(trace, weight)
    sphere = (trace / size).clamp_min(1e-12)[:, None, None] * torch.eye(size, dtype=covariance_CEE.dtype)
    return (1 - rho)[:, None, None] * covariance_CEE + rho[:, None, None] * sphere
