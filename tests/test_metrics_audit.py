"""The audit: what is declared, what the numbers show whatever is declared, and what stays unknown."""

from __future__ import annotations

import numpy as np
import pytest

from vad.metrics.audit import Provenance, declared, seen
from vad.metrics.controls import middle

LABELS = [np.arange(200) // 50 == 2, np.zeros(300, bool), np.zeros(250, bool), np.zeros(200, bool)]


def noise(seed=0):
    random = np.random.default_rng(seed)
    return [random.random(len(one)) * 0.6 + 0.1 for one in LABELS]


def verdict(findings, check):
    (found,) = [one for one in findings if one.check == check]
    return found.verdict, found.message


def test_what_nobody_says_is_unknown_and_never_clean():
    assert {one.verdict for one in declared(Provenance())} == {"unknown"}
    found = seen(Provenance(), LABELS, noise())
    assert verdict(found, "per-video normalisation")[0] == "unknown"
    assert verdict(found, "position prior")[0] == "unknown"
    assert verdict(found, "levels and ties")[0] == "clean"


@pytest.mark.parametrize(
    ("said", "check", "words"),
    [
        ({"checkpoint": "test"}, "checkpoint", "on this test set"),
        ({"settings": "test"}, "settings", "on this test set"),
        ({"lookahead_s": 4.48}, "look-ahead", r"look-ahead of 4.48 s"),
        ({"lookahead_s": "whole video"}, "look-ahead", "the whole video"),
        ({"state_across_videos": True}, "state across videos", "order"),
    ],
)
def test_declared_leaks_are_flagged(said, check, words):
    found, message = verdict(declared(Provenance(**said)), check)
    assert found == "flagged"
    assert words in message


def test_a_clean_declaration_is_clean():
    stated = Provenance(
        checkpoint="held-out", settings="fixed", lookahead_s=0, state_across_videos=False, trained_on=("ucf-crime",)
    )
    assert {one.verdict for one in declared(stated)} == {"clean"}


def test_per_video_normalisation_shows_even_when_it_is_denied():
    scaled = [(one - one.min()) / (one.max() - one.min()) for one in noise()]
    denied = Provenance(per_video_normalisation=False, position_prior=False)
    assert verdict(seen(denied, LABELS, scaled), "per-video normalisation")[0] == "flagged"
    assert verdict(seen(denied, LABELS, noise()), "per-video normalisation")[0] == "clean"


def test_a_position_prior_shows_in_normal_videos():
    weighted = [one * middle(len(one), width=0.2) for one in noise()]
    found, message = verdict(seen(Provenance(), LABELS, weighted), "position prior")
    assert found == "flagged"
    assert "3 normal videos" in message
    assert verdict(seen(Provenance(position_prior=False), LABELS, noise()), "position prior")[0] == "clean"


@pytest.mark.parametrize(
    "scores", [[np.round(one, 1) for one in noise()], [np.full(len(one), 0.1 * i) for i, one in enumerate(LABELS)]]
)
def test_few_levels_and_constant_videos_are_flagged(scores):
    assert verdict(seen(Provenance(), LABELS, scores), "levels and ties")[0] == "flagged"


def test_a_short_set_is_not_blamed_for_few_scores_but_for_few_videos():
    short = [np.repeat(np.arange(20) / 20 + i / 1000, 4) for i in range(3)]
    labels = [np.arange(80) < 20, np.zeros(80, bool), np.zeros(80, bool)]
    found = seen(Provenance(), labels, short)
    assert verdict(found, "levels and ties")[0] == "clean"
    assert verdict(found, "size") == (
        "flagged",
        "3 videos, 1 of them abnormal: intervals over so few are rough, and too narrow",
    )
    many = seen(Provenance(), labels * 10, short * 10)
    assert verdict(many, "size")[0] == "clean"


def test_unknown_keys_are_refused():
    with pytest.raises(ValueError, match="look_ahead"):
        Provenance(look_ahead=3)
