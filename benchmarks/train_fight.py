"""How long ``vad train`` takes on the fight data: from video files to an exported model, nothing extracted before."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import write


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/fight"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    config = Path(__file__).parent.parent / "configs/train/fight_mil.yaml"
    vad = str(Path(sys.executable).parent / "vad")
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        command = [vad, "train", str(config), f"data={arguments.data}", f"out={folder}/run", "--json"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        seconds = time.perf_counter() - began
        assert (Path(folder) / "run/model/manifest.json").is_file()
    numbers = {"seconds_from_videos_to_model": round(seconds, 1), "outcome": {**json.loads(done.stdout), "model": ""}}
    print(json.dumps(numbers, indent=1))
    print("written:", write(arguments.out, "train-fight", numbers))


if __name__ == "__main__":
    main()
