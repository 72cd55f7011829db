"""UCSD Ped2: fit on the 16 training clips, score the 12 test clips, frame AUC.

Causal curves, no per-video normalisation, no look into the test labels before the last line.
Data: Mahadevan et al. 2010 (layout: training/*.mp4, testing/*.mp4, test_intervals.csv with one half-open
interval of abnormal frames per test video).
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np
from machine import write

from streaming.recording import score_recording
from trainers.normal import fit
from vad.cli.composition import Composition
from vad.config import configs_dir
from vad.metrics.frame import frame_auc
from vad.video import Video, find_videos


def labels(path: Path) -> dict[str, tuple[int, int, int]]:
    """Video name -> (frames, first abnormal frame, first normal frame after it)."""
    with open(path, newline="") as file:
        return {
            row["video"]: (int(row["num_frames"]), int(row["start_frame"]), int(row["end_frame"]))
            for row in csv.DictReader(file)
        }


def measure(data: Path, config: Path, overrides: list[str]) -> dict[str, object]:
    """Fit, score and measure one config."""
    settings = Composition.read(config, overrides=overrides, runtime=None)
    extractor = settings.extractor.build()
    head = settings.head.build()
    began = time.monotonic()
    fitted = fit(find_videos([data / "training"]), extractor, head)
    fit_seconds = time.monotonic() - began
    truth = labels(data / "test_intervals.csv")
    flags, scores, raws, frames = [], [], [], 0
    began = time.monotonic()
    for path in find_videos([data / "testing"]):
        recording = score_recording(
            Video(path),
            extractor,
            head,
            fitted.calibration,
            smoother=settings.smoothing.build(),
            alarms=settings.events,
        )
        count, start, end = truth[path.stem]
        if len(recording.curve) != count:
            raise SystemExit(f"{path}: decoded {len(recording.curve)} frames, the annotation has {count}")
        number = np.arange(count)
        flags.append((number >= start) & (number < end))
        scores.append(recording.curve.score_N)
        raws.append(recording.curve.raw_N)
        frames += count
        print(f"{path.stem}: {count} frames, {len(recording.events)} events")
    seconds = time.monotonic() - began
    smoothed, raw = frame_auc(flags, scores), frame_auc(flags, raws)
    return {
        "config": config.name,
        "overrides": overrides,
        "resolved": settings.resolved(),
        "runtime": extractor.runtime,
        "frame_auc_micro": round(smoothed.micro, 4),
        "frame_auc_macro": round(smoothed.macro, 4),
        "macro_videos": smoothed.macro_videos,
        "frame_auc_micro_before_smoothing": round(raw.micro, 4),
        "label": f"lookahead = {settings.smoothing.lookahead:g} s" if settings.smoothing.lookahead else "causal",
        "per_video_normalisation": False,
        "train_frames": fitted.frames,
        "test_frames": frames,
        "abnormal_frames": int(sum(f.sum() for f in flags)),
        "fit_seconds": round(fit_seconds, 1),
        "score_frames_per_second": round(frames / seconds, 1),
    }


def main() -> None:
    """Measure the shipped configs, or the one that is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of Ped2")
    parser.add_argument("--config", type=Path, nargs="*", default=sorted((configs_dir() / "ped2").glob("*.yaml")))
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    if not (arguments.data / "test_intervals.csv").is_file():
        raise SystemExit(f"no Ped2 in {arguments.data}: it needs training/, testing/ and test_intervals.csv")
    runs = []
    for config in arguments.config:
        run = measure(arguments.data, config, arguments.overrides)
        runs.append(run)
        print(
            f"{run['config']}: frame AUC micro {run['frame_auc_micro']}, macro {run['frame_auc_macro']} "
            f"over {run['macro_videos']} videos ({run['label']}); {run['score_frames_per_second']} frames/s"
        )
    print("written:", write(arguments.out, "ped2", {"runs": runs}))


if __name__ == "__main__":
    main()
