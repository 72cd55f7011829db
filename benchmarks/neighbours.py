"""Nearest normal features: one PyTorch matrix product per context against faiss' exact index per context.

Sizes are those of ``configs/ped2/memory.yaml``: 20 picture rows of 30 places, 128 values each. Needs
``pip install faiss-cpu``, which the product does not.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from machine import write

from vad.config import load


def best(action: Callable[[], Any], repeats: int = 20) -> float:
    """Least seconds of several runs."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return min(times)


def measure(contexts: int, places: int, capacity: int, size: int) -> dict[str, Any]:
    """Milliseconds per snippet of both, and the largest difference of their distances."""
    random = np.random.default_rng(0)
    bank = random.normal(size=(contexts, capacity, size)).astype(np.float32)
    maps = random.normal(size=(1, contexts, places, size)).astype(np.float32)
    head = load(
        "vad.heads", {"kind": "memory", "reduce": None, "pool": 1, "unit_length": False, "capacity": capacity}
    ).build()
    head.restore(
        {
            "mean_D": torch.zeros(size),
            "basis_DE": torch.empty(0),
            "scale_C": torch.ones(contexts),
            "bank_CME": torch.from_numpy(bank),
        }
    )
    indices = []
    for one in bank:
        index = faiss.IndexFlatL2(size)
        index.add(one)
        indices.append(index)

    def with_faiss() -> np.ndarray:
        return np.stack([np.sqrt(index.search(rows, 1)[0][:, 0]) for index, rows in zip(indices, maps[0], strict=True)])

    def with_torch() -> np.ndarray:
        scores = head.score(maps)
        return scores.raw_B[None] if scores.heat_BHW is None else scores.heat_BHW[0]  # one place has no map

    difference = float(np.abs(with_faiss() - with_torch()).max())
    return {
        "contexts": contexts,
        "places": places,
        "capacity": capacity,
        "size": size,
        "torch_ms": 1e3 * best(with_torch),
        "faiss_ms": 1e3 * best(with_faiss),
        "largest_difference": difference,
    }


def main() -> None:
    """Measure a patch memory and a row memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    runs = [measure(20, 30, 4096, 128), measure(1, 1, 4096, 128)]
    for run in runs:
        print(run)
    print("written:", write(arguments.out, "neighbours", {"runs": runs}))


if __name__ == "__main__":
    main()
