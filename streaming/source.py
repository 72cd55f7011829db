"""One session with a camera: open, decode, repair times, say honestly how it ended.

A live source that ends has failed, whatever the library calls it: a server that closes its socket looks like the end
of a file, and a stalled one blocks for several times the timeout that was set (so somebody else has to watch the time).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args
from urllib.parse import urlsplit

import av
import av.error
from av.container import InputContainer
from av.video.stream import VideoStream
from pydantic import Field

from vad.config import Config
from vad.decoding import Decoder, Scaler
from vad.sampling import Resample, Resize
from vad.types import Frame

SCHEMES = ("rtsp", "rtsps", "http", "https")
# what the library may open on its way: no files, and nothing that names another protocol inside its own address
_WHITELIST = "rtsp,rtp,rtcp,tcp,udp,tls,http,https,httpproxy,crypto"
Reason = Literal["timeout", "eof", "refused", "auth_failed", "not_found", "tls", "codec", "error"]
REASONS: tuple[Reason, ...] = get_args(Reason)
_TAINT = 10.0  # seconds at most from damage to the next keyframe: cameras may send them seldom, or never
_DRIFT = 1.0  # seconds by which a picture's own clock may differ from the time that passed, between two pictures


class StreamError(OSError):
    """A session that ended; ``reason`` is one of ``REASONS``. The message never holds the address."""

    def __init__(self, reason: Reason, words: str) -> None:
        super().__init__(words)
        self.reason: Reason = reason


class Timeouts(Config):
    """Seconds that the library waits. Its real delays are two to four times these: the watchdog has its own clock."""

    open: float = Field(10.0, gt=0)
    read: float = Field(5.0, gt=0)


@dataclass
class Counts:
    """What a session has seen so far."""

    frames: int = 0
    corrupt: int = 0
    jumps: int = 0  # of the camera's clock
    changes: int = 0  # of the size of the picture
    width: int = 0
    height: int = 0


class LiveStream:
    """A camera, opened. ``frames`` gives what a file's reader gives; it never ends but by StreamError.

    Raises ValueError for an address that is no camera's, and StreamError when it cannot be opened.
    """

    def __init__(
        self,
        url: str,
        *,
        timeouts: Timeouts | None = None,
        transport: Literal["tcp", "udp"] = "tcp",
        notice: Callable[[Frame], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``notice`` hears of every frame before it is given; ``clock`` is monotonic."""
        check_address(url)
        self.counts = Counts()
        self._clock, self._notice = clock, notice
        self._container, self._stream = _open(url, timeouts or Timeouts(), transport)
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.period = 1 / float(rate) if rate else 1 / 25

    def close(self) -> None:
        """Let go of the camera."""
        self._container.close()

    def frames(
        self,
        *,
        size: tuple[int, int] | None = None,
        resize: Resize = "stretch",
        resample: Resample = "bilinear",
        whole: bool = False,
        wants: Callable[[float], bool] = lambda _: True,
    ) -> Iterator[Frame]:
        """Every decoded frame, as ``vad.video.Video.frames`` gives them; times are seconds since the first."""
        scaler = Scaler(size, resize, resample, whole=whole)
        times, index = LiveClock(self.period), 0
        damaged_at: float | None = None
        shape: tuple[int, int] | None = None
        decoder = Decoder(self._container, self._stream, patient=False)
        try:
            for decoded, lost in decoder:
                jumps = times.jumps
                pts = times.repair(decoded.time, self._clock())
                changed = shape not in (None, (decoded.width, decoded.height))
                shape = (decoded.width, decoded.height)
                self._count(decoded, jumped=times.jumps > jumps, changed=changed)
                if lost or decoded.is_corrupt or changed:
                    damaged_at = pts
                # what is predicted from a damaged picture is as wrong, and nobody says so: wait for a keyframe
                whole_again = decoded.key_frame or (damaged_at is not None and pts - damaged_at > _TAINT)
                after_gap = damaged_at is not None and whole_again and not decoded.is_corrupt
                if after_gap:
                    damaged_at = None
                corrupt = damaged_at is not None
                wanted = not corrupt and wants(pts)
                frame = Frame(index, pts, scaler(decoded) if wanted or after_gap else None, after_gap, corrupt)
                self._notice(frame)
                yield frame
                index += 1
        except av.error.FFmpegError as cause:
            raise _classified(cause) from None  # its own text holds the address, and with it the password
        raise StreamError("eof", "the camera closed the connection")

    def _count(self, decoded: av.VideoFrame, *, jumped: bool, changed: bool) -> None:
        counts = self.counts
        counts.frames += 1
        counts.corrupt += decoded.is_corrupt
        counts.jumps += jumped
        counts.changes += changed
        counts.width, counts.height = decoded.width, decoded.height


