"""A safetensors file whose largest tensor is never in memory.

The safetensors library writes tensors that are in memory as a whole; features of a long video need not be, and mapped
from a file they would still be counted as this process's. So this file is laid out here, after the format's own
description (https://huggingface.co/docs/safetensors: length of the header, header in JSON, data); the library reads it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

from vad.types import Array

Dtype = Literal["float32", "float16"]
_NAMES = {"float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64"}


class Rows:
    """Feature rows that grow on the disk, not in memory, until they are a whole video's.

    ``file`` is open for reading and writing, and unbuffered: what a buffer could not write to a full disk it would try
    to write again when it is closed.
    """

    def __init__(self, file: IO[bytes], dtype: Dtype) -> None:
        self.file, self.dtype = file, np.dtype(dtype)
        self._row_shape: tuple[int, ...] = ()
        self._digest = hashlib.sha256()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, rows_TD: Array) -> None:
        """Append rows (t, …), all of the same shape. Raises OSError."""
        self._row_shape = rows_TD.shape[1:]
        data = np.ascontiguousarray(rows_TD, self.dtype).tobytes()
        self._digest.update(data)
        left = memoryview(data)
        while left:  # an unbuffered file may take a part
            left = left[self.file.write(left) :]
        self._count += len(rows_TD)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all rows: (T, …)."""
        return (self._count, *self._row_shape)

    @property
    def sha256(self) -> str:
        """Of all values, as they lie in the file."""
        return self._digest.hexdigest()


def write(path: Path, rows: Rows, tensors: Mapping[str, npt.NDArray[Any]], *, metadata: Mapping[str, str]) -> None:
    """Write ``rows`` as the tensor ``features``, and small ``tensors`` beside it. Raises OSError."""
    small = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for name, dtype, shape in (
        *((name, tensor.dtype, tensor.shape) for name, tensor in small.items()),
        ("features", rows.dtype, rows.shape),
    ):
        end = at + dtype.itemsize * int(np.prod(shape))
        header[name] = {"dtype": _NAMES[dtype.name], "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # data begins at a multiple of eight
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in small.values():
            file.write(tensor.tobytes())
        rows.file.seek(0)
        shutil.copyfileobj(rows.file, file, 1 << 20)
