"""Training losses, one file per head: named parts of a batch's loss, to be added."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

Parts = Mapping[str, Tensor]
"""Scalars by name, weights applied; their sum is the loss."""
