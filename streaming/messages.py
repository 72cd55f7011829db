"""What the world is told of an event: the JSON ``vad.event/1``, the same in MQTT, webhooks, SSE and REST.

A message carries the event as it is now (``after``) and as it was last told (``before``). All times are Unix
seconds UTC; no clock is read. Within ``/1`` fields are only ever added, each with a default, so that what an
older daemon stored can be read.
"""

from __future__ import annotations

import re
import secrets
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

SCHEMA: Final = "vad.event/1"

Kind: TypeAlias = Literal["new", "update", "end"]
Severity: TypeAlias = Literal["detection", "alert"]
EndReason: TypeAlias = Literal["normal", "restart", "camera_offline", "disabled", "max_duration"]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_ID = re.compile(r"\d{1,12}\.\d{6}-[0-9a-z]{6}")


def _open_for_more(schema: dict[str, Any]) -> None:
    schema.pop("additionalProperties", None)  # a reader of today must accept what /1 gains tomorrow


class _Part(BaseModel):
    """Frozen; unknown keys are refused, and NaN too, which JSON cannot say."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, json_schema_extra=_open_for_more)


class Threshold(_Part):
    """The cut that the camera ran with."""

    on: Share
    off: Share
    calibration_id: str | None = None


class Curve(_Part):
    """Scores around the event: ``values[i]`` stands for ``[start + i * step, start + (i + 1) * step)``."""

    start: float
    step: float = Field(gt=0)
    values: list[Share]


class Heatmap(_Part):
    """Where in the picture: row by row from the top left, 0 to 9."""

    rows: int = Field(ge=1)
    cols: int = Field(ge=1)
    values: list[Annotated[int, Field(ge=0, le=9)]]

    @model_validator(mode="after")
    def _complete(self) -> Heatmap:
        if len(self.values) != self.rows * self.cols:
            raise ValueError(f"a map of {self.rows} x {self.cols} has that many values, got {len(self.values)}")
        return self


class Model(_Part):
    """What scored."""

    extractor: str
    head: str
    digest: str | None = None
    version: str | None = None


class Quality(_Part):
    """How far the score can be trusted."""

    status: Literal["ok", "degraded"] = "ok"
    corrupt_ratio: Share = 0.0
    dropped_clips: int = Field(0, ge=0)
    gap_s: float = Field(0.0, ge=0)
    latency_s: float | None = Field(None, ge=0)


class Timestamps(_Part):
    """The times of the event's first frame, by each clock."""

    source: Literal["rtp", "arrival"]
    camera_clock: float | None = None
    arrival: float
    offset_s: float | None = None


class Feedback(_Part):
    """What a person said about the event."""

    verdict: Literal["true_positive", "false_positive", "unsure"]
    note: str = Field("", max_length=2000)
    suppress_similar: bool = False


class Event(_Part):
    """An event as it stands: ``after`` of a message, and the answer of ``GET /api/events/{id}``."""

    id: str = Field(pattern=f"^{_ID.pattern}$", description="<start>-<6 characters>")
    camera: Name
    label: str = "anomaly"
    sub_label: tuple[str, Share] | None = None
    severity: Severity
    start_time: float = Field(ge=0, description="dated back to the crossing")
    end_time: float | None = None
    end_reason: EndReason | None = None
    frame_time: float = Field(description="of the frame that this message is about")
    score: Share
    top_score: Share
    top_score_time: float
    raw_score: float | None = None
    threshold: Threshold | None = None
    score_curve: Curve | None = None
    zones: list[str] = []
    entered_zones: list[str] = []
    region: tuple[Share, Share, Share, Share] | None = Field(None, description="left, top, right, bottom")
    heatmap: Heatmap | None = None
    model: Model | None = None
    quality: Quality = Quality()
    false_positive: bool = False
    feedback: Feedback | None = None
    retain_indefinitely: bool = False
    has_snapshot: bool = False
    has_clip: bool = False
    snapshot_url: str | None = None
    clip_url: str | None = None
    timestamps: Timestamps | None = None

    @model_validator(mode="after")
    def _ended_or_not(self) -> Event:
        if (self.end_time is None) != (self.end_reason is None):
            raise ValueError(
                f"end_time and end_reason come together, got {self.end_time} and {self.end_reason}: set both or neither"
            )
        if self.end_time is not None and self.end_time < self.start_time:
            raise ValueError(f"end_time must not lie before start_time {self.start_time}, got {self.end_time}")
        return self


class Message(_Part):
    """One transition of one event. ``seq`` rises by one per event id: gaps and repeats can be seen."""

    schema_: Literal["vad.event/1"] = Field(SCHEMA, alias="schema")
    type: Kind
    seq: int = Field(ge=1)
    node: str
    sent_at: float
    before: Event | None = Field(description="the event as last told; null for type new")
    after: Event

    def json_text(self) -> str:
        """The payload, on one line."""
        return self.model_dump_json(by_alias=True)


def event_id(start: float) -> str:
    """A new id for an event that starts at ``start``, such as ``1781258391.284113-k3x9ab``."""
    return f"{start:.6f}-{''.join(secrets.choice(_ALPHABET) for _ in range(6))}"


def is_event_id(text: str) -> bool:
    """Whether ``text`` has the shape of an id, and so is safe in a path.

    >>> is_event_id("1781258391.284113-k3x9ab"), is_event_id("../1781258391.284113-k3x9ab")
    (True, False)
    """
    return _ID.fullmatch(text) is not None


def compose(kind: Kind, after: Event, *, before: Event | None, seq: int, node: str, sent_at: float) -> Message:
    """The next message of an event, where ``before`` and ``seq`` are those of its last one (None and 0 for none).

    Severity and top score never fall within an event: the higher of both is told. Raises ValueError for what the
    life cycle forbids: a second ``new``, anything before ``new`` or after ``end``, another camera or start.
    """
    _check(kind, after, before)
    if before is not None:
        after = _keep_highest(after, before)
    return Message(type=kind, seq=seq + 1, node=node, sent_at=sent_at, before=before, after=after)


def schema() -> dict[str, Any]:
    """JSON Schema of a message, for ``/api/schema/event.json``."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Message.model_json_schema(
        by_alias=True, mode="serialization"
    )


def _check(kind: Kind, after: Event, before: Event | None) -> None:
    if (kind == "end") != (after.end_time is not None):
        raise ValueError(f"event {after.id}: end_time is set by end and by nothing else, got {kind!r}")
    if kind == "new":
        if before is not None:
            raise ValueError(f"event {after.id}: told as new already; send an update or an end")
        return
    if before is None:
        raise ValueError(f"event {after.id}: {kind!r} without a new before it; send new first")
    if before.end_time is not None:
        raise ValueError(f"event {after.id}: has ended at {before.end_time}, nothing may follow, got {kind!r}")
    for field in ("id", "camera", "start_time"):
        was, now = getattr(before, field), getattr(after, field)
        if was != now:
            raise ValueError(f"event {before.id}: {field} must not change from {was!r} to {now!r}")


def _keep_highest(after: Event, before: Event) -> Event:
    kept: dict[str, Any] = {}
    if before.severity == "alert":
        kept["severity"] = before.severity
    if before.top_score > after.top_score:
        kept |= {"top_score": before.top_score, "top_score_time": before.top_score_time}
    return after.model_copy(update=kept)
