"""What reading costs in one epoch of UCF-Crime's size: 1,610 videos, 32 x 10 x 1024 values each, half precision.

Ours: one memory-mapped block, batches read one ahead in a thread. Beside it, in the same run: one ``.npy`` per video
through a DataLoader for each class, as research repositories do. Values are synthetic; the training step is the MIL
ranking head's on all ten crops. The operating system's file cache is warm for both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import write
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trainers.bags import Bags, Batch
from trainers.block import Block
from trainers.losses.mil import loss, weight_l2
from vad.config import load

VIDEOS, ABNORMAL, CROPS, SEGMENTS, DIM, PAIRS = 1610, 810, 10, 32, 1024, 30


def videos(seed: int) -> Iterator[tuple[str, np.ndarray[Any, np.dtype[np.float16]], bool]]:
    random = np.random.default_rng(seed)
    noise = random.random((SEGMENTS, CROPS, DIM), np.float32).astype(np.float16)
    for i in range(VIDEOS):
        yield f"v{i:04d}", np.roll(noise, int(random.integers(noise.size))), i < ABNORMAL


class Files(Dataset[Tensor]):
    """One file per video."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> Tensor:
        return torch.from_numpy(np.load(self.paths[i])).float().transpose(0, 1)


def reference(folder: Path, workers: int) -> Iterator[Batch]:
    """Batches of a DataLoader per class, side by side."""
    paths = sorted(folder.glob("*.npy"))
    parts = (paths[:ABNORMAL], paths[ABNORMAL:])
    random = torch.Generator().manual_seed(0)
    loaders = [
        DataLoader(Files(part), PAIRS, shuffle=True, drop_last=False, num_workers=workers, generator=random)
        for part in parts
    ]
    labels = torch.arange(2 * PAIRS) < PAIRS
    for abnormal, normal in zip(*loaders, strict=False):
        if len(abnormal) == len(normal) == PAIRS:
            yield Batch(torch.cat([abnormal, normal]), labels, ())


def pace(batches: Iterable[Batch], step: Any | None) -> dict[str, float]:
    """Steps per second, and the share of the time spent waiting for the next batch."""
    waited, count = 0.0, 0
    began = time.perf_counter()
    source = iter(batches)
    while True:
        asked = time.perf_counter()
        batch = next(source, None)
        waited += time.perf_counter() - asked
        if batch is None:
            break
        if step is not None:
            step(batch)
        count += 1
    whole = time.perf_counter() - began
    return {"steps_per_s": count / whole, "waiting": waited / whole, "s_per_step": whole / count}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    head = load("vad.heads", {"kind": "mil", "dim": DIM}).build()
    optimiser = torch.optim.Adagrad(head.parameters(), lr=0.01)

    def step(batch: Batch) -> None:
        optimiser.zero_grad()
        output = head(batch.features_BKSD.flatten(0, 1))
        parts = loss(output, batch.labels_B, crops=CROPS)
        (torch.stack(list(parts.values())).sum() + weight_l2(head)).backward()
        optimiser.step()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        block = Block.write(folder / "block.json", videos(0), origin="synthetic", dtype="float16")
        (folder / "npy").mkdir()
        for video, values, _ in videos(0):
            np.save(folder / "npy" / f"{video}.npy", values)
        bags = Bags(block, block.labels, segments=SEGMENTS, batch_pairs=PAIRS, seed=0)
        ahead = Bags(block, block.labels, segments=SEGMENTS, batch_pairs=PAIRS, seed=0, ahead=True)
        numbers = range(len(bags))
        runs: dict[str, list[dict[str, float]]] = {}
        for repeat in range(arguments.repeats + 1):
            measured = {
                "ours, reading only": pace(bags.batches(numbers), None),
                "DataLoader, reading only": pace(reference(folder / "npy", 0), None),
                "DataLoader of 2 workers, reading only": pace(reference(folder / "npy", 2), None),
                "ours, training": pace(bags.batches(numbers), step),
                "ours, reading ahead, training": pace(ahead.batches(numbers), step),
                "DataLoader, training": pace(reference(folder / "npy", 0), step),
                "DataLoader of 2 workers, training": pace(reference(folder / "npy", 2), step),
            }
            if repeat:  # the first fills caches
                for key, value in measured.items():
                    runs.setdefault(key, []).append(value)
    found = {
        name: {key: round(statistics.median(run[key] for run in many), 4) for key in many[0]}
        for name, many in runs.items()
    }
    ratios = {
        "reading, ours to DataLoader": found["ours, reading only"]["steps_per_s"]
        / found["DataLoader, reading only"]["steps_per_s"],
        "reading, ours to DataLoader of 2 workers": found["ours, reading only"]["steps_per_s"]
        / found["DataLoader of 2 workers, reading only"]["steps_per_s"],
        "training, ours to DataLoader": found["ours, reading ahead, training"]["steps_per_s"]
        / found["DataLoader, training"]["steps_per_s"],
    }
    result = {
        "videos": VIDEOS,
        "rows": [SEGMENTS, CROPS, DIM],
        "pairs": PAIRS,
        "steps": len(bags),
        "found": found,
        "ratios": {name: round(value, 2) for name, value in ratios.items()},
    }
    print(json.dumps(result, indent=1))
    print("written:", write(arguments.out, "epoch", result))


if __name__ == "__main__":
    main()
