"""Settings: one strict base class, components loaded by kind, YAML errors with line and column.

A component (extractor, head, smoother) declares ``Settings`` and its defaults in its own file;
YAML states only what differs.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import io
import os
import pkgutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError


class Config(BaseModel):
    """Base of every ``Settings``: frozen, unknown keys refused, defaults validated."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


ConfigT = TypeVar("ConfigT", bound=Config)


class ConfigError(ValueError):
    """A config that cannot be used; the message has one line per mistake, with its place."""


class Document:
    """A parsed YAML mapping that remembers where each key stands in its file."""

    def __init__(self, name: str, data: dict[str, Any], places: Mapping[tuple[str, ...], tuple[int, int]]) -> None:
        self.name = name
        self.data = data
        self._places = places

    @classmethod
    def read(cls, path: str | Path) -> Document:
        """Read a YAML 1.2 file (so ``on`` and ``off`` stay words).

        Raises ConfigError for a file that is not a YAML mapping, and OSError from the disk.
        """
        from ruamel.yaml import YAML
        from ruamel.yaml.error import MarkedYAMLError, YAMLError

        path = Path(path)
        if path.is_dir():
            raise ConfigError(f"{path}: is a folder; give a YAML file")
        if not path.exists():
            raise ConfigError(f"{path}: no such config file; shipped ones lie in {configs_dir()}")
        try:
            text = path.read_text(encoding="utf-8")
            node = YAML(typ="rt", pure=True).load(text)
        except UnicodeDecodeError as cause:
            raise ConfigError(f"{path}: not a text file; give a YAML file") from cause
        except MarkedYAMLError as cause:
            mark = cause.problem_mark or cause.context_mark
            where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
            problem = " ".join(str(cause.problem or cause.context).split())
            raise ConfigError(f"{where}: not valid YAML: {problem}") from cause
        except YAMLError as cause:
            raise ConfigError(f"{path}: not valid YAML: {' '.join(str(cause).split())}") from cause
        except RecursionError as cause:
            raise ConfigError(f"{path}: nested too deeply for a config") from cause
        if not isinstance(node, Mapping):
            raise ConfigError(f"{path}: the top level must be a mapping of sections")
        places: dict[tuple[str, ...], tuple[int, int]] = {}
        data = _plain(node, (), places)
        return cls(str(path), data, places)

    @property
    def places(self) -> Mapping[tuple[str, ...], tuple[int, int]]:
        """Line and column of each key."""
        return self._places

    def override(self, assignments: Iterable[str]) -> Document:
        """A copy with ``section.key=value`` assignments applied; values are read as YAML."""
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError

        data = _copy(self.data)
        for assignment in assignments:
            dotted, equals, text = assignment.partition("=")
            keys = dotted.strip().split(".")
            if not equals or not all(keys):
                raise ConfigError(f"cannot read override {assignment!r}; write section.key=value")
            try:
                value = YAML(typ="safe", pure=True).load(text)
            except YAMLError as cause:
                raise ConfigError(f"cannot read the value of override {assignment!r} as YAML") from cause
            target = data
            for key in keys[:-1]:
                target = target.setdefault(key, {})
                if not isinstance(target, dict):
                    raise ConfigError(f"cannot set {dotted}: {key} is not a section")
            target[keys[-1]] = value
        return Document(self.name, data, self._places)

    def place(self, keys: Iterable[str | int]) -> str:
        """``file:line:column section.key`` for messages; the nearest known parent when a key has no place."""
        path = tuple(str(key) for key in keys)
        dotted = ".".join(path)
        for length in range(len(path), -1, -1):
            if path[:length] in self._places:
                line, column = self._places[path[:length]]
                return f"{self.name}:{line}:{column} {dotted}".rstrip()
        return f"{self.name}: {dotted}" if dotted else self.name

    def validate(self, settings: type[ConfigT], values: Any, *, under: tuple[str, ...] = ()) -> ConfigT:
        """Build ``settings`` from ``values``; every mistake becomes one line with its place."""
        if not isinstance(values, dict):
            raise ConfigError(f"{self.place(under)}: must be a mapping of keys, got {values!r}")
        try:
            return settings.model_validate(values)
        except ValidationError as cause:
            lines = [self._explain(settings, error, under) for error in cause.errors()]
            raise ConfigError("\n".join(lines)) from cause

    def component(self, package: str, section: str, *, default: Mapping[str, Any] | None = None) -> Config:
        """Settings of the component that ``section`` names by its ``kind``."""
        values = self.data.get(section, default)
        if values is None:
            raise ConfigError(f"{self.place(())}: section {section!r} is missing")
        if not isinstance(values, dict) or "kind" not in values:
            raise ConfigError(f"{self.place((section,))}: needs a 'kind'; available: {', '.join(available(package))}")
        try:
            settings = settings_class(package, values["kind"])
        except ConfigError as cause:
            raise ConfigError(f"{self.place((section, 'kind'))}: {cause}") from cause
        return self.validate(settings, values, under=(section,))

    def _explain(self, settings: type[Config], error: Any, under: tuple[str, ...]) -> str:
        location = (*under, *(str(part) for part in error["loc"]))
        where = self.place(location)
        if error["type"] == "extra_forbidden":
            known = _known_keys(settings, error["loc"][:-1])
            close = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
            hint = f'did you mean "{close[0]}"?' if close else f"known keys: {', '.join(known)}"
            return f"{where}: unknown key, {hint}"
        if error["type"] == "missing":
            return f"{where}: this key is required"
        message = error["msg"].removeprefix("Value error, ")
        shown = "" if isinstance(error.get("input"), dict) else f", got {error.get('input')!r}"
        return f"{where}: {message[0].lower()}{message[1:]}{shown}"


