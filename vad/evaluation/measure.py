"""Everything that is measured of one score set on one benchmark, as plain data.

Ranking metrics take any scores. Metrics with a threshold need scores in [0, 1]; metrics in seconds need frame rates.
What cannot be measured is named with the reason in ``Evaluation.omitted``; it is never silently absent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from vad.config import Config
from vad.datasets.annotation import Benchmark
from vad.evaluation.alignment import Alignment, ScoredVideo
from vad.evaluation.scores import ScoreSet
from vad.metrics import alarms, event, latency, localisation, reliability
from vad.metrics.audit import Finding, Provenance, declared, seen
from vad.metrics.bootstrap import Interval, Statistic, frame_statistic, interval, resample
from vad.metrics.controls import controls
from vad.metrics.frame import Counts, FrameMetrics, auc, frame_metrics, ranks, ratio


class Settings(Config):
    """What is asked of an evaluation."""

    threshold: float = Field(0.5, ge=0, le=1, description="an alarm is a run of frames at or above it")
    max_delay_s: float = Field(30.0, gt=0, description="a missed event counts as found after this many seconds")
    early_s: tuple[float, ...] = Field((1.0, 5.0, 10.0), description="allowed delays of the early-detection rate")
    tious: tuple[float, ...] = Field((0.1, 0.2, 0.3, 0.4, 0.5), description="temporal overlaps that count as a match")
    resamples: int = Field(1000, ge=1, description="bootstrap resamples of the videos")
    level: float = Field(0.95, gt=0, lt=1, description="share of the resamples inside an interval")
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Category:
    """One kind of anomaly: its videos against all normal ones, and inside themselves."""

    name: str
    videos: int
    auc: float  # frames of its videos and of all normal videos
    auc_within: float  # mean of its videos' own AUC


@dataclass(frozen=True, slots=True)
class VideoResult:
    """One video in numbers."""

    name: str
    categories: tuple[str, ...]
    frames: int
    abnormal_frames: int
    fps: float | None
    auc: float  # NaN unless it has both kinds of frames
    highest: float
    mean: float
    false_frames: float  # share of its normal frames at or above the threshold; NaN where there is no threshold


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of one score set on one benchmark."""

    scores: str
    form: str
    provenance: Provenance
    benchmark: str
    protocol: str
    notes: tuple[str, ...]  # of the annotation
    missing: tuple[str, ...]
    settings: Settings
    frame: FrameMetrics
    metrics: Mapping[str, Interval]  # every number, with an interval where one was made (else low and high are NaN)
    controls: Mapping[str, FrameMetrics]
    findings: tuple[Finding, ...]
    omitted: Mapping[str, str]  # group of metrics -> why it is not there
    categories: tuple[Category, ...]
    videos: tuple[VideoResult, ...]
    delays_s: tuple[float, ...]  # one per event, misses at the maximum
    operating: alarms.LowFalseAlarmRecall | None
    f1_thresholds: tuple[float, ...]
    f1: tuple[tuple[float, ...], ...]  # (thresholds, tIoUs)


ALWAYS = ("auc", "auc_abnormal", "auc_within", "auc_macro", "ap", "ap_trapezoid")  # ranking, with intervals


