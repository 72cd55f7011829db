"""The event machine: samples in, alarms out, with hysteresis. A pure function of state, settings and sample.

An event is opened once the score has stayed at ``on`` or above for ``min_duration``; its start is dated back
to the crossing, so nobody is ever told of something that is withdrawn later. It closes once the score has
stayed below ``off`` for ``cooldown``; its end is dated back to the moment it fell below. A dip shorter than
the cool-down stays inside the event. No clock is read: all times are the samples' own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field, model_validator

from streaming.smoothing import Sample
from vad.config import Config
from vad.types import Event

_ROUNDING = 1e-9  # seconds


class Settings(Config):
    """Thresholds on the smoothed score, and times in seconds."""

    on: float = Field(
        0.5, gt=0, le=1, description="an event starts at this score; 0.5 is one in a thousand normal moments"
    )
    off: float = Field(0.4, gt=0, le=1, description="and lasts until the score falls below this one")
    min_duration: float = Field(0.5, ge=0, description="shorter excursions are no events")
    cooldown: float = Field(2.0, ge=0, description="quiet seconds that end an event")

    @model_validator(mode="after")
    def _hysteresis(self) -> Settings:
        if self.off > self.on:
            raise ValueError(f"off must not be above on, got off {self.off} and on {self.on}")
        return self


@dataclass(frozen=True, slots=True)
class State:
    """Where one stream stands. The default is the start of a stream."""

    start: float | None = None  # first moment of the run at or above on, or of the open event
    opened: bool = False
    peak: float = 0.0
    peak_time: float = 0.0
    above_until: float = 0.0  # end of the newest sample at or above off


@dataclass(frozen=True, slots=True)
class Transition:
    """Something to tell the world: an event began (its end still open) or ended."""

    kind: Literal["new", "end"]
    event: Event


def step(state: State, settings: Settings, sample: Sample) -> tuple[State, list[Transition]]:
    """Take the next sample of a stream; samples come in order of time."""
    if state.opened:
        return _step_open(state, settings, sample)
    if sample.score < settings.on:
        return State(), []
    if state.start is None:
        state = State(start=sample.start, peak=sample.score, peak_time=sample.start)
    state = _raise_peak(replace(state, above_until=sample.end), sample)
    if sample.end - _start(state) < settings.min_duration - _ROUNDING:
        return state, []
    state = replace(state, opened=True)
    return state, [Transition("new", _event(state))]


def finish(state: State) -> list[Transition]:
    """The stream has ended: close what is open."""
    return [Transition("end", _event(state))] if state.opened else []


def events(samples: list[Sample], settings: Settings) -> list[Event]:
    """All events of a recording: a fold over ``step``."""
    state, ended = State(), []
    for sample in samples:
        state, transitions = step(state, settings, sample)
        ended += [t.event for t in transitions if t.kind == "end"]
    return ended + [t.event for t in finish(state)]


def _step_open(state: State, settings: Settings, sample: Sample) -> tuple[State, list[Transition]]:
    # a loud sample after a hole in the stream: it was quiet up to its start
    quiet = (sample.end if sample.score < settings.off else sample.start) - state.above_until
    if quiet > 0 and quiet >= settings.cooldown - _ROUNDING:
        ended = [Transition("end", _event(state))]
        state, begun = step(State(), settings, sample)
        return state, ended + begun
    if sample.score >= settings.off:
        state = _raise_peak(replace(state, above_until=sample.end), sample)
    return state, []


def _raise_peak(state: State, sample: Sample) -> State:
    return replace(state, peak=sample.score, peak_time=sample.start) if sample.score > state.peak else state


def _start(state: State) -> float:
    assert state.start is not None
    return state.start


def _event(state: State) -> Event:
    return Event(_start(state), state.above_until, state.peak, state.peak_time)
