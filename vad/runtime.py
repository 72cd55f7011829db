"""Run a network fast: PyTorch or OpenVINO behind one call.

``torch`` is the reference. ``openvino-bf16`` is the fast default on processors whose bf16 arithmetic is faster
than their f32: relative error about 1.4e-2 on I3D. Measured ratios are in ``benchmarks/``. All runtimes use as many
threads as torch does (``torch.set_num_threads``) when they are made.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from vad.config import cache_dir
from vad.files import sha256
from vad.types import Array, Pixels

_converting = threading.Lock()  # torch traces one network at a time; two at once gave graphs without inputs
Runtime = Literal["auto", "openvino-bf16", "openvino-f32", "torch", "torch-bf16"]
Cut = Callable[[Tensor], list[Tensor]]  # clips -> K views of them, on the tensor's own device


class SlowRuntimeWarning(UserWarning):
    """A slower runtime was taken than the one asked for."""


class Compiled(Protocol):
    """A network ready to run."""

    runtime: str  # the one in use, never "auto"

    def __call__(self, clips_BTHWC: Pixels, cut: Cut | None = None) -> Array:
        """uint8 RGB (B, T, H, W, 3) -> float32 features (B, …), or (B * K, …) for K views that ``cut`` makes."""
        ...


def resolve(runtime: Runtime) -> str:
    """The runtime that this machine will use for ``runtime``; warns once when OpenVINO is absent."""
    if runtime == "auto":
        if torch.cuda.is_available():
            return "torch-bf16"
        runtime = "openvino-bf16" if bf16_is_faster(_processor()) else "openvino-f32"
    if runtime.startswith("openvino") and importlib.util.find_spec("openvino") is None:
        warnings.warn(
            "openvino is not installed, so the slower torch runtime is used; run: pip install 'vadwatch[export]'",
            SlowRuntimeWarning,
            stacklevel=2,
        )
        return "torch"
    return runtime


def compile_network(
    network: nn.Module, *, runtime: Runtime, clip_shape: tuple[int, int, int], digest: str, name: str
) -> Compiled:
    """Make ``network`` (uint8 clips (B, T, H, W, 3) -> features) ready for clips of shape (T, H, W).

    OpenVINO networks are converted once and cached by name, weight digest, code and shape.
    """
    chosen = resolve(runtime)
    network = network.eval().requires_grad_(False)
    if chosen.startswith("openvino"):
        return _OpenVINO(network, chosen, clip_shape, f"{name}-{digest[:12]}-{_code_digest(network)[:8]}")
    return _Torch(network, chosen)


def _code_digest(network: nn.Module) -> str:
    """Of the files that define a network's layers, but torch's own: another ``forward`` is another conversion."""
    layers = {type(module) for module in network.modules() if not type(module).__module__.startswith("torch.")}
    files = sorted({inspect.getfile(layer) for layer in layers})
    return hashlib.sha256("".join(sha256(Path(file)) for file in files).encode()).hexdigest()


class _Torch:
    def __init__(self, network: nn.Module, runtime: str) -> None:
        self.runtime = runtime
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        for module in network.modules():
            if isinstance(module, nn.Conv3d):
                module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
            elif isinstance(module, nn.Conv2d):
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network = network.to(self._device)

    def __call__(self, clips_BTHWC: Pixels, cut: Cut | None = None) -> Array:
        short = torch.autocast(self._device.type, torch.bfloat16, enabled=self.runtime == "torch-bf16")
        with torch.inference_mode(), short:
            # torch takes no flipped and no read-only arrays; copies only those
            clips = torch.from_numpy(np.require(clips_BTHWC, requirements=("C", "W")))
            clips = clips.to(self._device)
            features: Tensor = self._network(clips if cut is None else torch.stack(cut(clips), 1).flatten(0, 1))
        return np.asarray(features.float().cpu().numpy())


class _OpenVINO:
    def __init__(self, network: nn.Module, runtime: str, clip_shape: tuple[int, int, int], key: str) -> None:
        ov = _openvino()
        self.runtime = runtime
        frames, height, width = clip_shape
        core = ov.Core()
        core.set_property({"CACHE_DIR": ""})
        folder = cache_dir() / "openvino"
        path = folder / f"{key}-{frames}x{height}x{width}-ov{ov.__version__.split('-')[0]}.xml"
        with _converting:
            if not path.is_file():
                _convert(network, (1, frames, height, width, 3), path)
        precision = "bf16" if runtime.endswith("bf16") else "f32"
        self._compiled = core.compile_model(
            str(path),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": precision,
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "ENABLE_CPU_PINNING": False,  # or two processes of one thread each sit on the same core
            },
        )
        self._request = self._compiled.create_infer_request()

    def __call__(self, clips_BTHWC: Pixels, cut: Cut | None = None) -> Array:
        views = [clips_BTHWC] if cut is None else [view.numpy() for view in cut(torch.from_numpy(clips_BTHWC))]
        rows = []
        for clip in range(len(clips_BTHWC)):
            for view in views:
                self._request.infer([np.ascontiguousarray(view[clip : clip + 1])], share_inputs=True)
                rows.append(self._request.get_output_tensor().data[0].copy())  # copy: the request reuses its buffer
        return np.stack(rows)


def _convert(network: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    ov = _openvino()
    path.parent.mkdir(parents=True, exist_ok=True)
    example = torch.zeros(shape, dtype=torch.uint8)
    with warnings.catch_warnings():
        # a conversion is for one shape, so sizes that become constants (in "SAME" padding) are meant
        warnings.filterwarnings("ignore", "Converting a tensor to a Python")
        # deprecated by torch, and still what OpenVINO's converter is built on
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
        # unchecked: the check would run the network four times more, which is most of a conversion
        traced = torch.jit.trace(network, example, check_trace=False)
        model = ov.convert_model(traced, input=[(list(shape), ov.Type.u8)])
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".converting-") as folder:
        temporary = Path(folder) / path.name
        ov.save_model(model, str(temporary), compress_to_fp16=False)
        # the weights go first: a reader that finds the .xml must find the .bin
        temporary.with_suffix(".bin").replace(path.with_suffix(".bin"))
        temporary.replace(path)


def bf16_is_faster(processor: str) -> bool:
    """Whether a processor computes bf16 faster than f32, given what ``/proc/cpuinfo`` says of it.

    By what was measured on I3D: AMD's avx512_bf16 is 1.9 times as fast; Intel's, without AMX tiles, 0.6 times as fast.
    """
    return "amx_bf16" in processor or not ("GenuineIntel" in processor and "avx512_bf16" in processor)


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="ascii", errors="replace") if path.exists() else ""


def _openvino() -> Any:
    """OpenVINO, kept from reporting each import and each conversion to its makers' statistics server."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # absent, so it takes its own stub
    import openvino

    return openvino
