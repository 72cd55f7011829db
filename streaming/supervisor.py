"""Starts, watches and restarts the processes of the daemon, and folds scores into events.

One process per camera, one that scores, and this one, which decodes nothing and computes nothing: it may sleep between
its looks. Its parts are handed in; it opens no store and prints nothing.
"""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Literal

from streaming import backend, events, reader
from streaming.backend import Batching, Build, Dropped, Ready, Score
from streaming.ring import Ring
from streaming.smoothing import Sample, Smoother
from streaming.smoothing import Settings as Smoothing
from streaming.watchdog import Seen, Watchdog
from streaming.watchdog import Settings as Watching
from vad.sampling import Sampling
from vad.types import Event

INTERVAL = 0.2  # seconds between two looks
_OPENING = 4  # cameras that may connect at the same time
_BACKEND_FIRST, _BACKEND_CAP = 1.0, 60.0  # seconds between two starts of the process that scores
_GRACE = 1.0  # seconds for a clip to be scored
_TERM = 3.0  # seconds that a process gets to end by itself
_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True)
class Camera:
    """What is known about a camera from the config."""

    name: str
    url: str
    model: str  # name of the model that scores it
    sampling: Sampling
    smoothing: Smoothing
    alarms: events.Settings
    watching: Watching = field(default_factory=Watching)


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something to tell the world."""

    camera: str
    kind: Literal["new", "end"]
    event: Event  # seconds of the session
    began: float  # Unix time of the session's second 0
    reason: str | None  # why it ended


Tell = Callable[[Alarm], None]
Hear = Callable[[Score, Sample, float], None]  # and the Unix time of the session's second 0


@dataclass
class _Live:
    """A camera and its process."""

    camera: Camera
    ring: Ring
    dog: Watchdog
    process: BaseProcess | None = None
    pipe: Connection | None = None
    session: int = 0
    smoother: Smoother | None = None
    scored_session: int = -1
    state: events.State = field(default_factory=events.State)
    began: float = 0.0
    dropped: dict[str, int] = field(default_factory=lambda: {"queue_full": 0, "stale": 0})
    scored: int = 0
    seen: tuple[int, int] = (0, 0)  # frames, corrupt, at the last look
    waits_since: float = 0.0


class Supervisor:
    """The daemon without its mouths and memory. ``step`` is one look; ``run`` looks until it is stopped."""

    def __init__(
        self,
        cameras: list[Camera],
        builds: Mapping[str, Build],
        *,
        tell: Tell,
        hear: Hear = lambda _score, _sample, _began: None,
        batching: Batching | None = None,
        seed: int | None = None,
    ) -> None:
        self._builds, self._batching, self._tell, self._hear = builds, batching or Batching(), tell, hear
        chance = random.Random(seed)  # noqa: S311  # spreads tries, guards nothing
        self.cameras = {
            camera.name: _Live(camera, Ring.create(shape_of(camera.sampling)), Watchdog(camera.watching, chance))
            for camera in cameras
        }
        self._backend: BaseProcess | None = None
        self._backend_pipe: Connection | None = None
        self.ready = False
        self.backend_starts = 0
        self._next_backend, self._backend_wait = 0.0, _BACKEND_FIRST
        self._last_look = time.monotonic()

    def step(self) -> None:
        """Look once at everything."""
        now = time.monotonic()
        overslept, self._last_look = now - self._last_look > 10 * INTERVAL, now
        self._look_at_backend(now)
        opening = sum(live.dog.state == "connecting" for live in self.cameras.values())
        for live in self.cameras.values():
            ended = self._ended(live)
            waiting = live.dog.state in ("offline", "stalled", "failed")
            if not waiting:
                live.waits_since = now
            elif now - live.waits_since > self._batching.staleness + _GRACE:
                self._end_events(live, "camera_offline")  # its last clips are scored by now, or never will be
            if waiting and (opening >= _OPENING or not self.ready):
                continue
            for command in live.dog.step(now, self._seen(live, now, ended), overslept=overslept):
                if command == "connect":
                    opening += 1
                    self._connect(live)
                else:
                    self._kill(live)

    def run(self, stop: Callable[[], bool]) -> None:
        """Look until ``stop`` says so, then end everything."""
        try:
            while not stop():
                self.step()
                time.sleep(INTERVAL)
        finally:
            self.close()

    def close(self) -> None:
        """End open events and all processes."""
        for live in self.cameras.values():
            self._end_events(live, "restart")
            self._kill(live)
            live.ring.close()
        if self._backend is not None:
            self._backend.kill()
            self._backend.join()
        self.cameras = {}

    def status(self) -> dict[str, dict[str, Any]]:
        """What the health page says about each camera."""
        now = time.monotonic()
        found = {}
        for name, live in self.cameras.items():
            status = live.ring.status[0]
            last = float(status["last_frame"])
            found[name] = {
                "state": live.dog.state,
                "reason": live.dog.reason,
                "last_frame_age_s": round(now - last, 3) if last else None,
                "frames": int(status["frames"]),
                "corrupt": int(status["corrupt"]),
                "clips": int(status["clips"]),
                "scored": live.scored,
                "dropped": dict(live.dropped),
                "sessions": live.session,
                "stalls": live.dog.stalls,
            }
        return found

    def _seen(self, live: _Live, now: float, ended: str | None) -> Seen:
        status = live.ring.status[0]
        frames, corrupt = int(status["frames"]), int(status["corrupt"])
        new, new_corrupt = frames - live.seen[0], corrupt - live.seen[1]
        mostly = live.dog.reason == "corrupt" if not new else 2 * new_corrupt > new
        live.seen = (frames, corrupt)
        return Seen(
            alive=live.process is not None and live.process.is_alive(),
            ended=ended,
            last_frame=float(status["last_frame"]),
            period=float(status["period"]),
            still_since=float(status["still_since"]),
            corrupt=mostly,
        )

    def _ended(self, live: _Live) -> str | None:
        """Why the session ended, if the camera's process says that it did."""
        try:
            while live.pipe is not None and live.pipe.poll():
                said = live.pipe.recv()
                if said.session == live.session:
                    return str(said.reason)
        except (EOFError, OSError):
            pass  # the process is gone; is_alive says so
        return None

    def _connect(self, live: _Live) -> None:
        if live.process is None or not live.process.is_alive():
            self._kill(live)
            live.pipe, theirs = _SPAWN.Pipe()
            camera = live.camera
            arguments = (
                camera.url,
                camera.sampling.model_dump(mode="json"),
                live.ring.name,
                live.ring.shape,
                theirs,
            )
            live.process = _SPAWN.Process(target=reader.run, args=arguments, name=f"camera {camera.name}", daemon=True)
            live.process.start()
            theirs.close()
        self._end_events(live, "camera_offline")  # of the session before
        live.session += 1
        assert live.pipe is not None
        live.pipe.send(live.session)

    def _kill(self, live: _Live) -> None:
        if live.process is not None:
            live.process.kill()
            live.process.join(_TERM)
        if live.pipe is not None:
            live.pipe.close()
        live.process, live.pipe = None, None

    def _look_at_backend(self, now: float) -> None:
        if (self._backend is None or not self._backend.is_alive()) and now >= self._next_backend:
            # one that cannot even load its models is not started five times a second
            self._next_backend, self._backend_wait = now + self._backend_wait, min(2 * self._backend_wait, _BACKEND_CAP)
            self._start_backend()
        if self._backend_pipe is None:
            return
        try:
            while self._backend_pipe.poll():
                self._take(self._backend_pipe.recv())
        except (EOFError, OSError):
            self.ready = False  # started again at a later look

    def _start_backend(self) -> None:
        if self._backend_pipe is not None:
            self._backend_pipe.close()
        self.ready = False
        self.backend_starts += 1
        self._backend_pipe, theirs = _SPAWN.Pipe()
        cameras = {name: (live.camera.model, live.ring.name, live.ring.shape) for name, live in self.cameras.items()}
        self._backend = _SPAWN.Process(
            target=backend.run, args=(self._builds, cameras, self._batching, theirs), name="scores", daemon=True
        )
        self._backend.start()
        theirs.close()

    def _take(self, said: Score | Dropped | Ready) -> None:
        if isinstance(said, Ready):
            self.ready, self._backend_wait = True, _BACKEND_FIRST
        elif isinstance(said, Dropped):
            live = self.cameras[said.camera]
            live.dropped["queue_full"] += said.queue_full
            live.dropped["stale"] += said.stale
        else:
            self._score(self.cameras[said.camera], said)

    def _score(self, live: _Live, said: Score) -> None:
        if said.session != live.session:
            return  # of a session that is over, and whose events are ended
        live.scored += 1
        if said.session != live.scored_session:
            live.smoother, live.scored_session, live.state = live.camera.smoothing.build(), said.session, events.State()
            live.began = time.time() - (time.monotonic() - said.arrival) - said.end
        assert live.smoother is not None
        for sample in live.smoother.step(Sample(said.start, said.end, said.score)):
            self._hear(said, sample, live.began)
            live.state, transitions = events.step(live.state, live.camera.alarms, sample)
            for transition in transitions:
                reason = "normal" if transition.kind == "end" else None
                self._tell(Alarm(live.camera.name, transition.kind, transition.event, live.began, reason))

    def _end_events(self, live: _Live, reason: str) -> None:
        for transition in events.finish(live.state):
            self._tell(Alarm(live.camera.name, transition.kind, transition.event, live.began, reason))
        live.state = events.State()


def shape_of(sampling: Sampling) -> tuple[int, int, int, int]:
    """Of a clip: (T, H, W, 3)."""
    width, height = sampling.size
    return (sampling.clip_frames, height, width, 3)
