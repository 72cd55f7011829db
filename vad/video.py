"""Video in: every frame with its time; pictures turned upright and scaled once, straight from the decoder's format.

PyAV reads everything in order. decord answers for single pictures of mp4/mkv/webm/avi files by index;
it returns wrong frames from MPEG-TS with B-frames, so nothing else is given to it.
"""

from __future__ import annotations

import heapq
import importlib.util
import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from vad.types import Frame, Gap, Pixels

SUFFIXES = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".flv", ".wmv",
            ".3gp", ".ogv"}
_DECORD_SUFFIXES = {".mp4", ".mkv", ".webm", ".avi"}
_MISSING_FRAMES = 3  # fewer missing at the end are edit lists and rounding, not damage
_DECODER_THREADS = 4  # the same everywhere: what survives damage depends on it, and each costs some frames of memory
_CLOCK_RESET = 1.0  # seconds; a smaller step back is frames in disorder, a larger one a clock that began anew

log = logging.getLogger(__name__)
Resize = Literal["stretch", "crop"]


class VideoError(ValueError):
    """An input that is not a video that can be read."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What the container says before anything is decoded."""

    path: Path
    width: int  # as shown, after rotation
    height: int
    fps: float  # average rate; 29.97 stays 29.97
    frames: int  # as the container claims; 0 when it does not say
    duration: float  # seconds; 0 when unknown
    codec: str
    pixel_format: str
    container: str
    rotation: int  # degrees counter-clockwise that the player has to turn the picture


