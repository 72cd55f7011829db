"""How fast: decoding, preprocessing, features per runtime, end to end, and peak memory.

The video is the example footage, shown again and again as 640x360 at 25 frames/s, so that nothing has to be
downloaded. ``plain loop`` is what repositories of this field run: decode everything first, fp32 PyTorch,
one clip at a time, nothing overlapped. All numbers of one file come from one run on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from machine import write

from extractors import i3d
from streaming.events import Settings as EventSettings
from streaming.recording import score_recording
from streaming.smoothing import EmaSettings
from trainers.normal import fit
from vad.cli.demonstration import examples_dir
from vad.clips import cuts
from vad.config import load
from vad.extractor import Extractor
from vad.video import Video

SIZE, FPS = (640, 360), 25


def make_video(path: Path, seconds: int, *, size: tuple[int, int] = SIZE) -> None:
    """The example footage as a stream of ``seconds`` seconds."""
    with av.open(str(examples_dir() / "street_normal.mp4")) as source:
        frames = [frame.reformat(*size, format="yuv420p") for frame in source.decode(video=0)]
    there_and_back = itertools.cycle(frames + frames[::-1])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "23"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for index, frame in zip(range(seconds * FPS), there_and_back, strict=False):
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def timed(action: Callable[[], Any]) -> float:
    """Seconds that ``action`` takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def decode_only(path: Path) -> None:
    """Decode every frame, convert none."""
    for _ in Video(path).frames(wants=lambda _: False):
        pass


def forward_times(clips: np.ndarray, repeats: int) -> list[dict[str, Any]]:
    """Seconds per clip and relative error of the bare I3D network, per runtime; the plain loop first."""
    network = i3d.Network("pooled").eval()
    from safetensors.torch import load_file

    state = load_file(i3d.weights_file(None))
    network.load_state_dict({name: state[name] for name in network.state_dict()})

    def plain() -> np.ndarray:
        with torch.inference_mode():
            return np.concatenate([network_plain(torch.from_numpy(clip[None])).numpy() for clip in clips])

    def network_plain(clip: torch.Tensor) -> torch.Tensor:
        return network(clip)

    reference = plain()
    rows = [
        {
            "runtime": "plain loop (torch fp32)",
            "seconds_per_clip": best(plain, repeats) / len(clips),
            "relative_error": 0.0,
        }
    ]
    for runtime in ("torch", "torch-bf16", "openvino-f32", "openvino-bf16"):
        extractor = load("extractors", {"kind": "i3d", "runtime": runtime}).build()
        run = functools.partial(forward, extractor, clips)
        error = np.linalg.norm(run() - reference) / np.linalg.norm(reference)
        rows.append(
            {
                "runtime": extractor.runtime,
                "seconds_per_clip": best(run, repeats) / len(clips),
                "relative_error": float(error),
            }
        )
    return rows


def forward(extractor: Extractor, clips: np.ndarray) -> np.ndarray:
    """Features of clips, one at a time."""
    return np.concatenate([extractor(clip[None]) for clip in clips])


def best(action: Callable[[], Any], repeats: int) -> float:
    """Least of several timings: the machine's own speed, with the least disturbance."""
    return min(timed(action) for _ in range(repeats))


