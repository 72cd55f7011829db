"""Video in: every frame with its time; pictures turned upright and scaled once, straight from the decoder's format.

PyAV reads everything in order. decord answers for single pictures of mp4/mkv/webm/avi files by index;
it returns wrong frames from MPEG-TS with B-frames, so nothing else is given to it.
"""

from __future__ import annotations

import importlib.util
import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from vad.decoding import MISSING_FRAMES, Clock, Decoder, Scaler, quarter_turns
from vad.sampling import Resample, Resize
from vad.types import Frame, Gap, Pixels

SUFFIXES = {
    ".mp4",
    ".m4v",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".mpg",
    ".mpeg",
    ".ts",
    ".mts",
    ".m2ts",
    ".flv",
    ".wmv",
    ".3gp",
    ".ogv",
}
_DECORD_SUFFIXES = {".mp4", ".mkv", ".webm", ".avi"}
_DECORD_CODECS = {"h264", "mpeg4", "mjpeg", "vp8", "vp9", "libvpx-vp9"}
_UNCOUNTED_SECONDS = 1.0  # missing at the end of a file that does not say how many frames it has

log = logging.getLogger(__name__)


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
    rotation: int  # degrees counter-clockwise that the player has to turn the picture: 0, 90, 180 or 270


class Video:
    """One video file, opened and read from its start.

    ``gaps`` fills while ``frames`` runs. Raises VideoError for what is not a readable video, and OSError
    (FileNotFoundError, PermissionError) when the file system refuses.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.gaps: list[Gap] = []
        self.probe = probe(self.path)

    def frames(
        self,
        *,
        size: tuple[int, int] | None = None,
        resize: Resize = "stretch",
        resample: Resample = "bilinear",
        whole: bool = False,
        wants: Callable[[float], bool] = lambda _: True,
    ) -> Iterator[Frame]:
        """Every decoded frame, in the order of display.

        ``size`` is (width, height) of the pictures, None the video's own. ``resize`` says how a picture gets
        there: ``stretch`` to it; ``crop``: scale to cover it and cut the centre out; a number: scale the short
        side to so many pixels and cut the centre out; (width, height): stretch to that and cut the centre out.
        ``whole`` leaves the cutting to the caller. Only frames whose time ``wants`` accepts carry pixels, and
        the first one after a gap, where a sampler begins anew; the others cost no conversion. A damaged stretch
        ends with a frame marked ``after_gap`` and is noted in ``gaps``.
        """
        self.gaps = []
        period = 1 / self.probe.fps
        scaler = Scaler(size, resize, resample, whole=whole)
        index, damaged_since = 0, None
        container, stream = _open(self.path)
        with container:
            clock = Clock(period, start=float((stream.start_time or 0) * (stream.time_base or 0)))
            decoder = Decoder(container, stream)
            for decoded, lost in decoder:
                due = clock.next
                pts = clock.repair(decoded.time)
                corrupt = decoded.is_corrupt
                if damaged_since is None and (lost or corrupt):
                    damaged_since = min(due, pts - period / 2) if lost else pts
                after_gap = damaged_since is not None and not corrupt
                if damaged_since is not None and not corrupt:
                    self.gaps.append(Gap(damaged_since, pts, "damaged"))
                    damaged_since = None
                wanted = not corrupt and wants(pts)
                yield Frame(index, pts, scaler(decoded) if wanted or after_gap else None, after_gap, corrupt)
                index += 1
            if damaged_since is not None:
                self.gaps.append(Gap(damaged_since, clock.next, "damaged"))
            end = max(_claimed_end(container, stream, clock.next, index, period), clock.next + decoder.lost * period)
            if end > clock.next:
                self.gaps.append(Gap(clock.next, end, "missing at the end"))


def decoder_version() -> str:
    """Of the library that decodes."""
    return ".".join(map(str, av.library_versions["libavcodec"]))


def probe(path: Path) -> Probe:
    """Open a file and read what its container says; decodes at most the first picture."""
    container, stream = _open(path)
    with container:
        first = next((frame for frame, _ in Decoder(container, stream)), None)
        if first is None:
            raise VideoError(f"{path}: no frame of it can be decoded; copy or record it again")
        rate = stream.average_rate or stream.guessed_rate or stream.base_rate
        turns = quarter_turns(first)
        width, height = (first.width, first.height) if turns % 2 == 0 else (first.height, first.width)
        seconds = (
            float(stream.duration * stream.time_base)
            if stream.duration and stream.time_base
            else (container.duration or 0) / av.time_base
        )
        return Probe(
            path,
            width,
            height,
            float(rate) if rate else 25.0,
            stream.frames,
            max(seconds, 0.0),
            stream.codec_context.codec.name,
            first.format.name,
            container.format.name,
            90 * turns,
        )


def pictures(path: Path, indices: Sequence[int], *, size: tuple[int, int]) -> list[Pixels]:
    """The frames with these indices (rising), as (height, width, 3) uint8 RGB; black where there is no such frame.

    Used for thumbnails. decord reads them by index where it can be trusted; elsewhere PyAV decodes up to the last.
    """
    if not indices:
        return []
    if importlib.util.find_spec("decord") and _can_be_indexed(path):
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        try:
            reader = decord.VideoReader(str(path), width=size[0], height=size[1], num_threads=1)
            return list(reader.get_batch(list(indices)).asnumpy())
        except (decord.DECORDError, IndexError, RuntimeError) as cause:
            log.debug("decord cannot read %s (%s); PyAV decodes it in order", path, cause)
    scaler = Scaler(size)
    wanted = set(indices)
    found: dict[int, Pixels] = {}
    container, stream = _open(path)
    with container:
        for index, (frame, _) in enumerate(itertools.islice(Decoder(container, stream), indices[-1] + 1)):
            if index in wanted:
                found[index] = scaler(frame)
    black = np.zeros((size[1], size[0], 3), np.uint8)
    return [found.get(index, black) for index in indices]


def _can_be_indexed(path: Path) -> bool:
    """Whether decord finds the right frame of this file by its index.

    It starts at a keyframe and counts. That goes wrong, without an error, where frames shown before a keyframe
    come after it in the file (open GOPs, the habit of HEVC), where the decoder cannot really start at it
    (H.264 but no IDR), where packets do not say when they are shown (H.264 in avi) and where an edit list
    hides frames. It also leaves turned pictures lying.
    """
    found = probe(path)
    if path.suffix.lower() not in _DECORD_SUFFIXES or found.codec not in _DECORD_CODECS or found.rotation:
        return False
    container, stream = _open(path)
    with container:
        h264 = found.codec == "h264"
        if h264 and (stream.codec_context.extradata or b"")[:1] != b"\1":  # not led by lengths: as in avi
            return False
        shown_from = -math.inf
        try:
            for packet in itertools.takewhile(lambda packet: packet.size, container.demux(stream)):
                if packet.pts is None or packet.is_discard or packet.pts < shown_from:
                    return False
                if packet.is_keyframe:
                    if h264 and not _has_idr(bytes(packet)):
                        return False
                    shown_from = packet.pts
        except av.error.FFmpegError:
            return False
    return True


def _has_idr(data: bytes) -> bool:
    """Whether a picture of H.264, its parts led by four bytes of length each, needs nothing before it."""
    at = 0
    while at + 4 < len(data):
        if data[at + 4] & 31 == 5:
            return True
        at += 4 + int.from_bytes(data[at : at + 4], "big")
    return False


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


def _claimed_end(container: InputContainer, stream: VideoStream, end: float, frames: int, period: float) -> float:
    """When the video should have ended by its container, given when and after how many frames it did.

    Only a loss that frame count and duration agree on is one: edit lists and long last frames spoil either.
    """
    if stream.frames and stream.frames - frames < MISSING_FRAMES:
        return end
    if stream.duration is not None and stream.time_base is not None:
        claimed = float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    elif container.duration is not None and len(container.streams) == 1:
        claimed = container.duration / av.time_base
    else:
        return end
    least = MISSING_FRAMES * period if stream.frames else max(MISSING_FRAMES * period, _UNCOUNTED_SECONDS)
    return claimed if claimed - end >= least - period / 2 else end


def _open(path: Path) -> tuple[InputContainer, VideoStream]:
    """Open a file and choose its first real video stream, with messages for people."""
    if path.is_dir():
        raise VideoError(f"{path}: is a folder, not a video")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not path.is_file():
        raise VideoError(f"{path}: is a pipe or a device, not a video file")
    if path.stat().st_size == 0:
        raise VideoError(f"{path}: the file is empty (0 bytes); copy or record it again")
    try:
        # file: keeps a colon in the name from being taken for a protocol; tags may be in any encoding
        container = av.open(f"file:{path}", metadata_errors="replace")
    except PermissionError as cause:
        raise PermissionError(f"{path}: no permission to read it") from cause
    except (av.error.FFmpegError, ValueError) as cause:
        raise VideoError(
            f"{path}: not a video that can be read, or its index is cut off; "
            "check that it plays, and copy it again if it does not"
        ) from cause
    if container.format.name == "tty":
        container.close()
        raise VideoError(f"{path}: not a video that can be read: it is text")
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        container.close()
        raise VideoError(f"{path}: has no video stream (found: {kinds}); give a file with pictures")
    stream = streams[0]
    if stream.codec_context is None:
        container.close()
        raise VideoError(f"{path}: no decoder for its kind of video; convert it, for example to H.264 in mp4")
    # one thread: with several, which damaged pictures are owned up to depends on their race
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    return container, stream
