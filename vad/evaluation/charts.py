"""The pictures of a report: small, readable on a phone, each with words that say the same.

SVG with text left as text, so that the page's own font is used; measured with DejaVu Sans, which is wider than the
fonts that browsers bring, so that nothing is clipped. No meaning is carried by colour alone.
"""

from __future__ import annotations

import base64
import contextlib
import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from vad.evaluation.alignment import ScoredVideo
from vad.evaluation.comparison import Difference
from vad.evaluation.measure import Category, Evaluation
from vad.metrics.alarms import PER_WEEK, LowFalseAlarmRecall, alarm_runs
from vad.metrics.controls import controls
from vad.metrics.frame import Counts, precision_recall_curve, roc_curve
from vad.metrics.reliability import equal_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = 4.2  # inches; a phone's column shows it at nine tenths
_COLUMNS = 600  # what a picture of that width can show of a long curve
_INK, _TRUTH, _ALARM, _QUIET = "#1f4e79", "#c98200", "#c0392b", "#6b6b6b"
_RANKED = "#5b93c4"
_CONTROLS = (("#2f7d6b", "--", "s"), ("#7a4fa3", ":", "D"), ("#8a5a13", "-.", "^"), ("#7d7d7d", (0, (1, 3)), "x"))
_RANKS = ((0.5, "#d9e5f1"), (0.8, "#8fb4d6"), (0.95, "#3f76a9"), (0.99, "#0d2c4b"))  # share of normal frames below
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "vadwatch",  # the same picture has the same bytes
    "text.parse_math": False,  # a name with $ in it is a name
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8a8a",
    "axes.labelcolor": "#333333",
    "xtick.color": "#8a8a8a",
    "ytick.color": "#8a8a8a",
    "xtick.labelcolor": "#333333",
    "ytick.labelcolor": "#333333",
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "legend.handlelength": 1.8,
    "legend.columnspacing": 1.2,
    "hatch.linewidth": 0.8,
}
_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing for an ``img`` element; in one, its ids cannot collide with another's, and it can load nothing."""

    svg: str
    alt: str

    @property
    def uri(self) -> str:
        """The whole drawing as an address."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg.encode("utf-8", "replace")).decode()


def against_controls(evaluation: Evaluation, names: Mapping[str, str]) -> Picture:
    """Each ranking metric of ``names`` (name -> words) with its interval, and where the controls stand."""
    shown = {name: words for name, words in names.items() if not math.isnan(evaluation.metrics[name].value)}
    with _figure(0.46 * len(shown) + 1.4) as figure:
        axes = figure.subplots()
        for row, name in enumerate(shown):
            number = evaluation.metrics[name]
            if not math.isnan(number.low):
                axes.plot([number.low, number.high], [row - 0.14] * 2, color=_INK, lw=4, alpha=0.35)
            axes.plot(number.value, row - 0.14, "o", color=_INK, ms=7, label="" if row else "these scores")
        # two lanes: those that often stand at the same place are in different ones
        for ((colour, _, marker), (name, control)), lane in zip(_styled(evaluation.controls), cycle((0.1, 0.3))):
            values = [getattr(control, metric) for metric in shown]
            axes.plot(values, np.arange(len(shown)) + lane, marker, color=colour, ms=6, mfc="none", mew=1.4, label=name)
        axes.set(xlim=(0, 1), ylim=(len(shown) - 0.4, -0.6), yticks=range(len(shown)), yticklabels=list(shown.values()))
        axes.grid(axis="x", color="#e4e4e4", lw=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        figure.legend(loc="outside lower left", ncols=2, numpoints=1)
        said = "; ".join(
            f"{words} {evaluation.metrics[name].value:.3f}, best control {best_control(evaluation, name)[1]:.3f}"
            for name, words in shown.items()
        )
        return _picture(figure, f"The scores beside what looks at no pixel. {said}.")


def best_control(evaluation: Evaluation, metric: str) -> tuple[str, float]:
    """The control that is best in a ranking metric, and what it reaches; NaN where none has a value."""
    values = {name: float(getattr(control, metric)) for name, control in evaluation.controls.items()}
    defined = {name: value for name, value in values.items() if not math.isnan(value)}
    name = max(defined, key=lambda each: defined[each], default="")
    return name, defined.get(name, float("nan"))


def ranking_curves(evaluation: Evaluation, videos: Sequence[ScoredVideo]) -> tuple[Picture, Picture]:
    """ROC and precision-recall curve, those of the controls beside them."""
    labels = [video.labels_N for video in videos]
    together = np.concatenate(labels)
    made = controls(labels, seed=evaluation.settings.seed)
    lines: list[tuple[str, Any, float, str, Counts]] = [
        ("these scores", "-", 2.0, _INK, np.concatenate([video.scores_N for video in videos]))
    ]
    for (colour, dashes, _), (name, make) in _styled(made):
        lines.append((name, dashes, 1.4, colour, np.concatenate(make())))
    measured = {"these scores": evaluation.frame, **evaluation.controls}
    pictures = []
    for words, metric, x, y in (
        ("ROC curve", "auc", "false-positive rate", "true-positive rate"),
        ("Precision-recall curve", "ap", "recall", "precision"),
    ):
        said = {name: float(getattr(measured[name], metric)) for name, *_ in lines}
        with _figure(4.1) as figure:
            axes = figure.subplots()
            for name, dashes, width, colour, values in reversed(lines):
                if metric == "auc":
                    along, up = roc_curve(together, values)
                    axes.plot(along, up, ls=dashes, lw=width, color=colour, label=f"{name} {said[name]:.3f}")
                else:
                    along, up = precision_recall_curve(together, values)
                    along, up = np.r_[0, along], np.r_[up[:1], up]
                    axes.step(along, up, ls=dashes, lw=width, color=colour, label=f"{name} {said[name]:.3f}")
            axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=x, ylabel=y)
            handles, texts = axes.get_legend_handles_labels()
            figure.legend(handles[::-1], texts[::-1], loc="outside lower left", ncols=2)
            areas = ", ".join(f"{name} {value:.3f}" for name, value in said.items())
            pictures.append(
                _picture(figure, f"{words}. {'Area' if metric == 'auc' else 'Average precision'}: {areas}.")
            )
    return pictures[0], pictures[1]


def categories(found: Sequence[Category]) -> Picture:
    """Bars from chance: how well each kind of anomaly is found inside its own videos; circles: among all."""
    found = sorted(found, key=lambda one: -np.nan_to_num(one.auc_within, nan=-1))
    with _figure(0.27 * len(found) + 1.2) as figure:
        axes = figure.subplots()
        for row, one in enumerate(found):
            if not math.isnan(one.auc_within):
                axes.barh(row, one.auc_within - 0.5, left=0.5, height=0.55, color=_INK)
            if not math.isnan(one.auc):
                axes.plot(one.auc, row, "o", mfc="white", mec="#111111", mew=1.3, ms=6, clip_on=False)
            text = "—" if math.isnan(one.auc_within) else f"{one.auc_within:.2f}"
            axes.text(1.06, row, text, va="center", ha="left", transform=axes.get_yaxis_transform())
        axes.axvline(0.5, color="#333333", lw=1)
        axes.set(xlim=(0, 1), ylim=(len(found) - 0.4, -0.6), yticks=range(len(found)), xlabel="AUC; 0.5 is chance")
        axes.set_yticklabels([f"{short(one.name)} ({one.videos})" for one in found])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color="#e4e4e4", lw=0.8)
        axes.set_axisbelow(True)
        said = ", ".join(f"{short(one.name)} {one.auc_within:.2f}" for one in found)
        return _picture(figure, f"AUC inside the videos of each category, best first: {said}.")


@dataclass(frozen=True, slots=True)
class Scale:
    """What all curves of a page share."""

    low: float
    high: float
    threshold: float | None  # None: the scores are not in [0, 1]
    normal: Counts  # every score of a normal frame, rising; of all frames where none is normal

    @classmethod
    def of(cls, videos: Sequence[ScoredVideo], threshold: float | None) -> Scale:
        """The scale of a set of videos."""
        values = np.concatenate([video.scores_N for video in videos])
        normal = values[~np.concatenate([video.labels_N for video in videos])]
        low, high = (0.0, 1.0) if threshold is not None else (float(values.min()), float(values.max()))
        return cls(low, high if high > low else low + 1, threshold, np.sort(normal if len(normal) else values))

    def rank(self, scores_N: Counts) -> Counts:
        """The share of normal frames with a lower score, in [0, 1]."""
        return np.searchsorted(self.normal, scores_N, side="left") / len(self.normal)


def curve(video: ScoredVideo, scale: Scale) -> Picture:
    """A video's score over time: truth as bands, the threshold as a line, alarms as a bar beneath."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    with _figure(1.9) as figure:
        axes = figure.subplots()
        rate = video.fps or 1.0
        span, frames = scale.high - scale.low, len(video.scores_N)
        for start, end in video.events:
            axes.axvspan(start / rate, end / rate, color=_TRUTH, alpha=0.3, lw=0)
        if scale.threshold is not None:
            _envelope(axes, scale.rank(video.scores_N), rate, color=_RANKED, width=1.0)
            axes.axhline(scale.threshold, color=_ALARM, lw=1, ls="--")
            runs = alarm_runs(video.scores_N, threshold=scale.threshold)
            least = frames / _COLUMNS  # else a short alarm would not be seen
            bars = [(start / rate, max(end - start, least) / rate) for start, end in runs]
            axes.broken_barh(bars, (scale.low - 0.15 * span, 0.09 * span), color=_ALARM)
            axes.axhline(scale.low, color="#8a8a8a", lw=0.8)
        _envelope(axes, video.scores_N, rate, color=_INK, width=1.6)
        below = 0.18 if scale.threshold is not None else 0.04
        axes.set(xlim=(0, frames / rate), ylim=(scale.low - below * span, scale.high + 0.04 * span), ylabel="score")
        if scale.threshold is not None:
            axes.set_yticks([0, 0.5, 1])
        if video.fps is None:
            axes.set_xlabel("frame")
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 1.5, 2, 3, 6, 10]))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: clock(seconds)))
        truth = (
            f"truth in {len(video.events)} stretch{'es' * (len(video.events) != 1)}" if video.events else "all normal"
        )
        highest = f"highest score {video.scores_N.max():.3g} at {_moment(video, int(video.scores_N.argmax()))}"
        return _picture(figure, f"Score of {video.name} over time: {truth}; {highest}.")


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds.

    >>> clock(75), clock(3661), clock(2.5)
    ('1:15', '61:01', '0:02.5')
    """
    tenths = round(seconds * 10)
    text = f"{tenths // 600}:{tenths % 600 // 10:02d}"
    return f"{text}.{tenths % 10}" if tenths % 10 else text


def timeline(videos: Sequence[ScoredVideo], areas: Mapping[str, float], scale: Scale) -> list[Picture]:
    """Every abnormal video as a row: its time from left to right, its score as shade, its truth beneath.

    Many rows come as two pictures, which stand side by side where there is room.
    """
    rows = sorted(
        (video for video in videos if video.abnormal),
        key=lambda video: (kind(video.categories), -np.nan_to_num(areas[video.name], nan=-1)),
    )
    half = max(len(rows), 1) if len(rows) <= 40 else -(-len(rows) // 2)
    return [_timeline(rows[start : start + half], scale) for start in range(0, len(rows), half)]


def _timeline(rows: Sequence[ScoredVideo], scale: Scale) -> Picture:
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    score, truth, gap = (3, 1, 1) if len(rows) > 75 else (5, 3, 3)  # pixels
    each = score + truth + gap
    inches = float(np.clip(6 / len(rows), 0.035, 0.2))
    least = math.ceil(0.19 / inches)  # rows that a category's name needs
    shades = np.array(
        [to_rgb(colour) for colour in ("#efefec", *(colour for _, colour in _RANKS), _TRUTH, "white")]
    )  # as in _row
    bands: list[Any] = []
    places, names = [], []
    for name, own in groupby(rows, key=lambda video: kind(video.categories)):
        drawn = [_row(video, scale, score, truth, gap) for video in own]
        places.append((sum(map(len, bands)) + sum(map(len, drawn)) / 2) / each)
        names.append(short(name))
        bands += [*drawn, np.full((max(least - len(drawn), 0) * each + 3, _COLUMNS), 6)]
    image = np.concatenate(bands)
    height = len(image) / each
    with _figure(inches * height + 1) as figure:
        axes = figure.subplots()
        axes.imshow(shades[image], extent=(0, 1, height, 0), aspect="auto", interpolation="none")
        axes.set(xticks=(0, 0.5, 1), xticklabels=("start", "middle", "end"), yticks=places, yticklabels=names)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        keys = [
            Patch(fc=colour, ec="#8a8a8a", lw=0.5, label=f"top {100 - 100 * share:.0f} %") for share, colour in _RANKS
        ]
        figure.legend(handles=[*keys, Patch(fc=_TRUTH, label="truth")], loc="outside lower left", ncols=3)
        return _picture(
            figure,
            f"{len(rows)} abnormal video{'s' * (len(rows) != 1)}, one row each, by category ({', '.join(names)}): the "
            "darker, the higher the score stands among those of normal frames; the truth is a line beneath each row.",
        )


def delays(evaluation: Evaluation) -> Picture:
    """How late the first alarm of each event came; events without one are a bar of their own."""
    from matplotlib.ticker import MaxNLocator

    limit = evaluation.settings.max_delay_s
    found = [delay for delay in evaluation.delays_s if delay < limit]
    missed = len(evaluation.delays_s) - len(found)
    with _figure(2.9) as figure:
        axes = figure.subplots()
        counts, edges, _ = axes.hist(found, bins=np.linspace(0, limit, 13).tolist(), color=_INK, ec="white", lw=0.8)
        width = float(edges[1])
        axes.bar(limit + 2 * width, missed, 2 * width, fc="white", ec=_ALARM, hatch="////", lw=1.2)
        top = max(float(np.max(counts)), missed, 1)
        axes.text(limit + 2 * width, missed + 0.02 * top, str(missed), ha="center", va="bottom")
        ticks = [0, limit / 3, 2 * limit / 3]
        axes.set_xticks([*ticks, limit + 2 * width], [*(f"{tick:.3g}" for tick in ticks), f"not within\n{limit:g} s"])
        axes.set(xlim=(0, limit + 3.5 * width), ylim=(0, 1.12 * top), ylabel="events")
        axes.set_xlabel("seconds from the start of an event to its first alarm", loc="left")
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        middle = f"; half of them within {np.median(found):.1f} s" if found else ""
        return _picture(
            figure,
            f"Delays: {len(found)} of {len(evaluation.delays_s)} events have an alarm within {limit:g} s{middle}; "
            f"{missed} do not.",
        )


def f1_over_thresholds(evaluation: Evaluation) -> Picture:
    """Event F1 over the threshold, a line per overlap asked for."""
    tious, grid = evaluation.settings.tious, evaluation.f1_thresholds
    table = np.array(evaluation.f1)
    with _figure(3.4) as figure:
        axes = figure.subplots()
        axes.axvline(evaluation.settings.threshold, color=_ALARM, lw=1, ls="--", label="the threshold used here")
        for place, tiou in enumerate(tious):
            share = place / max(len(tious) - 1, 1)
            colour = tuple((1 - share) * np.array([0.05, 0.17, 0.29]) + share * np.array([0.30, 0.53, 0.76]))
            marker = "osD^vP*X"[place % 8]
            axes.plot(grid, table[:, place], color=colour, marker=marker, ms=4, lw=1.4, label=f"overlap ≥ {tiou:g}")
        axes.set(xlim=(0, 1), ylim=(0, max(0.1, 1.1 * float(np.nanmax(np.r_[table.ravel(), 0])))))
        axes.set(xlabel="threshold", ylabel="event F1")
        figure.legend(loc="outside lower left", ncols=2)
        best = np.unravel_index(int(np.nanargmax(np.nan_to_num(table, nan=-1))), table.shape)
        return _picture(
            figure,
            f"Event F1 over thresholds: highest {table[best]:.3f} at threshold {grid[best[0]]:g} and overlap "
            f"{tious[best[1]]:g}.",
        )


def differences(found: Sequence[Difference], letters: Mapping[str, str]) -> Picture:
    """Paired differences in one metric, a row per pair, with their intervals around 0."""
    pairs = [f"{letters[one.first]} − {letters[one.second]}" for one in found]
    with _figure(0.3 * len(found) + 0.75) as figure:
        axes = figure.subplots()
        axes.axvline(0, color="#333333", lw=1)
        for row, one in enumerate(found):
            number = one.difference
            if not math.isnan(number.low):
                axes.plot([number.low, number.high], [row, row], color=_INK, lw=4, alpha=0.35)
            axes.plot(number.value, row, "o", color=_INK, ms=7)
        ends = np.array([[one.difference.low, one.difference.high, one.difference.value] for one in found])
        reach = 1.1 * max(float(np.abs(np.nan_to_num(ends)).max()), 0.01)
        axes.set(xlim=(-reach, reach), ylim=(len(found) - 0.4, -0.6), yticks=range(len(found)), yticklabels=pairs)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("difference; right of 0 the first is higher")
        axes.locator_params(axis="x", nbins=5)
        said = "; ".join(f"{pair} {one.difference.value:+.3f}" for pair, one in zip(pairs, found, strict=True))
        return _picture(figure, f"Differences with their intervals: {said}.")


def reliability(videos: Sequence[ScoredVideo]) -> Picture:
    """Share of abnormal frames over the score, and how many frames have such a score."""
    labels, values = (np.concatenate(both) for both in zip(*((v.labels_N, v.scores_N) for v in videos), strict=True))
    found = equal_width(labels, values, bins=15)
    share = found.count_K / found.count_K.sum()
    with _figure(3.4) as figure:
        axes = figure.subplots()
        axes.bar(found.mean_score_K, share, 0.045, color="#d5dde5", label="share of all frames")
        axes.plot([0, 1], [0, 1], color=_QUIET, lw=1, ls="--", label="score is a probability")
        axes.plot(found.mean_score_K, found.observed_K, "o-", color=_INK, ms=5, lw=1.4, label="abnormal among them")
        axes.set(xlim=(-0.03, 1.03), ylim=(0, 1.02), xlabel="score", ylabel="share")
        figure.legend(loc="outside lower left", ncols=2)
        highest, observed = float(found.mean_score_K[-1]), float(found.observed_K[-1])
        return _picture(
            figure,
            f"Calibration: of the frames with the highest scores (mean {highest:.2f}), {observed:.0%} are abnormal; "
            f"{share[0]:.0%} of all frames have the lowest (mean {found.mean_score_K[0]:.2f}).",
        )


def low_false_alarms(found: LowFalseAlarmRecall) -> Picture:
    """Share of events found over the false alarms per hour that are paid for it, and where these cannot be told."""
    inside = (found.rates_P > PER_WEEK) & (found.rates_P < 1)
    before = float(found.recalls_P[found.rates_P <= PER_WEEK].max(initial=0))
    at = np.r_[PER_WEEK, found.rates_P[inside], 1]
    recall = np.r_[before, found.recalls_P[inside]]
    recall = np.maximum.accumulate(np.r_[recall, recall[-1]])
    seen = found.resolution_per_hour
    with _figure(3.4) as figure:
        axes = figure.subplots()
        axes.axvspan(PER_WEEK, min(seen, 1), fc="none", ec="#c4c4c4", hatch="///", lw=0)
        axes.axvline(seen, color=_QUIET, lw=1, label=f"one false alarm in the {found.hours:.3g} h of normal video")
        axes.step(at, recall, where="post", color=_INK, lw=2)
        axes.set(
            xscale="log", xlim=(PER_WEEK, 1), ylim=(0, 1.02), ylabel="events found", xlabel="false alarms, at most"
        )
        axes.set_xticks([PER_WEEK, 1 / 24, 1], ["1 a week", "1 a day", "1 an hour"])
        axes.set_xticks([], minor=True)
        figure.legend(loc="outside lower left")
        return _picture(
            figure,
            f"Events found: {before:.0%} at one false alarm a week, {recall[-1]:.0%} at one an hour, "
            f"{found.integral:.3f} on average. In {found.hours:.3g} h of normal video, fewer than {seen:.3g} an hour "
            "cannot be told from none.",
        )


def kind(names: Sequence[str]) -> str:
    """A video's categories as one word."""
    return " + ".join(names) or "abnormal"


