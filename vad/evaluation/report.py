"""``report.html``: an evaluation as one page that needs nothing beside it and asks nobody for anything.

Names of videos and score sets come from users: the template escapes everything, and pictures are ``data:`` addresses.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vad import __version__
from vad.evaluation import charts, drawing, video_charts
from vad.evaluation.alignment import ScoredVideo
from vad.evaluation.comparison import Difference
from vad.evaluation.measure import Evaluation, VideoResult
from vad.evaluation.words import GROUPS, Words, words_for
from vad.files import replacing
from vad.metrics.audit import Provenance
from vad.metrics.bootstrap import Interval
from vad.plot import clock

_MOST_ROWS = 1000  # of the table of videos
_EXAMPLES = 3  # videos of each kind with a picture
_NONE = "—"
# what no page can show, and marks that turn the order of text around
_UNSHOWABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_VERDICTS = ("flagged", "unknown", "clean")


_LADDER = {
    "auc": "Frame AUC",
    "auc_abnormal": "AUC, abnormal only",
    "auc_macro": "Mean per video",
    "auc_within": "Within-video AUC",
    "ap": "Average precision",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One metric in the table."""

    name: str
    words: Words
    meaning: str
    raw: float
    value: str
    interval: str
    controls: tuple[str, ...]  # one per control; empty where the metric has none
    mark: str  # how it stands against the best control, in words
    beaten: bool  # by a control, or level with it


def write(path: Path, evaluation: Evaluation, videos: Sequence[ScoredVideo], *, neighbours: Sequence[str] = ()) -> None:
    """Write the report, whole or not at all. ``neighbours`` are files beside it to link to. Raises OSError."""
    _put(path, render(evaluation, videos, neighbours=neighbours))


def render(evaluation: Evaluation, videos: Sequence[ScoredVideo], *, neighbours: Sequence[str] = ()) -> str:
    """The report as HTML. ``videos`` are those that were measured, in the same order."""
    bounded = "metrics with a threshold" not in evaluation.omitted
    scale = video_charts.Scale.of(videos, evaluation.settings.threshold if bounded else None)
    areas = {video.name: video.auc for video in evaluation.videos}
    ordered = sorted(evaluation.videos, key=_badness)
    both = 0 < evaluation.frame.abnormal_frames < evaluation.frame.frames
    operating, rows = evaluation.operating, list(_rows(evaluation))
    return _page(
        "report.html",
        evaluation=evaluation,
        total=len(evaluation.videos) + len(evaluation.missing),
        verdict=verdict(evaluation),
        findings=sorted(evaluation.findings, key=lambda one: _VERDICTS.index(one.verdict)),
        groups=[(group, [row for row in rows if row.words.group == group]) for group in GROUPS],
        ladder=charts.against_controls(evaluation, _LADDER) if both else None,
        curves=charts.ranking_curves(evaluation, videos) if both else (),
        operating=charts.low_false_alarms(operating) if operating and len(operating.rates_P) else None,
        f1=charts.f1_over_thresholds(evaluation) if evaluation.f1 and both else None,
        calibration=charts.reliability(videos) if bounded and both else None,
        delays=charts.delays(evaluation) if evaluation.delays_s else None,
        tally={word: sum(one.verdict == word for one in evaluation.findings) for word in _VERDICTS},
        categories=charts.categories(evaluation.categories) if evaluation.categories else None,
        examples=_examples(evaluation, videos, ordered, scale),
        timeline=video_charts.timeline(videos, areas, scale),
        table=ordered[:_MOST_ROWS],
        bounded=bounded,
        reason=_undefined(evaluation),
        declared=_declared(evaluation.provenance),
        links=[("./" + quote(name), name) for name in neighbours],
    )


def write_comparison(path: Path, differences: Sequence[Difference], evaluations: Sequence[Evaluation]) -> None:
    """Write what sets systems apart, whole or not at all. Raises OSError."""
    _put(path, render_comparison(differences, evaluations))


