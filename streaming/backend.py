"""The process that scores: clips of all cameras in, scores out.

It collects for a short window over all cameras and waits for none of them; a clip that is older than the budget is
dropped and counted. A camera has a head of its own, which begins anew with each session. The process can be killed and
started again: what it holds is a window of the past for heads that look back, and nothing else.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Protocol

import numpy as np
from pydantic import Field

from streaming.ring import Ring, Taken
from vad.calibration import Scale
from vad.config import Config
from vad.extractor import Extractor
from vad.head import StreamHead

_PAUSE = 0.005  # seconds between two looks at rings that had nothing


class Batching(Config):
    """How clips of several cameras go through the network together."""

    most: int = Field(8, ge=1, description="clips in one call")
    window: float = Field(0.015, ge=0, description="seconds to wait for further cameras once there is a clip")
    staleness: float = Field(2.0, gt=0, description="seconds after which a clip is not worth scoring any more")


class Tool(Protocol):
    """A model, ready to score."""

    @property
    def extractor(self) -> Extractor:
        """Clips to features."""

    @property
    def calibration(self) -> Scale:
        """Raw scores to [0, 1]."""

    def stream(self) -> StreamHead:
        """The head, with nothing seen yet."""


Build = Callable[[], Tool]


@dataclass(frozen=True, slots=True)
class Score:
    """What is said about one snippet of one camera."""

    camera: str
    session: int
    start: float  # seconds of the session
    end: float
    raw: float
    score: float
    arrival: float  # monotonic seconds: of the clip's last frame
    scored: float


@dataclass(frozen=True, slots=True)
class Dropped:
    """Clips that nobody will score: overwritten before they were taken, or too old."""

    camera: str
    queue_full: int
    stale: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The models are loaded."""


@dataclass
class _Camera:
    ring: Ring
    model: str
    session: int = -1
    head: StreamHead | None = None
    waiting: list[Taken] = field(default_factory=list)


def run(
    builds: Mapping[str, Build],
    cameras: Mapping[str, tuple[str, str, tuple[int, int, int, int]]],
    batching: Batching,
    pipe: Connection,
) -> None:
    """The process. ``cameras`` has model, ring and clip shape of each; ``pipe`` takes ``Score`` and ``Dropped``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tools = {name: build() for name, build in builds.items()}
    known = {name: _Camera(Ring.attach(ring, shape), model) for name, (model, ring, shape) in cameras.items()}
    pipe.send(Ready())
    try:
        while not pipe.poll():
            batch = collect(known, batching)
            if not batch:
                time.sleep(_PAUSE)
                continue
            for message in score(batch, known, tools, batching):
                pipe.send(message)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone


def collect(cameras: Mapping[str, _Camera], batching: Batching) -> list[tuple[str, Taken]]:
    """One clip of each camera that has one, within the window; the oldest first."""
    found: dict[str, Taken] = {}
    until: float | None = None
    while until is None or time.monotonic() < until:
        for name, camera in cameras.items():
            if name not in found and (taken := camera.ring.take()) is not None:
                found[name] = taken
        if not found or len(found) in (batching.most, len(cameras)):
            break
        until = until or time.monotonic() + batching.window
        time.sleep(0.001)
    return sorted(found.items(), key=lambda item: item[1].arrival)


def score(
    batch: Sequence[tuple[str, Taken]],
    cameras: Mapping[str, _Camera],
    tools: Mapping[str, Tool],
    batching: Batching,
) -> list[Score | Dropped]:
    """Score these clips, model by model, in batches; what is too old is dropped."""
    now = time.monotonic()
    messages: list[Score | Dropped] = []
    fresh: list[tuple[str, Taken]] = []
    for name, taken in batch:
        stale = now - taken.arrival > batching.staleness
        if taken.missed or stale:
            messages.append(Dropped(name, taken.missed, int(stale)))
        if not stale:
            fresh.append((name, taken))
    for model, tool in tools.items():
        of_model = [(name, taken) for name, taken in fresh if cameras[name].model == model]
        for first in range(0, len(of_model), batching.most):
            part = of_model[first : first + batching.most]
            features = tool.extractor(np.stack([taken.clip.pixels for _, taken in part]))
            for (name, taken), row in zip(part, features, strict=True):
                messages.append(_one(name, taken, row[None], cameras[name], tool))
    return messages


def _one(name: str, taken: Taken, features: np.ndarray, camera: _Camera, tool: Tool) -> Score:
    if camera.head is None or camera.session != taken.session:
        camera.head, camera.session = tool.stream(), taken.session
    said = camera.head.score(features)
    return Score(
        name,
        taken.session,
        taken.start,
        taken.clip.pts + float(camera.ring.status["period"][0]),  # as of files: the last frame is shown so long
        float(said.raw_B[0]),
        float(tool.calibration(said.raw_B)[0]),
        taken.arrival,
        time.monotonic(),
    )
