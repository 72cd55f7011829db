"""Temporal localisation: mean average precision of ranked segments, clean and as the field's script computes it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vad.metrics.alarms import alarm_runs
from vad.metrics.event import TIOUS, tiou
from vad.metrics.frame import Counts, Scores


@dataclass(frozen=True, slots=True)
class Truth:
    """A true segment ``[start, end)`` of a class."""

    video: int
    start: float
    end: float
    label: Hashable = None


@dataclass(frozen=True, slots=True)
class Detection:
    """A predicted segment ``[start, end)`` of a class; a more certain one comes first."""

    video: int
    start: float
    end: float
    confidence: float
    label: Hashable = None


@dataclass(frozen=True, slots=True)
class MeanAveragePrecision:
    """mAP in [0, 1] at each tIoU; NaN where no class has a true segment."""

    tious: tuple[float, ...]
    per_tiou: tuple[float, ...]

    @property
    def average(self) -> float:
        """The mean over the tIoUs."""
        return float(np.mean(self.per_tiou))


def mean_average_precision(
    detections: Sequence[Detection], truths: Sequence[Truth], *, tious: Sequence[float] = TIOUS
) -> MeanAveragePrecision:
    """Mean over the classes that have true segments, in the way of ActivityNet.

    Caba Heilbron et al. "ActivityNet", CVPR 2015. Detections in order of confidence take the true segment of their
    video and class that they overlap most, if that is enough and it is still free, else the next one; the precision at
    a recall is the highest from there on. Detections of classes without truth count nowhere.
    """
    true_of, found_of = _by_label(truths), _by_label(detections)
    per_tiou = []
    for value in tious:
        each = [average_precision(found_of.get(label, []), true, at_least=value) for label, true in true_of.items()]
        per_tiou.append(float(np.mean(each)) if each else float("nan"))
    return MeanAveragePrecision(tuple(tious), tuple(per_tiou))


def average_precision(
    detections: Sequence[Detection], truths: Sequence[Truth], *, at_least: float, interpolated: bool = True
) -> float:
    """Average precision in [0, 1] of the detections of one class; NaN without truth.

    ``interpolated`` takes at each hit the highest precision from there on, else the precision at the hit itself.
    """
    if not truths:
        return float("nan")
    hit = _hits(detections, truths, at_least)
    if not hit.any():
        return 0.0
    precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
    if interpolated:
        precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(precision[hit].sum()) / len(truths)


def segments_of(
    scores_N: Scores, *, thresholds: Sequence[float] | Counts, video: int, overlap: float = 0.6
) -> list[Detection]:
    """Ranked segments of a curve, of no class: runs at several thresholds, confidence the mean score inside.

    Of segments that overlap by more than ``overlap`` (tIoU) the more confident one stays.
    """
    sums = np.append(0, np.cumsum(scores_N, dtype=np.float64))
    runs = {run for threshold in thresholds for run in alarm_runs(scores_N, threshold=float(threshold))}
    found = [Detection(video, start, end, float(sums[end] - sums[start]) / (end - start)) for start, end in runs]
    return suppressed(found, overlap=overlap)


def suppressed(detections: Sequence[Detection], *, overlap: float) -> list[Detection]:
    """Non-maximum suppression among detections of one video and class, the most confident first."""
    order = sorted(detections, key=lambda one: (-one.confidence, one.start, one.end))
    spans = np.array([(one.start, one.end) for one in order], np.float64).reshape(-1, 2)
    alive = np.ones(len(order), bool)
    kept = []
    for number, one in enumerate(order):
        if alive[number]:
            kept.append(one)
            alive[number + 1 :] &= tiou(spans[number : number + 1], spans[number + 1 :])[0] <= overlap
    return kept


def vadclip_compatible(
    class_scores: Sequence[Scores],
    truths: Sequence[Truth],
    *,
    classes: Sequence[Hashable],
    hop: int = 16,
    tious: Sequence[float] = TIOUS,
) -> MeanAveragePrecision:
    """mAP in the way of the script of VadCLIP (Wu et al., AAAI 2024), for comparison with published numbers only.

    ``class_scores``: (T, C) per video, in snippets; ``truths`` in frames, rounded to snippets. Per video and class one
    threshold, max - 0.6 (max - min); segments of at least two snippets above it; confidence is the highest score
    inside plus 0.7 times the class score of the video, the mean of its top T // 16 snippets (here at least one);
    suppression at 0.6; precision not interpolated. Its peculiarities are kept: a class without any segment makes the
    whole mAP 0, and classes without truth count as 0, so that with 14 classes of which "Normal" never occurs in the
    truth the best possible is 13/14. Raises ValueError for scores of another number of classes.
    """
    for scores in class_scores:
        if scores.ndim != 2 or scores.shape[1] != len(classes):
            raise ValueError(f"class scores must be (T, {len(classes)}), got {scores.shape}")
    in_snippets = _by_label([Truth(t.video, round(t.start / hop), round(t.end / hop), t.label) for t in truths])
    found = {label: _vadclip_segments(class_scores, number) for number, label in enumerate(classes)}
    per_tiou = []
    for value in tious:
        each = [
            average_precision(found[label], in_snippets[label], at_least=value, interpolated=False)
            if in_snippets.get(label)
            else 0.0
            for label in classes
        ]
        per_tiou.append(float(np.mean(each)) if all(found.values()) else 0.0)
    return MeanAveragePrecision(tuple(tious), tuple(per_tiou))


def _vadclip_segments(class_scores: Sequence[Scores], number: int) -> list[Detection]:
    segments: list[Detection] = []
    for video, scores in enumerate(class_scores):
        own = scores[:, number].astype(np.float64)
        threshold = own.max() - 0.6 * (own.max() - own.min())
        whole = float(np.sort(own)[::-1][: max(len(own) // 16, 1)].mean())
        runs = alarm_runs(own, threshold=float(np.nextafter(threshold, np.inf)))  # above it, not at it
        segments += suppressed(
            [Detection(video, s, e, float(own[s:e].max()) + 0.7 * whole) for s, e in runs if e - s >= 2], overlap=0.6
        )
    return segments


def _hits(detections: Sequence[Detection], truths: Sequence[Truth], at_least: float) -> npt.NDArray[np.bool_]:
    """Whether each detection, the most confident first, takes a true segment; each is taken once."""
    free: Mapping[int, list[Truth]] = _by_video(truths)
    order = sorted(detections, key=lambda one: -one.confidence)
    hit = np.zeros(len(order), bool)
    for number, one in enumerate(order):
        true = free.get(one.video)
        if not true:
            continue
        overlap = tiou([(one.start, one.end)], [(each.start, each.end) for each in true])[0]
        best = int(overlap.argmax())
        if overlap[best] >= at_least:
            hit[number] = True
            del true[best]
    return hit


def _by_label(segments: Sequence[Truth] | Sequence[Detection]) -> dict[Hashable, list]:  # type: ignore[type-arg]
    groups: dict[Hashable, list] = defaultdict(list)  # type: ignore[type-arg]
    for one in segments:
        groups[one.label].append(one)
    return dict(groups)


def _by_video(truths: Sequence[Truth]) -> dict[int, list[Truth]]:
    groups: dict[int, list[Truth]] = defaultdict(list)
    for one in truths:
        groups[one.video].append(one)
    return groups
