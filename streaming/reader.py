"""A camera's own process: it connects when told to, decodes, and writes clips and counts into the ring.

It is started with spawn, imports no torch, and is meant to be killed: a native call that hangs cannot be ended
otherwise, and nothing but this process's own memory is lost with it. When the process that started it is gone, it ends.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import zlib
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from streaming.ring import Ring
from streaming.source import Counts, LiveStream, StreamError, Timeouts
from vad.clips import cuts
from vad.sampling import Sampling
from vad.types import Clip, Frame


@dataclass(frozen=True, slots=True)
class Ended:
    """What a reader says when a session is over."""

    session: int
    reason: str
    words: str


def run(url: str, sampling: dict[str, Any], ring_name: str, shape: tuple[int, int, int, int], pipe: Connection) -> None:
    """The process. ``pipe`` brings session numbers, each a request to connect, and takes ``Ended``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the parent
    _end_with_the_parent(os.getppid())
    settings = Sampling.model_validate(sampling)
    ring = Ring.attach(ring_name, shape)
    while True:
        try:
            session: int = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(_session(session, url, settings, ring))


def _session(session: int, url: str, settings: Sampling, ring: Ring) -> Ended:
    """Connect and read until it ends."""
    ring.status["session"] = session
    ring.status["still_since"] = 0
    watcher = _Watcher(ring)
    try:
        stream = LiveStream(url, timeouts=Timeouts(), notice=watcher.notice)
    except StreamError as error:
        return Ended(session, error.reason, str(error))
    ring.status["period"] = stream.period
    watcher.counts = stream.counts
    try:
        for cut in cuts(stream, settings):
            if cut.clip is not None:
                ring.put(cut.clip, start=watcher.start(cut.clip), arrival=time.monotonic(), session=session)
    except StreamError as error:
        return Ended(session, error.reason, str(error))
    finally:
        stream.close()
    return Ended(session, "eof", "the camera closed the connection")


class _Watcher:
    """Keeps the ring's status up to date with every frame, and knows when the frames of the coming snippet were."""

    def __init__(self, ring: Ring) -> None:
        self._status = ring.status
        self._before = {name: int(ring.status[name][0]) for name in ("frames", "corrupt", "jumps", "changes")}
        self._times: dict[int, float] = {}
        self._picture: int | None = None
        self.counts = Counts()

    def notice(self, frame: Frame) -> None:
        """A frame came."""
        now = time.monotonic()
        if frame.corrupt or frame.after_gap:
            self._times.clear()  # clips begin anew, and a camera may send damage for months
        self._times[frame.index] = frame.pts
        for name, already in self._before.items():
            self._status[name] = already + getattr(self.counts, name)
        self._status["width"], self._status["height"] = self.counts.width, self.counts.height
        if frame.pixels is not None:
            picture = zlib.crc32(frame.pixels[::4, ::4].tobytes())
            if picture != self._picture:
                self._picture, self._status["still_since"] = picture, now
        self._status["last_frame"] = now

    def start(self, clip: Clip) -> float:
        """Seconds of the first frame of a clip's snippet."""
        start = self._times[clip.start_frame]
        self._times = {index: pts for index, pts in self._times.items() if index >= clip.end_frame}
        return start


def _end_with_the_parent(parent: int) -> None:
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(0)

    threading.Thread(target=watch, name="parent", daemon=True).start()
