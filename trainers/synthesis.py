"""Untrimmed videos with a known truth, composed from trimmed clips.

Weak labels of whole videos say nothing about when. A video joined from clips does: an abnormal clip among normal ones
at a known place. The proportions follow LaGoVAD (ICLR 2026, https://arxiv.org/abs/2503.13160): 30 % single clips, else
1 to 5 clips, fillers half by chance and half like the anomaly's clip. Differs: the label follows the rows that are
left after a cut, where theirs stays positive when the cut took the anomaly away; likeness is searched among the given
clips, not in a table made before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from trainers.block import Values
from trainers.splits import Group

_ANCHORS, _PLAN = 0, 1  # what a random stream is for


class Clips(Protocol):
    """Where the rows of clips come from: a block, or a store that is read a clip at a time."""

    def at(self, name: str) -> int:
        """The place of a clip. Raises ValueError."""
        ...

    def rows(self, i: int) -> Values:
        """Of the clip at place ``i``: (T, K, D)."""
        ...

    def check_labels(self, labels: Mapping[str, bool]) -> None:
        """Raises ValueError for names that are not there, or labels that contradict what is known."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """Rows ``[start, end)`` of one clip; all of them are abnormal or none is."""

    name: str
    start: int
    end: int
    abnormal: bool

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"a part needs 0 <= start < end, got [{self.start}, {self.end}) of {self.name}")

    def __len__(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class Plan:
    """What a composed video is joined from, in order; the truth follows from it."""

    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("a plan needs at least one part, got none")

    def __len__(self) -> int:
        """Rows of the composed video."""
        return sum(map(len, self.parts))

    @property
    def abnormal(self) -> bool:
        """Whether anything abnormal is in it."""
        return any(part.abnormal for part in self.parts)

    @cached_property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Where each part lies in the composed video, rows ``[start, end)``."""
        ends = np.cumsum([len(part) for part in self.parts]).tolist()
        return tuple((end - len(part), end) for part, end in zip(self.parts, ends, strict=True))

    def labels(self, *, hop_frames: int = 1) -> npt.NDArray[np.bool_]:
        """True where the anomaly is, for each row; with ``hop_frames`` for each frame of the joined video."""
        counts = [len(part) * hop_frames for part in self.parts]
        return np.repeat([part.abnormal for part in self.parts], counts)

    def frames(self, *, hop_frames: int) -> list[tuple[str, int, int]]:
        """What to cut from each clip's video and join: name and frames ``[start, end)``.

        Frames behind a clip's last row are left out, so the joined video has these rows and no others where a row is
        made from the ``hop_frames`` frames of its own.
        """
        return [(part.name, part.start * hop_frames, part.end * hop_frames) for part in self.parts]

    def cut(self, start: int, end: int) -> Plan:
        """Rows ``[start, end)`` of the composed video; normal if the anomaly is not among them.

        >>> plan = Plan((Part("walk", 0, 3, False), Part("fight", 0, 2, True)))
        >>> plan.cut(1, 4).labels().tolist(), plan.cut(0, 3).abnormal
        ([False, False, True], False)
        """
        if not 0 <= start < min(end, len(self)):
            raise ValueError(f"a cut needs 0 <= start < end and start < {len(self)} rows, got [{start}, {end})")
        kept = []
        for part, (first, last) in zip(self.parts, self.spans, strict=True):
            a, b = max(start, first), min(end, last)
            if a < b:
                kept.append(replace(part, start=part.start + a - first, end=part.start + b - first))
        return Plan(tuple(kept))

    def crop(self, limit: int, random: np.random.Generator) -> Plan:
        """At most ``limit`` rows from a start by chance in the first half."""
        if limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit}")
        start = int(random.integers(max(len(self) // 2, 1)))
        return self.cut(start, start + limit)

    def rows(self, clips: Clips) -> Values:
        """Features of the composed video: (T, K, D)."""
        return np.concatenate([clips.rows(clips.at(part.name))[part.start : part.end] for part in self.parts])


class Composer:
    """Plans of videos composed from clips: plan ``number`` depends on the seed and the number alone.

    Every clip of a class is the one a plan is built around once before any comes again. No clip and no source comes
    twice in one plan, and all fillers are normal. ``single`` is the share of plans of one clip, ``longest`` the most
    clips in a plan, ``similar`` the share of fillers drawn from the ``nearest`` normal clips by mean features.
    """

    def __init__(
        self,
        clips: Clips,
        labels: Mapping[str, bool],
        groups: Group,
        *,
        single: float = 0.3,
        longest: int = 5,
        similar: float = 0.5,
        nearest: int = 10,
        seed: int,
    ) -> None:
        """``labels`` names the clips to use. Raises ValueError: settings, labels, or too few normal sources."""
        for name, share in (("single", single), ("similar", similar)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {share}")
        for name, number in (("longest", longest), ("nearest", nearest)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        clips.check_labels(labels)
        self.seed = seed
        self.single, self.longest, self.similar, self.nearest = single, longest, similar, nearest
        self._names = {which: [name for name, label in labels.items() if bool(label) is which] for which in _BOTH}
        self._source = {name: groups(name) for name in labels}
        if (found := len({self._source[name] for name in self._names[False]})) < longest:
            raise ValueError(
                f"a plan of up to {longest} clips takes as many normal sources, there are {found}; "
                "lower longest or give more clips"
            )
        self._lengths: dict[str, int] = {}
        self._means: dict[str, npt.NDArray[np.float32]] = {}
        for name in labels:
            rows_TKD = clips.rows(clips.at(name))
            self._lengths[name], self._means[name] = len(rows_TKD), _unit(rows_TKD)
        self._normal_ND = np.stack([self._means[name] for name in self._names[False]])
        normal_sources = [self._source[name] for name in self._names[False]]
        self._normal_sources_N = np.array(normal_sources, dtype=object)

    def plan(self, number: int, *, abnormal: bool) -> Plan:
        """Plan ``number`` of its class, from 0. Raises ValueError when there is no clip of the class."""
        random = np.random.default_rng((self.seed, _PLAN, number, int(abnormal)))
        anchor = self._anchor(number, abnormal=abnormal)
        # as published: 1 can come out of the uniform draw too
        count = 1 if random.random() < self.single else int(random.integers(1, self.longest + 1))
        fillers = self._fillers(anchor, count - 1, random)
        slot = int(random.integers(count))
        chosen = [*fillers[:slot], anchor, *fillers[slot:]]
        return Plan(tuple(Part(name, 0, self._lengths[name], abnormal and name == anchor) for name in chosen))

    def plans(self, count: int, *, first: int = 0) -> Iterator[Plan]:
        """``count`` plans around abnormal clips and as many around normal ones, in turn."""
        for number in range(first, first + count):
            yield self.plan(number, abnormal=True)
            yield self.plan(number, abnormal=False)

    def _anchor(self, number: int, *, abnormal: bool) -> str:
        names = self._names[abnormal]
        if not names:
            raise ValueError(f"no {'abnormal' if abnormal else 'normal'} clip to build a video around")
        turn, place = divmod(number, len(names))
        order = np.random.default_rng((self.seed, _ANCHORS, turn, int(abnormal))).permutation(len(names))
        return names[order[place]]

    def _fillers(self, anchor: str, count: int, random: np.random.Generator) -> list[str]:
        likeness_N = self._normal_ND @ self._means[anchor]
        free_N = self._normal_sources_N != self._source[anchor]
        fillers = []
        for _ in range(count):
            candidates = np.flatnonzero(free_N)
            if random.random() < self.similar:
                candidates = candidates[np.argsort(-likeness_N[candidates], kind="stable")[: self.nearest]]
            chosen = int(random.choice(candidates))
            fillers.append(self._names[False][chosen])
            free_N &= self._normal_sources_N != self._normal_sources_N[chosen]
        return fillers


_BOTH = (True, False)


def _unit(rows_TKD: Values) -> npt.NDArray[np.float32]:
    """Direction of a clip's mean features: (D,)."""
    mean_D = rows_TKD.mean((0, 1), dtype=np.float64)
    return np.asarray(mean_D / max(float(np.linalg.norm(mean_D)), 1e-12), np.float32)