class LiveClock:
    """Times of frames in seconds since the first, from a camera's clock that may jump, wrap or be absent.

    A step that agrees with the time that passed is believed. Any other is a jump of the camera's clock: the frame is
    put where it arrived, and the clock is believed again from there. Cameras that send a backlog at once are believed
    too, as long as each step is short.

    >>> clock = LiveClock(0.1)
    >>> [round(clock.repair(t, now), 3) for t, now in ((5.0, 0.0), (5.1, 0.1), (3605.2, 0.2), (3605.3, 0.3))]
    [0.0, 0.1, 0.2, 0.3]
    """

    def __init__(self, period: float) -> None:
        self._period = period
        self._offset: float | None = None  # of the camera's clock to ours
        self._last = -period
        self._arrival = -math.inf
        self.jumps = 0

    def repair(self, time: float | None, arrival: float) -> float:
        """The time of the next frame, of which the camera says ``time`` and which came at ``arrival``."""
        passed = min(arrival - self._arrival, 1e9)
        self._arrival = arrival
        if time is None or not math.isfinite(time):
            self._last += self._period
            return self._last
        if self._offset is None:
            self._offset = (self._last + self._period) - time
        pts = time + self._offset
        step = pts - self._last
        if not 0 < step <= max(5 * self._period, passed + _DRIFT):
            self.jumps += 1
            pts = self._last + max(min(passed, 1e9), self._period / 2)
            self._offset = pts - time
        self._last = pts
        return pts


def check_address(url: str) -> None:
    """Raise ValueError unless this is the address of a camera; the message leaves out what may be secret."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        raise ValueError("the address of a camera cannot be read; percent-encode user name and password") from None
    if parts.scheme not in SCHEMES:
        raise ValueError(f"a camera's address starts with {', '.join(SCHEMES)}, got {parts.scheme or 'no scheme'!r}")
    if not host:
        raise ValueError(f"a camera's address needs a host, as in {parts.scheme}://192.168.0.20/stream")


def _open(url: str, timeouts: Timeouts, transport: str) -> tuple[InputContainer, VideoStream]:
    options = {
        "protocol_whitelist": _WHITELIST,
        "rtsp_transport": transport,
        "analyzeduration": "100000",  # the default waits for seconds of video before the first picture
        "timeout": str(round(timeouts.read * 1e6)),
    }
    began = time.monotonic()
    try:
        container = av.open(url, options=options, timeout=(timeouts.open, timeouts.read))
    except av.error.FFmpegError as cause:
        error = _classified(cause)
        if error.reason == "codec" and time.monotonic() - began > 0.9 * min(timeouts.open, timeouts.read):
            error = StreamError("timeout", "no answer from the camera")  # silence comes out as invalid data
        raise error from None
    if not container.streams.video:
        container.close()
        raise StreamError("codec", "the camera sends no video")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        container.close()
        raise StreamError("codec", "no decoder for the camera's kind of video; set it to H.264 or H.265")
    # as of files: with several threads, which damaged pictures are owned up to depends on their race
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    return container, stream


def _classified(error: av.error.FFmpegError) -> StreamError:
    """What kind of failure an error of the library is."""
    for kinds, reason, words in _KINDS:
        if isinstance(error, kinds):
            return StreamError(reason, words)
    return StreamError("error", f"{type(error).__name__}: {error.strerror}")


_KINDS: tuple[tuple[tuple[type[BaseException], ...], Reason, str], ...] = (
    (
        (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError),
        "auth_failed",
        "the camera refuses user name and password",
    ),
    ((av.error.HTTPNotFoundError,), "not_found", "the camera has no such stream"),
    ((av.error.ExitError, av.error.TimeoutError), "timeout", "no answer from the camera"),
    ((ConnectionRefusedError,), "refused", "nobody listens at the camera's address"),
    ((av.error.EOFError, ConnectionError, BrokenPipeError), "eof", "the camera closed the connection"),
    (
        (av.error.InvalidDataError, av.error.DecoderNotFoundError, av.error.ProtocolNotFoundError),
        "codec",
        "what the camera sends cannot be understood",
    ),
)
