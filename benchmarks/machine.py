"""What a benchmark ran on, and the file that keeps its numbers."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any


def describe() -> dict[str, Any]:
    """Processor, cores, memory and versions."""
    processor = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    memory = next(
        int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal")
    )
    packages = ("torch", "openvino", "av", "numpy", "vadwatch")
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**20, 1),
        "bf16": [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags],
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def write(folder: Path, name: str, numbers: dict[str, Any]) -> Path:
    """Keep ``numbers`` in a JSON file named by benchmark, hardware and date; returns its path."""
    machine = describe()
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    hardware = re.sub(r"[^a-z0-9]+", "-", f"{machine['processor']} {machine['cores']} cores".lower()).strip("-")
    path = folder / f"{name}_{hardware}_{date}.json"
    folder.mkdir(parents=True, exist_ok=True)
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    path.write_text(json.dumps({"date": date, "command": command, "machine": machine, **numbers}, indent=1) + "\n")
    return path
