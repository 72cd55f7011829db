"""Small real videos, made with PyAV when a test asks for them.

Every picture carries its own number as a grid of black and white blocks, large enough to survive compression,
scaling and a change of the pixel format: a test reads back which picture it was given, and that it stands upright.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings

# deadline: a busy machine is no failure; database: a failure names its example, nothing is left in the folder
settings.register_profile("steady", deadline=None, database=None)
settings.load_profile("steady")

Pixels = npt.NDArray[np.uint8]
Draw = Callable[[int, int, int], Pixels]

_GRID = 4  # blocks per side: one white corner says where the top left is, the other three are black, 12 are bits
_CORNERS = {(0, 0): 1, (0, 3): 0, (3, 0): 0, (3, 3): 0}
_BITS = [(row, column) for row in range(_GRID) for column in range(_GRID) if (row, column) not in _CORNERS]

_QUIET = {
    "libx265": {"x265-params": "log-level=none:pools=1:frame-threads=1"},
    "libx264": {"preset": "veryfast", "threads": "1"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "libsvtav1": {"preset": "12"},
}


def draw_number(number: int, width: int, height: int) -> Pixels:
    """A picture (height, width, 3) that ``read_number`` understands; numbers up to 4095."""
    blocks = np.zeros((_GRID, _GRID), np.uint8)
    for place, bit in _CORNERS.items():
        blocks[place] = bit
    for position, place in enumerate(_BITS):
        blocks[place] = number >> position & 1
    rows, columns = np.arange(height) * _GRID // height, np.arange(width) * _GRID // width
    return np.repeat(blocks[rows][:, columns, None], 3, axis=2) * 220 + 16


def read_number(pixels: Pixels) -> int:
    """The number in an upright RGB picture of any size."""
    height, width = pixels.shape[:2]
    blocks = np.zeros((_GRID, _GRID), bool)
    for row in range(_GRID):
        for column in range(_GRID):
            y, x = (2 * row + 1) * height // (2 * _GRID), (2 * column + 1) * width // (2 * _GRID)
            blocks[row, column] = pixels[y - 1 : y + 2, x - 1 : x + 2].mean() > 126
    assert {place: int(blocks[place]) for place in _CORNERS} == _CORNERS, "the picture does not stand upright"
    return sum(int(blocks[place]) << position for position, place in enumerate(_BITS))


def make_video(
    path: Path,
    *,
    frames: int = 30,
    size: tuple[int, int] = (160, 120),
    fps: Fraction | int = 25,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    bframes: int = 0,
    gop: int = 12,
    rotation: int = 0,
    pts: Sequence[float] | None = None,
    first: int = 0,
    draw: Draw = draw_number,
    container: str | None = None,
    options: dict[str, str] | None = None,
    mux: dict[str, str] | None = None,
) -> Path:
    """Write a video of numbered pictures; ``pts`` in seconds makes its rate variable. Returns the path."""
    with av.open(str(path), "w", format=container, options=mux or {}) as output:
        stream = output.add_stream(codec, rate=fps, options={**_QUIET.get(codec, {}), **(options or {})})
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.gop_size = gop
        stream.max_b_frames = bframes
        if pts is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 12800)
        if rotation:
            stream.set_display_rotation(rotation)
        for index in range(frames if pts is None else len(pts)):
            frame = av.VideoFrame.from_ndarray(draw(first + index, *size), format="rgb24").reformat(format=pix_fmt)
            frame.time_base = 1 / Fraction(fps) if pts is None else Fraction(1, 12800)
            frame.pts = index if pts is None else round(pts[index] * 12800)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def make_sound(path: Path, *, seconds: float = 1.0, codec: str = "aac", cover: Path | None = None) -> Path:
    """Write a file of sound, with an attached cover picture if one is given (a one-frame mjpeg video)."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=44100, layout="mono")
        packets = []
        if cover is not None:
            with av.open(str(cover)) as pictures:
                picture = output.add_stream_from_template(pictures.streams.video[0])
                picture.disposition = av.stream.Disposition.attached_pic
                packets = [packet for packet in pictures.demux() if packet.size]
                for packet in packets:
                    packet.stream = picture
        samples = stream.codec_context.frame_size or 1024
        for packet in packets:
            output.mux(packet)
        for index in range(int(seconds * 44100 / samples)):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, samples), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, index * samples
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def data(*parts: str) -> Path:
    """A file of the real data, which does not travel with the project."""
    root = Path(os.environ.get("VAD_DATA", Path(__file__).parents[2] / "shared/data"))
    path = root.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path} is absent; set VAD_DATA to the folder of the real data")
    return path