def evaluate(scores: ScoreSet, benchmark: Benchmark, alignment: Alignment, settings: Settings) -> Evaluation:
    """Measure, resample, audit, and measure the controls on the same videos."""
    videos = alignment.videos
    labels, values = [video.labels_N for video in videos], [video.scores_N for video in videos]
    frame = frame_metrics(labels, values)
    omitted: dict[str, str] = {}
    statistics = [frame_statistic(labels, values)]
    point: dict[str, float] = {}
    timed = _timed(videos, omitted)
    bounded = _bounded(videos, omitted)
    delays: latency.FirstAlarms | None = None
    curve: alarms.LowFalseAlarmRecall | None = None
    grid: tuple[float, ...] = ()
    f1: tuple[tuple[float, ...], ...] = ()
    point["auc_macro_padded"] = frame.auc_macro_padded
    point["tie_rate"] = frame.tie_rate
    if bounded:
        statistics.append(_false_alarm_rate(videos, settings.threshold))
        calibration = reliability.reliability(np.concatenate(labels), np.concatenate(values))
        point |= {"calibration_error": calibration.ece, "brier": calibration.brier}
    if frame.abnormal_videos:
        point |= _segments(videos, settings)
    if timed:
        curve = alarms.low_false_alarm_recall(timed)
        point["low_false_alarm_recall"] = curve.integral
        point["latency_aware_ap"] = latency.latency_aware_ap(timed, max_delay=settings.max_delay_s)
    if timed and bounded:
        statistics.append(_alarms_per_hour(timed, settings.threshold))
        delays = latency.first_alarms(timed, threshold=settings.threshold, max_delay=settings.max_delay_s)
        statistics.append(_delays(videos, delays, settings))
        statistics.append(_event_f1(timed, settings))
        grid = tuple(np.linspace(0.05, 0.95, 19).round(2).tolist())
        f1 = tuple(map(tuple, event.multi_threshold_f1(timed, thresholds=grid, tious=settings.tious).tolist()))
    metrics = _with_intervals(statistics, len(videos), settings)
    metrics |= {name: Interval(value, float("nan"), float("nan")) for name, value in point.items()}
    return Evaluation(
        scores=scores.name,
        form=scores.form,
        provenance=scores.provenance,
        benchmark=benchmark.name,
        protocol=benchmark.protocol,
        notes=benchmark.notes,
        missing=alignment.missing,
        settings=settings,
        frame=frame,
        metrics=metrics,
        controls={name: frame_metrics(labels, make()) for name, make in controls(labels, seed=settings.seed).items()},
        findings=(
            *declared(scores.provenance),
            *seen(scores.provenance, labels, values),
            *alignment.findings,
        ),
        omitted=omitted,
        categories=_categories(videos),
        videos=tuple(_video(video, settings.threshold if bounded else None) for video in videos),
        delays_s=tuple(delays.delays.tolist()) if delays else (),
        operating=curve,
        f1_thresholds=grid,
        f1=f1,
    )


def _timed(videos: Sequence[ScoredVideo], omitted: dict[str, str]) -> list[alarms.TimedVideo]:
    without = [video.name for video in videos if video.fps is None]
    if without:
        omitted["metrics in seconds and hours"] = (
            f"no frame rate is known for {len(without)} videos ({without[0]}, …); give --fps"
        )
        return []
    return [alarms.TimedVideo(video.scores_N, video.events, float(video.fps or 0)) for video in videos]


def _bounded(videos: Sequence[ScoredVideo], omitted: dict[str, str]) -> bool:
    low = min(float(video.scores_N.min()) for video in videos)
    high = max(float(video.scores_N.max()) for video in videos)
    if low >= 0 and high <= 1:
        return True
    omitted["metrics with a threshold"] = (
        f"scores run from {low:g} to {high:g}: a threshold means nothing outside [0, 1]; calibrate them first"
    )
    return False


def _with_intervals(statistics: Sequence[Statistic], videos: int, settings: Settings) -> dict[str, Interval]:
    def everything(times_RV: Counts) -> dict[str, Counts]:
        return {name: values for statistic in statistics for name, values in statistic(times_RV).items()}

    once = everything(np.ones((1, videos)))
    if videos == 1:  # every resample is the same video: no interval, rather than one of no width
        return {name: Interval(float(values[0]), float("nan"), float("nan")) for name, values in once.items()}
    resampled = resample(everything, videos, resamples=settings.resamples, seed=settings.seed)
    return {name: interval(float(once[name][0]), resampled[name], level=settings.level) for name in once}


def _ratios(sums_VM: Counts, over_under: Mapping[str, tuple[int, int]]) -> Statistic:
    """Metrics that are quotients of two columns of per-video sums."""

    def statistic(times_RV: Counts) -> dict[str, Counts]:
        totals = times_RV @ sums_VM
        return {name: ratio(totals[:, over], totals[:, under]) for name, (over, under) in over_under.items()}

    return statistic


def _false_alarm_rate(videos: Sequence[ScoredVideo], threshold: float) -> Statistic:
    rows = []
    for video in videos:
        normal = ~video.labels_N
        false = int((video.scores_N[normal] >= threshold).sum())
        rows.append((false, normal.sum(), *((0, 0) if video.abnormal else (false, normal.sum()))))
    return _ratios(np.array(rows, np.float64), {"false_alarm_rate": (2, 3), "false_alarm_rate_all": (0, 1)})


