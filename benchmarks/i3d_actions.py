"""Does the I3D port see what the published network sees? Two action clips, windows of 16, 32 and 64 frames.

Data: actions/*.mp4 and labels/kinetics400_labels.txt. Pictures as in training: short side 256, centre 224.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from machine import write

from vad.config import load
from vad.types import Array
from vad.video import Video, probe

CLIPS = {"v_GGSY1Qvo990": "clean and jerk", "v_ZNVhz7ctTq0": "walking the dog"}


def probabilities(path: Path, frames: int) -> Array:
    """Class probabilities (T, 400) of consecutive windows."""
    extractor = load(
        "extractors", {"kind": "i3d", "output": "logits", "clip_frames": frames, "runtime": "openvino-f32"}
    ).build()
    found = probe(path)
    factor = 256 / min(found.width, found.height)
    size = (round(found.width * factor), round(found.height * factor))
    pixels = np.stack([frame.pixels for frame in Video(path).frames(size=size) if frame.pixels is not None])
    left, top = (size[0] - 224) // 2, (size[1] - 224) // 2
    pixels = np.ascontiguousarray(pixels[:, top : top + 224, left : left + 224])
    starts = range(0, len(pixels) - frames + 1, frames)
    logits = np.concatenate([extractor(pixels[None, start : start + frames]) for start in starts])
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(shifted / shifted.sum(1, keepdims=True))


def main() -> None:
    """Print and keep the share of windows whose label is on top, and its probabilities."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds actions/ and labels/")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    classes = (arguments.data / "labels" / "kinetics400_labels.txt").read_text().splitlines()
    rows: list[dict[str, Any]] = []
    for name, label in CLIPS.items():
        for frames in (16, 32, 64):
            chances = probabilities(arguments.data / "actions" / f"{name}.mp4", frames)
            its_own = chances[:, classes.index(label)]
            on_top = chances.argmax(1) == classes.index(label)
            rows.append(
                {
                    "clip": name,
                    "label": label,
                    "window_frames": frames,
                    "windows": len(chances),
                    "label_on_top": round(float(on_top.mean()), 3),
                    "probability_lowest": round(float(its_own.min()), 3),
                    "probability_median": round(float(np.median(its_own)), 3),
                }
            )
            print(rows[-1], flush=True)
    print("written:", write(arguments.out, "i3d-actions", {"rows": rows}))


if __name__ == "__main__":
    main()
