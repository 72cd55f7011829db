"""What each metric is, in words for people: title, meaning and place on the page."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Words:
    """What a metric is, for people."""

    group: str
    title: str
    meaning: str = ""
    form: str = "score"  # score, share, per hour or seconds


_RANKING, _PLACE, _ALARMS = "Ranking", "Localisation in time", "Alarms"
_EVENTS, _TRUST, _OTHER = "Events", "Calibration", "Other"
GROUPS = (_RANKING, _PLACE, _ALARMS, _EVENTS, _TRUST, _OTHER)
_AUC = "an abnormal frame scores higher than a normal one"
# by name, {} standing for what the name matches; in the order of the page
_WORDS = {
    "auc": Words(_RANKING, "Frame AUC", f"How often {_AUC}, all videos together. 0.5 is chance."),
    "auc_abnormal": Words(
        _RANKING, "AUC, abnormal videos only", f"How often {_AUC}, normal videos left out. 0.5 is chance."
    ),
    "auc_macro": Words(
        _RANKING, "Mean AUC per video", "Each video with both kinds of frames by itself, then the mean. 0.5 is chance."
    ),
    "auc_macro_padded": Words(
        _RANKING,
        "Mean AUC per video, padded",
        "A perfect frame of each kind is added to every video, as some papers do: too high by construction.",
    ),
    "ap": Words(_RANKING, "Average precision", "Step-wise. Chance is the share of abnormal frames, {share}."),
    "ap_trapezoid": Words(
        _RANKING,
        "Average precision, trapezoid",
        "Points joined by straight lines: too high when there are few distinct scores. Chance is about {share}.",
    ),
    "tie_rate": Words(
        _RANKING, "Ties", "Pairs of an abnormal and a normal frame with equal scores; each counts half.", "share"
    ),
    "auc_within": Words(
        _PLACE,
        "Within-video AUC",
        f"How often {_AUC} of the same video: knowing when, with no credit for knowing which video. 0.5 is chance.",
    ),
    "map": Words(
        _PLACE,
        "mAP of segments",
        "Runs of the curve as ranked segments against events, mean over the overlaps. 0 to 1.",
    ),
    "map@(.+)": Words(_PLACE, "mAP at overlap {}"),
    "false_alarm_rate": Words(
        _ALARMS, "Frames of normal videos in alarm", "At threshold {threshold}. Lower is better.", "share"
    ),
    "false_alarm_rate_all": Words(
        _ALARMS, "Normal frames of all videos in alarm", "Those beside an event included. Lower is better.", "share"
    ),
    "false_alarms_per_hour": Words(
        _ALARMS,
        "False alarms per hour of normal video",
        "Runs of frames at or above {threshold}. Lower is better.",
        "per hour",
    ),
    "false_alarms_per_hour_all": Words(
        _ALARMS,
        "False alarms per hour of normal frames",
        "Of all videos; a run that touches an event is not false. Lower is better.",
        "per hour",
    ),
    "low_false_alarm_recall": Words(
        _ALARMS,
        "Recall at few false alarms",
        "Events found, mean over one false alarm per week to one per hour on a log axis; at any threshold. 0 to 1.",
    ),
    "missed_events": Words(
        _EVENTS, "Events missed", "Without an alarm within {delay} of their start. Lower is better.", "share"
    ),
    "mean_delay_s": Words(
        _EVENTS,
        "Mean delay",
        "From an event's start to its first alarm; a missed event counts {delay}. Lower is better.",
        "seconds",
    ),
    "early_(.+)s": Words(_EVENTS, "Events alarmed within {} s", form="share"),
    "event_f1@(.+)": Words(_EVENTS, "Event F1 at overlap {}"),
    "latency_aware_ap": Words(
        _EVENTS, "Latency-aware AP", "Average precision in which an event found late counts less."
    ),
    "calibration_error": Words(
        _TRUST, "Expected calibration error", "Mean gap between score and share of abnormal frames. Lower is better."
    ),
    "brier": Words(_TRUST, "Brier score", "Mean squared error of the score as a probability. Lower is better."),
}


def words_for(name: str) -> tuple[int, Words]:
    """Where a metric stands on the page, and its words."""
    for place, (pattern, words) in enumerate(_WORDS.items()):
        if found := re.fullmatch(pattern, name):
            return place, replace(words, title=words.title.format(*found.groups()))
    return len(_WORDS), Words(_OTHER, name)  # a new metric is shown before somebody describes it
