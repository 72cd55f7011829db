"""The vocabulary: each type says what it is, once, and is checked at birth.

Axes in names: B batch, K crops, T snippets, H and W picture or grid, D feature size, N frames.
Intervals are half-open, ``[start, end)``: seconds for people, frames for arrays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Times = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded picture and its time on the stream's own clock."""

    index: int  # 0, 1, 2 … over all frames that the decoder gave, sampled or not
    pts: float  # seconds, strictly increasing within one video
    pixels: Pixels | None  # (H, W, 3) uint8 RGB; None when the sampler did not ask for this picture
    after_gap: bool = False  # frames before this one were lost or damaged
    corrupt: bool = False  # the decoder says that this picture is damaged: it is not scored

    def __post_init__(self) -> None:
        if self.pixels is not None and (self.pixels.ndim != 3 or self.pixels.shape[2] != 3):
            raise ValueError(f"pixels must be (H, W, 3), got {self.pixels.shape}")
        if not math.isfinite(self.pts):
            raise ValueError(f"pts must be finite, got {self.pts}")


@dataclass(frozen=True, slots=True)
class Clip:
    """The pixels of one extractor call, and the snippet of source frames that its score will stand for."""

    pixels: Pixels  # (clip_frames, H, W, 3) uint8 RGB, oldest first
    start_frame: int  # snippet: source frames [start_frame, end_frame)
    end_frame: int
    pts: float  # of the newest frame, seconds: when the clip can be known

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.shape[3] != 3:
            raise ValueError(f"pixels must be (clip_frames, H, W, 3), got {self.pixels.shape}")
        if not 0 <= self.start_frame < self.end_frame:
            raise ValueError(f"a snippet needs 0 <= start < end, got [{self.start_frame}, {self.end_frame})")


@dataclass(frozen=True, slots=True)
class FeatureSequence:
    """One row per snippet of one video: pooled, per crop, or a map of places."""

    values: Array  # (T, D), (T, K, D) or (T, H, W, D) float32
    hop_frames: int  # source frames from one snippet's start to the next
    fps: float | None  # as probed; 29.97 stays 29.97; None where a published set does not say

    def __post_init__(self) -> None:
        if self.values.ndim not in (2, 3, 4):
            raise ValueError(f"values must be (T, D), (T, K, D) or (T, H, W, D), got {self.values.shape}")
        if self.hop_frames < 1:
            raise ValueError(f"hop_frames must be at least 1, got {self.hop_frames}")
        if self.fps is not None and not self.fps > 0:
            raise ValueError(f"fps must be positive, got {self.fps}")


@dataclass(frozen=True, slots=True)
class HeadScores:
    """What a head says about a batch of snippets."""

    raw_B: Array  # (B,) higher is more anomalous; unbounded before calibration
    heat_BHW: Array | None = None  # (B, H, W) the same quantity per place, where the features have places


@dataclass(frozen=True, slots=True)
class ScoreCurve:
    """One score per decoded frame; NaN where a frame could not be scored."""

    pts_N: Times  # (N,) seconds
    raw_N: Array  # (N,) the head's own quantity, before calibration and smoothing
    score_N: Array  # (N,) in [0, 1], higher is more anomalous

    def __post_init__(self) -> None:
        if not len(self.pts_N) == len(self.raw_N) == len(self.score_N):
            raise ValueError(
                "pts, raw and score must be equally long, got "
                f"{len(self.pts_N)}, {len(self.raw_N)}, {len(self.score_N)}"
            )
        if not np.all(np.diff(self.pts_N) > 0):
            raise ValueError("pts must rise from frame to frame")
        scored = self.score_N[~np.isnan(self.score_N)]
        if scored.size and not (scored.min() >= 0 and scored.max() <= 1):
            raise ValueError(f"scores must lie in [0, 1], got {scored.min()} to {scored.max()}")

    def __len__(self) -> int:
        return len(self.pts_N)


@dataclass(frozen=True, slots=True)
class Event:
    """One alarm: seconds ``[start, end)`` with the highest score inside."""

    start: float
    end: float
    peak: float  # highest score, in [0, 1]
    peak_time: float  # seconds

    def __post_init__(self) -> None:
        if not self.start <= self.peak_time < self.end:
            raise ValueError(f"peak_time must lie in [start, end), got {self.peak_time} in [{self.start}, {self.end})")
        if not 0 <= self.peak <= 1:
            raise ValueError(f"peak must lie in [0, 1], got {self.peak}")


@dataclass(frozen=True, slots=True)
class Gap:
    """Seconds ``[start, end)`` of a video that could not be decoded or must not be trusted."""

    start: float
    end: float
    reason: str

    def __post_init__(self) -> None:
        if not self.start < self.end:
            raise ValueError(f"a gap needs start < end, got [{self.start}, {self.end})")


def to_frames(
    values_T: Array, spans_T2: npt.NDArray[np.int64], *, num_frames: int, breaks: npt.NDArray[np.int64]
) -> Array:
    """Hold each snippet's value over its own frames: (T,) -> (N,).

    Snippet t covers frames ``[spans_T2[t, 0], spans_T2[t, 1])``. Frames after it hold its value until the next
    snippet (so the last one also covers a tail too short to be a snippet), but not across a break: ``breaks``
    are the frames at which a stream began anew or that are damaged. Frames without a value are NaN.

    >>> spans = np.array([[0, 2], [2, 4]])
    >>> to_frames(np.float32([1, 5]), spans, num_frames=6, breaks=np.array([5])).tolist()
    [1.0, 1.0, 5.0, 5.0, 5.0, nan]
    """
    if len(values_T) != len(spans_T2):
        raise ValueError(f"need one span per value, got {len(values_T)} values and {len(spans_T2)} spans")
    source_N = np.full(num_frames, -1)  # which snippet a frame takes
    for t, (start, end) in enumerate(spans_T2):
        source_N[start:end] = t
    frames_N = np.arange(num_frames)
    last_value_N = np.maximum.accumulate(np.where(source_N >= 0, frames_N, -1))
    break_N = np.full(num_frames, -1)
    break_N[breaks] = breaks
    # a snippet's own frames keep their value even when they begin at a break
    held_N = (source_N < 0) & (last_value_N >= np.maximum(np.maximum.accumulate(break_N), 0))
    source_N[held_N] = source_N[last_value_N[held_N]]
    padded = np.append(values_T, np.float32(np.nan))
    return padded[source_N].astype(np.float32)
