"""``vad eval``: scores and annotation in, ``metrics.json`` and ``report.html`` out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import typer

from vad import datasets
from vad.evaluation import comparison, document, report, scores
from vad.evaluation.alignment import Alignment, ScoredVideo, Unscored, align
from vad.evaluation.measure import Evaluation, Settings, evaluate
from vad.files import sha256, writable_folder


@dataclass(frozen=True, slots=True)
class Truth:
    """Which annotation, read how."""

    dataset: str
    annotations: Path
    split: str | None
    frames: Path | None
    conventions: Sequence[str]
    fps: float | None


@dataclass(frozen=True, slots=True)
class Rules:
    """What to do about scores that are not complete."""

    hop: int | None
    allow_missing: bool
    unscored: Unscored


def run(
    paths: list[Path],
    *,
    truth: Truth,
    rules: Rules,
    out: Path,
    compare: bool,
    settings: Settings,
    threshold_asked: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Measure each score set; with ``compare`` also their differences."""
    if compare and len(paths) < 2:
        raise ValueError("--compare needs at least two score sets")
    if not compare and len(paths) > 1:
        raise ValueError(f"got {len(paths)} score sets; give one, or compare them with --compare")
    measured = [_measure(path, truth, rules, settings, threshold_asked) for path in paths]
    if twice := datasets.annotation.repeated(evaluation.scores for evaluation, _ in measured):
        names = [f"{path.parent.name}/{path.name}" for path in paths]
        if len(set(names)) < len(names):
            raise ValueError(f"score sets of the same name cannot be told apart: {', '.join(twice)}; rename one")
        measured = [(replace(one, scores=name), videos) for (one, videos), name in zip(measured, names, strict=True)]
    inputs = {"annotations": _digest(truth.annotations), **{str(path.name): _digest(path) for path in paths}}
    writable_folder(out)
    if compare:
        systems = {evaluation.scores: videos for evaluation, videos in measured}
        differences = comparison.compare(systems, settings)
        made = document.of_comparison(differences, [evaluation for evaluation, _ in measured], inputs)
        report.write_comparison(out / "report.html", differences, [evaluation for evaluation, _ in measured])
        _finish(out, made, as_json=as_json, quiet=quiet, say=lambda: _print_differences(differences))
        return 0
    evaluation, videos = measured[0]
    made = document.of_evaluation(evaluation, inputs)
    report.write(out / "report.html", evaluation, videos, neighbours=["metrics.json"])
    _finish(out, made, as_json=as_json, quiet=quiet, say=lambda: _print(evaluation))
    return 0


def _measure(
    path: Path, truth: Truth, rules: Rules, settings: Settings, threshold_asked: bool
) -> tuple[Evaluation, Sequence[ScoredVideo]]:
    given = scores.read(path, hop=rules.hop)
    benchmark = datasets.read(
        truth.dataset,
        truth.annotations,
        split=truth.split,
        frames=datasets.read_frame_counts(truth.frames) if truth.frames else None,
        conventions=truth.conventions,
        rows={datasets.video_name(name): len(one.values) for name, one in given.videos.items()}
        if given.form == "snippets"
        else None,
        hop=next(iter(given.videos.values())).hop if given.form == "snippets" else None,
    )
    alignment: Alignment = align(
        given, benchmark, allow_missing=rules.allow_missing, unscored=rules.unscored, fps=truth.fps
    )
    evaluation = evaluate(given, benchmark, alignment, settings)
    if threshold_asked and (reason := evaluation.omitted.get("metrics with a threshold")):
        raise ValueError(f"{path}: --threshold cannot be used: {reason}")
    return evaluation, alignment.videos


def _digest(path: Path) -> str:
    """sha256 of a file; of a folder, of its files' names and digests."""
    import hashlib

    if path.is_file():
        return sha256(path)
    whole = hashlib.sha256()
    for each in sorted(path.rglob("*")):
        if each.suffix in (".csv", ".npy", ".npz", ".json", ".m", ".mat", ".bmp", ".txt"):
            whole.update(f"{each.relative_to(path).as_posix()} {sha256(each)}\n".encode())
    return whole.hexdigest()


def _finish(out: Path, made: Mapping[str, Any], *, as_json: bool, quiet: bool, say: Callable[[], None]) -> None:
    document.write(out / "metrics.json", made)
    if as_json:
        typer.echo(json.dumps(made, allow_nan=False))
    elif not quiet:
        say()
        typer.echo(f"written: {out / 'metrics.json'}, {out / 'report.html'}")


_HEADLINE = ("auc", "auc_abnormal", "auc_within", "auc_macro", "ap", "ap_trapezoid")


def _print(evaluation: Evaluation) -> None:
    frame, missing = evaluation.frame, len(evaluation.missing)
    videos = f"{frame.videos} videos" if not missing else f"ONLY {frame.videos} OF {frame.videos + missing} VIDEOS"
    typer.echo(
        f"{evaluation.scores} on {evaluation.benchmark} ({evaluation.protocol}): {videos}, "
        f"{frame.frames:,} frames, {frame.abnormal_frames:,} abnormal"
    )
    names = list(evaluation.controls)
    typer.echo(f"{'':26}{'value':>8}  {'95 % of resamples' if evaluation.settings.level == 0.95 else 'interval':<18}")
    for name, number in evaluation.metrics.items():
        span = "" if math.isnan(number.low) else f"{number.low:.4f} to {number.high:.4f}"
        beside = "" if name not in _HEADLINE else _beside(evaluation, name)
        typer.echo(f"{name:26}{_number(number.value):>8}  {span:18}{beside}".rstrip())
    typer.echo(f"controls on the same videos, in this order: {', '.join(names)}")
    for group, reason in evaluation.omitted.items():
        typer.echo(f"left out: {group}: {reason}")
    for finding in sorted(evaluation.findings, key=lambda one: ("flagged", "unknown", "clean").index(one.verdict)):
        typer.echo(f"audit: {finding.verdict:8}{finding.check}: {finding.message}")


def _beside(evaluation: Evaluation, name: str) -> str:
    return "  controls: " + " / ".join(_number(getattr(control, name)) for control in evaluation.controls.values())


def _print_differences(differences: Sequence[comparison.Difference]) -> None:
    for one in differences:
        typer.echo(
            f"{one.metric:14} {one.first} {_number(one.first_value)} - {one.second} {_number(one.second_value)} = "
            f"{one.difference.value:+.4f} ({one.difference.low:+.4f} to {one.difference.high:+.4f}), p {one.p:.3f}"
        )


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"
