"""Pretrained weights: found, converted once to safetensors, checked by digest.

No weight is ever loaded by plain pickle: a converter may read a published pickle through an unpickler
that knows numpy arrays and nothing else, and what it writes is safetensors.
"""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from vad.config import cache_dir
from vad.files import replacing, sha256


class WeightsError(ValueError):
    """Weights that are missing or are not what they should be."""


def package_file(package: str, relative: str) -> Path | None:
    """A data file of an installed package, without importing the package."""
    spec = importlib.util.find_spec(package)
    for root in (spec.submodule_search_locations or []) if spec else []:
        if (Path(root) / relative).is_file():
            return Path(root) / relative
    return None


def converted(
    explicit: Path | None,
    *,
    package: str,
    relative: str,
    digest: str,
    install: str,
    convert: Callable[[Path], Mapping[str, Any]],
    version: int = 1,
) -> Path:
    """Path of the safetensors form of a published weight file.

    Looked for in this order: ``explicit`` (safetensors as it is, or the published file), then the data
    of the installed ``package``. A published file must have the sha256 ``digest``; it is converted once
    into the cache. ``version`` rises when ``convert`` changes. Raises WeightsError with the remedy.
    """
    source = explicit if explicit is not None else package_file(package, relative)
    if source is None:
        raise WeightsError(
            f"no weights: package {package!r} is not installed; run: {install} (or set 'weights' to a file)"
        )
    if not source.is_file():
        raise WeightsError(
            f"no weights at {source}; set 'weights' to an existing file, or leave it out and run: {install}"
        )
    if source.suffix == ".safetensors":
        return source
    found = sha256(source)
    if found != digest:
        raise WeightsError(
            f"{source} is not the published file: sha256 {found[:12]}…, expected {digest[:12]}…; run: {install}"
        )
    target = cache_dir() / "weights" / f"{source.stem}-{digest[:12]}-v{version}.safetensors"
    if target.is_file():
        return target
    from safetensors.torch import save_file

    with replacing(target) as temporary:
        save_file(dict(convert(source)), temporary)
    return target


def load_into(network: nn.Module, path: Path) -> None:
    """Fill ``network`` from a safetensors file, which may hold more than it needs; else WeightsError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except SafetensorError as cause:
        raise WeightsError(f"{path} is not a readable safetensors file: {cause}") from cause
    needed = network.state_dict()
    for name, tensor in needed.items():
        found = tuple(state[name].shape) if name in state else "nothing"
        if found != tuple(tensor.shape):
            raise WeightsError(f"{path} does not fit this network: {name} must be {tuple(tensor.shape)}, got {found}")
    network.load_state_dict({name: state[name] for name in needed})


class _ArraysOnly(pickle.Unpickler):
    allowed: ClassVar = {
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise WeightsError(f"refused to load {module}.{name} from a weight file: only numpy arrays are allowed")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_array_pickle(path: Path) -> Any:
    """Nested containers of numpy arrays from a pickle; anything else in it raises WeightsError."""
    try:
        with open(path, "rb") as file:
            return _ArraysOnly(file).load()
    except WeightsError:
        raise
    except Exception as cause:  # a damaged pickle can fail in any way
        raise WeightsError(f"{path} is not a readable weight file") from cause