def short(text: str, most: int = 22) -> str:
    """A label that fits beside a picture, without what no font can show.

    >>> short("a" * 30, 5)
    'aaaa…'
    """
    clean = "".join(each if each.isprintable() else "�" for each in text)
    return clean if len(clean) <= most else clean[: most - 1] + "…"


def _row(video: ScoredVideo, scale: Scale, score: int, truth: int, gap: int) -> Any:
    """(rows, columns) of shades: 0 to 4 a higher and higher score, 5 the truth, 6 nothing."""
    starts = np.arange(_COLUMNS) * len(video.scores_N) // _COLUMNS
    shade = np.searchsorted([share for share, _ in _RANKS], scale.rank(video.scores_N), side="right")
    own = np.maximum.reduceat(shade, starts)
    flags = 6 - np.maximum.reduceat(video.labels_N.astype(np.int64), starts)
    return np.concatenate([np.tile(own, (score, 1)), np.tile(flags, (truth, 1)), np.full((gap, _COLUMNS), 6)])


def _envelope(axes: Axes, values_N: Counts, rate: float, *, color: str, width: float) -> None:
    """Held values as a line; a long curve as the highest and lowest of each column, so that no peak is lost."""
    size = -(-len(values_N) // _COLUMNS)
    starts = np.arange(0, len(values_N), size)
    low, high = np.minimum.reduceat(values_N, starts), np.maximum.reduceat(values_N, starts)
    times = np.r_[starts, len(values_N)] / rate
    if size > 1 and (low < high).sum() > len(starts) / 4:
        axes.fill_between(times[:-1], low, high, color=color, alpha=0.3, lw=0)
    axes.plot(times, np.r_[high, high[-1]], color=color, lw=width, drawstyle="steps-post")


def _moment(video: ScoredVideo, frame: int) -> str:
    return f"frame {frame}" if video.fps is None else clock(frame / video.fps)


def _styled(named: Mapping[str, Any]) -> Iterator[tuple[tuple[str, Any, str], tuple[str, Any]]]:
    for place, item in enumerate(named.items()):
        yield _CONTROLS[place % len(_CONTROLS)], item


@contextlib.contextmanager
def _figure(height: float) -> Iterator[Figure]:
    from matplotlib import style
    from matplotlib.figure import Figure

    # default: whatever a user's own matplotlibrc says, a report looks the same
    with style.context(["default", _STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # text stays text: the browser has the glyph
        yield Figure(figsize=(_WIDTH, height), layout="constrained")


def _picture(figure: Figure, alt: str) -> Picture:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue().replace("'DejaVu Sans', sans-serif", _FONTS).replace("'DejaVu Sans'", _FONTS)
    return Picture(svg[svg.index("<svg") :], alt)
