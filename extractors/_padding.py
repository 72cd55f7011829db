"""TensorFlow's "SAME" padding, which the published weights were trained with."""

from __future__ import annotations

from collections.abc import Sequence


def same_padding(size: Sequence[int], kernel: Sequence[int], stride: Sequence[int]) -> list[int]:
    """Pixels to add before and after each axis, last axis first as ``F.pad`` wants them.

    The output has ceil(size / stride) places; an odd pixel goes to the end.

    >>> same_padding((224,), (7,), (2,)), same_padding((225,), (7,), (2,))
    ([2, 3], [3, 3])
    """
    padding: list[int] = []
    for n, k, s in zip(reversed(size), reversed(kernel), reversed(stride), strict=True):
        total = max((-(-int(n) // s) - 1) * s + k - int(n), 0)
        padding += [total // 2, total - total // 2]
    return padding