def render_comparison(differences: Sequence[Difference], evaluations: Sequence[Evaluation]) -> str:
    """Paired differences by metric, and each system beside the controls, as HTML."""
    first = evaluations[0]
    letters = {one.scores: chr(ord("A") + i) if i < 26 else f"S{i + 1}" for i, one in enumerate(evaluations)}
    described = {one.metric: words_for(one.metric)[1] for one in differences}
    own = {name: [one for one in differences if one.metric == name] for name in described}
    return _page(
        "comparison.html",
        first=first,
        total=len(first.videos) + len(first.missing),
        letters=letters,
        flags={one.scores: [each for each in one.findings if each.verdict == "flagged"] for one in evaluations},
        metrics=[(name, words, _meaning(words, first), own[name]) for name, words in described.items()],
        pictures={name: charts.differences(found, letters) for name, found in own.items()},
        rows={one.scores: {row.name: row for row in _rows(one)} for one in evaluations},
        best={name: charts.best_control(first, name) for name in described},
        told={(one.metric, one.first, one.second): told_apart(one, first.settings.level) for one in differences},
        verdicts=[_apart(one, first.settings.level) for one in own.get("auc", [])],
    )


def told_apart(one: Difference, level: float) -> bool:
    """Whether a difference is sure: its interval leaves out 0, and p, which is stricter with few resamples, agrees."""
    return (one.difference.low > 0 or one.difference.high < 0) and one.p <= 1 - level


def _apart(one: Difference, level: float) -> str:
    number = one.difference
    if math.isnan(number.low):
        return f"{one.first} and {one.second}: the difference in frame AUC is not defined."
    if not told_apart(one, level):
        words = f"{one.first} and {one.second} cannot be told apart in frame AUC"
    else:
        above, below = (one.first, one.second) if number.value > 0 else (one.second, one.first)
        words = f"{above} is above {below} in frame AUC"
    return (
        f"{words}: {one.first} − {one.second} is {_signed(number.value)} ({100 * level:g} % of resamples of the same "
        f"videos: {_signed(number.low)} to {_signed(number.high)})."
    )


def verdict(evaluation: Evaluation) -> list[str]:
    """What the numbers say, in sentences: the frame AUC beside its best control, then what it knows inside a video."""
    number, level = evaluation.metrics["auc"], f"{100 * evaluation.settings.level:g} %"
    if math.isnan(number.value):
        return [f"Frame AUC is not defined: {_undefined(evaluation)}."]
    name, best = charts.best_control(evaluation, "auc")
    span = "" if math.isnan(number.low) else f" ({level} of resamples: {number.low:.3f} to {number.high:.3f})"
    known = (
        float(evaluation.controls["perfect video label"].auc) if "perfect video label" in evaluation.controls else best
    )
    if number.value <= known:
        end = "this score set says less than that."
    elif number.value <= best:
        end = f"this score set says more than that, but not more than “{name}”, which reaches {best:.3f}."
    elif number.low <= best:
        end = f"this score set says more, but not surely: its interval reaches down to what “{name}” has ({best:.3f})."
    else:
        end = "this score set says more than that, and more than every other control."
    sentences = [
        f"Frame AUC {number.value:.3f}{span}.",
        f"A perfect video label, which has no idea of when, reaches {known:.3f} on the same videos: {end}",
    ]
    within, (name, best) = evaluation.metrics["auc_within"].value, charts.best_control(evaluation, "auc_within")
    if not math.isnan(within):
        sentences.append(
            f"Inside one video, an abnormal frame scores above a normal one {100 * within:.0f} times in 100; chance is "
            f"50, and “{name}” gets {100 * best:.0f}."
        )
    return sentences


def _rows(evaluation: Evaluation) -> Iterator[Row]:
    named = sorted(((name, *words_for(name)) for name in evaluation.metrics), key=lambda each: each[1])
    for name, _, words in named:
        number = evaluation.metrics[name]
        controls: tuple[str, ...] = ()
        mark, beaten = "", False
        if hasattr(evaluation.frame, name) and name != "tie_rate":
            controls = tuple(show(float(getattr(one, name)), words.form) for one in evaluation.controls.values())
            mark, beaten = _standing(number, *charts.best_control(evaluation, name))
        span = "" if math.isnan(number.low) else f"{show(number.low, words.form)} to {show(number.high, words.form)}"
        value = show(number.value, words.form)
        yield Row(name, words, _meaning(words, evaluation), number.value, value, span, controls, mark, beaten)


