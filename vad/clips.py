"""Cut a stream of frames into clips and the snippets that they stand for, one frame at a time."""

from __future__ import annotations

from collections import deque

import numpy as np

from vad.extractor import ExtractorSettings
from vad.types import Clip, Frame, Pixels


class Windower:
    """Frames in, clips out; a file is a stream that ended.

    Every ``hop`` sampled frames a snippet ends and gives a clip: the last ``clip_frames`` of every
    ``stride``-th sampled frame. No clip looks beyond the end of its snippet. The first snippet of a
    stream, and the first after a gap, waits until a whole clip is there and covers all frames until then.

    Call ``wants`` once per frame before converting it, then ``step`` with the frame.
    """

    def __init__(self, settings: ExtractorSettings) -> None:
        self._settings = settings
        hops_to_fill = -(-settings.span // settings.hop)
        self._first_end = hops_to_fill * settings.hop  # in sampled frames since the start or the last gap
        self._next_tick = -np.inf
        self._restart(0)

    def _restart(self, frame_index: int) -> None:
        self._pixels: deque[Pixels] = deque(maxlen=self._settings.clip_frames)
        self._sampled = 0
        self._start = frame_index
        self._is_sample = False

    def wants(self, pts: float) -> bool:
        """Whether the frame at ``pts`` seconds is one of a coming clip: only then its pixels are needed."""
        self._is_sample = self._due(pts)
        return self._is_sample and self._in_clip(self._sampled)

    def step(self, frame: Frame) -> Clip | None:
        """Take the next frame; a Clip when it completes a snippet."""
        if frame.corrupt or frame.after_gap:
            self._restart(frame.index + frame.corrupt)
            if frame.corrupt or frame.pixels is None:
                return None
            self._is_sample = True
        if not self._is_sample:
            return None
        if self._in_clip(self._sampled):
            assert frame.pixels is not None, "wants() asked for these pixels"
            self._pixels.append(frame.pixels)
        self._sampled += 1
        if self._sampled < self._first_end or self._sampled % self._settings.hop:
            return None
        clip = Clip(np.stack(self._pixels), self._start, frame.index + 1, frame.pts)
        self._start = frame.index + 1
        return clip

    def _due(self, pts: float) -> bool:
        if self._settings.fps is None:
            return True
        period = 1 / self._settings.fps
        if pts < self._next_tick - 1e-6:
            return False
        # stay on the grid of ticks; after a pause start a new one
        self._next_tick = self._next_tick + period if pts < self._next_tick + period else pts + period
        return True

    def _in_clip(self, sample: int) -> bool:
        """Whether sample ``sample`` belongs to a clip of this or a later snippet."""
        hop, stride, span = self._settings.hop, self._settings.stride, self._settings.span
        end = max(self._first_end, (sample // hop + 1) * hop)
        while end - span <= sample:
            if (end - 1 - sample) % stride == 0:
                return True
            end += hop
        return False
