"""Memory does not grow with the length of a video."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

SCRIPT = """
import sys
from pathlib import Path
from vad.cli import app
try:
    app(sys.argv[1:])
except SystemExit as done:
    # not getrusage: its maximum is inherited from the process that started this one
    status = Path("/proc/self/status").read_text().splitlines()
    print("peak", next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM")))
    raise
"""


def long_video(path: Path, seconds: int, fps: int = 25) -> Path:
    """A moving block; 100 frames are drawn once and shown again and again."""
    random = np.random.default_rng(0)
    ground = random.integers(80, 110, (120, 160, 3), dtype=np.uint8)
    frames = []
    for number in range(100):
        picture = ground.copy()
        picture[50:70, number : number + 20] = 200
        frames.append(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p"))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "30"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for index, frame in zip(range(seconds * fps), itertools.cycle(frames), strict=False):
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def peak_mib(*arguments: str | Path) -> int:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-1])


@pytest.mark.slow
def test_two_hours_need_no_more_memory_than_two_minutes(tmp_path):
    short, long = long_video(tmp_path / "short.mp4", 120), long_video(tmp_path / "long.mp4", 7200)
    config = tmp_path / "c.yaml"
    config.write_text(
        json.dumps(
            {
                "extractor": {"kind": "efficientnet_lite", "output": "stride16", "fps": 2, "size": [96, 96]},
                "head": {"kind": "memory"},
            }
        )
    )
    fitted = peak_mib("fit", short, "--config", config, "--out", tmp_path / "m", "-q")
    assert fitted < 1500
    peaks = [
        peak_mib("score", video, "--model", tmp_path / "m", "--out", tmp_path / "out", "-q") for video in (short, long)
    ]
    print("peak MiB: fit, 2 minutes, 2 hours", fitted, *peaks)
    assert peaks[1] < 1500
    assert peaks[1] <= 1.1 * peaks[0], peaks
    peaks = [
        peak_mib("extract", video, "--config", config, "--out", tmp_path / "store", "-q") for video in (short, long)
    ]
    print("peak MiB of extract: 2 minutes, 2 hours", *peaks)
    assert peaks[1] <= 1.2 * peaks[0], peaks  # though the long one has 232 MB of features
