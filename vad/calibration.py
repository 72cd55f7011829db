"""Raw scores -> [0, 1] by the camera's own normal quantiles. Nothing is ever normalised per test video.

A score says how rare a raw value is among normal moments of this camera: 0.5 is one in a thousand.
Up to the 90th percentile rarity is read off the quantiles. Beyond it, normal excesses are taken to fall
off exponentially (peaks over threshold with shape 0; Pickands 1975), so that values never seen in normal
footage still keep their order. score = L / (L + 3) with L = -log10 P(normal exceeds raw).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from pydantic import Field, model_validator

from vad.config import Config
from vad.types import Array

Scale = Callable[[Array], Array]
"""From raw scores to [0, 1]."""

_TAIL = 0.1  # share of normal scores that the exponential tail describes
_HALF = 3.0  # rarity, in powers of ten, that gets score 0.5
_KNOTS = 100


class Calibration(Config):
    """A monotone map from raw scores to [0, 1], fitted on normal footage; plain numbers, kept in the manifest."""

    quantiles: tuple[float, ...] = Field(
        min_length=2, description="raw values, rising; the last is where the tail starts"
    )
    tail_scale: float = Field(gt=0, description="mean excess of normal scores beyond the last quantile")
    count: int = Field(ge=1, description="normal moments that it was fitted on")

    @model_validator(mode="after")
    def _quantiles_rise(self) -> Calibration:
        if any(b < a for a, b in zip(self.quantiles, self.quantiles[1:], strict=False)):
            raise ValueError("quantiles must not fall")
        return self

    @classmethod
    def fit(cls, raw: Array) -> Calibration:
        """Calibrate on raw scores of normal footage that the head was not fitted on."""
        values = np.sort(raw[np.isfinite(raw)].astype(np.float64))
        if len(values) < 2:
            raise ValueError(f"calibration needs at least 2 normal scores, got {len(values)}")
        start = np.quantile(values, 1 - _TAIL)
        excess = values[values > start] - start
        spread = float(np.ptp(values)) or abs(float(values[0])) or 1.0
        return cls(
            # as many knots as there are values to tell apart
            quantiles=tuple(np.quantile(values, np.linspace(0, 1 - _TAIL, min(_KNOTS, len(values))))),
            tail_scale=float(excess.mean()) if len(excess) and excess.mean() > 1e-6 * spread else 1e-3 * spread,
            count=len(values),
        )

    def __call__(self, raw: Array) -> Array:
        """Scores in [0, 1], same shape, never falling with ``raw``."""
        values = np.asarray(raw, np.float64)
        knots = np.asarray(self.quantiles)
        below = np.interp(values, knots, -np.log10(1 - np.linspace(0, 1 - _TAIL, len(knots))))
        beyond = np.maximum(values - knots[-1], 0) / self.tail_scale * math.log10(math.e)
        rarity = below + beyond
        return (rarity / (rarity + _HALF)).astype(np.float32)


def unchanged(raw: Array) -> Array:
    """For heads whose scores are in [0, 1] by themselves."""
    return raw


def rarity(score: float) -> float:
    """How often normal footage reaches ``score``: 1 in 10 ** rarity(score) moments.

    >>> rarity(0.5)
    3.0
    """
    return math.inf if score >= 1 else _HALF * score / (1 - score)
