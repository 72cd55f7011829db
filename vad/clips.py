"""Cut a stream of frames into clips and the snippets that they stand for, one frame at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vad.sampling import Resample, Resize, Sampling
from vad.types import Clip, Frame, Pixels


class Windower:
    """Frames in, clips out; a file is a stream that ended.

    Every ``hop`` sampled frames a snippet ends and gives a clip: the last ``clip_frames`` of every
    ``stride``-th sampled frame. No clip looks beyond the end of its snippet. The first snippet of a
    stream, and the first after a gap, waits until a whole clip is there and covers all frames until then.
    With ``clip_at: start`` it is the first frames of the snippet instead, and a tail shorter than a snippet
    gives a clip too, if it holds one.

    Call ``wants`` once per frame before converting it, then ``step`` with the frame, and ``finish`` at the end.
    """

    def __init__(self, settings: Sampling) -> None:
        self._settings = settings
        hops_to_fill = -(-settings.span // settings.hop)
        self._first_end = hops_to_fill * settings.hop  # in sampled frames since the start or the last gap
        self._last_pts = -math.inf
        self._restart(0)

    def _restart(self, frame_index: int) -> None:
        self._pixels: dict[int, Pixels] = {}  # of the samples that a coming clip needs, by their number
        self._sampled = 0
        self._start = frame_index
        self._next_tick = -math.inf
        self._is_sample = False

    def wants(self, pts: float) -> bool:
        """Whether the frame at ``pts`` seconds is one of a coming clip: only then its pixels are needed."""
        self._is_sample = self._due(pts)
        return self._is_sample and self._in_clip(self._sampled)

    def step(self, frame: Frame) -> Clip | None:
        """Take the next frame; a Clip when it completes a snippet."""
        if frame.corrupt:
            self._restart(frame.index + 1)
            return None
        if frame.after_gap:
            self._restart(frame.index)
            # wants() could not know of the gap; without pixels the clips begin at the next frame
            self._is_sample = frame.pixels is not None and self._due(frame.pts)
        if not self._is_sample:
            return None
        if self._in_clip(self._sampled):
            assert frame.pixels is not None, "wants() asked for these pixels"
            self._pixels[self._sampled] = frame.pixels
        self._sampled += 1
        if self._sampled < self._first_end or self._sampled % self._settings.hop:
            return None
        span, hop = self._settings.span, self._settings.hop
        at_start = self._settings.clip_at == "start"
        clip = self._clip(self._sampled - (hop if at_start else span), frame)
        needed_from = self._sampled + (0 if at_start else hop - span)
        self._pixels = {sample: pixels for sample, pixels in self._pixels.items() if sample >= needed_from}
        self._start = frame.index + 1
        return clip

    def finish(self, last: Frame | None) -> Clip | None:
        """The clip of the tail after ``last``, the newest frame, where clips lie at the start of their snippet."""
        tail = self._sampled % self._settings.hop
        if self._settings.clip_at == "end" or last is None or tail < self._settings.span:
            return None
        return self._clip(self._sampled - tail, last)

    def _clip(self, first: int, newest: Frame) -> Clip:
        members = range(first, first + self._settings.span, self._settings.stride)
        pixels = np.stack([self._pixels[sample] for sample in members])
        return Clip(pixels, self._start, newest.index + 1, newest.pts)

    def _due(self, pts: float) -> bool:
        """Whether this frame stands for the next tick of the sampling rate."""
        if self._settings.fps is None:
            return True
        period = 1 / self._settings.fps
        to_next_frame = min(pts - self._last_pts, period)
        self._last_pts = pts
        if self._settings.tick == "nearest":
            # of two as near the earlier, in spite of rounding
            too_early = pts < self._next_tick - to_next_frame / 2 - 1e-6
        else:
            too_early = pts < self._next_tick - to_next_frame + 1e-6  # the next frame comes before the tick too
        if too_early:
            return False
        # stay on the grid of ticks; after a pause start a new one
        self._next_tick = self._next_tick + period if pts < self._next_tick + period else pts + period
        return True

    def _in_clip(self, sample: int) -> bool:
        """Whether sample ``sample`` belongs to a clip of this or a later snippet."""
        hop, stride, span = self._settings.hop, self._settings.stride, self._settings.span
        if self._settings.clip_at == "start":
            return sample % hop < span and sample % hop % stride == 0
        end = max(self._first_end, (sample // hop + 1) * hop)
        while end - span <= sample:
            if (end - 1 - sample) % stride == 0:
                return True
            end += hop
        return False


class Source(Protocol):
    """What gives frames: a file, or a camera."""

    def frames(
        self,
        *,
        size: tuple[int, int] | None = None,
        resize: Resize = "stretch",
        resample: Resample = "bilinear",
        whole: bool = False,
        wants: Callable[[float], bool] = lambda _: True,
    ) -> Iterator[Frame]:
        """Every decoded frame, in order; those that ``wants`` accepts with pixels."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Frames that came since the cut before, and the clip that the last of them completed, if any."""

    frames: list[Frame]  # without pixels
    clip: Clip | None


def cuts(video: Source, settings: Sampling) -> Iterator[Cut]:
    """Frames of a video or a live stream, cut wherever a clip is complete; the last cut has the rest."""
    windower = Windower(settings)
    frames: list[Frame] = []
    frame: Frame | None = None
    for frame in video.frames(
        size=settings.size,
        resize=settings.resize,
        resample=settings.resample,
        whole=settings.crops > 1,
        wants=windower.wants,
    ):
        clip = windower.step(frame)
        frames.append(Frame(frame.index, frame.pts, None, frame.after_gap, frame.corrupt))
        if clip is not None:
            yield Cut(frames, clip)
            frames = []
    yield Cut(frames, windower.finish(frame))