class Video:
    """One video file, opened and read from its start.

    ``gaps`` fills while ``frames`` runs. Raises VideoError for what is not a readable video, and OSError
    (FileNotFoundError, PermissionError) when the file system refuses.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.gaps: list[Gap] = []
        self.probe = probe(self.path)

    def frames(self, *, size: tuple[int, int] | None = None, resize: Resize = "stretch",
               wants: Callable[[float], bool] = lambda _: True) -> Iterator[Frame]:
        """Every decoded frame, in the order of display.

        ``size`` is (width, height) of the pictures, None the video's own; ``crop`` scales to cover it and
        cuts the centre out. Only frames whose time ``wants`` accepts carry pixels; the others cost no
        conversion. A damaged stretch ends with a frame marked ``after_gap`` and is noted in ``gaps``.
        """
        period = 1 / self.probe.fps
        clock = _Clock(period)
        scaler = _Scaler(size, resize)
        index, damaged_since = 0, None
        with _open(self.path) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for decoded in _decode(container, stream):
                if decoded is None:
                    damaged_since = clock.next if damaged_since is None else damaged_since
                    continue
                pts = clock.repair(decoded.time)
                corrupt = decoded.is_corrupt
                if corrupt and damaged_since is None:
                    damaged_since = pts
                after_gap = damaged_since is not None and not corrupt
                if damaged_since is not None and not corrupt:
                    self._note_gap(damaged_since, pts, "damaged")
                    damaged_since = None
                pixels = scaler(decoded) if not corrupt and wants(pts) else None
                yield Frame(index, pts, pixels, after_gap, corrupt)
                index += 1
        if damaged_since is not None:
            self._note_gap(damaged_since, clock.next, "damaged")
        if index and self.probe.frames - index >= _MISSING_FRAMES:
            self._note_gap(clock.next, clock.next + (self.probe.frames - index) * period, "missing at the end")

    def _note_gap(self, start: float, end: float, reason: str) -> None:
        if end > start:
            self.gaps.append(Gap(start, end, reason))


def probe(path: Path) -> Probe:
    """Open a file and read what its container says; decodes at most the first picture."""
    with _open(path) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        rate = stream.average_rate or stream.guessed_rate or stream.base_rate
        rotation = 0
        first = next((frame for frame in _decode(container, stream) if frame is not None), None)
        if first is None:
            raise VideoError(f"{path}: no frame of it can be decoded; copy or record it again")
        rotation = first.rotation % 360
        width, height = (first.width, first.height) if rotation % 180 == 0 else (first.height, first.width)
        seconds = (float(stream.duration * stream.time_base) if stream.duration and stream.time_base
                   else (container.duration or 0) / av.time_base)
        return Probe(path, width, height, float(rate) if rate else 25.0, stream.frames, max(seconds, 0.0), context.codec.name,
                     first.format.name, container.format.name, rotation)


def pictures(path: Path, indices: Sequence[int], *, size: tuple[int, int]) -> list[Pixels]:
    """The frames with these indices (rising), as (height, width, 3) uint8 RGB.

    Used for thumbnails. decord reads them by index where it can be trusted; elsewhere PyAV decodes up to the last.
    """
    if not indices:
        return []
    turned = probe(path).rotation
    if path.suffix.lower() in _DECORD_SUFFIXES and not turned and importlib.util.find_spec("decord"):
        import decord

        try:
            reader = decord.VideoReader(str(path), width=size[0], height=size[1], num_threads=1)
            return list(reader.get_batch(list(indices)).asnumpy())
        except (decord.DECORDError, IndexError) as cause:
            log.debug("decord cannot read %s (%s); PyAV decodes it in order", path, cause)
    scaler = _Scaler(size, "stretch")
    wanted = set(indices)
    found: dict[int, Pixels] = {}
    with _open(path) as container:
        decoded = (frame for frame in _decode(container, container.streams.video[0]) if frame is not None)
        for index, frame in enumerate(itertools.islice(decoded, indices[-1] + 1)):
            if index in wanted:
                found[index] = scaler(frame)
    black = np.zeros((size[1], size[0], 3), np.uint8)
    return [found.get(index, black) for index in indices]


def find_videos(inputs: Sequence[Path]) -> list[Path]:
    """Files as given; a folder stands for the videos in it, sorted by name. Raises VideoError, FileNotFoundError."""
    videos: list[Path] = []
    for path in inputs:
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
            if not found:
                raise VideoError(f"{path}: no video in this folder; looked for {', '.join(sorted(SUFFIXES))}")
            videos += found
        elif path.exists():
            videos.append(path)
        else:
            raise FileNotFoundError(f"{path}: no such file or folder")
    return videos


class _Clock:
    """Repairs times: none missing, none going back, each later than the one before."""

    def __init__(self, period: float) -> None:
        self._period = period
        self._offset = 0.0
        self._last = -math.inf

    @property
    def next(self) -> float:
        """When the next frame is due."""
        return 0.0 if self._last == -math.inf else self._last + self._period

    def repair(self, time: float | None) -> float:
        pts = self.next if time is None else time + self._offset
        if pts <= self._last:
            self._offset += self.next - pts  # the source's clock jumped back: carry on from here
            pts = self.next
        self._last = pts
        return pts


class _Scaler:
    """Turn, scale and cut one decoded frame in a filter graph, rebuilt when the stream changes."""

    def __init__(self, size: tuple[int, int] | None, resize: Resize) -> None:
        self._size, self._resize = size, resize
        self._format: object = None
        self._graph: av.filter.Graph

    def __call__(self, frame: av.VideoFrame) -> Pixels:
        rotation = frame.rotation % 360
        form = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range, rotation)
        if form != self._format:
            self._graph = self._build(frame, rotation)
            self._format = form
        self._graph.vpush(frame)
        return self._graph.vpull().to_ndarray()

    def _build(self, frame: av.VideoFrame, rotation: int) -> av.filter.Graph:
        graph = av.filter.Graph()
        source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
        chain = [source]
        for name, arguments in self._filters(frame.width, frame.height, rotation):
            chain.append(graph.add(name, arguments))
        chain.append(graph.add("buffersink"))
        for before, after in zip(chain, chain[1:], strict=False):
            before.link_to(after)
        graph.configure()
        return graph

    def _filters(self, width: int, height: int, rotation: int) -> Iterator[tuple[str, str]]:
        if rotation in (90, 270):
            yield "transpose", "cclock" if rotation == 90 else "clock"
            width, height = height, width
        elif rotation == 180:
            yield from (("hflip", ""), ("vflip", ""))
        if self._size is not None:
            target_w, target_h = self._size
            scaled_w, scaled_h = target_w, target_h
            if self._resize == "crop":
                factor = max(target_w / width, target_h / height)
                scaled_w, scaled_h = max(round(width * factor), target_w), max(round(height * factor), target_h)
            yield "scale", f"{scaled_w}:{scaled_h}:flags=bilinear"
            yield "format", "rgb24"
            if (scaled_w, scaled_h) != (target_w, target_h):
                yield "crop", f"{target_w}:{target_h}:{(scaled_w - target_w) // 2}:{(scaled_h - target_h) // 2}"
        else:
            yield "format", "rgb24"


def _open(path: Path) -> av.container.InputContainer:
    """Open with messages for people. The container has at least one real video stream."""
    if path.is_dir():
        raise VideoError(f"{path}: is a folder, not a video")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise VideoError(f"{path}: the file is empty (0 bytes); copy or record it again")
    try:
        container = av.open(str(path))
    except PermissionError as cause:
        raise PermissionError(f"{path}: no permission to read it") from cause
    except (av.error.FFmpegError, ValueError) as cause:
        raise VideoError(f"{path}: not a video that can be read, or its index is cut off; "
                         "check that it plays, and copy it again if it does not") from cause
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        container.close()
        raise VideoError(f"{path}: has no video stream (found: {kinds}); give a file with pictures")
    return container


def _decode(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame | None]:
    """Frames of one stream; None stands for something that could not be read."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.error.FFmpegError:
            yield None
            return
        try:
            yield from packet.decode()
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            yield None
