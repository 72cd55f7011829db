"""Run inside an environment that holds the built wheel alone: everything imports, every config loads, scoring works."""

from __future__ import annotations

import importlib
import importlib.util
import json
import pkgutil
import subprocess
import sys
import tempfile
from pathlib import Path


def import_everything() -> int:
    count = 0
    for root in ("vad", "extractors", "trainers", "streaming"):
        package = importlib.import_module(root)
        assert package.__file__ is not None
        assert "site-packages" in package.__file__, f"{root} comes from {package.__file__}, not from the wheel"
        for module in pkgutil.walk_packages(package.__path__, f"{root}."):
            if module.name == "vad.extraction.ray" and importlib.util.find_spec("ray") is None:
                continue  # an extra of its own, which this environment need not have
            importlib.import_module(module.name)
            count += 1
    return count


def vad(*arguments: str | Path) -> str:
    command = [str(Path(sys.executable).parent / "vad"), *map(str, arguments)]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


def main() -> None:
    from vad.cli.demonstration import examples_dir
    from vad.config import shipped_configs

    print(f"imported {import_everything()} modules")
    configs = shipped_configs()
    assert configs, "no configs in the wheel"
    for path in configs:
        vad("check-config", path)
    print(f"loaded {len(configs)} shipped configs")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        config = next(path for path in configs if path.name == "light.yaml")
        vad("fit", examples_dir() / "street_normal.mp4", "--config", config, "--out", out / "model", "-q")
        report = vad("score", examples_dir() / "street_staged.mp4", "--model", out / "model", "--out", out, "--json")
        (summary,) = json.loads(report)
        vad("extract", examples_dir() / "street_staged.mp4", "--config", config, "--out", out / "store", "-q")
        assert "1 of 1 videos agree" in vad("features", "verify", out / "store")
        rows = (out / "street_staged" / "curve.csv").read_text().splitlines()
        assert len(rows) == summary["frames"] + 1, (len(rows), summary)
        print(f"vad score from the wheel: {summary['frames']} frames, {len(summary['events'])} events")


if __name__ == "__main__":
    main()
