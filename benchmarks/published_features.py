"""Do our features equal published ones? I3D of the fight clips, extracted by ``vad extract``'s worker and compared.

    python benchmarks/published_features.py --data ../shared/data/fight

The published features (16-frame snippets, centre crop, float16) were made of 24 frames a second, the last frame before
each tick. Clips slower than that were filled with repeated frames and are told apart here.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from machine import write

from vad.extraction.jobs import Job
from vad.extraction.worker import Task, Worker
from vad.verification import compare

SETTINGS: dict[str, Any] = {"kind": "i3d", "fps": 24, "resize": 256, "runtime": "openvino-f32"}


def agreements(data: Path, tick: str, *, most: int | None) -> list[dict[str, Any]]:
    """How each clip's rows agree with the published ones."""
    found = []
    with tempfile.TemporaryDirectory() as folder, np.load(data / "i3d_features_fp16.npz") as published:
        worker = Worker(Task(Path(folder), {**SETTINGS, "tick": tick}, "float32"))
        ends = np.cumsum(published["count"])
        features = published["feat"]
        for name, end, count in list(zip(published["names"].tolist(), ends, published["count"], strict=True))[:most]:
            kind, _, number = name.partition("_")
            outcome = worker(Job(name, data / "clips" / kind / f"{number}.mp4"))
            assert outcome.status == "done", outcome
            video = worker.store.read(name)
            theirs = features[end - count : end].astype(np.float32)
            rows = min(len(video.values), len(theirs))
            agreement = compare(video.values[:rows], theirs[:rows])
            found.append(
                {
                    "name": name,
                    "fps": video.record.fps,
                    "rows": [len(video.values), len(theirs)],
                    "relative_error": agreement.relative_error,
                    "cosine_min": agreement.cosine_min,
                }
            )
    return found


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Errors of the clips that were not too slow, and how many those are."""
    fast = [row for row in found if row["fps"] >= 23.9]
    errors = np.array([row["relative_error"] for row in fast])
    return {
        "clips": len(found),
        "of_at_least_24_frames_per_second": len(fast),
        "of_those_within_1e-3": int((errors <= 1e-3).sum()),
        "median_relative_error": float(np.median(errors)),
        "slower_within_1e-3": sum(row["relative_error"] <= 1e-3 for row in found if row["fps"] < 23.9),
    }


def main() -> None:
    """Run everything and keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--most", type=int, help="only so many clips")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    found = {tick: agreements(arguments.data, tick, most=arguments.most) for tick in ("before", "nearest")}
    numbers = {tick: summary(rows) for tick, rows in found.items()}
    print(json.dumps(numbers, indent=1))
    print("written:", write(arguments.out, "published-features", {**numbers, "clips_with_before": found["before"]}))


if __name__ == "__main__":
    main()
