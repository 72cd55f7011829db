"""A video for people: the picture with its heat map, the curve running below, a frame around it in events."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO

import av
import numpy as np
from PIL import Image, ImageDraw

from vad.calibration import Scale
from vad.pipeline import Scored
from vad.plot import clock
from vad.types import Array, Event, Pixels, ScoreCurve
from vad.video import Video

_MAX_WIDTH, _STRIP = 960, 72
_ALARM, _INK, _PAPER = (192, 57, 43), (120, 180, 235), (24, 24, 28)


class HeatTrack:
    """Heat maps of a video, in order, kept in a temporary file: a long video has more than memory should hold."""

    def __init__(self, file: IO[bytes], calibration: Scale) -> None:
        self._file, self._calibration = file, calibration
        self._ends: list[int] = []
        self._shape: tuple[int, ...] = ()

    def add(self, scored: Scored) -> None:
        """Keep the map of the next snippet, each place calibrated as if it were the score."""
        if scored.heat is None:
            return
        self._shape = scored.heat.shape
        self._ends.append(scored.end_frame)
        self._file.write(self._calibration(scored.heat).astype(np.float16).tobytes())

    def __iter__(self) -> Iterator[tuple[int, Array]]:
        """(end frame of the snippet, its map (h, w)) in order."""
        self._file.seek(0)
        for end in self._ends:
            data = self._file.read(2 * int(np.prod(self._shape)))
            yield end, np.frombuffer(data, np.float16).reshape(self._shape).astype(np.float32)


def draw(path: Path, *, video: Path, curve: ScoreCurve, events: list[Event], on: float, heat: HeatTrack) -> None:
    """Write the overlay of ``video`` as H.264 in mp4, every frame at its own time."""
    source = Video(video)
    width, height = source.probe.width, source.probe.height
    factor = min(1.0, _MAX_WIDTH / width)
    width, height = max(round(width * factor / 2) * 2, 16), max(round(height * factor / 2) * 2, 16)
    maps = iter(heat)
    until, current = next(maps, (0, None))
    strip = Strip(curve, width, on)
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=round(source.probe.fps) or 1)
        stream.width, stream.height, stream.pix_fmt = width, height + _STRIP, "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "23"}
        stream.codec_context.time_base = Fraction(1, 90000)
        for frame in source.frames(size=(width, height)):
            while current is not None and frame.index >= until:
                following = next(maps, None)
                if following is None:
                    break
                until, current = following
            pixels = frame.pixels if frame.pixels is not None else np.zeros((height, width, 3), np.uint8)
            if current is not None:
                pixels = blend(pixels, current)
            if any(event.start <= frame.pts < event.end for event in events):
                pixels = bordered(pixels)
            picture = av.VideoFrame.from_ndarray(np.concatenate([pixels, strip.at(frame.index)]), format="rgb24")
            picture.pts = round((frame.pts - curve.pts_N[0]) * 90000)
            picture.time_base = Fraction(1, 90000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def blend(pixels: Pixels, rarity_HW: Array) -> Pixels:
    """Redden the places whose own score in [0, 1] is above 0.3."""
    strength = np.clip((rarity_HW - 0.3) / 0.4, 0, 1)
    small = Image.fromarray((strength * 255).astype(np.uint8))
    size = (pixels.shape[1], pixels.shape[0])
    alpha = np.asarray(small.resize(size, Image.Resampling.BILINEAR), np.float32)[..., None] / 255
    red = np.array([255, 40, 20], np.float32)
    return (pixels * (1 - 0.6 * alpha) + red * 0.6 * alpha).astype(np.uint8)


def bordered(pixels: Pixels, width: int = 4) -> Pixels:
    """The picture with a red frame."""
    framed = np.empty_like(pixels)
    framed[:] = _ALARM
    framed[width:-width, width:-width] = pixels[width:-width, width:-width]
    return framed


class Strip:
    """The whole curve, drawn once, and a marker that moves along it."""

    def __init__(self, curve: ScoreCurve, width: int, on: float) -> None:
        self._curve, self._width = curve, width
        edges = np.arange(width + 1) * len(curve) // width
        high = [np.max(np.nan_to_num(curve.score_N[a : max(b, a + 1)])) for a, b in itertools.pairwise(edges)]
        picture = Image.new("RGB", (width, _STRIP), _PAPER)
        pen = ImageDraw.Draw(picture)
        for x, score in enumerate(map(float, high)):
            pen.line((x, _STRIP, x, _STRIP - 1 - score * (_STRIP - 16)), fill=_ALARM if score >= on else _INK)
        threshold = _STRIP - 1 - on * (_STRIP - 16)
        pen.line((0, threshold, width, threshold), fill=_ALARM)
        self._base = picture

    def at(self, index: int) -> Pixels:
        """The strip (72, width, 3) with the marker at frame ``index``."""
        picture = self._base.copy()
        pen = ImageDraw.Draw(picture)
        x = index * self._width // max(len(self._curve), 1)
        pen.line((x, 0, x, _STRIP), fill=(255, 255, 255))
        score = self._curve.score_N[index]
        words = "not scored" if np.isnan(score) else f"{score:.2f}"
        pen.text((4, 1), f"{clock(float(self._curve.pts_N[index]))}  {words}", fill=(235, 235, 235))
        return np.asarray(picture)
