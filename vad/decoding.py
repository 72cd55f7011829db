"""From packets to upright pictures of the right size and repaired times: what files and live streams share.

Nothing here imports torch: a camera's process is small.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from typing import cast

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from PIL import Image

from vad.sampling import Resample, Resize
from vad.types import Pixels

MISSING_FRAMES = 3  # fewer missing at the end are edit lists and rounding, not damage
_CLOCK_RESET = 1.0  # seconds; a smaller step back is frames in disorder, a larger one a clock that began anew
_CLOCK_PAUSE = 60.0  # seconds; a longer one is believed when a second frame tells of it
_MATRICES = {0, 1, 2, 4, 5, 6, 7, 9}  # of H.273 that swscale knows; it refuses the others, reserved ones too
_UNSPECIFIED = 2
_READ_ATTEMPTS = 100  # unreadable places in one file before the rest is given up


class Clock:
    """Repairs times: none missing, none going back, each later than the one before.

    One frame alone that is far from its neighbours is put beside them; from the second on, the clock itself
    has jumped. A jump ahead is kept, as a pause in the recording; after a jump back the time goes on from where it was.
    """

    def __init__(self, period: float, *, start: float = 0.0) -> None:
        self._period = period
        self._pause = max(_CLOCK_PAUSE, 100 * period)
        self._offset = 0.0
        self._last = -math.inf
        self._astray = False
        self.next = start  # when the next frame is due

    def repair(self, time: float | None) -> float:
        """The time of the next frame, given what the container says about it."""
        pts = self.next if time is None or not math.isfinite(time) else time + self._offset
        if self._last > -math.inf:
            was_astray, self._astray = self._astray, not -_CLOCK_RESET < pts - self._last < self._pause
            if self._astray and not was_astray:
                pts = self._last + self._period / 2
            elif pts <= self._last - _CLOCK_RESET:
                self._offset += self.next - pts
                pts = self.next
            elif pts <= self._last:
                pts = self._last + self._period / 2  # half: a frame in its right place can still follow
        self._last = pts
        self.next = pts + self._period
        return pts


class Scaler:
    """Turn, scale and cut decoded frames, whatever their own size and format are.

    swscale itself, without a filter graph around it: vf_scale takes chroma for centred where H.264 says left.
    Pillow's filters are there to make published features again: it scales the full RGB picture, as the field's
    extraction scripts do, and costs several times as much.
    """

    def __init__(
        self,
        size: tuple[int, int] | None,
        resize: Resize = "stretch",
        resample: Resample = "bilinear",
        *,
        whole: bool = False,
    ) -> None:
        self._size, self._resize, self._whole = size, resize, whole
        library, _, name = resample.rpartition("-")
        self._pillow = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[name]
        self._swscale = {"bilinear": Interpolation.BILINEAR, "bicubic": Interpolation.BICUBIC}[name]
        self._with_pillow = library == "pillow"
        self._whole_size: tuple[int, int] | None = None  # a clip needs pictures of one size
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> Pixels:
        """The picture as it is shown: (height, width, 3) uint8 RGB."""
        turns = quarter_turns(frame)
        shown = (frame.width, frame.height) if turns % 2 == 0 else (frame.height, frame.width)
        scaled = scaled_size(shown, self._size, self._resize)
        if self._whole:
            scaled = self._whole_size = self._whole_size or scaled
        if frame.colorspace not in _MATRICES:
            frame.colorspace = _UNSPECIFIED
        stored = scaled if turns % 2 == 0 else (scaled[1], scaled[0])
        if self._with_pillow:
            full = Image.fromarray(self._rgb(frame, (frame.width, frame.height)))
            pixels = np.asarray(full.resize(stored, self._pillow))
        else:
            pixels = self._rgb(frame, stored)
        upright = np.rot90(pixels, turns)
        if self._whole or self._size is None:
            return np.ascontiguousarray(upright)
        width, height = self._size
        left, top = (scaled[0] - width) // 2, (scaled[1] - height) // 2
        return np.ascontiguousarray(upright[top : top + height, left : left + width])

    def _rgb(self, frame: av.VideoFrame, size: tuple[int, int]) -> Pixels:
        converted = self._reformatter.reformat(
            frame, width=size[0], height=size[1], format="rgb24", interpolation=self._swscale, threads=1
        )
        return cast(Pixels, converted.to_ndarray())


def scaled_size(shown: tuple[int, int], size: tuple[int, int] | None, resize: Resize) -> tuple[int, int]:
    """Width and height that a picture of ``shown`` pixels is scaled to before ``size`` is cut out of it.

    >>> [scaled_size((320, 240), (224, 224), how) for how in ("stretch", "crop", 256, (340, 256))]
    [(224, 224), (299, 224), (341, 256), (340, 256)]
    """
    if size is None or resize == "stretch":
        return size or shown
    if isinstance(resize, tuple):
        return resize
    factor = max(size[0] / shown[0], size[1] / shown[1]) if resize == "crop" else resize / min(shown)
    return max(round(shown[0] * factor), size[0]), max(round(shown[1] * factor), size[1])


class Decoder:
    """Frames of one stream, each with whether frames between it and the one before were lost.

    A decoder reports an error packets late, when pictures are out of order, and does not say which one. So an error
    tells only that something was lost; a packet whose time passed without a picture tells where.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, *, patient: bool = True) -> None:
        """``patient`` reads on over unreadable places, as of a file; else the first error of the source is raised."""
        self._container, self._stream, self._patient = container, stream, patient
        self._errors = 0
        self._untimed_error = False
        self._waiting: list[int] = []  # heap of times of packets that went in and did not come out yet

    def __iter__(self) -> Iterator[tuple[av.VideoFrame, bool]]:
        for packet in self._packets():
            if packet is not None and packet.pts is not None and packet.size and not packet.is_discard:
                heapq.heappush(self._waiting, packet.pts)
            try:
                frames = self._stream.decode(packet)
            except av.error.EOFError:
                return
            except av.error.FFmpegError:
                self._errors += 1
                self._untimed_error |= packet is not None and packet.pts is None
                continue
            for frame in frames:
                yield frame, self._lost_before(frame.pts)

    @property
    def lost(self) -> int:
        """Frames that went in last and never came out; known after the iteration."""
        return len(self._waiting) if self._errors or len(self._waiting) >= MISSING_FRAMES else 0

    def _packets(self) -> Iterator[av.Packet[VideoStream] | None]:
        """The packets of the stream, over unreadable places; the last one, empty or None, flushes the decoder."""
        for _ in range(_READ_ATTEMPTS):
            try:
                yield from self._container.demux(self._stream)
                return
            except av.error.FFmpegError:
                if not self._patient:
                    raise
                self._errors += 1
        yield None

    def _lost_before(self, pts: int | None) -> bool:
        lost = int(self._untimed_error)
        self._untimed_error = False
        if pts is not None:
            overdue = 0
            while self._waiting and self._waiting[0] <= pts:
                overdue += heapq.heappop(self._waiting) < pts
            lost = max(lost, min(self._errors, overdue))
        self._errors -= lost
        return lost > 0


def quarter_turns(frame: av.VideoFrame) -> int:
    """Quarter turns counter-clockwise that bring a decoded frame upright."""
    return round(frame.rotation / 90) % 4
