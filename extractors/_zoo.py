"""What extractors of the model zoos share: the clips that were published, and the checkpoints.

A checkpoint is fetched, read without running anything in it, and fitted to a network.
"""

from __future__ import annotations

import copy
import http.client
import pickle
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vad.config import ConfigError, cache_dir
from vad.extractor import ExtractorSettings
from vad.files import replacing, sha256
from vad.weights import WeightsError

_CONTAINERS = ("state_dict", "model_state_dict", "model")  # where a checkpoint with more than weights keeps them
_WRAPPERS = ("module.", "model.", "network.", "net.", "_orig_mod.")  # what training wrappers put before every name


def completed(values: Mapping[str, Any], published: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that were written, and the published ones for the rest.

    The published side to scale to goes with the published size; another size covers the picture.

    >>> completed({"size": (112, 112)}, {"size": (224, 224), "resize": 256, "stride": 2})
    {'size': (112, 112), 'resize': 'crop', 'stride': 2}
    """
    return {**published, **({"resize": "crop"} if "size" in values else {}), **values}


def check(network: nn.Module, settings: ExtractorSettings, *, dim: int, name: str) -> None:
    """Raise ConfigError when ``network`` cannot take clips as set; computes shapes, not features."""
    width, height = settings.size
    clip = torch.empty((1, settings.clip_frames, height, width, 3), dtype=torch.uint8, device="meta")
    try:
        with torch.inference_mode():
            found = copy.deepcopy(network).eval().to("meta")(clip).shape
    except ImportError as cause:
        raise ConfigError(f"{name} needs a package that is not installed: {cause}") from cause
    except (RuntimeError, ValueError, AssertionError) as cause:
        raise ConfigError(
            f"{name} takes no clips of {settings.clip_frames} frames of {width}x{height} pixels; "
            "leave clip_frames and size out to get its own"
        ) from cause
    if found != (1, dim):
        raise ConfigError(
            f"{name} makes {found[0]} rows of one clip of {settings.clip_frames} frames; "
            "leave clip_frames out to get its own"
        )


def fetched(url: str) -> Path:
    """The published file at ``url``, whose name ends in the first digits of its sha256; downloaded once.

    It is kept where torch.hub keeps its downloads (``TORCH_HOME``). Raises WeightsError with the remedy.
    """
    name = url.rpartition("/")[2]
    digits = name.rpartition("-")[2].partition(".")[0]
    if not re.fullmatch("[0-9a-f]{8,64}", digits):
        raise WeightsError(f"{url} does not carry its digest in its name; download it and set 'weights' to the file")
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=digits, progress=sys.stderr.isatty())
        except (OSError, RuntimeError, http.client.HTTPException) as cause:  # RuntimeError: another digest
            raise WeightsError(
                f"no weights: cannot download {name} from {url} ({cause}); put that file at {path}, "
                "or anywhere and set 'weights' to it"
            ) from cause
    found = sha256(path)
    if not found.startswith(digits):
        raise WeightsError(f"{path} is damaged: its sha256 is {found[:12]}…, expected {digits}…; delete it")
    return path


def read(path: Path, *, allowed: Sequence[Any] = ()) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, without a training wrapper's prefix.

    ``.safetensors``, or a pickle that may name torch's tensors, plain containers and the ``allowed`` classes only.
    Raises WeightsError for any other.
    """
    if not path.is_file():
        raise WeightsError(f"no weights at {path}; set 'weights' to an existing file, or leave it out")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path, allowed)
    for container in _CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(container), Mapping):
            content = content[container]
    if not isinstance(content, Mapping) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise WeightsError(f"{path} holds no state dict, which is a mapping from names to tensors")
    state = dict(content)
    while state and (wrapper := next((w for w in _WRAPPERS if all(name.startswith(w) for name in state)), None)):
        state = {name.removeprefix(wrapper): tensor for name, tensor in state.items()}
    return state


def converted(source: Path, digest: str, convert: Callable[[Path], Mapping[str, Tensor]]) -> Path:
    """The safetensors form of ``source``, which has the sha256 ``digest``; made once, kept in the cache."""
    if source.suffix == ".safetensors":
        return source
    target = cache_dir() / "weights" / f"{source.stem}-{digest[:12]}-v1.safetensors"
    if not target.is_file():
        from safetensors.torch import save_file

        # clone: safetensors refuses tensors that share memory
        state = {name: tensor.clone().contiguous() for name, tensor in convert(source).items()}
        with replacing(target) as temporary:
            save_file(state, temporary)
    return target


def fit(network: nn.Module, state: Mapping[str, Tensor], *, source: Path, leftover: tuple[str, ...]) -> None:
    """Fill ``network`` from ``state``; tensors whose names begin with one of ``leftover`` may stay behind.

    Others may not: a deeper network holds all layers of a shallow one. Raises WeightsError.
    """
    needed, computed = network.state_dict(), _computed(network)
    for name, tensor in needed.items():
        if name not in state and name in computed:
            continue
        found = tuple(state[name].shape) if name in state else "nothing"
        if found != tuple(tensor.shape):
            raise WeightsError(f"{source} does not fit this network: {name} must be {tuple(tensor.shape)}, got {found}")
    for name, tensor in state.items():
        if name not in needed and not name.startswith(leftover):
            raise WeightsError(f"{source} does not fit this network: {name} must be nothing, got {tuple(tensor.shape)}")
    network.load_state_dict({name: state[name] for name in needed if name in state}, strict=False)


def _computed(network: nn.Module) -> set[str]:
    """Names of buffers that a network computes when it is made, so that old files may lack them."""
    return {
        f"{place}.{name}" if place else name
        for place, module in network.named_modules()
        for name, _ in module.named_buffers(recurse=False)
        if name not in ("running_mean", "running_var")
    }


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as cause:
        raise WeightsError(f"{path} is not a readable safetensors file: {cause}") from cause


def _read_pickle(path: Path, allowed: Sequence[Any]) -> Any:
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as cause:
        refused = re.search(r"GLOBAL (\S+)", str(cause))
        if refused:
            raise WeightsError(
                f"refused to load {refused[1]} from {path}: only tensors and plain data are allowed; "
                "save the model's state_dict() instead"
            ) from cause
        raise WeightsError(f"{path} is not a readable weight file") from cause
    except Exception as cause:  # a damaged file can fail in any way
        raise WeightsError(f"{path} is not a readable weight file") from cause