def available(package: str) -> list[str]:
    """Kinds that ``package`` offers: its public files.

    >>> "memory" in available("vad.heads")
    True
    """
    root = importlib.util.find_spec(package)
    assert root is not None, package
    assert root.submodule_search_locations is not None, package
    return sorted(m.name for m in pkgutil.iter_modules(root.submodule_search_locations) if not m.name.startswith("_"))


def settings_class(package: str, kind: Any) -> type[Config]:
    """The ``Settings`` of one kind; imports that one file only."""
    kinds = available(package)
    if kind not in kinds:
        close = difflib.get_close_matches(str(kind), kinds, n=1)
        hint = f'; did you mean "{close[0]}"?' if close else ""
        name = package.rpartition(".")[2]
        raise ConfigError(f"unknown {name} kind {kind!r}; available: {', '.join(kinds)}{hint}")
    settings: type[Config] = importlib.import_module(f"{package}.{kind}").Settings
    return settings


def load(package: str, values: Mapping[str, Any]) -> Any:
    """Settings of the component that ``values["kind"]`` names, checked."""
    return Document("settings", {"component": dict(values)}, {}).component(package, "component")


def configs_dir() -> Path:
    """Folder of the shipped configs: inside an installed wheel, or beside the package in a checkout."""
    packaged = Path(__file__).parent / "configs"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "configs"


def shipped_configs() -> list[Path]:
    """Every YAML file that travels with the product."""
    return sorted(configs_dir().rglob("*.yaml"))


def to_yaml(data: Mapping[str, Any]) -> str:
    """Plain YAML text of ``data``, keys in their own order."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    buffer = io.StringIO()
    yaml.dump(dict(data), buffer)
    return buffer.getvalue()


def cache_dir() -> Path:
    """Where converted weights and compiled networks are kept: ``VAD_CACHE``, else the user's cache folder."""
    chosen = os.environ.get("VAD_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vadwatch"


def _known_keys(settings: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    model: Any = settings
    for part in location:
        field = getattr(model, "model_fields", {}).get(part)
        model = field.annotation if field else None
    return list(getattr(model, "model_fields", {}))


def _plain(node: Any, path: tuple[str, ...], places: dict[tuple[str, ...], tuple[int, int]]) -> Any:
    """Strip ruamel's round-trip types and note the place of every key."""
    from ruamel.yaml.scalarbool import ScalarBoolean

    if isinstance(node, Mapping):
        result = {}
        for key, value in node.items():
            here = (*path, str(key))
            if key in (node.lc.data or ()):  # type: ignore[attr-defined]  # else it was merged in by "<<" and stands elsewhere
                line, column = node.lc.key(key)  # type: ignore[attr-defined]
                places[here] = (line + 1, column + 1)
            result[str(key)] = _plain(value, here, places)
        return result
    if isinstance(node, list):
        return [_plain(value, (*path, str(i)), places) for i, value in enumerate(node)]
    if isinstance(node, ScalarBoolean):  # an anchored true or false, which ruamel derives from int
        return bool(node)
    for plain in (bool, int, float, str):
        if isinstance(node, plain):
            return plain(node)
    return node


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, list) else value
