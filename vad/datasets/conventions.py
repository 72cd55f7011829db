"""The ways in which others measure: how written ends are read, and how long a video is taken to be.

The default is what the file says and the true frame count. Everything else has a name, is asked for by that name, and
is named in the protocol of the benchmark that comes out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar, cast, get_args

from vad.datasets.annotation import AnnotationError, Ends
from vad.datasets.files import FrameCount, video_name

Convention = Literal["inclusive-ends", "half-open-ends", "matlab-ends", "dropped-tail", "x16", "30fps"]
Length = Literal["true", "dropped-tail", "x16", "30fps"]

T = TypeVar("T")

CONVENTIONS: tuple[Convention, ...] = get_args(Convention)
_ENDS: Mapping[str, Ends] = {"inclusive-ends": "inclusive", "half-open-ends": "half-open", "matlab-ends": "matlab"}

TAIL = 16  # frames per snippet of the features whose tails were dropped (C3D, I3D)
RATE = 30.0  # frames per second that Sultani et al. (CVPR 2018) count in


@dataclass(frozen=True, slots=True)
class Reading:
    """How one annotation is to be read."""

    ends: Ends | None = None  # None: as documented for the format
    length: Length = "true"
    frames: Mapping[str, FrameCount] | None = None  # by video name
    rows: Mapping[str, int] = field(default_factory=dict)  # feature rows by video name, for x16
    hop: int | None = None  # frames per row, for x16

    @classmethod
    def of(
        cls,
        conventions: Sequence[str] = (),
        *,
        frames: Mapping[str, FrameCount] | None = None,
        rows: Mapping[str, int] | None = None,
        hop: int | None = None,
    ) -> Reading:
        """Put named conventions together. Raises AnnotationError for unknown and for contradicting ones."""
        if unknown := [name for name in conventions if name not in CONVENTIONS]:
            raise AnnotationError(f"unknown convention {unknown[0]!r}; available: {', '.join(CONVENTIONS)}")
        ends = sorted({name for name in conventions if name in _ENDS})
        lengths = sorted({name for name in conventions if name not in _ENDS})
        for group in (ends, lengths):
            if len(group) > 1:
                raise AnnotationError(f"conventions {' and '.join(group)} contradict each other; give one of them")
        if "x16" in lengths and (rows is None or hop is None):
            raise AnnotationError("convention x16 takes lengths from feature rows: it needs scores per row, and --hop")
        if hop is not None and hop < 1:
            raise AnnotationError(f"hop must be at least 1, got {hop}")
        return cls(
            ends=_ENDS[ends[0]] if ends else None,
            length=cast(Length, lengths[0]) if lengths else "true",
            frames=None if frames is None else _renamed(frames),
            rows=_renamed(rows or {}),
            hop=hop,
        )

    def known(self) -> list[str]:
        """Names of the videos that something besides the annotation knows of."""
        return list(dict.fromkeys([*(self.frames or {}), *(self.rows if self.length == "x16" else {})]))

    def in_words(self) -> str:
        """What lengths videos have."""
        return {
            "true": "frame counts of the annotation" if self.frames is None else "given frame counts",
            "dropped-tail": f"frame counts cut to multiples of {TAIL} (dropped-tail)",
            "x16": f"lengths of feature rows times {self.hop} (x16)",
            "30fps": "lengths of duration times 30, frame numbers taken as at 30 fps (30fps)",
        }[self.length]


def _renamed(by_name: Mapping[str, T]) -> dict[str, T]:
    return {video_name(name): value for name, value in by_name.items()}
