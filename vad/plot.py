"""The picture of a curve: score, thresholds, events, gaps, and thumbnails at the peaks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vad.types import Array, Event, Gap, ScoreCurve, Times
from vad.video import pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 2400  # a longer curve is drawn as the highest and lowest score of each column
_THUMBNAILS = 6
_DPI = 110
_THUMBNAIL_HEIGHT = 144  # pixels of the plot
_INK, _ALARM, _QUIET = "#1f4e79", "#c0392b", "#8a8a8a"


@dataclass(frozen=True, slots=True)
class Caption:
    """Words and lines around the curve."""

    title: str
    label: str  # "causal" or "lookahead = n s"
    on: float
    off: float


def draw(
    path: Path, *, video: Path, aspect: float, curve: ScoreCurve, events: list[Event], gaps: list[Gap], caption: Caption
) -> None:
    """Draw ``curve`` of ``video`` as a PNG. ``aspect`` is the picture's width over height."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    figure = Figure(figsize=(12, 5.4), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    above, axes = figure.subplots(2, 1, height_ratios=(1, 2.1))
    start, end = float(curve.pts_N[0]), max(float(curve.pts_N[-1]), float(curve.pts_N[0]) + 1e-3)
    for gap in gaps:
        axes.axvspan(gap.start, gap.end, facecolor="none", edgecolor=_QUIET, hatch="///", lw=0)
        end = max(end, gap.end)
    for event in events:
        axes.axvspan(event.start, event.end, color=_ALARM, alpha=0.16, lw=0)
    times, low, high = envelope(curve.pts_N, curve.score_N)
    axes.fill_between(times, low, high, color=_INK, alpha=0.25, lw=0)
    axes.plot(times, high, color=_INK, lw=1.3)
    for name, threshold, style in (("on", caption.on, "--"), ("off", caption.off, ":")):
        axes.axhline(threshold, color=_ALARM, lw=0.9, ls=style)
        axes.annotate(
            f"{name} {threshold:g}",
            (1, threshold),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=_ALARM,
            fontsize=8,
        )
    axes.set(xlim=(start, end), ylim=(0, 1), xlabel="time", ylabel=f"anomaly score ({caption.label})")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: clock(seconds)))
    axes.spines[["top", "right"]].set_visible(False)
    above.set(xlim=(start, end), ylim=(0, 1))
    above.axis("off")
    words = f"{len(events)} event{'s' * (len(events) != 1)}" + (f", {len(gaps)} unreadable" if gaps else "")
    figure.suptitle(f"{caption.title} · {words}", x=0.01, ha="left", fontsize=11)
    _thumbnails(above, axes, video, aspect, curve, events, (start, end))
    figure.savefig(path, format="png")


def envelope(pts_N: Times, score_N: Array) -> tuple[Times, Array, Array]:
    """Times with the lowest and highest score around each, at most a screenful of them; NaN stays NaN."""
    size = -(-len(pts_N) // _COLUMNS)
    starts = np.arange(0, len(pts_N), size)
    # fmin and fmax look past NaN: a column is empty only when all of it is
    return pts_N[starts], np.fmin.reduceat(score_N, starts), np.fmax.reduceat(score_N, starts)


def clock(seconds: float) -> str:
    """Seconds for people.

    >>> clock(75.5), clock(3661)
    ('1:15.5', '1:01:01')
    """
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 10:04.1f}" if rest % 10 else f"{rest // 10:02d}"
    return f"{hours}:{minutes:02d}:{text}" if hours else f"{minutes}:{text}"


def _thumbnails(
    above: Axes,
    axes: Axes,
    video: Path,
    aspect: float,
    curve: ScoreCurve,
    events: list[Event],
    limits: tuple[float, float],
) -> None:
    """The frames at the highest peaks, in order of time, each tied to its place on the curve."""
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage
    from matplotlib.patches import ConnectionPatch

    peaks = [event.peak_time for event in sorted(events, key=lambda e: -e.peak)[:_THUMBNAILS]]
    if not peaks and np.isfinite(curve.score_N).any():
        peaks = [float(curve.pts_N[np.nanargmax(curve.score_N)])]
    peaks.sort()
    indices = sorted({int(np.searchsorted(curve.pts_N, time)) for time in peaks})
    indices = [min(index, len(curve) - 1) for index in indices]
    shown = pictures(video, indices, size=(max(2, round(_THUMBNAIL_HEIGHT * min(aspect, 1.6))), _THUMBNAIL_HEIGHT))
    places = spread([(curve.pts_N[i] - limits[0]) / (limits[1] - limits[0]) for i in indices])
    for index, picture, place in zip(indices, shown, places, strict=True):
        edge = {"edgecolor": _ALARM if events else _QUIET, "lw": 1}
        image = OffsetImage(picture, zoom=72 / _DPI)
        thumbnail = AnnotationBbox(image, (place, 0.5), xycoords="axes fraction", pad=0.15, bboxprops=edge)
        tie = ConnectionPatch(
            (place, 0.02),
            (float(curve.pts_N[index]), float(curve.score_N[index])),
            "axes fraction",
            "data",
            axesA=above,
            axesB=axes,
            color=_QUIET,
            lw=0.7,
        )
        for artist in (tie, thumbnail):
            artist.set_in_layout(False)  # else the layout makes room for them twice
            above.add_artist(artist)


def spread(wanted: list[float], *, gap: float = 1 / _THUMBNAILS) -> list[float]:
    """Places in [0, 1] near the wanted ones (rising), at least ``gap`` apart.

    >>> [round(place, 2) for place in spread([0.5, 0.5])]
    [0.42, 0.58]
    """
    places: list[float] = []
    low = gap / 2
    for i, place in enumerate(wanted):
        after = len(wanted) - 1 - i
        crowd = sum(abs(other - place) < gap / 2 for other in wanted[i + 1 :])
        places.append(min(max(place - crowd * gap / 2, low), 1 - gap / 2 - after * gap))
        low = places[-1] + gap
    return places
