"""When a camera is started, given up, killed and tried again: a pure function of what was seen and of monotonic time.

Nothing here reads a clock, opens anything or waits. The states are those of the health page: ``connecting``,
``online``, ``degraded`` (pictures that cannot be judged: corrupt or frozen); ``stalled`` (pictures stopped coming) and
``offline``, both waiting for the next try; ``disabled``; ``failed`` (its process dies again and again). Tries go on for
ever: a camera that is away for a month comes back by itself. ``failed`` is about processes that crash, never about
cameras, and ends after ``crash_pause``.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field, model_validator

from vad.config import Config

State = Literal["connecting", "online", "stalled", "degraded", "offline", "disabled", "failed"]
Command = Literal["connect", "kill"]


class Settings(Config):
    """All in seconds."""

    open: float = Field(20.0, gt=0, description="from the start of a try to the first picture; then it is killed")
    stall: float | None = Field(None, gt=0, description="without a picture; null: 5 s or five pictures, the longer")
    frozen: float | None = Field(20.0, gt=0, description="the same picture for so long; null: never asked")
    first: float = Field(1.0, gt=0, description="before the first new try; each further one waits twice as long")
    cap: float = Field(60.0, gt=0, description="the longest wait")
    cap_auth: float = Field(300.0, gt=0, description="the longest wait after a refused password: cameras lock accounts")
    jitter: float = Field(0.5, ge=0, lt=1, description="share by which a wait is longer or shorter, by chance")
    healthy: float = Field(60.0, gt=0, description="online for so long: the next failure is the first again")
    crashes: int = Field(5, ge=1, description="deaths of the process within crash_window that make a camera failed")
    crash_window: float = Field(60.0, gt=0)
    crash_pause: float = Field(300.0, gt=0, description="before a failed camera's process is started again")

    @model_validator(mode="after")
    def _ordered(self) -> Settings:
        if self.cap < self.first:
            raise ValueError(f"cap must not be below first, got {self.cap} and {self.first}")
        return self


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known about a camera's process at a moment."""

    alive: bool  # the process
    ended: str | None = None  # reason, when a session has ended since the last look
    last_frame: float = 0.0  # monotonic time of the newest picture, 0 before the first
    period: float = 0.0  # seconds from picture to picture, 0 while unknown
    still_since: float = 0.0  # monotonic time since which the picture is the same, 0 while it changes
    corrupt: bool = False  # most of the newest pictures are damaged


@dataclass
class Watchdog:
    """One camera's. ``step`` is called a few times a second."""

    settings: Settings
    random: random.Random = field(default_factory=random.Random)
    state: State = "offline"
    reason: str = "start"
    stalls: int = 0
    tries: int = 0  # since it was healthy
    _next_try: float = 0.0
    _began: float = 0.0  # of this try
    _online_since: float | None = None
    _excused: float = 0.0  # when we were asleep ourselves: silence before it is no camera's fault
    _deaths: deque[float] = field(default_factory=deque)

    def step(self, now: float, seen: Seen, *, overslept: bool = False) -> list[Command]:
        """What to do now. ``connect`` starts the process too when it is not alive.

        ``overslept``: this call comes much later than it should, so every camera looks silent at once. Nobody is given
        up for what was not looked at.
        """
        if overslept:
            self._excused = now
        if self.state == "disabled":
            return []
        if self.state in ("offline", "stalled", "failed"):
            return self._try(now)
        if not seen.alive:
            return self._died(now)
        if seen.ended is not None:
            return self._wait(now, seen.ended)
        if seen.last_frame <= self._began:
            silent = now - max(self._began, self._excused)
            return self._give_up(now, "offline") if silent > self.settings.open else []
        return self._watch(now, seen)

    def enable(self, now: float) -> None:
        """Begin, or begin again."""
        self.state, self.reason, self.tries, self._next_try = "offline", "start", 0, now

    def disable(self) -> list[Command]:
        """End what runs; the caller kills the process."""
        self.state, self.reason = "disabled", "config"
        return ["kill"]

    def stall_limit(self, period: float) -> float:
        """Seconds without a picture that are a stall: slow cameras are no broken ones.

        >>> Watchdog(Settings()).stall_limit(0.04), Watchdog(Settings()).stall_limit(2.0)
        (5.0, 10.0)
        """
        return self.settings.stall if self.settings.stall is not None else max(5.0, 5 * period)

    def _watch(self, now: float, seen: Seen) -> list[Command]:
        if now - max(seen.last_frame, self._excused) > self.stall_limit(seen.period):
            self.stalls += 1
            return self._give_up(now, "stalled")
        if self._online_since is None:
            self._online_since = now
        if now - self._online_since >= self.settings.healthy:
            self.tries = 0
        frozen = self.settings.frozen is not None and 0 < seen.still_since < now - self.settings.frozen
        self.state = "degraded" if frozen or seen.corrupt else "online"
        self.reason = "frozen" if frozen else "corrupt" if seen.corrupt else "ok"
        return []

    def _give_up(self, now: float, state: State) -> list[Command]:
        """A session that hangs cannot be asked to end: its process is killed."""
        self._wait(now, "timeout", state=state)
        return ["kill"]

    def _wait(self, now: float, reason: str, *, state: State = "offline") -> list[Command]:
        cap = self.settings.cap_auth if reason == "auth_failed" else self.settings.cap
        wait = min(self.settings.first * 2 ** min(self.tries, 32), cap)
        wait *= 1 + self.settings.jitter * self.random.uniform(-1, 1)
        self.tries += 1
        self.state, self.reason, self._next_try, self._online_since = state, reason, now + wait, None
        return []

    def _died(self, now: float) -> list[Command]:
        """The process is gone, and not by our hand."""
        self._deaths.append(now)
        while self._deaths[0] < now - self.settings.crash_window:
            self._deaths.popleft()
        if len(self._deaths) >= self.settings.crashes:
            self._deaths.clear()
            self.state, self.reason, self._online_since = "failed", "crash", None
            self._next_try = now + self.settings.crash_pause
            return []
        return self._wait(now, "crash")

    def _try(self, now: float) -> list[Command]:
        if now < self._next_try:
            return []
        self.state, self._began = "connecting", now
        return ["connect"]
