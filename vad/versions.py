"""Versions of what numbers depend on, for every record of how something was made."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform

from vad import __version__
from vad.video import decoder_version

_PACKAGES = ("av", "pillow", "torch", "openvino", "torchvision", "transformers", "mmaction2", "numpy")


def versions() -> dict[str, str]:
    """Name to version, decoder first; packages that are not installed are left out."""
    found = {"libavcodec": decoder_version()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return {**found, "python": platform.python_version(), "vadwatch": __version__}
