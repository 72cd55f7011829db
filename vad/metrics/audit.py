"""The leak audit: what a set of scores had to know to come out as it did.

Part is declared by who made the scores (``Provenance``); part can be seen in the numbers themselves (``inspect``).
What is neither declared nor visible is reported as unknown, never as clean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from vad.config import Config
from vad.metrics.controls import middle
from vad.metrics.frame import Labels, Scores, levels, ranks

FEW_LEVELS = 100  # fewer distinct scores than this: rounding, or a model that says one of a few numbers
FRAMES_PER_LEVEL = 50  # but a short set has few scores without either
FEW_VIDEOS = 20
MANY_TIES = 0.01  # share of (abnormal, normal) pairs of frames with equal scores
NORMALISED_SHARE = 0.9  # of the videos that reach both ends of the scale exactly
POSITION_CORRELATION = 0.5  # mean correlation of normal videos with a bell over their middle

Verdict = Literal["clean", "flagged", "unknown"]


class Provenance(Config):
    """How a set of scores was made; ``provenance.json`` beside the scores. Unset is unknown."""

    system: str | None = Field(None, description="what made the scores, for people")
    checkpoint: Literal["test", "held-out", "fixed"] | None = Field(
        None, description="how the weights were chosen: best on this test set, on held-out footage, or not by results"
    )
    settings: Literal["test", "held-out", "fixed"] | None = Field(
        None, description="how smoothing, thresholds and other settings were chosen"
    )
    lookahead_s: float | Literal["whole video"] | None = Field(
        None, description="seconds of later video that a frame's score may depend on; 0 is causal"
    )
    per_video_normalisation: bool | None = Field(None, description="scores scaled by each test video's own range")
    state_across_videos: bool | None = Field(
        None, description="memory or statistics carried from one video to the next"
    )
    position_prior: bool | None = Field(None, description="scores weighted by the place in the video")
    trained_on: tuple[str, ...] | None = Field(None, description="data sets that any part was trained or tuned on")
    hop_frames: int | None = Field(None, ge=1, description="source frames per score, for files with one per snippet")
    notes: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the audit."""

    check: str
    verdict: Verdict
    message: str


def declared(provenance: Provenance) -> list[Finding]:
    """What the maker of the scores says about them."""
    return [
        _choice("checkpoint", provenance.checkpoint, "the checkpoint was", "the weights"),
        _choice("settings", provenance.settings, "smoothing, thresholds and other settings were", "the settings"),
        _lookahead(provenance.lookahead_s),
        _yes_no(
            "state across videos",
            provenance.state_across_videos,
            bad="state is carried from video to video: the result depends on their order",
            good="every video starts afresh",
        ),
        _training(provenance.trained_on),
    ]


def seen(provenance: Provenance, labels: Sequence[Labels], scores: Sequence[Scores]) -> list[Finding]:
    """What the numbers show, whatever is declared: normalisation, position prior, levels and ties."""
    return [
        _normalisation(provenance.per_video_normalisation, scores),
        _position(provenance.position_prior, labels, scores),
        _levels(labels, scores),
        _size(labels),
    ]


def _choice(check: str, how: str | None, what: str, short: str) -> Finding:
    if how == "test":
        return Finding(
            check, "flagged", f"{what} were chosen by their result on this test set: every number is too high"
        )
    if how is None:
        return Finding(check, "unknown", f"how {short} were chosen is not said")
    words = "on held-out footage" if how == "held-out" else "without looking at results"
    return Finding(check, "clean", f"{short} were chosen {words}")


def _lookahead(seconds: float | str | None) -> Finding:
    if seconds is None:
        return Finding("look-ahead", "unknown", "how far a score looks into the future is not said")
    if seconds == 0:
        return Finding("look-ahead", "clean", "causal: no score depends on later video")
    ahead = "the whole video" if isinstance(seconds, str) else f"{seconds:g} s"
    return Finding("look-ahead", "flagged", f"a score depends on later video: look-ahead of {ahead}")


def _yes_no(check: str, value: bool | None, *, bad: str, good: str) -> Finding:
    if value is None:
        return Finding(check, "unknown", "not said")
    return Finding(check, "flagged", bad) if value else Finding(check, "clean", good)


def _training(names: tuple[str, ...] | None) -> Finding:
    if names is None:
        return Finding("training data", "unknown", "what the system was trained and tuned on is not said")
    return Finding("training data", "clean", f"trained and tuned on: {', '.join(names) or 'nothing'}")


def _normalisation(stated: bool | None, scores: Sequence[Scores]) -> Finding:
    check = "per-video normalisation"
    if stated:
        return Finding(
            check, "flagged", "scores are scaled by each test video's own range, which needs the whole video"
        )
    moving = [one for one in scores if one.size and one.min() < one.max()]
    low, high = min((one.min() for one in moving), default=0.0), max((one.max() for one in moving), default=0.0)
    full = sum(bool(one.min() == low and one.max() == high) for one in moving)
    if len(moving) >= 3 and full >= NORMALISED_SHARE * len(moving):
        return Finding(
            check,
            "flagged",
            f"{full} of {len(moving)} videos reach exactly {low:g} and {high:g}: each seems scaled by its own range, "
            "so that every normal video has a frame with the highest score",
        )
    if stated is None:
        return Finding(check, "unknown", "not said; the numbers show no sign of it")
    return Finding(check, "clean", "none declared, and the numbers show no sign of it")


def _position(stated: bool | None, labels: Sequence[Labels], scores: Sequence[Scores]) -> Finding:
    check = "position prior"
    if stated:
        return Finding(check, "flagged", "scores are weighted by the place in the video: impossible on a live stream")
    follows = [
        float(np.corrcoef(one, middle(len(one)))[0, 1])
        for one, truth in zip(scores, labels, strict=True)
        if not truth.any() and len(one) > 2 and one.min() < one.max()
    ]
    if len(follows) >= 3 and np.mean(follows) > POSITION_CORRELATION:
        return Finding(
            check,
            "flagged",
            f"in {len(follows)} normal videos the score follows a bell over the middle of the video "
            f"(mean correlation {np.mean(follows):.2f}): nothing happens there that could explain it",
        )
    if stated is None:
        return Finding(check, "unknown", "not said; the numbers show no sign of it")
    return Finding(check, "clean", "none declared, and the numbers show no sign of it")


def _size(labels: Sequence[Labels]) -> Finding:
    words = f"{len(labels)} videos, {sum(bool(one.any()) for one in labels)} of them abnormal"
    if len(labels) < FEW_VIDEOS:
        return Finding("size", "flagged", f"{words}: intervals over so few are rough, and too narrow")
    return Finding("size", "clean", words)


def _levels(labels: Sequence[Labels], scores: Sequence[Scores]) -> Finding:
    together = np.concatenate(scores)
    found, ties = levels(together), ranks(np.concatenate(labels), together).tie_rate
    constant = sum(bool(one.min() == one.max()) for one in scores if one.size)
    words = f"{found:,} distinct scores; {0 if np.isnan(ties) else ties:.2%} of (abnormal, normal) pairs tie"
    if constant:
        words += f"; {constant} of {len(scores)} videos have one score throughout"
    few = found < min(FEW_LEVELS, len(together) / FRAMES_PER_LEVEL)
    if few or ties > MANY_TIES or constant > len(scores) / 2:
        return Finding("levels and ties", "flagged", words + ": the trapezoid AP is inflated, and no threshold is fine")
    return Finding("levels and ties", "clean", words)
