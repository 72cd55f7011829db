"""Event JSON: shape, rules of the life cycle, schema."""

from __future__ import annotations

import json

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from streaming.messages import Event, Message, compose, event_id, is_event_id, schema

START = 1781258391.284
# the event of the handbook, with every field
FULL = {
    "id": "1781258391.284113-k3x9ab",
    "camera": "dock_north",
    "label": "anomaly",
    "sub_label": ["fighting", 0.71],
    "severity": "alert",
    "start_time": START,
    "end_time": None,
    "end_reason": None,
    "frame_time": 1781258404.084,
    "score": 0.83,
    "top_score": 0.91,
    "top_score_time": 1781258399.284,
    "raw_score": 4.27,
    "threshold": {"on": 0.62, "off": 0.48, "calibration_id": "2026-06-01"},
    "score_curve": {"start": 1781258388.084, "step": 1.6, "values": [0.31, 0.44, 0.66, 0.79]},
    "zones": ["gate"],
    "entered_zones": ["gate"],
    "region": [0.41, 0.22, 0.78, 0.90],
    "heatmap": {"rows": 2, "cols": 2, "values": [0, 9, 4, 0]},
    "model": {"extractor": "i3d", "head": "mil", "digest": "sha256:9c1f", "version": "0.4.2"},
    "quality": {"status": "ok", "corrupt_ratio": 0.0, "dropped_clips": 0, "gap_s": 0.0, "latency_s": 0.92},
    "false_positive": False,
    "feedback": None,
    "retain_indefinitely": False,
    "has_snapshot": True,
    "has_clip": True,
    "snapshot_url": "/api/events/1781258391.284113-k3x9ab/snapshot.jpg",
    "clip_url": "/api/events/1781258391.284113-k3x9ab/clip.mp4",
    "timestamps": {"source": "rtp", "camera_clock": 1781258391.251, "arrival": START, "offset_s": 0.033},
}


def event(**changes):
    return Event.model_validate(FULL | changes)


def tell(kind, after, before=None, seq=0):
    return compose(kind, after, before=before, seq=seq, node="site1-a", sent_at=START + 14)


def test_the_event_of_the_handbook_comes_back_as_it_went():
    message = json.loads(tell("new", event()).json_text())
    assert message.pop("after") == FULL
    assert message == {
        "schema": "vad.event/1",
        "type": "new",
        "seq": 1,
        "node": "site1-a",
        "sent_at": START + 14,
        "before": None,
    }


def test_a_message_can_be_read_back():
    message = tell("update", event(score=0.2), before=event(), seq=4)
    assert message.seq == 5
    assert Message.model_validate_json(message.json_text()) == message


def test_messages_fit_the_schema_and_so_will_those_with_more_fields():
    validator = jsonschema.Draft202012Validator(schema())
    validator.check_schema(schema())
    message = json.loads(tell("update", event(), before=event(), seq=1).json_text())
    validator.validate(message)
    message["after"]["weather"] = "rain"
    validator.validate(message)
    message["after"]["severity"] = "panic"
    with pytest.raises(jsonschema.ValidationError, match="panic"):
        validator.validate(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"camera": '"><img src=x>'}, "camera"),
        ({"id": "../../etc/passwd"}, "id"),
        ({"score": 1.5}, "score"),
        ({"raw_score": float("nan")}, "raw_score"),
        ({"severity": "panic"}, "severity"),
        ({"end_time": START}, "come together"),
        ({"end_reason": "normal"}, "come together"),
        ({"end_time": START - 1, "end_reason": "normal"}, "before start_time"),
        ({"end_time": START, "end_reason": "boredom"}, "end_reason"),
        ({"heatmap": {"rows": 2, "cols": 2, "values": [1]}}, "2 x 2"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_is_no_event(changes, message):
    with pytest.raises(ValidationError, match=message):
        event(**changes)


ENDED = {"end_time": START + 20, "end_reason": "normal"}


@pytest.mark.parametrize(
    ("kind", "after", "before", "message"),
    [
        ("new", {}, {}, "told as new already"),
        ("update", {}, None, "without a new"),
        ("end", ENDED, None, "without a new"),
        ("update", {}, ENDED, "has ended"),
        ("end", ENDED, ENDED, "has ended"),
        ("end", {}, {}, "end_time is set by end"),
        ("update", ENDED, {}, "end_time is set by end"),
        ("update", {"camera": "other"}, {}, "camera must not change"),
        ("update", {"start_time": START + 1}, {}, "start_time must not change"),
    ],
)
def test_what_may_not_follow(kind, after, before, message):
    with pytest.raises(ValueError, match=message):
        tell(kind, event(**after), before=None if before is None else event(**before), seq=3)


@given(st.lists(st.tuples(st.sampled_from(["detection", "alert"]), st.floats(0, 1)), min_size=1))
def test_severity_and_top_score_never_fall(states):
    before, seen, seq = None, [], 0
    for severity, top in states:
        told = tell("update" if before else "new", event(severity=severity, top_score=top), before=before, seq=seq)
        before, seq = told.after, told.seq
        seen.append((before.severity == "alert", before.top_score))
    assert [alert for alert, _ in seen] == sorted(alert for alert, _ in seen)
    assert [top for _, top in seen] == sorted(top for _, top in seen)
    assert seen[-1] == (any(s == "alert" for s, _ in states), max(t for _, t in states))


def test_ids_carry_the_start_and_do_not_repeat():
    ids = {event_id(START) for _ in range(100)}
    assert len(ids) == 100
    assert all(is_event_id(text) and text.startswith("1781258391.284000-") for text in ids)


@pytest.mark.parametrize("text", ["", "x", "1781258391.284113-k3x9a", "1781258391.284113-K3X9AB", "a/1.284113-k3x9ab"])
def test_what_is_no_id(text):
    assert not is_event_id(text)