def _alarms_per_hour(videos: Sequence[alarms.TimedVideo], threshold: float) -> Statistic:
    rows = []
    for video in videos:
        false, hours = alarms.false_alarms(video, threshold=threshold)
        rows.append((false, hours, *((0, 0) if video.events else (false, hours))))
    return _ratios(np.array(rows), {"false_alarms_per_hour": (2, 3), "false_alarms_per_hour_all": (0, 1)})


def _delays(videos: Sequence[ScoredVideo], found: latency.FirstAlarms, settings: Settings) -> Statistic:
    delays_E = found.delays
    missed_E = delays_E >= found.max_delay
    of_event: dict[str, Counts] = {"mean_delay_s": delays_E, "missed_events": missed_E.astype(np.float64)}
    for seconds in settings.early_s:
        of_event[f"early_{seconds:g}s"] = ((delays_E <= seconds) & ~missed_E).astype(np.float64)
    video_E = np.repeat(np.arange(len(videos)), [len(video.events) for video in videos])
    events_V = np.bincount(video_E, minlength=len(videos)).astype(np.float64)
    sums = [np.bincount(video_E, values_E, minlength=len(videos)) for values_E in of_event.values()]
    return _ratios(np.stack([events_V, *sums], axis=1), {name: (i, 0) for i, name in enumerate(of_event, 1)})


def _event_f1(videos: Sequence[alarms.TimedVideo], settings: Settings) -> Statistic:
    each = event.event_scores(videos, threshold=settings.threshold, tious=settings.tious)

    def statistic(times_RV: Counts) -> dict[str, Counts]:
        found = {}
        for scores in each:
            hits, false, missed = (times_RV @ scores.per_video).T
            found[f"event_f1@{scores.tiou:g}"] = ratio(2 * hits, 2 * hits + false + missed)
        return found

    return statistic


def _segments(videos: Sequence[ScoredVideo], settings: Settings) -> dict[str, float]:
    """Class-agnostic localisation: runs of the curve at many thresholds as ranked segments."""
    thresholds = np.quantile(np.concatenate([video.scores_N for video in videos]), np.linspace(0.5, 0.995, 20))
    detections = [
        segment
        for number, video in enumerate(videos)
        for segment in localisation.segments_of(video.scores_N, thresholds=thresholds, video=number)
    ]
    truths = [
        localisation.Truth(number, start, end) for number, video in enumerate(videos) for start, end in video.events
    ]
    found = localisation.mean_average_precision(detections, truths, tious=settings.tious)
    return {"map": found.average} | {
        f"map@{tiou:g}": value for tiou, value in zip(settings.tious, found.per_tiou, strict=True)
    }


def _categories(videos: Sequence[ScoredVideo]) -> tuple[Category, ...]:
    normal = np.concatenate([video.scores_N for video in videos if not video.abnormal] or [np.empty(0)])
    groups: dict[str, list[ScoredVideo]] = defaultdict(list)
    for video in videos:
        for name in video.categories if video.abnormal else ():
            groups[name].append(video)
    found = []
    for name, own in sorted(groups.items()):
        flags = np.concatenate([*(video.labels_N for video in own), np.zeros(len(normal), bool)])
        within = [auc(video.labels_N, video.scores_N) for video in own]
        defined = [value for value in within if not np.isnan(value)]
        found.append(
            Category(
                name,
                len(own),
                ranks(flags, np.concatenate([*(video.scores_N for video in own), normal])).auc,
                float(np.mean(defined)) if defined else float("nan"),
            )
        )
    return tuple(found)


def _video(video: ScoredVideo, threshold: float | None) -> VideoResult:
    normal = video.scores_N[~video.labels_N]
    return VideoResult(
        video.name,
        video.categories,
        len(video.scores_N),
        int(video.labels_N.sum()),
        video.fps,
        auc(video.labels_N, video.scores_N),
        float(video.scores_N.max()),
        float(video.scores_N.mean()),
        float((normal >= threshold).mean()) if threshold is not None and len(normal) else float("nan"),
    )
