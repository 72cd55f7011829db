"""Content-free controls: scores that nobody looked at a pixel for.

A number means something only beside what these reach on the same videos. A perfect label for each video with no idea
of when, a bell over the middle of the video, and both together score as high as published systems on some benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from vad.metrics.frame import Counts, Labels

MIDDLE_WIDTH = 0.5  # standard deviation of the bell, in lengths of the video


def video_label(labels_N: Labels) -> Counts:
    """1 for every frame of a video that has an abnormal frame, else 0: perfect classification, no localisation."""
    return np.full(len(labels_N), float(labels_N.any()))


def middle(num_frames: int, *, width: float = MIDDLE_WIDTH) -> Counts:
    """exp(-((t - 0.5) / width)² / 2) at t = (n + 0.5) / N: "it happens in the middle", in (0, 1].

    >>> middle(3).round(3).tolist()
    [0.801, 1.0, 0.801]
    """
    t = (np.arange(num_frames) + 0.5) / num_frames
    return np.exp(-(((t - 0.5) / width) ** 2) / 2)


def controls(labels: Sequence[Labels], *, seed: int = 0) -> Mapping[str, Callable[[], list[Counts]]]:
    """Scores of each control for videos given by their labels, made when they are asked for."""

    def random() -> list[Counts]:
        generator = np.random.default_rng(seed)
        return [generator.random(len(one)) for one in labels]

    return {
        "perfect video label": lambda: [video_label(one) for one in labels],
        "middle of the video": lambda: [middle(len(one)) for one in labels],
        "label × middle": lambda: [video_label(one) * middle(len(one)) for one in labels],
        "random": random,
    }
