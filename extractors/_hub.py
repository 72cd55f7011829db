"""Models in the Hugging Face hub's format: found, checked, loaded; used by the extractors that wrap transformers.

A model is a local folder (``config.json``, ``model.safetensors``, tokenizer files) or a hub id, which is looked for
in the hub's cache first and downloaded only if it is not there whole. Only safetensors, JSON and tokenizer files are
ever asked for: pickled weights are neither downloaded nor opened. A network is built only from weights that fill
every layer; transformers alone would fill the gaps with random numbers and a printed note.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vad.files import sha256 as file_sha256
from vad.weights import WeightsError

WANTED = ["model*.safetensors", "*.json", "*.txt", "*.model"]
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")
REMEDIES = "set 'model' to a local folder, connect once so that it is cached, or set HF_HOME to a cache that has it"
Colour = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Folder:
    """A model on disk whose weights are whole."""

    path: Path
    config: dict[str, Any]  # config.json
    digest: str  # sha256 of the weights; of several files, of their sorted digests

    @property
    def model_type(self) -> str:
        """The architecture, by the hub's name."""
        return str(self.config["model_type"])

    @property
    def key(self) -> str:
        """Short digest of all that shapes a network beside its weights: its config, and transformers' version."""
        import transformers

        text = json.dumps([transformers.__version__, self.config, _processing(self.path)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def normalisation(self, *, otherwise: tuple[Colour, Colour]) -> tuple[Colour, Colour]:
        """Mean and deviation of pixels in [0, 1], as the folder states them; else ``otherwise``."""
        stated = _processing(self.path)
        mean, deviation = stated.get("image_mean"), stated.get("image_std")
        if mean is None or deviation is None:
            return otherwise
        return _colour(mean), _colour(deviation)


def find(
    model: str, *, revision: str | None, sha256: str | None, known: Collection[str], words: bool = False
) -> Folder:
    """The folder of ``model``, a local folder or a hub id, of an architecture among ``known``.

    ``sha256`` pins the weights; ``words`` asks for the tokenizer too. Raises WeightsError when there are none,
    with the reason and what to do.
    """
    if importlib.util.find_spec("transformers") is None:
        raise WeightsError("transformers is not installed; run: pip install 'vadwatch[language]'")
    path = _local(model, revision) or _from_hub(model, revision, words=words)
    config = _read(path / "config.json")
    if config.get("model_type") not in known:
        raise WeightsError(
            f"{model} is of type {config.get('model_type')!r}; this extractor knows: {', '.join(sorted(known))}"
        )
    digest = _digest(_weight_files(path, model))
    if sha256 is not None and digest != sha256.lower():
        raise WeightsError(
            f"the weights of {model} are not the pinned ones: sha256 {digest[:12]}…, expected {sha256[:12].lower()}…"
        )
    return Folder(path, config, digest)


def load(architecture: Any, folder: Folder, **options: Any) -> Any:
    """The transformers model of class ``architecture`` in float32, every layer of it filled from ``folder``.

    ``options`` go to its constructor. Raises WeightsError with the first layer that the weights do not fit.
    """
    from safetensors import SafetensorError

    try:
        with _quiet():
            model, told = architecture.from_pretrained(
                folder.path,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # told of below, instead of raised with a long report
                output_loading_info=True,
                **options,
            )
    except SafetensorError as cause:
        raise WeightsError(f"{folder.path} has no readable safetensors weights: {cause}") from cause
    except Exception as cause:  # a config that describes no model fails anywhere inside transformers
        reason = f"{type(cause).__name__}: {_first_line(cause)}"
        raise WeightsError(f"transformers cannot build the model of {folder.path}/config.json: {reason}") from cause
    found = {name: tuple(shape) for name, shape, _ in told["mismatched_keys"]}
    for name, tensor in model.state_dict().items():
        if name in told["missing_keys"] or name in found:
            raise WeightsError(
                f"{folder.path} does not fit its config.json: {name} must be {tuple(tensor.shape)}, "
                f"got {found.get(name, 'nothing')}"
            )
    return model.eval()


def load_tokenizer(folder: Folder) -> Any:
    """The tokenizer that lies beside the weights."""
    from transformers import AutoTokenizer

    if not _has_words(folder.path):  # or transformers would make an empty one
        raise WeightsError(f"{folder.path} has no tokenizer; it needs one of {', '.join(VOCABULARIES)}")
    try:
        with _quiet():
            return AutoTokenizer.from_pretrained(folder.path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, TypeError, ImportError) as cause:
        raise WeightsError(f"{folder.path} has no usable tokenizer: {_first_line(cause)}") from cause


class Normalise(nn.Module):
    """uint8 pictures (…, H, W, 3) -> float32 (…, 3, H, W) with the mean and deviation that a model was trained on."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Colour, deviation: Colour) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(mean), persistent=False)
        self.register_buffer("deviation", 255 * torch.tensor(deviation), persistent=False)
        colours = [", ".join(f"{value:.4g}" for value in colour) for colour in (mean, deviation)]
        self.formula = f"(x / 255 - ({colours[0]})) / ({colours[1]})"

    def forward(self, pictures: Tensor) -> Tensor:
        """Channels go before the places."""
        return ((pictures.float() - self.mean) / self.deviation).movedim(-1, -3)


def _local(model: str, revision: str | None) -> Path | None:
    """The folder that ``model`` names; None for a hub id."""
    path = Path(model).expanduser()
    if path.is_dir():
        if revision is not None:
            raise WeightsError(f"revision {revision!r} is for hub ids, but {model} is a folder; leave revision out")
        if not (path / "config.json").is_file():
            raise WeightsError(f"{model} holds no config.json, so it is not a model in the hub's format")
        return path
    if model.startswith(("/", ".", "~")) or model.count("/") > 1 or "\\" in model:
        raise WeightsError(f"no model folder at {model}; set 'model' to an existing folder or to a hub id")
    return None


def _from_hub(model: str, revision: str | None, *, words: bool) -> Path:
    """The hub's files in its cache: as they lie there if they are whole, so that a restart needs no network."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError

    def fetch(*, local_files_only: bool) -> Path:
        folder = snapshot_download(
            model,
            revision=revision,
            allow_patterns=WANTED,
            ignore_patterns=["*/*"],
            local_files_only=local_files_only,
        )
        return Path(folder)

    asked = f"cannot get the weights of {model}{f' at revision {revision}' if revision else ''} from the hub"
    try:
        with contextlib.suppress(OSError):
            cached = fetch(local_files_only=True)
            if _is_whole(cached, words=words):
                return cached
        folder = fetch(local_files_only=False)
    except HFValidationError as cause:
        raise WeightsError(f"{model!r} is neither an existing folder nor a hub id such as owner/name") from cause
    except Exception as cause:  # the hub's own errors, its HTTP client's and the disk's have no common base
        raise WeightsError(f"{asked}: {_reason(cause)}; {REMEDIES}") from cause
    if constants.HF_HUB_OFFLINE and not _is_whole(folder, words=words) and not _pickled(folder):
        raise WeightsError(f"{asked}: only a part is in the cache, and HF_HUB_OFFLINE forbids to download; {REMEDIES}")
    if not (folder / "config.json").is_file():
        raise WeightsError(f"{model} holds no config.json, so it is not a model in the hub's format")
    return folder


def _reason(cause: Exception) -> str:
    """A few words for what went wrong. The hub's own texts are long and name its addresses."""
    from huggingface_hub import constants, errors

    if isinstance(cause, errors.GatedRepoError):
        return "its licence must be accepted on the hub first (then run: hf auth login)"
    if isinstance(cause, errors.RepositoryNotFoundError):
        return "no such repository, or a private one (then run: hf auth login)"
    if isinstance(cause, errors.RevisionNotFoundError):
        return "no such revision"
    if isinstance(cause, errors.HfHubHTTPError):
        return f"the hub answers with status {cause.response.status_code}"
    if constants.HF_HUB_OFFLINE:
        return "not in the cache, and HF_HUB_OFFLINE forbids to download"
    if isinstance(cause, errors.LocalEntryNotFoundError):
        return "not in the cache, and the hub cannot be reached"
    return f"{type(cause).__name__}: {_first_line(cause)}"


def _weight_files(path: Path, model: str) -> list[Path]:
    """The safetensors files of a folder, all there."""
    missing = _missing(path)
    if missing is None:
        return [path / name for name in _weight_names(path)]
    if missing != "model.safetensors":
        raise WeightsError(f"{model} lacks {missing}, which its model.safetensors.index.json names; fetch it again")
    pickled = _pickled(path)
    others = (
        f"only {pickled[0]}, and pickled weights are not loaded" if pickled else "and pickled weights are not loaded"
    )
    raise WeightsError(
        f"{model} has no model.safetensors, {others}; set 'revision' to one that has it (on the hub often a pull "
        "request, such as refs/pr/1), or convert weights that you trust once: "
        "python -c \"from transformers import AutoModel; AutoModel.from_pretrained('IN').save_pretrained('OUT')\", "
        "copy the tokenizer's and the preprocessor's files, and set 'model' to OUT"
    )


def _is_whole(path: Path, *, words: bool) -> bool:
    return (path / "config.json").is_file() and _missing(path) is None and (_has_words(path) or not words)


def _has_words(path: Path) -> bool:
    return any((path / name).is_file() for name in VOCABULARIES)


def _pickled(path: Path) -> list[str]:
    return sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in path.glob(pattern))


def _missing(path: Path) -> str | None:
    """The first weight file that is not there."""
    return next((name for name in _weight_names(path) if not (path / name).is_file()), None)


def _weight_names(path: Path) -> list[str]:
    index = path / "model.safetensors.index.json"
    if (path / "model.safetensors").is_file() or not index.is_file():
        return ["model.safetensors"]
    return sorted(set(_read(index).get("weight_map", {}).values()))


def _digest(files: list[Path]) -> str:
    digests = sorted(file_sha256(file) for file in files)
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _processing(path: Path) -> dict[str, Any]:
    """What the folder says of the pixels that the model wants; empty where it says nothing."""
    for name in ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json"):
        if (path / name).is_file():
            stated = _read(path / name)
            inner = stated.get("image_processor") or stated.get("video_processor")
            return inner if isinstance(inner, dict) else stated
    return {}


def _colour(values: Any) -> Colour:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as cause:
        raise WeightsError(f"{path} is not readable JSON: {cause}") from cause
    if not isinstance(content, dict):
        raise WeightsError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content


def _first_line(cause: Exception) -> str:
    return (str(cause).strip().splitlines() or [""])[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' progress bars and load reports off the terminal; what matters is raised."""
    import transformers

    logging: Any = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
