"""UCSD Ped2: fit on the 16 training clips, score the 12 test clips; frame, pixel and region metrics.

Causal curves and maps, no per-video normalisation, no look into the test labels before all is scored. Heat maps are
the head's own, calibrated, not smoothed, each held over the frames of its snippet; regions form at fixed thresholds.
Data: Mahadevan et al. 2010 (layout: training/*.mp4, testing/*.mp4, test_intervals.csv with one half-open
interval of abnormal frames per test video, test_masks_packed.npz with the masks (frames, 240, 360) of each, the last
axis in packed bits). The tracks are linked from the masks: the official track files are not used.
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
from vad.calibration import Calibration
from vad.cli.composition import Composition
from vad.config import configs_dir
from vad.head import NormalHead
from vad.metrics.frame import Labels, frame_metrics
from vad.metrics.pixel import pixel_criterion, pixel_ranks
from vad.metrics.region import rbdc_tbdc
from vad.metrics.tracks import detections_from_heat, tracks_from_masks
from vad.pipeline import Scored
from vad.types import Array, to_frames
from vad.video import Video, find_videos

WIDTH = 360  # of the pictures; packed masks end in padding


def labels(path: Path) -> dict[str, tuple[int, int, int]]:
    """Video name -> (frames, first abnormal frame, first normal frame after it)."""
    with open(path, newline="") as file:
        return {
            row["video"]: (int(row["num_frames"]), int(row["start_frame"]), int(row["end_frame"]))
            for row in csv.DictReader(file)
        }


class Maps:
    """The calibrated heat maps of one video: a few hundred small grids."""

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration
        self._maps: list[Array] = []
        self._spans: list[tuple[int, int]] = []

    def add(self, scored: Scored, _frames: int) -> None:
        """Keep the map of the next snippet, each place calibrated as if it were the score."""
        if scored.heat is not None:
            self._maps.append(self._calibration(scored.heat))
            self._spans.append((scored.start_frame, scored.end_frame))

    def per_frame(self, num_frames: int) -> Array | None:
        """Each map held over the frames that its snippet stands for, as the curve is: (N, h, w)."""
        if not self._maps:
            return None
        numbers = np.arange(len(self._maps), dtype=np.float32)
        nothing = np.empty(0, np.int64)
        map_N = to_frames(numbers, np.array(self._spans), num_frames=num_frames, breaks=nothing)
        return np.stack(self._maps)[map_N.astype(np.int64)]


def located(masks: list[Labels], heats: list[Array]) -> dict[str, object]:
    """Pixel and region metrics of all videos."""
    began = time.monotonic()
    pixels, frames = pixel_ranks(masks, heats), pixel_criterion(masks, heats)
    size = (masks[0].shape[2], masks[0].shape[1])
    regions = rbdc_tbdc(
        [tracks_from_masks(one) for one in masks], [detections_from_heat(one, size=size) for one in heats]
    )
    return {
        "pixel_auc": round(pixels.auc, 4),
        "pixel_average_precision": round(pixels.average_precision, 4),
        "abnormal_pixels": round(pixels.abnormal / (pixels.abnormal + float(pixels.normal)), 4),
        "pixel_criterion_auc": round(frames.auc, 4),
        "pixel_criterion_eer": round(frames.eer, 4),
        "rbdc": round(regions.rbdc, 4),
        "tbdc": round(regions.tbdc, 4),
        "most_false_regions_per_frame": round(float(regions.false_per_frame_P.max()), 3),
        "regions": regions.regions,
        "tracks": regions.tracks,
        "seconds": round(time.monotonic() - began, 1),
    }


def measure(data: Path, config: Path, overrides: list[str]) -> dict[str, object]:
    """Fit, score and measure one config."""
    settings = Composition.read(config, overrides=overrides, runtime=None)
    extractor = settings.extractor.build()
    head = settings.head.build()
    assert isinstance(head, NormalHead)
    began = time.monotonic()
    fitted = fit(find_videos([data / "training"]), extractor, head)
    fit_seconds = time.monotonic() - began
    truth = labels(data / "test_intervals.csv")
    packed = np.load(data / "test_masks_packed.npz")
    flags, scores, raws, masks, heats, frames = [], [], [], [], [], 0
    began = time.monotonic()
    for path in find_videos([data / "testing"]):
        maps = Maps(fitted.calibration)
        recording = score_recording(
            Video(path),
            extractor,
            head,
            fitted.calibration,
            smoother=settings.smoothing.build(),
            alarms=settings.events,
            observe=maps.add,
        )
        count, start, end = truth[path.stem]
        if len(recording.curve) != count:
            raise SystemExit(f"{path}: decoded {len(recording.curve)} frames, the annotation has {count}")
        number = np.arange(count)
        flags.append((number >= start) & (number < end))
        scores.append(recording.curve.score_N)
        raws.append(recording.curve.raw_N)
        masks.append(np.unpackbits(packed[path.stem], axis=-1)[..., :WIDTH].astype(bool))
        if (heat := maps.per_frame(count)) is not None:
            heats.append(heat)
        frames += count
        print(f"{path.stem}: {count} frames, {len(recording.events)} events")
    seconds = time.monotonic() - began
    smoothed, raw = frame_metrics(flags, scores), frame_metrics(flags, raws)
    return {
        "config": config.name,
        "overrides": overrides,
        "resolved": settings.resolved(),
        "runtime": extractor.runtime,
        "frame_auc_micro": round(smoothed.auc, 4),
        "frame_auc_macro": round(smoothed.auc_macro, 4),
        "macro_videos": smoothed.macro_videos,
        "frame_auc_micro_before_smoothing": round(raw.auc, 4),
        "located": located(masks, heats) if heats else "this head gives no heat maps",
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
    for name in ("training", "testing", "test_intervals.csv", "test_masks_packed.npz"):
        if not (arguments.data / name).exists():
            raise SystemExit(f"no Ped2 in {arguments.data}: {name} is missing")
    runs = []
    for config in arguments.config:
        run = measure(arguments.data, config, arguments.overrides)
        runs.append(run)
        print(
            f"{run['config']}: frame AUC micro {run['frame_auc_micro']}, macro {run['frame_auc_macro']} "
            f"over {run['macro_videos']} videos ({run['label']}); {run['score_frames_per_second']} frames/s"
        )
        print(f"  {run['located']}")
    print("written:", write(arguments.out, "ped2", {"runs": runs}))


if __name__ == "__main__":
    main()
