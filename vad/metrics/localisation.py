"""Temporal localisation: mean average precision of ranked segments, clean and as the field's script computes it.

A detection is right when it overlaps a true segment of its video and class enough, in temporal IoU (tIoU), and no more
confident one has taken that segment already. Two numbers are called mAP in papers; they do not compare:

- `mean_average_precision`, in the way of ActivityNet;
- `vadclip_compatible`, in the way of a script that many papers with classes of anomalies use.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from vad.metrics.alarms import alarm_runs
from vad.metrics.event import TIOUS, check_tious, tiou
from vad.metrics.frame import Counts, Scores, run_starts


@dataclass(frozen=True, slots=True)
class Truth:
    """A true segment ``[start, end)`` of a class."""

    video: int
    start: float
    end: float
    label: Hashable = None

    def __post_init__(self) -> None:
        if not self.start < self.end:
            raise ValueError(f"a segment needs start < end, got [{self.start}, {self.end})")


@dataclass(frozen=True, slots=True)
class Detection:
    """A predicted segment ``[start, end)`` of a class; a more confident one comes first."""

    video: int
    start: float
    end: float
    confidence: float  # finite, of any scale
    label: Hashable = None

    def __post_init__(self) -> None:
        if not self.start < self.end:
            raise ValueError(f"a segment needs start < end, got [{self.start}, {self.end})")
        if not np.isfinite(self.confidence):
            raise ValueError(f"confidence must be finite, got {self.confidence}")


@dataclass(frozen=True, slots=True)
class MeanAveragePrecision:
    """mAP in [0, 1] at each tIoU; NaN where no class has a true segment."""

    tious: tuple[float, ...]
    per_tiou: tuple[float, ...]

    @property
    def average(self) -> float:
        """The mean over the tIoUs."""
        return float(np.mean(self.per_tiou))


Segment = TypeVar("Segment", Truth, Detection)


def mean_average_precision(
    detections: Sequence[Detection],
    truths: Sequence[Truth],
    *,
    tious: Sequence[float] = TIOUS,
    classes: Collection[Hashable] | None = None,
) -> MeanAveragePrecision:
    """Mean of `average_precision` over the classes that have true segments, in the way of ActivityNet.

    Caba Heilbron et al. "ActivityNet: A Large-Scale Video Benchmark for Human Activity Understanding", CVPR 2015.
    ``classes`` leaves out all others. Detections of classes without truth count nowhere; a class with truth and
    without detections counts as 0. Raises ValueError for a tIoU outside (0, 1].
    """
    check_tious(tious)
    true_of, found_of = _by_label(truths), _by_label(detections)
    labels = [label for label in true_of if classes is None or label in classes]
    each_CU = [_average_precisions(found_of.get(label, []), true_of[label], tious) for label in labels]
    per_tiou = np.mean(each_CU, axis=0) if each_CU else np.full(len(tious), np.nan)
    return MeanAveragePrecision(tuple(tious), tuple(per_tiou.tolist()))


def average_precision(
    detections: Sequence[Detection], truths: Sequence[Truth], *, at_least: float, interpolated: bool = True
) -> float:
    """Average precision in [0, 1] of the detections of one class, whatever their labels; NaN without truth.

    Sum over the hits of the precision there / number of true segments. ``interpolated`` takes the highest precision
    from there on (as ActivityNet does), else that at the hit itself (as scikit-learn does). Detections take, in order
    of confidence, the free segment that they overlap most. Equally confident ones are added to the ranking together,
    so that the order of videos makes no difference (ActivityNet's code leaves it to the sort).

    >>> truth = [Truth(0, 0, 10), Truth(1, 0, 10)]
    >>> ranked = [Detection(2, 0, 10, 0.9), Detection(0, 0, 9, 0.8), Detection(1, 1, 10, 0.7)]
    >>> round(average_precision(ranked, truth, at_least=0.5), 3)
    0.667
    >>> round(average_precision(ranked, truth, at_least=0.5, interpolated=False), 3)
    0.583
    """
    check_tious([at_least])
    return _average_precisions(detections, truths, [at_least], interpolated=interpolated)[0]


def segments_of(
    scores_N: Scores, *, thresholds: Sequence[float] | Counts, video: int, overlap: float = 0.6
) -> list[Detection]:
    """Ranked segments of a curve, of no class: runs at several thresholds, confidence the mean score inside.

    Of segments that overlap by more than ``overlap`` (tIoU) the more confident one stays. With them a plain curve gets
    a mAP of one class. Any finite scores; raises ValueError for others.

    >>> [(one.start, one.end) for one in segments_of(np.array([0.1, 0.5, 0.9, 0.5]), thresholds=[0.8, 0.4], video=0)]
    [(2, 3), (1, 4)]
    """
    if not np.isfinite(scores_N).all():
        raise ValueError(f"{int((~np.isfinite(scores_N)).sum())} frames have no finite score")
    sums = np.append(0, np.cumsum(scores_N, dtype=np.float64))
    runs = {run for threshold in thresholds for run in alarm_runs(scores_N, threshold=float(threshold))}
    found = [Detection(video, start, end, float(sums[end] - sums[start]) / (end - start)) for start, end in runs]
    return suppressed(found, overlap=overlap)


def suppressed(detections: Sequence[Detection], *, overlap: float) -> list[Detection]:
    """Non-maximum suppression among detections of one video and class, the most confident first."""
    order = sorted(detections, key=_rank)
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
    """mAP in the way of the script of VadCLIP, for comparison with published numbers only.

    Wu et al. "VadCLIP", AAAI 2024, https://arxiv.org/abs/2308.11681, script ``src/utils/ucf_detectionMAP.py`` of
    github.com/nwpu-zxr/VadCLIP, written anew. ``class_scores``: (T, C) per video, probabilities of snippets, each held
    for ``hop`` frames; ``truths`` in frames. All is done in frames, so that the shortest segment is one snippet.

    - Class score of a video: mean of its highest F // 16 of F frames. Where it is not positive, or F < 16, the video
      has no segment of the class.
    - Segments: at least 2 frames above max - 0.6 (max - min) of this video and class, however low that is.
    - Confidence: highest score inside + 0.7 x class score. The script's suppression of overlaps above 0.6 never meets
      one, since runs at one threshold are apart.
    - Precision at each hit, not interpolated; equal confidences together, where the script leaves it to the sort.
    - A class without a segment in any video makes the whole mAP 0.
    - The mean is over all ``classes``; one without truth counts as 0. UCF-Crime's normal videos have another label in
      the published truth than the class "Normal", so that the best of 14 classes is 13/14.

    Raises ValueError: another number of classes, scores that are not finite, a hop below 1, a tIoU outside (0, 1].
    """
    check_tious(tious)
    if hop < 1:
        raise ValueError(f"hop must be at least 1, got {hop}")
    for scores_TC in class_scores:
        if scores_TC.ndim != 2 or scores_TC.shape[1] != len(classes):
            raise ValueError(f"class scores must be (T, {len(classes)}), got {scores_TC.shape}")
        if not np.isfinite(scores_TC).all():
            raise ValueError(f"{int((~np.isfinite(scores_TC)).sum())} class scores are not finite")
    true_of = _by_label(truths)
    each_CU = []
    for number, label in enumerate(classes):
        found = [
            segment
            for video, scores_TC in enumerate(class_scores)
            for segment in _vadclip_segments(np.repeat(scores_TC[:, number].astype(np.float64), hop), video)
        ]
        if not found:
            return MeanAveragePrecision(tuple(tious), (0.0,) * len(tious))
        true = true_of.get(label)
        each_CU.append(_average_precisions(found, true, tious, interpolated=False) if true else [0.0] * len(tious))
    return MeanAveragePrecision(tuple(tious), tuple(np.mean(each_CU, axis=0).tolist()))


def _vadclip_segments(scores_N: Scores, video: int) -> list[Detection]:
    top = len(scores_N) // 16  # of frames, whatever the hop
    whole = float(np.sort(scores_N)[::-1][:top].mean()) if top else 0.0
    if not whole > 0:
        return []
    threshold = scores_N.max() - 0.6 * (scores_N.max() - scores_N.min())
    runs = alarm_runs(scores_N, threshold=float(np.nextafter(threshold, np.inf)))  # above it, not at it
    return [Detection(video, s, e, float(scores_N[s:e].max()) + 0.7 * whole) for s, e in runs if e - s >= 2]


def _average_precisions(
    detections: Sequence[Detection], truths: Sequence[Truth], tious: Sequence[float], *, interpolated: bool = True
) -> list[float]:
    """One per tIoU, for one class."""
    if not truths:
        return [float("nan")] * len(tious)
    ranked = sorted(detections, key=_rank)
    lasts = np.append(run_starts(np.array([one.confidence for one in ranked]))[1:], len(ranked)) - 1
    last_D = np.repeat(lasts, np.diff(lasts, prepend=-1))  # of the detections that are as confident as each
    overlaps = _overlaps(ranked, truths)
    found = []
    for value in tious:
        hit_D = np.zeros(len(ranked), bool)
        for places, overlap_PT in overlaps:
            hit_D[places] = _hits(overlap_PT, value)
        precision_D = (np.cumsum(hit_D) / np.arange(1, len(ranked) + 1))[last_D]
        if interpolated:
            precision_D = np.maximum.accumulate(precision_D[::-1])[::-1]
        found.append(float(precision_D[hit_D].sum()) / len(truths))
    return found


def _overlaps(ranked: Sequence[Detection], truths: Sequence[Truth]) -> list[tuple[npt.NDArray[np.int64], Counts]]:
    """For each video with truth: the places of its detections in the ranking, and their tIoU with its segments."""
    spans: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for true in truths:
        spans[true.video].append((true.start, true.end))
    places: dict[int, list[int]] = defaultdict(list)
    for place, one in enumerate(ranked):
        if one.video in spans:
            places[one.video].append(place)
    return [
        (np.array(own), tiou([(ranked[place].start, ranked[place].end) for place in own], spans[video]))
        for video, own in places.items()
    ]


def _hits(overlap_PT: Counts, at_least: float) -> npt.NDArray[np.bool_]:
    """Whether each detection of a video, the most confident first, takes a true segment; each is taken once."""
    free_T = np.ones(overlap_PT.shape[1], bool)
    hit_P = np.zeros(len(overlap_PT), bool)
    for place in np.flatnonzero((overlap_PT >= at_least).any(1)):
        best = int(np.where(free_T, overlap_PT[place], -1).argmax())
        if free_T[best] and overlap_PT[place, best] >= at_least:
            hit_P[place], free_T[best] = True, False
    return hit_P


def _rank(one: Detection) -> tuple[float, float, float]:
    return -one.confidence, one.start, one.end


def _by_label(segments: Iterable[Segment]) -> dict[Hashable, list[Segment]]:
    groups: dict[Hashable, list[Segment]] = defaultdict(list)
    for one in segments:
        groups[one.label].append(one)
    return dict(groups)