def _standing(number: Interval, best: str, reached: float) -> tuple[str, bool]:
    if math.isnan(number.value) or math.isnan(reached):
        return "", False
    if number.value <= reached:
        return f"not above “{best}”", True
    if number.low <= reached:
        return f"above, but the interval reaches down to “{best}”", False
    return "above every control", False


def _meaning(words: Words, evaluation: Evaluation) -> str:
    settings, frame = evaluation.settings, evaluation.frame
    share = show(frame.abnormal_frames / max(frame.frames, 1), "score")
    return words.meaning.format(share=share, threshold=f"{settings.threshold:g}", delay=f"{settings.max_delay_s:g} s")


def show(value: float, form: str = "score") -> str:
    """A number for people; an undefined one is a dash.

    >>> show(0.69021), show(0.01148, "share"), show(6.7408, "per hour"), show(24.668, "seconds"), show(float("nan"))
    ('0.690', '1.15 %', '6.74', '24.7 s', '—')
    """
    if math.isnan(value):
        return _NONE
    if form == "share":
        percent = 100 * value
        if 0 < percent < 1:
            return f"{percent:#.2g} %"
        return f"{percent:.{1 if percent >= 10 else 2}f} %" if percent else "0 %"
    return {"score": f"{value:.3f}", "per hour": f"{value:#.3g}".rstrip("."), "seconds": f"{value:.1f} s"}[form]


def _signed(value: float) -> str:
    return _NONE if math.isnan(value) else f"{value:+.3f}".replace("-", "−")


def _undefined(evaluation: Evaluation) -> str:
    frame = evaluation.frame
    if not frame.abnormal_frames:
        return "no frame of these videos is abnormal"
    if frame.abnormal_frames == frame.frames:
        return "every frame of these videos is abnormal"
    if frame.abnormal_videos == frame.videos:
        return "no video is normal throughout"
    return "these videos do not have what it needs"


def _badness(video: VideoResult) -> tuple[float, ...]:
    """Worst first: abnormal videos by their AUC, those without one after them, then normal ones by false alarms."""
    if video.abnormal_frames:
        return (0, video.auc) if not math.isnan(video.auc) else (1, -video.highest)
    return 2, -(0.0 if math.isnan(video.false_frames) else video.false_frames), -video.highest


def _examples(
    evaluation: Evaluation, videos: Sequence[ScoredVideo], ordered: Sequence[VideoResult], scale: video_charts.Scale
) -> list[tuple[str, list[tuple[VideoResult, drawing.Picture]]]]:
    """The worst and best abnormal videos and the loudest normal ones, none of them twice."""
    measured = [video for video in ordered if not math.isnan(video.auc)]
    worst = measured[:_EXAMPLES]
    best = measured[len(worst) :][-_EXAMPLES:][::-1]
    loud = [video for video in ordered if not video.abnormal_frames][:_EXAMPLES]
    by_name = {video.name: video for video in videos}
    named = [
        ("Worst abnormal videos" if best else "Abnormal videos", worst),
        ("Best abnormal videos", best),
        ("Loudest normal videos", loud),
    ]
    return [
        (title, [(one, video_charts.curve(by_name[one.name], scale)) for one in chosen])
        for title, chosen in named
        if chosen
    ]


def _declared(provenance: Provenance) -> list[tuple[str, str]]:
    """Everything that was, or was not, said about how the scores were made."""
    said = []
    for name, value in provenance.model_dump().items():
        text = ", ".join(value) or "nothing" if isinstance(value, tuple) else str(value)
        text = {True: "yes", False: "no"}.get(value, text) if isinstance(value, bool) else text
        said.append((name.removesuffix("_s").replace("_", " "), "not said" if value is None else text))
    return said


def _duration(video: VideoResult) -> str:
    if video.fps:
        seconds = video.frames / video.fps
        return clock(round(seconds) if seconds >= 10 else seconds)
    return f"{video.frames:,} frames"


def _page(template: str, **context: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("vad.evaluation", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: _UNSHOWABLE.sub("�", value) if type(value) is str else value,  # Markup stays Markup
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"show": show, "signed": _signed, "kind": drawing.kind, "duration": _duration}
    return environment.get_template(template).render(version=__version__, **context)


def _put(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
