"""How the settings of ``configs/ped2/memory.yaml`` were chosen: on the training videos alone.

Training videos have no anomalies, so plausible ones are put into them: people cut out of other training videos
run through the picture at 2 to 6 times walking speed, somewhere and somewhat larger or smaller; boxes of
foreign texture pass like small vehicles; a part of the picture plays twice as fast. Four folds: fit on twelve
videos, then tell the altered from the unaltered clips of the other four. The test videos are not opened.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from machine import write
from PIL import Image, ImageFilter

from vad.config import load
from vad.extractor import Extractor
from vad.metrics.frame import auc
from vad.types import Array, Pixels
from vad.video import Video, find_videos

STEP, FOLDS = 6, 4  # frames between the clips that are compared
SIZE = (480, 320)
EXTRACTOR: dict[str, Any] = {"kind": "i3d", "output": "Mixed_4d", "clip_frames": 8, "hop": 4, "size": list(SIZE)}
WIDE = {"context": "everywhere", "capacity": 8192, "candidates": 65536}
FEATURES: list[dict[str, Any]] = [
    *({"pool": pool, "unit_length": unit} for pool in (1, 3) for unit in (False, True)),
    {"pool": 5},
    {"reduce": 256},
    {"context": "everywhere"},
    WIDE,
    {**WIDE, "reduce": 256},
]
SCORES: list[dict[str, Any]] = [
    {"equalise": equal, "top": top} for equal in (False, True) for top in (1, 3, 10, 30, 60)
]


def pictures(path: Path) -> Pixels:
    """All frames of a video, (N, H, W, 3)."""
    return np.stack([frame.pixels for frame in Video(path).frames(size=SIZE) if frame.pixels is not None])


def people(video: Pixels) -> list[tuple[Pixels, Array, int]]:
    """Upright moving things: their picture, a soft mask (h, w, 1), and the row of their head."""
    empty = np.median(video[::4], axis=0)
    found = []
    for frame in video[5::20]:
        moving = np.abs(frame - empty).mean(2).astype(np.uint8)
        mask = np.asarray(Image.fromarray(moving).filter(ImageFilter.GaussianBlur(2))) > 12
        for rows, columns in boxes(mask):
            height, width = rows.stop - rows.start, columns.stop - columns.start
            if 20 < height < 70 and 8 < width < 36 and height > 1.5 * width:
                soft = Image.fromarray(mask[rows, columns].astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(1))
                found.append(
                    (frame[rows, columns].copy(), np.asarray(soft, np.float32)[..., None] / np.float32(255), rows.start)
                )
    return found


def boxes(mask: np.ndarray) -> list[tuple[slice, slice]]:
    """Bounding boxes of connected parts of a mask."""
    from scipy import ndimage

    return list(ndimage.find_objects(ndimage.label(mask)[0]))


def with_runner(video: Pixels, person: tuple[Pixels, Array, int], random: np.random.Generator) -> Pixels:
    """Somebody runs through the picture."""
    picture, mask, row = person
    factor = random.uniform(0.8, 1.4)
    size = (max(4, round(picture.shape[1] * factor)), max(8, round(picture.shape[0] * factor)))
    picture = np.asarray(Image.fromarray(picture).resize(size))
    mask = np.asarray(Image.fromarray((mask[..., 0] * 255).astype(np.uint8)).resize(size), np.float32)[
        ..., None
    ] / np.float32(255)
    return pasted(
        video, picture, mask, row + int(random.integers(-12, 13)), random.uniform(2, 6) * random.choice([-1, 1]), random
    )


def with_vehicle(video: Pixels, texture: Pixels, random: np.random.Generator) -> Pixels:
    """A box of foreign texture passes."""
    height, width = int(random.integers(24, 56)), int(random.integers(24, 72))
    top, left = (int(random.integers(0, limit)) for limit in (texture.shape[0] - height, texture.shape[1] - width))
    mask = np.ones((height, width, 1), np.float32)
    mask[[0, 1, -2, -1]], mask[:, [0, 1, -2, -1]] = 0.5, 0.5
    row = int(random.integers(100, 320 - height))
    return pasted(video, texture[top : top + height, left : left + width], mask, row, random.uniform(2, 7), random)


def pasted(video: Pixels, picture: Pixels, mask: Array, row: int, speed: float, random: np.random.Generator) -> Pixels:
    """``picture`` moves sideways by ``speed`` pixels a frame; it comes back in on the other side."""
    height, width = mask.shape[:2]
    row = int(np.clip(row, 0, video.shape[1] - height))
    start = random.integers(0, video.shape[2] - width)
    altered = video.copy()
    for number, frame in enumerate(altered):
        place = frame[
            row : row + height, (column := int((start + number * speed) % (video.shape[2] - width))) : column + width
        ]
        place[:] = mask * picture + (1 - mask) * place
    return altered


def with_hurry(video: Pixels, random: np.random.Generator) -> Pixels:
    """A third of the picture plays twice as fast."""
    altered = video.copy()
    left = int(random.integers(0, video.shape[2] * 2 // 3))
    columns = slice(left, left + video.shape[2] // 3)
    altered[:, :, columns] = video[np.arange(len(video)) * 2 % len(video)][:, :, columns]
    return altered


def features(extractor: Extractor, video: Pixels) -> Array:
    """Maps of clips that start every ``STEP`` frames."""
    length = extractor.settings.clip_frames
    starts = range(0, len(video) - length + 1, STEP)
    return np.concatenate([extractor(np.ascontiguousarray(video[None, start : start + length])) for start in starts])


def altered_videos(videos: list[Pixels], random: np.random.Generator) -> Iterator[dict[str, Pixels]]:
    """For each video, three altered ones; what is pasted comes from another video."""
    everybody = [people(video) for video in videos]
    for number, video in enumerate(videos):
        other = (number + 5) % len(videos)
        persons = everybody[other] or next(filter(None, everybody))
        yield {
            "runner": with_runner(video, persons[int(random.integers(len(persons)))], random),
            "vehicle": with_vehicle(video, np.rot90(videos[other][0]).copy(), random),
            "hurry": with_hurry(video, random),
        }


def evaluate(
    prepared: dict[str, Any], normal: list[Array], altered: list[dict[str, Array]]
) -> Iterator[dict[str, Any]]:
    """AUC of altered against unaltered clips per kind, each video judged by a head that has not seen it."""
    heats: dict[str, list[Array]] = {"normal": [], **{kind: [] for kind in altered[0]}}
    for fold in range(FOLDS):
        held_out = range(fold, len(normal), FOLDS)
        head = load("vad.heads", {"kind": "memory", "capacity": 2048, "equalise": True, **prepared}).build()
        head.fit((number, maps) for number, maps in enumerate(normal) if number not in held_out)
        for number in held_out:
            for kind, maps in {"normal": normal[number], **altered[number]}.items():
                heat = head.score(maps).heat_BHW
                assert heat is not None
                heats[kind].append(np.stack([heat, heat * head.scale_C.numpy()[:, None]]))  # equalised, and as it was
    together = {kind: np.concatenate(parts, axis=1) for kind, parts in heats.items()}
    for score in SCORES:
        values = {kind: highest(maps[0 if score["equalise"] else 1], score["top"]) for kind, maps in together.items()}
        quiet = values.pop("normal")
        result = {}
        for kind, odd in values.items():
            both = np.concatenate([quiet, odd])
            result[kind] = round(auc(np.arange(len(both)) >= len(quiet), both), 4)
        yield {**prepared, **score, **result, "mean": round(float(np.mean(list(result.values()))), 4)}


def highest(heat_BHW: Array, top: int) -> Array:
    """Mean of the ``top`` highest places of each map."""
    return np.sort(heat_BHW.reshape(len(heat_BHW), -1), axis=1)[:, -top:].mean(1)


def main() -> None:
    """Compare all candidates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of Ped2; only training/ is read")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    extractor = load("extractors", EXTRACTOR).build()
    videos = [pictures(path) for path in find_videos([arguments.data / "training"])]
    altered = [{kind: features(extractor, v) for kind, v in kinds.items()} for kinds in altered_videos(videos, random)]
    normal = [features(extractor, video) for video in videos]
    runs = []
    for prepared in FEATURES:
        for run in evaluate(prepared, normal, altered):
            runs.append(run)
            print(run, flush=True)
    best = max(runs, key=lambda run: run["mean"])
    print("best:", best)
    print("written:", write(arguments.out, "ped2-selection", {"extractor": EXTRACTOR, "runs": runs, "best": best}))


if __name__ == "__main__":
    main()