def end_to_end(path: Path, values: dict[str, Any], normal: Path) -> dict[str, Any]:
    """Fit on ``normal``, then time scoring ``path`` with the product's own pipeline."""
    settings = load("extractors", values)
    extractor = settings.build()
    head = load("vad.heads", {"kind": "memory"}).build()
    fitted = fit([normal], extractor, head)

    def score() -> None:
        score_recording(
            Video(path), extractor, head, fitted.calibration, smoother=EmaSettings().build(), alarms=EventSettings()
        )

    score()
    seconds = best(score, 3)
    frames = sum(1 for _ in Video(path).frames(wants=lambda _: False))
    clips = [cut.clip for cut in cuts(Video(path), settings) if cut.clip is not None]
    decode = best(lambda: decode_only(path), 3)
    preprocess = best(lambda: [None for _ in cuts(Video(path), settings)], 3)
    forward = best(lambda: [extractor(clip.pixels[None]) for clip in clips], 3)
    rows = [extractor(clip.pixels[None]) for clip in clips]
    judging = best(lambda: [head.score(features) for features in rows], 3)
    return {
        "extractor": values,
        "runtime": extractor.runtime,
        "source_frames": frames,
        "clips": len(clips),
        "seconds": seconds,
        "source_frames_per_second": frames / seconds,
        "times_real_time": frames / FPS / seconds,
        "decode_seconds": decode,
        "decode_and_preprocess_seconds": preprocess,
        "forward_seconds": forward,
        "head_seconds": judging,
        "overhead_beyond_decode_and_forward": seconds / (decode + forward) - 1,
        "overhead_beyond_decode_forward_and_head": seconds / (decode + forward + judging) - 1,
        "plain_order_seconds": preprocess + forward,
    }


def peak_memory(path: Path, values: dict[str, Any]) -> float:
    """MiB that a fresh process needs to score ``path``."""
    script = (
        f"import sys, json; sys.path.insert(0, {str(Path(__file__).parent)!r}); import throughput; "
        f"from pathlib import Path; "
        f"throughput.score_for_memory(Path({str(path)!r}), json.loads({json.dumps(values)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, text=True, capture_output=True)
    return float(done.stdout.split()[-1])


def score_for_memory(path: Path, values: dict[str, Any]) -> None:
    """Score with a head made of random numbers, and print the peak of this process's memory in MiB."""
    extractor = load("extractors", values).build()
    head = load("vad.heads", {"kind": "memory", "reduce": 16}).build()
    width = extractor(np.zeros((1, extractor.settings.clip_frames, *extractor.settings.size[::-1], 3), np.uint8))
    raw = head.fit((0, np.random.default_rng(i).normal(size=width.shape).astype(np.float32)) for i in range(32))
    from vad.calibration import Calibration

    score_recording(
        Video(path), extractor, head, Calibration.fit(raw), smoother=EmaSettings().build(), alarms=EventSettings()
    )
    # not getrusage: its maximum is inherited from the process that started this one
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(int(peak.split()[1]) / 1024)


def main() -> None:
    """Run everything and keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="length of the video")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    i3d_values: dict[str, Any] = {"kind": "i3d"}
    light_values: dict[str, Any] = {"kind": "efficientnet_lite", "output": "stride16"}
    with tempfile.TemporaryDirectory() as folder:
        path, short = Path(folder) / "street.mp4", Path(folder) / "short.mp4"
        make_video(path, arguments.seconds)
        make_video(short, 15)
        windower_clips = [
            cut.clip.pixels for cut in cuts(Video(short), load("extractors", i3d_values)) if cut.clip is not None
        ]
        runtimes = forward_times(np.stack(windower_clips[:6]), repeats=3)
        heavy = end_to_end(path, i3d_values, short)
        light = end_to_end(path, light_values, short)
        memory = {"i3d_mib": peak_memory(path, i3d_values), "light_mib": peak_memory(path, light_values)}
    plain = runtimes[0]["seconds_per_clip"]
    numbers = {
        "video": f"{SIZE[0]}x{SIZE[1]} H.264, {FPS} frames/s, {arguments.seconds} s",
        "i3d_forward": [{**row, "times_plain_loop": plain / row["seconds_per_clip"]} for row in runtimes],
        "i3d_end_to_end": heavy,
        "i3d_end_to_end_times_plain_loop": (heavy["decode_and_preprocess_seconds"] + heavy["clips"] * plain)
        / heavy["seconds"],
        "light_end_to_end": light,
        "peak_memory": memory,
    }
    print(json.dumps(numbers, indent=1))
    print("written:", write(arguments.out, "throughput", numbers))


if __name__ == "__main__":
    main()
