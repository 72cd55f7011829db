"""The same network on every runtime: converted once, slower but right where OpenVINO is absent."""

import importlib.util
import os
import site
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vad.config import load
from vad.extractor import Extractor
from vad.runtime import bf16_is_faster, compile_network, resolve
from vad.types import Pixels

OPENVINO = importlib.util.find_spec("openvino") is not None
needs_openvino = pytest.mark.skipif(not OPENVINO, reason="openvino is not installed")
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def packages_without_openvino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this environment's packages with OpenVINO really absent."""
    folder = tmp_path_factory.mktemp("packages")
    for packages in site.getsitepackages():
        for entry in Path(packages).glob("*"):
            if not entry.name.startswith("openvino") and not (folder / entry.name).exists():
                (folder / entry.name).symlink_to(entry)
    return folder


class Sum(nn.Module):
    """Three numbers per clip; enough of a network to be converted."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, clips_BTHWC: Tensor) -> Tensor:
        return clips_BTHWC.float().sum((1, 2, 3)) * self.factor


def clips(*shape: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


def colour(**settings: object) -> Extractor:
    extractor: Extractor = load("extractors", {"kind": "colour", **settings}).build()
    return extractor


def run(code: str, *, home: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a fresh interpreter that finds this project and, when given, the packages in ``path`` alone."""
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTHONWARNINGS")}
    isolation = ["-S"] if path else []
    environment = {**kept, "HOME": str(home), "PYTHONPATH": os.pathsep.join(map(str, filter(None, (ROOT, path))))}
    command = [sys.executable, *isolation, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_auto_is_the_fastest_that_is_here() -> None:
    if torch.cuda.is_available():
        assert resolve("auto") == "torch-bf16"
    elif OPENVINO:
        assert resolve("auto") in ("openvino-bf16", "openvino-f32")
    assert resolve("torch") == "torch"
    assert resolve("torch-bf16") == "torch-bf16"


@pytest.mark.parametrize(
    ("processor", "faster"),
    [
        ("vendor_id : GenuineIntel\nflags : avx512f avx512_bf16 avx512_fp16", False),
        ("vendor_id : GenuineIntel\nflags : avx512f avx512_bf16 amx_bf16", True),
        ("vendor_id : AuthenticAMD\nflags : avx512f avx512_bf16", True),
    ],
)
def test_bf16_is_taken_where_it_was_measured_to_be_faster(processor: str, faster: bool) -> None:
    assert bf16_is_faster(processor) is faster


@needs_openvino
def test_an_extractor_names_the_runtime_that_it_uses() -> None:
    assert colour(runtime="auto").runtime == resolve("auto")
    assert colour(runtime="openvino-f32").runtime == "openvino-f32"


def test_without_openvino_one_warning_and_the_results_of_torch(packages_without_openvino: Path, tmp_path: Path) -> None:
    done = run(
        """
        import importlib.util
        import numpy as np
        from vad.config import load
        assert importlib.util.find_spec("openvino") is None
        clips = np.random.default_rng(0).integers(0, 256, (2, 16, 64, 64, 3), dtype=np.uint8)
        expected = load("extractors", {"kind": "colour", "runtime": "torch"}).build()(clips)
        for runtime in ("openvino-f32", "openvino-bf16", "auto", "openvino-f32"):
            extractor = load("extractors", {"kind": "colour", "runtime": runtime}).build()
            assert extractor.runtime in ("torch", "torch-bf16"), extractor.runtime
            np.testing.assert_array_equal(extractor(clips), expected)
        """,
        home=tmp_path,
        path=packages_without_openvino,
    )
    assert done.stderr.count("SlowRuntimeWarning: openvino is not installed, so the slower torch runtime is used") == 1
    assert "pip install 'vadwatch[export]'" in done.stderr


@needs_openvino
def test_openvino_reports_nothing_to_its_makers(tmp_path: Path) -> None:
    """Its statistics start by writing an id into the user's home; CI is exempt, so ``run`` takes CI away."""
    run(
        """
        import sys
        from vad.config import load
        load("extractors", {"kind": "colour", "runtime": "openvino-f32"}).build()
        assert "openvino" in sys.modules
        """,
        home=tmp_path,
    )
    assert not (tmp_path / "intel").exists()


@needs_openvino
def test_a_network_is_converted_once_per_weights_and_shape(cache: Path) -> None:
    def converted() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in (cache / "openvino").iterdir()}

    colour(runtime="openvino-f32")
    first = converted()
    assert sorted(Path(name).suffix for name in first) == [".bin", ".xml"]
    colour(runtime="openvino-f32")
    colour(runtime="openvino-bf16")  # the precision is chosen when the network is loaded
    assert converted() == first
    colour(runtime="openvino-f32", size=[80, 64])
    colour(runtime="openvino-f32", clip_frames=8)
    colour(runtime="openvino-f32", output="grid")
    assert len(converted()) == 8
    assert first.items() <= converted().items()


@needs_openvino
def test_other_weights_are_another_conversion() -> None:
    batch = clips(1, 2, 8, 8)
    one, two = (
        compile_network(Sum(factor), runtime="openvino-f32", clip_shape=(2, 8, 8), digest=digest * 64, name="sum")
        for factor, digest in ((1.0, "1"), (2.0, "2"))
    )
    np.testing.assert_allclose(two(batch), 2 * one(batch))


@needs_openvino
def test_a_conversion_that_fails_leaves_nothing(cache: Path) -> None:
    class Broken(nn.Module):
        def forward(self, clips_BTHWC: Tensor) -> Tensor:
            raise RuntimeError("no such layer")

    with pytest.raises(RuntimeError, match="no such layer"):
        compile_network(Broken(), runtime="openvino-f32", clip_shape=(1, 8, 8), digest="0" * 64, name="broken")
    assert list((cache / "openvino").iterdir()) == []


@pytest.mark.parametrize("runtime", ["torch", pytest.param("openvino-f32", marks=needs_openvino)])
@pytest.mark.parametrize(
    ("layout", "change"),
    [
        ("mirrored", lambda batch: batch[:, :, :, ::-1]),
        ("every second column", lambda batch: np.repeat(batch, 2, axis=3)[:, :, :, ::2]),
        ("columns first in memory", np.asfortranarray),
        ("read-only", lambda batch: np.broadcast_to(batch, batch.shape)),
    ],
)
def test_memory_layout_does_not_matter(runtime: str, layout: str, change: object) -> None:
    assert callable(change)
    batch = change(clips(2, 16, 64, 64))
    expected = batch.astype(np.float64).mean((1, 2, 3)) / 255
    np.testing.assert_allclose(colour(runtime=runtime)(batch), expected, rtol=1e-5)


@needs_openvino
def test_threads_may_build_the_same_network_at_once(cache: Path) -> None:
    """Tracing is not safe between threads: without a lock one run of this in six failed."""
    run(
        """
        import threading
        from concurrent.futures import ThreadPoolExecutor
        import numpy as np
        from vad.config import load

        def work(frames):
            start.wait()
            extractor = load("extractors", {"kind": "colour", "clip_frames": frames, "runtime": "openvino-f32"}).build()
            return extractor(np.full((1, frames, 64, 64, 3), 51, np.uint8))

        start = threading.Barrier(4)
        with ThreadPoolExecutor(4) as pool:
            for frames in range(1, 13):
                np.testing.assert_allclose(list(pool.map(work, [frames] * 4)), 0.2, rtol=1e-5)
        """,
        home=cache.parent,
    )
    assert sorted(path.suffix for path in (cache / "openvino").iterdir()) == [".bin"] * 12 + [".xml"] * 12
