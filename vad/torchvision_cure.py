"""Make a torchvision whose compiled part cannot be loaded importable.

The package index serves a torchvision that is compiled for CUDA. Beside a CPU build of torch its ``_C.so`` does not
load, and then ``import torchvision`` dies with ``operator torchvision::nms does not exist``, because it registers
shapes for operators that the library would have declared. transformers, lightning and mmaction2 import torchvision
where it is installed, so they die with it. Declaring the two operators is enough for everything that this product
uses (video models, transforms); ``torchvision.ops.nms`` and ``torchvision.io`` stay unusable.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_alive: list[object] = []  # the declarations end with the object that made them


class _Finder(importlib.abc.MetaPathFinder):
    """Acts when somebody imports torchvision, and then takes itself away."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "torchvision":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name)
        if spec is not None and spec.origin is not None:
            _declare_operators(Path(spec.origin).parent)
        return None  # the usual finders import it


def install() -> None:
    """Be ready for the first import of torchvision; costs nothing until then, and nothing where it is whole."""
    if "torchvision" not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _declare_operators(folder: Path) -> None:
    import torch

    library = next(iter(sorted(folder.glob("_C*.so"))), None)
    try:
        if library is not None:
            torch.ops.load_library(str(library))
            return
    except OSError:
        pass
    declared = torch.library.Library("torchvision", "DEF")
    for name, schema in _SCHEMAS.items():
        declared.define(name + schema)
    _alive.append(declared)
