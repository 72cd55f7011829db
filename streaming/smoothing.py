"""Temporal smoothing of scores, one sample at a time. Offline scoring is a fold over ``step``.

Every smoother gives back exactly one sample for each that it took, in order. A causal one does so at once;
one that looks ahead, ``lookahead`` seconds later.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from vad.config import Config


@dataclass(frozen=True, slots=True)
class Sample:
    """A score that stands for the seconds ``[start, end)`` of a stream; it can be known at ``end``."""

    start: float
    end: float
    score: float  # in [0, 1]


class Smoother:
    """State of one stream's smoothing. Causal smoothers say what a sample becomes; others override ``step``."""

    def step(self, sample: Sample) -> list[Sample]:
        """Take the next sample; gives those that are finished now."""
        return [replace(sample, score=self.value(sample))]

    def finish(self) -> list[Sample]:
        """The stream has ended: gives the rest."""
        return []

    def value(self, sample: Sample) -> float:
        """What the newest sample's score becomes, given those before it."""
        return sample.score


class Ema(Smoother):
    """Exponential moving average by elapsed time, so that it means the same at every frame rate."""

    def __init__(self, half_life: float) -> None:
        self._half_life = half_life
        self._last: Sample | None = None

    def value(self, sample: Sample) -> float:
        """Mix with the past by the time since the last sample."""
        if self._last is None:
            smoothed = sample.score
        else:
            kept = 0.5 ** ((sample.end - self._last.end) / self._half_life)
            smoothed = kept * self._last.score + (1 - kept) * sample.score
        self._last = replace(sample, score=smoothed)
        return smoothed


class Median(Smoother):
    """Median of the samples that ended within the last ``window`` seconds, the newest included."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._recent: deque[Sample] = deque()

    def value(self, sample: Sample) -> float:
        """Median of the window that ends with this sample."""
        self._recent.append(sample)
        while self._recent[0].end <= sample.end - self._window:
            self._recent.popleft()
        return median(recent.score for recent in self._recent)


class Gaussian(Smoother):
    """Gaussian-weighted mean over three sigma of past and ``lookahead`` seconds of future."""

    def __init__(self, sigma: float, lookahead: float) -> None:
        self._sigma, self._lookahead = sigma, lookahead
        self._samples: deque[Sample] = deque()
        self._waiting = 0  # how many of the newest are not finished

    def step(self, sample: Sample) -> list[Sample]:
        """Finish those that no later sample can change."""
        self._samples.append(sample)
        self._waiting += 1
        # <: a sample exactly at the limit still counts, and another may end at the same time
        return self._finish_while(lambda waiting: waiting.end + self._lookahead < sample.end)

    def finish(self) -> list[Sample]:
        """The stream has ended: gives the rest."""
        return self._finish_while(lambda _: True)

    def _finish_while(self, ready: Callable[[Sample], bool]) -> list[Sample]:
        finished = []
        while self._waiting and ready(self._samples[-self._waiting]):
            centre = self._samples[-self._waiting]
            finished.append(replace(centre, score=self._mean_around(centre.end)))
            self._waiting -= 1
            while self._samples[0].end < centre.end - 3 * self._sigma:
                self._samples.popleft()
        return finished

    def _mean_around(self, time: float) -> float:
        near = [s for s in self._samples if time - 3 * self._sigma <= s.end <= time + self._lookahead]
        weights = [math.exp(-(((s.end - time) / self._sigma) ** 2) / 2) for s in near]
        return sum(w * s.score for w, s in zip(weights, near, strict=True)) / sum(weights)


class NoneSettings(Config):
    """No smoothing."""

    kind: Literal["none"] = "none"
    lookahead: Literal[0] = Field(0, exclude=True)

    def build(self) -> Smoother:
        """A smoother for one stream."""
        return Smoother()


class EmaSettings(Config):
    """Exponential moving average."""

    kind: Literal["ema"] = "ema"
    half_life: float = Field(0.5, gt=0, description="seconds after which a score's weight is halved")
    lookahead: Literal[0] = Field(0, exclude=True)

    def build(self) -> Smoother:
        """A smoother for one stream."""
        return Ema(self.half_life)


class MedianSettings(Config):
    """Median of the last seconds."""

    kind: Literal["median"] = "median"
    window: float = Field(1.0, gt=0, description="seconds looked back")
    lookahead: Literal[0] = Field(0, exclude=True)

    def build(self) -> Smoother:
        """A smoother for one stream."""
        return Median(self.window)


class GaussianSettings(Config):
    """Gaussian-weighted mean that looks ahead: for offline use, and always labelled."""

    kind: Literal["gaussian"] = "gaussian"
    sigma: float = Field(0.5, gt=0, description="seconds")
    lookahead: float = Field(1.5, ge=0, description="seconds of future that the mean may use")

    def build(self) -> Smoother:
        """A smoother for one stream."""
        return Gaussian(self.sigma, self.lookahead)


Settings: TypeAlias = Annotated[
    NoneSettings | EmaSettings | MedianSettings | GaussianSettings, Field(discriminator="kind")
]
