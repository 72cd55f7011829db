"""The charts of a report: each small, readable on a phone, with words that say the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np

from vad.evaluation.alignment import ScoredVideo
from vad.evaluation.comparison import Difference
from vad.evaluation.drawing import ALARM, INK, QUIET, Picture, figure_of, picture, short, styled
from vad.evaluation.measure import Category, Evaluation
from vad.metrics.alarms import PER_WEEK, LowFalseAlarmRecall
from vad.metrics.controls import controls
from vad.metrics.frame import Counts, precision_recall_curve, roc_curve
from vad.metrics.reliability import equal_width


def against_controls(evaluation: Evaluation, names: Mapping[str, str]) -> Picture:
    """Each ranking metric of ``names`` (name -> words) with its interval, and where the controls stand."""
    shown = {name: words for name, words in names.items() if not math.isnan(evaluation.metrics[name].value)}
    with figure_of(0.46 * len(shown) + 1.4) as figure:
        axes = figure.subplots()
        for row, name in enumerate(shown):
            number = evaluation.metrics[name]
            if not math.isnan(number.low):
                axes.plot([number.low, number.high], [row - 0.14] * 2, color=INK, lw=4, alpha=0.35)
            axes.plot(number.value, row - 0.14, "o", color=INK, ms=7, label="" if row else "these scores")
        # two lanes: those that often stand at the same place are in different ones
        for ((colour, _, marker), (name, control)), lane in zip(styled(evaluation.controls), cycle((0.1, 0.3))):
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
        return picture(figure, f"The scores beside what looks at no pixel. {said}.")


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
        ("these scores", "-", 2.0, INK, np.concatenate([video.scores_N for video in videos]))
    ]
    for (colour, dashes, _), (name, make) in styled(made):
        lines.append((name, dashes, 1.4, colour, np.concatenate(make())))
    measured = {"these scores": evaluation.frame, **evaluation.controls}
    pictures = []
    for words, metric, x, y in (
        ("ROC curve", "auc", "false-positive rate", "true-positive rate"),
        ("Precision-recall curve", "ap", "recall", "precision"),
    ):
        said = {name: float(getattr(measured[name], metric)) for name, *_ in lines}
        with figure_of(4.1) as figure:
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
            pictures.append(picture(figure, f"{words}. {'Area' if metric == 'auc' else 'Average precision'}: {areas}."))
    return pictures[0], pictures[1]


def categories(found: Sequence[Category]) -> Picture:
    """Bars from chance: how well each kind of anomaly is found inside its own videos; circles: among all."""
    found = sorted(found, key=lambda one: -np.nan_to_num(one.auc_within, nan=-1))
    with figure_of(0.27 * len(found) + 1.2) as figure:
        axes = figure.subplots()
        for row, one in enumerate(found):
            if not math.isnan(one.auc_within):
                axes.barh(row, one.auc_within - 0.5, left=0.5, height=0.55, color=INK)
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
        return picture(figure, f"AUC inside the videos of each category, best first: {said}.")


def delays(evaluation: Evaluation) -> Picture:
    """How late the first alarm of each event came; events without one are a bar of their own."""
    from matplotlib.ticker import MaxNLocator

    limit = evaluation.settings.max_delay_s
    found = [delay for delay in evaluation.delays_s if delay < limit]
    missed = len(evaluation.delays_s) - len(found)
    with figure_of(2.9) as figure:
        axes = figure.subplots()
        counts, edges, _ = axes.hist(found, bins=np.linspace(0, limit, 13).tolist(), color=INK, ec="white", lw=0.8)
        width = float(edges[1])
        axes.bar(limit + 2 * width, missed, 2 * width, fc="white", ec=ALARM, hatch="////", lw=1.2)
        top = max(float(np.max(counts)), missed, 1)
        axes.text(limit + 2 * width, missed + 0.02 * top, str(missed), ha="center", va="bottom")
        ticks = [0, limit / 3, 2 * limit / 3]
        axes.set_xticks([*ticks, limit + 2 * width], [*(f"{tick:.3g}" for tick in ticks), f"not within\n{limit:g} s"])
        axes.set(xlim=(0, limit + 3.5 * width), ylim=(0, 1.12 * top), ylabel="events")
        axes.set_xlabel("seconds from the start of an event to its first alarm", loc="left")
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        middle = f"; half of them within {np.median(found):.1f} s" if found else ""
        return picture(
            figure,
            f"Delays: {len(found)} of {len(evaluation.delays_s)} events have an alarm within {limit:g} s{middle}; "
            f"{missed} do not.",
        )


def f1_over_thresholds(evaluation: Evaluation) -> Picture:
    """Event F1 over the threshold, a line per overlap asked for."""
    tious, grid = evaluation.settings.tious, evaluation.f1_thresholds
    table = np.array(evaluation.f1)
    with figure_of(3.4) as figure:
        axes = figure.subplots()
        axes.axvline(evaluation.settings.threshold, color=ALARM, lw=1, ls="--", label="the threshold used here")
        for place, tiou in enumerate(tious):
            share = place / max(len(tious) - 1, 1)
            colour = tuple((1 - share) * np.array([0.05, 0.17, 0.29]) + share * np.array([0.30, 0.53, 0.76]))
            marker = "osD^vP*X"[place % 8]
            axes.plot(grid, table[:, place], color=colour, marker=marker, ms=4, lw=1.4, label=f"overlap ≥ {tiou:g}")
        axes.set(xlim=(0, 1), ylim=(0, max(0.1, 1.1 * float(np.nanmax(np.r_[table.ravel(), 0])))))
        axes.set(xlabel="threshold", ylabel="event F1")
        figure.legend(loc="outside lower left", ncols=2)
        best = np.unravel_index(int(np.nanargmax(np.nan_to_num(table, nan=-1))), table.shape)
        return picture(
            figure,
            f"Event F1 over thresholds: highest {table[best]:.3f} at threshold {grid[best[0]]:g} and overlap "
            f"{tious[best[1]]:g}.",
        )


def differences(found: Sequence[Difference], letters: Mapping[str, str]) -> Picture:
    """Paired differences in one metric, a row per pair, with their intervals around 0."""
    pairs = [f"{letters[one.first]} − {letters[one.second]}" for one in found]
    with figure_of(0.3 * len(found) + 0.75) as figure:
        axes = figure.subplots()
        axes.axvline(0, color="#333333", lw=1)
        for row, one in enumerate(found):
            number = one.difference
            if not math.isnan(number.low):
                axes.plot([number.low, number.high], [row, row], color=INK, lw=4, alpha=0.35)
            axes.plot(number.value, row, "o", color=INK, ms=7)
        ends = np.array([[one.difference.low, one.difference.high, one.difference.value] for one in found])
        reach = 1.1 * max(float(np.abs(np.nan_to_num(ends)).max()), 0.01)
        axes.set(xlim=(-reach, reach), ylim=(len(found) - 0.4, -0.6), yticks=range(len(found)), yticklabels=pairs)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("difference; right of 0 the first is higher")
        axes.locator_params(axis="x", nbins=5)
        said = "; ".join(f"{pair} {one.difference.value:+.3f}" for pair, one in zip(pairs, found, strict=True))
        return picture(figure, f"Differences with their intervals: {said}.")


def reliability(videos: Sequence[ScoredVideo]) -> Picture:
    """Share of abnormal frames over the score, and how many frames have such a score."""
    labels, values = (np.concatenate(both) for both in zip(*((v.labels_N, v.scores_N) for v in videos), strict=True))
    found = equal_width(labels, values, bins=15)
    share = found.count_K / found.count_K.sum()
    with figure_of(3.4) as figure:
        axes = figure.subplots()
        axes.bar(found.mean_score_K, share, 0.045, color="#d5dde5", label="share of all frames")
        axes.plot([0, 1], [0, 1], color=QUIET, lw=1, ls="--", label="score is a probability")
        axes.plot(found.mean_score_K, found.observed_K, "o-", color=INK, ms=5, lw=1.4, label="abnormal among them")
        axes.set(xlim=(-0.03, 1.03), ylim=(0, 1.02), xlabel="score", ylabel="share")
        figure.legend(loc="outside lower left", ncols=2)
        highest, observed = float(found.mean_score_K[-1]), float(found.observed_K[-1])
        return picture(
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
    with figure_of(3.4) as figure:
        axes = figure.subplots()
        axes.axvspan(PER_WEEK, min(seen, 1), fc="none", ec="#c4c4c4", hatch="///", lw=0)
        axes.axvline(seen, color=QUIET, lw=1, label=f"one false alarm in the {found.hours:.3g} h of normal video")
        axes.step(at, recall, where="post", color=INK, lw=2)
        axes.set(
            xscale="log", xlim=(PER_WEEK, 1), ylim=(0, 1.02), ylabel="events found", xlabel="false alarms, at most"
        )
        axes.set_xticks([PER_WEEK, 1 / 24, 1], ["1 a week", "1 a day", "1 an hour"])
        axes.set_xticks([], minor=True)
        figure.legend(loc="outside lower left")
        return picture(
            figure,
            f"Events found: {before:.0%} at one false alarm a week, {recall[-1]:.0%} at one an hour, "
            f"{found.integral:.3f} on average. In {found.hours:.3g} h of normal video, fewer than {seen:.3g} an hour "
            "cannot be told from none.",
        )
