"""Videos as pictures: a curve against the truth, and all abnormal videos of a set at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from vad.evaluation.alignment import ScoredVideo
from vad.evaluation.drawing import ALARM, INK, TRUTH, Picture, figure_of, kind, picture, short
from vad.metrics.alarms import alarm_runs
from vad.metrics.frame import Counts
from vad.plot import clock

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 600  # what a picture of that width can show of a long curve
_RANKED = "#5b93c4"
_RANKS = ((0.5, "#d9e5f1"), (0.8, "#8fb4d6"), (0.95, "#3f76a9"), (0.99, "#0d2c4b"))  # share of normal frames below


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

    with figure_of(1.9) as figure:
        axes = figure.subplots()
        rate = video.fps or 1.0
        span, frames = scale.high - scale.low, len(video.scores_N)
        for start, end in video.events:
            axes.axvspan(start / rate, end / rate, color=TRUTH, alpha=0.3, lw=0)
        if scale.threshold is not None:
            _envelope(axes, scale.rank(video.scores_N), rate, color=_RANKED, width=1.0)
            axes.axhline(scale.threshold, color=ALARM, lw=1, ls="--")
            runs = alarm_runs(video.scores_N, threshold=scale.threshold)
            least = frames / _COLUMNS  # else a short alarm would not be seen
            bars = [(start / rate, max(end - start, least) / rate) for start, end in runs]
            axes.broken_barh(bars, (scale.low - 0.15 * span, 0.09 * span), color=ALARM)
            axes.axhline(scale.low, color="#8a8a8a", lw=0.8)
        _envelope(axes, video.scores_N, rate, color=INK, width=1.6)
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
        return picture(figure, f"Score of {video.name} over time: {truth}; {highest}.")


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
        [to_rgb(colour) for colour in ("#efefec", *(colour for _, colour in _RANKS), TRUTH, "white")]
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
    with figure_of(inches * height + 1) as figure:
        axes = figure.subplots()
        axes.imshow(shades[image], extent=(0, 1, height, 0), aspect="auto", interpolation="none")
        axes.set(xticks=(0, 0.5, 1), xticklabels=("start", "middle", "end"), yticks=places, yticklabels=names)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        keys = [
            Patch(fc=colour, ec="#8a8a8a", lw=0.5, label=f"top {100 - 100 * share:.0f} %") for share, colour in _RANKS
        ]
        figure.legend(handles=[*keys, Patch(fc=TRUTH, label="truth")], loc="outside lower left", ncols=3)
        return picture(
            figure,
            f"{len(rows)} abnormal video{'s' * (len(rows) != 1)}, one row each, by category ({', '.join(names)}): the "
            "darker, the higher the score stands among those of normal frames; the truth is a line beneath each row.",
        )


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
