"""What ``vad monitor`` is told: cameras, the models that score them, thresholds. Secrets come from outside the file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, SecretStr

from streaming.backend import Batching
from streaming.events import Settings as Alarms
from streaming.smoothing import Settings as Smoothing
from streaming.source import check_address
from streaming.watchdog import Settings as Watching
from vad.config import Config, ConfigError, Document

_REFERENCE = re.compile(r"\$\{(env|file):([^}]+)\}")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def _camera_address(url: SecretStr) -> SecretStr:
    check_address(url.get_secret_value())
    return url


class Camera(Config):
    """One camera; what is not set is as for all."""

    url: Annotated[SecretStr, AfterValidator(_camera_address)] = Field(
        description="rtsp://user:password@host/path; write user and password as ${env:NAME} or ${file:PATH}"
    )
    model: str | None = None
    smoothing: Smoothing | None = Field(None, description="null: as the model was made with")
    events: Alarms | None = Field(None, description="null: as the model was made with")
    watchdog: Watching | None = None


class Settings(Config):
    """The whole file."""

    model: str | None = Field(None, description="model directory, made by vad fit or vad train, for all cameras")
    cameras: dict[str, Camera] = Field(min_length=1)
    watchdog: Watching = Watching()
    batching: Batching = Batching()
    data: str = Field("vad-data", description="folder for what the daemon remembers")
    database: SecretStr | None = Field(None, description="SQLAlchemy URL; null: SQLite in data")

    @classmethod
    def read(cls, path: Path, *, overrides: list[str]) -> Settings:
        """From a YAML file. Raises ConfigError with the place of every mistake, never with a secret."""
        document = Document.read(path).override(overrides)
        secrets: list[str] = []
        document = Document(document.name, resolve(document.data, str(path), secrets), document.places)
        try:
            settings = document.validate(cls, document.data)
        except ConfigError as error:
            raise ConfigError(masked(str(error), [*addresses(document.data), *secrets])) from None
        for name, camera in settings.cameras.items():
            place = document.place(("cameras", name))
            if _NAME.fullmatch(name) is None:
                raise ConfigError(f"{place}: a camera's name is up to 64 of A-Z a-z 0-9 _ -")
            if camera.model is None and settings.model is None:
                raise ConfigError(f"{place}: needs a model, here or for all cameras")
        return settings

    def resolved(self) -> dict[str, Any]:
        """Every setting, defaults included, as plain data; secrets are stars."""
        return self.model_dump(mode="json")

    @property
    def database_url(self) -> str:
        """Where events and scores are kept."""
        return self.database.get_secret_value() if self.database else f"sqlite:///{Path(self.data) / 'vad.db'}"


def addresses(data: dict[str, Any]) -> list[str]:
    """Whatever stands where a camera's address should be."""
    cameras = data.get("cameras")
    found = cameras.values() if isinstance(cameras, dict) else ()
    return [str(camera["url"]) for camera in found if isinstance(camera, dict) and "url" in camera]


def masked(text: str, secrets: list[str]) -> str:
    """The text without any of these, the long ones first.

    >>> masked("rtsp://op:pw@host refuses pw", ["pw", "rtsp://op:pw@host"])
    '*** refuses ***'
    """
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def resolve(value: Any, where: str, secrets: list[str]) -> Any:
    """Put secrets in the place of ``${env:NAME}`` and ``${file:PATH}``, and note them.

    Raises ConfigError that names what is missing.
    """
    if isinstance(value, dict):
        return {key: resolve(inner, where, secrets) for key, inner in value.items()}
    if isinstance(value, list):
        return [resolve(inner, where, secrets) for inner in value]
    if not isinstance(value, str):
        return value

    def put(match: re.Match[str]) -> str:
        secrets.append(found := _secret(match[1], match[2], where))
        return found

    return _REFERENCE.sub(put, value)


def _secret(kind: str, name: str, where: str) -> str:
    if kind == "env":
        if name not in os.environ:
            raise ConfigError(f"{where}: the environment has no {name}, which ${{env:{name}}} asks for")
        return os.environ[name]
    try:
        return Path(name).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as cause:
        raise ConfigError(f"{where}: cannot read {name}, which ${{file:{name}}} asks for") from cause
