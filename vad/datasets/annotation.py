"""What a benchmark's annotation says about its videos: names, lengths, categories, abnormal intervals.

Every importer gives these types. Intervals are frames of the source video, half-open, counted from 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.bool_]

Ends = Literal["matlab", "half-open", "inclusive"]
"""How a pair of written frame numbers is read: ``matlab`` counts from 1 and includes the end, [s - 1, e);
``half-open`` counts from 0, [s, e); ``inclusive`` counts from 0 and includes the end, [s, e + 1)."""


class AnnotationError(ValueError):
    """An annotation that cannot be read, or that contradicts itself."""


@dataclass(frozen=True, slots=True, order=True)
class Interval:
    """Abnormal frames ``[start, end)``, with what happens in them where the annotation says so."""

    start: int
    end: int
    category: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise AnnotationError(f"an interval needs 0 <= start < end, got [{self.start}, {self.end})")


@dataclass(frozen=True, slots=True)
class AnnotatedVideo:
    """One video of a benchmark's test set."""

    name: str  # without folders, crop number and file type
    num_frames: int
    intervals: tuple[Interval, ...] = ()  # in order of time; none in a normal video
    categories: tuple[str, ...] = ()  # of the video; none when it is normal
    fps: float | None = None  # None: the annotation does not say

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise AnnotationError(f"{self.name}: a video needs at least one frame, got {self.num_frames}")
        if list(self.intervals) != sorted(self.intervals, key=lambda each: (each.start, each.end)):
            raise AnnotationError(f"{self.name}: intervals must be in order of time")
        if self.intervals and max(each.end for each in self.intervals) > self.num_frames:
            raise AnnotationError(f"{self.name}: an interval ends after frame {self.num_frames}, the last of the video")

    @property
    def abnormal(self) -> bool:
        """Whether anything in it is abnormal."""
        return bool(self.intervals or self.categories)

    def labels(self) -> Labels:
        """(num_frames,), True where a frame is abnormal."""
        labels_N = np.zeros(self.num_frames, bool)
        for each in self.intervals:
            labels_N[each.start : each.end] = True
        return labels_N

    def events(self) -> tuple[tuple[int, int], ...]:
        """Abnormal stretches, overlapping and touching intervals joined, in order."""
        joined: list[tuple[int, int]] = []
        for each in self.intervals:
            if joined and each.start <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(joined[-1][1], each.end))
            else:
                joined.append((each.start, each.end))
        return tuple(joined)


@dataclass(frozen=True, slots=True)
class Benchmark:
    """The test videos of a benchmark under one protocol."""

    name: str
    protocol: str  # in words: which split, how ends are read, which lengths
    videos: tuple[AnnotatedVideo, ...]
    fps: float | None = None  # what its videos are said to run at, where each does not say for itself
    notes: tuple[str, ...] = ()  # what the reader of a result has to know: cut intervals, videos without a line …

    def __post_init__(self) -> None:
        if not self.videos:
            raise AnnotationError(f"{self.name}: the annotation lists no video")
        if twice := repeated(video.name for video in self.videos):
            raise AnnotationError(f"{self.name}: annotated more than once: {', '.join(twice)}")


def repeated(names: Iterable[str]) -> list[str]:
    """The names that come more than once, in order of their second coming."""
    seen: set[str] = set()
    twice: dict[str, None] = {}
    for name in names:
        if name in seen:
            twice[name] = None
        seen.add(name)
    return list(twice)


def intervals(
    pairs: Iterable[tuple[int, int]], *, ends: Ends, num_frames: int, category: str | None = None
) -> tuple[tuple[Interval, ...], list[str]]:
    """Half-open intervals of written pairs, cut to the video; and what had to be cut, in words.

    >>> intervals([(1, 10)], ends="matlab", num_frames=20)[0]
    (Interval(start=0, end=10, category=None),)
    >>> intervals([(5, 30)], ends="half-open", num_frames=20)
    ((Interval(start=5, end=20, category=None),), ['5-30 cut to [5, 20)'])
    """
    before, after = {"matlab": (-1, 0), "half-open": (0, 0), "inclusive": (0, 1)}[ends]
    kept: list[Interval] = []
    cut: list[str] = []
    for written in pairs:
        start, end = max(written[0] + before, 0), written[1] + after
        if start >= end:
            raise AnnotationError(f"an interval must end after it starts, got {written[0]}-{written[1]}")
        inside = start, min(end, num_frames)
        if inside[0] >= inside[1]:
            cut.append(f"{written[0]}-{written[1]} lies behind the last frame, {num_frames}: left out")
            continue
        if inside[1] < end:
            cut.append(f"{written[0]}-{written[1]} cut to [{inside[0]}, {inside[1]})")
        kept.append(Interval(*inside, category))
    return tuple(sorted(kept, key=lambda each: (each.start, each.end))), cut
