"""Scores meet annotation, video by video: every frame has one score and one label, or the pair is refused."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vad.datasets import video_name
from vad.datasets.annotation import AnnotatedVideo, Benchmark, Labels, repeated
from vad.evaluation.scores import Scores, ScoresError, ScoreSet, Values
from vad.metrics.audit import Finding

Unscored = Literal["refuse", "lowest", "leave-out"]
_LISTED = 20  # names in a message; a long list says how many more there are
_NOTES = 3  # of the annotation, in the audit; the rest is in the document


@dataclass(frozen=True, slots=True)
class ScoredVideo:
    """One video of the test set with its scores and its truth, frame by frame."""

    name: str
    categories: tuple[str, ...]
    scores_N: Values  # no NaN
    labels_N: Labels
    events: tuple[tuple[int, int], ...]  # abnormal stretches, half-open frames, apart from each other
    fps: float | None  # None: nobody says

    def __post_init__(self) -> None:
        if len(self.scores_N) != len(self.labels_N):
            raise ScoresError(f"{self.name}: {len(self.scores_N)} scores, {len(self.labels_N)} labels")

    @property
    def abnormal(self) -> bool:
        """Whether it has an abnormal frame."""
        return bool(self.events)


@dataclass(frozen=True, slots=True)
class Alignment:
    """What is measured, and what had to be done to measure it."""

    videos: tuple[ScoredVideo, ...]
    missing: tuple[str, ...]  # annotated videos without scores, left out
    unscored_frames: int  # frames without a score, in videos that have scores
    findings: tuple[Finding, ...]  # for the audit


def align(
    scores: ScoreSet,
    benchmark: Benchmark,
    *,
    allow_missing: bool = False,
    unscored: Unscored = "refuse",
    fps: float | None = None,
) -> Alignment:
    """Put the scores of each video over its frames.

    Raises ScoresError that lists every video at once: unknown ones, missing ones (unless ``allow_missing``), those
    whose scores do not belong to so many frames, and those with frames that have no score (unless ``unscored`` says
    that these count as the lowest score of the set, or are left out). ``fps`` overrides all frame rates.
    """
    found = _by_name(scores, benchmark)
    missing = [video.name for video in benchmark.videos if video.name not in found]
    if missing and not allow_missing:
        raise ScoresError(
            f"{scores.name}: no scores for {len(missing)} of {len(benchmark.videos)} videos of {benchmark.name}: "
            f"{listed(missing, len(missing))}; score them, or measure the rest with --allow-missing"
        )
    chosen = [video for video in benchmark.videos if video.name in found]
    if not chosen:
        raise ScoresError(f"{scores.name}: no scores for any video of {benchmark.name}")
    expanded = _expand(scores, chosen, found)
    empty = {video.name: int(np.isnan(values).sum()) for video, values in zip(chosen, expanded, strict=True)}
    without = [f"{name} ({count})" for name, count in empty.items() if count]
    if without and unscored == "refuse":
        raise ScoresError(
            f"{scores.name}: frames without a score (NaN) in {len(without)} videos: {listed(without)}; score them, or "
            "say what they count as with --unscored lowest or --unscored leave-out"
        )
    lowest = min((float(np.nanmin(v)) for v in expanded if not np.isnan(v).all()), default=0.0)
    videos = [
        _scored(video, values, found[video.name], unscored=unscored, lowest=lowest, fps=fps or video.fps, of=benchmark)
        for video, values in zip(chosen, expanded, strict=True)
    ]
    kept = tuple(video for video in videos if len(video.labels_N))
    if not kept:
        raise ScoresError(f"{scores.name}: no frame of any video has a score")
    return Alignment(
        kept,
        tuple(missing),
        sum(empty.values()),
        tuple(_findings(scores, benchmark, chosen, found, missing, sum(empty.values()), unscored)),
    )


def listed(names: Sequence[str], most: int = _LISTED) -> str:
    """Names for a message.

    >>> listed(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _by_name(scores: ScoreSet, benchmark: Benchmark) -> dict[str, Scores]:
    names = {given: video_name(given) for given in scores.videos}
    if twice := repeated(names.values()):
        raise ScoresError(f"{scores.name}: more than one set of scores for: {', '.join(twice)}")
    known = [video.name for video in benchmark.videos]
    unknown = [given for given, name in names.items() if name not in set(known)]
    if unknown:
        close = difflib.get_close_matches(names[unknown[0]], known, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ScoresError(
            f"{scores.name}: scores for {len(unknown)} videos that {benchmark.name} ({benchmark.protocol}) does not "
            f"have: {listed(unknown)}{hint}; take them out"
        )
    return {name: scores.videos[given] for given, name in names.items()}


def _expand(scores: ScoreSet, chosen: Sequence[AnnotatedVideo], found: dict[str, Scores]) -> list[Values]:
    expanded, wrong = [], []
    for video in chosen:
        try:
            expanded.append(found[video.name].on_frames(video.num_frames))
        except ScoresError as problem:
            wrong.append(f"{video.name}: {problem}")
    if wrong:
        raise ScoresError(
            "\n".join(
                [
                    f"{scores.name}: lengths differ in {len(wrong)} of {len(chosen)} videos; nothing is cut to fit. "
                    "Score the same files as were annotated, or name the annotation's convention with --convention",
                    *wrong[:_LISTED],
                    *([f"and {len(wrong) - _LISTED} more"] if len(wrong) > _LISTED else []),
                ]
            )
        )
    return expanded


def _scored(
    video: AnnotatedVideo,
    values: Values,
    given: Scores,
    *,
    unscored: Unscored,
    lowest: float,
    fps: float | None,
    of: Benchmark,
) -> ScoredVideo:
    labels, there = video.labels(), ~np.isnan(values)
    rate = fps or given.fps or of.fps
    if there.all():
        return ScoredVideo(video.name, video.categories, values, labels, video.events(), rate)
    if unscored == "lowest":
        filled = np.where(there, values, lowest)
        return ScoredVideo(video.name, video.categories, filled, labels, video.events(), rate)
    kept = labels[there]
    edges = np.flatnonzero(np.diff(np.r_[False, kept, False].astype(np.int8)))
    events = tuple((int(start), int(end)) for start, end in edges.reshape(-1, 2))
    return ScoredVideo(video.name, video.categories, values[there], kept, events, rate)


def _findings(
    scores: ScoreSet,
    benchmark: Benchmark,
    chosen: Sequence[AnnotatedVideo],
    found: dict[str, Scores],
    missing: Sequence[str],
    unscored_frames: int,
    unscored: Unscored,
) -> list[Finding]:
    tails = [found[video.name].tail(video.num_frames) for video in chosen]
    words = {
        "frames": "one score per frame, each video as long as its annotation",
        "snippets": f"scores of {next(iter(found.values())).hop} frames held over their frames; "
        f"{sum(tails):,} frames at the ends of {sum(tail > 0 for tail in tails)} videos take the last score",
        "segments": "each video in equal segments: lengths always agree, so that a wrong length cannot be seen",
    }[scores.form]
    lengths = Finding("aligned lengths", "clean" if scores.form != "segments" else "unknown", words)
    findings = [lengths, Finding("protocol", "clean", f"{benchmark.name}: {benchmark.protocol}")]
    if missing:
        findings.append(
            Finding(
                "missing videos",
                "flagged",
                f"{len(missing)} of {len(benchmark.videos)} videos have no scores and are left out: not comparable "
                f"with results on all of them: {listed(missing)}",
            )
        )
    if unscored_frames:
        what = "count as the lowest score" if unscored == "lowest" else "are left out, events shortened accordingly"
        findings.append(Finding("unscored frames", "flagged", f"{unscored_frames:,} frames have no score and {what}"))
    if benchmark.notes:
        more = len(benchmark.notes) - _NOTES
        notes = [*benchmark.notes[:_NOTES], *([f"and {more} more, in metrics.json"] if more > 0 else [])]
        findings.append(Finding("annotation", "flagged", "; ".join(notes)))
    return findings
