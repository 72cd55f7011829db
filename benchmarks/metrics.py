"""How fast the frame-level metrics are, and how much memory they take: on UCF-Crime's 1,109,680 test frames.

Three score sets: a real model's 32 scores per video, the same length of continuous scores (no two equal, the hard
case for sorting), and scikit-learn on the same arrays beside them. On one core.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from machine import write

from vad import datasets
from vad.evaluation import scores as score_sets
from vad.evaluation.alignment import ScoredVideo, align
from vad.metrics import bootstrap
from vad.metrics.frame import auc, frame_metrics


def seconds(function: Callable[[], object], *, repeats: int = 5) -> float:
    """Median wall-clock seconds of a call."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def measure(videos: list[ScoredVideo], resamples: int) -> dict[str, Any]:
    """Times of one score set."""
    from sklearn.metrics import roc_auc_score

    labels, scores = [video.labels_N for video in videos], [video.scores_N for video in videos]
    together, flags = np.concatenate(scores), np.concatenate(labels)
    metrics = frame_metrics(labels, scores)
    ours, theirs = seconds(lambda: auc(flags, together)), seconds(lambda: roc_auc_score(flags, together))
    began = time.perf_counter()
    statistic = bootstrap.frame_statistic(labels, scores)
    drawn = bootstrap.resample(statistic, len(videos), resamples=resamples, seed=0)
    bootstrapped = time.perf_counter() - began
    found = bootstrap.interval(metrics.auc, drawn["auc"])
    return {
        "frames": metrics.frames,
        "levels": metrics.levels,
        "auc": round(metrics.auc, 6),
        "ap": round(metrics.ap, 6),
        "auc_interval": [round(found.low, 4), round(found.high, 4)],
        "auc_difference_to_scikit_learn": abs(metrics.auc - roc_auc_score(flags, together)),
        "all_frame_metrics_s": round(seconds(lambda: frame_metrics(labels, scores)), 3),
        "auc_s": round(ours, 4),
        "scikit_learn_auc_s": round(theirs, 4),
        "times_as_fast": round(theirs / ours, 1),
        "resamples": resamples,
        "bootstrap_s": round(bootstrapped, 2),
    }


def main() -> None:
    """Measure and keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with test_annotations.csv, model_scores_32.npz"
    )
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    benchmark = datasets.read("ucf-crime", arguments.data / "test_annotations.csv")
    videos = list(align(score_sets.read(arguments.data / "model_scores_32.npz"), benchmark).videos)
    random = np.random.default_rng(0)
    continuous = [
        ScoredVideo(v.name, v.categories, random.random(len(v.labels_N)), v.labels_N, v.events, v.fps) for v in videos
    ]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    frame_metrics([video.labels_N for video in videos], [video.scores_N for video in videos])
    first = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    numbers = {
        "cores": 1,
        "first_call_s": round(first, 3),
        "peak_memory_of_the_process_mib": round(peak / 1024),
        "of_which_before_the_metrics_mib": round(before / 1024),
        "32 scores per video": measure(videos, arguments.resamples),
        "continuous": measure(continuous, arguments.resamples),
    }
    print(numbers)
    print("written:", write(arguments.out, "metrics", numbers))


if __name__ == "__main__":
    main()
