"""Clips joined end to end: their feature rows in a store, and their pictures in a video.

Nothing is resampled: a frame of a clip is a frame of the joined video, because a row stands for so many frames. So a
joined video has one frame rate, that of its first clip, and a clip of another rate runs faster or slower in it.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from vad.files import sha256
from vad.store import Record, Source, Store, StoredVideo, writing
from vad.streamed import Rows
from vad.types import Pixels
from vad.video import SUFFIXES, Video

Size = tuple[int, int]  # width, height in pixels
Spans = npt.NDArray[np.int64]
SMALLEST = 16  # pixels on a side; H.264 codes blocks of so many


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows ``[start, end)`` of a stored clip, and the frames ``[first_frame, end_frame)`` that they stand for."""

    clip: Record
    start: int
    end: int
    first_frame: int
    end_frame: int

    @property
    def frames(self) -> int:
        """How many."""
        return self.end_frame - self.first_frame


def spans_of(clip: StoredVideo) -> Spans:
    """Frames ``[start, end)`` that each row of a clip stands for, without a gap: (T, 2).

    Raises ValueError for a clip whose rows cannot be joined with others.
    """
    name = clip.record.name
    if clip.values.ndim > 3:
        raise ValueError(f"{name}: has maps of places, {clip.values.shape}, not rows; extract it with a pooled output")
    if clip.spans_T2 is None or clip.record.hop_frames is None:
        raise ValueError(f"{name}: nobody says which frames its rows stand for; extract its video instead")
    if not np.isfinite(clip.values).all():
        raise ValueError(f"{name}: features hold NaN or infinity; extract it again, or take it off the list")
    first, end = clip.spans_T2[0, 0], clip.spans_T2[-1, 1]
    broken = ((clip.breaks > first) & (clip.breaks < end)).any()
    if broken or (clip.spans_T2[1:, 0] != clip.spans_T2[:-1, 1]).any():
        raise ValueError(f"{name}: there is a gap among its rows, its video is damaged; take it off the list")
    return clip.spans_T2


def write_rows(store: Store, name: str, pieces: Sequence[Piece], *, clips: Store, source: Source) -> None:
    """Put the rows of the pieces into ``store`` as one video; one clip of ``clips`` is in memory at a time.

    Times are those of a constant frame rate, that of the first clip, and none where it is not known. A join is a
    break: the stream begins anew. Raises StoreError, WriteError.
    """
    frames, fps = sum(piece.frames for piece in pieces), pieces[0].clip.fps
    spans: list[Spans] = []
    breaks: list[int] = []
    at = 0
    with contextlib.ExitStack() as stack:
        with writing(store.folder):
            file = stack.enter_context(tempfile.TemporaryFile(dir=store.folder, buffering=0))
        rows = Rows(file, store.manifest.dtype)
        for piece in pieces:
            clip = clips.read(piece.clip.name)
            spans.append(spans_of(clip)[piece.start : piece.end] - piece.first_frame + at)
            breaks.append(at)
            at += piece.frames
            with writing(store.folder):
                rows.add(clip.values[piece.start : piece.end])
        tensors: dict[str, npt.NDArray[np.int64] | npt.NDArray[np.float64]] = {
            "spans": np.concatenate(spans),
            "breaks": np.array(breaks[1:], np.int64),
        }
        if fps is not None:
            tensors["pts"] = np.arange(frames) / fps
        record = Record(
            name=name,
            key=store.key(source.sha256),
            source=source,
            fps=fps,
            frames=frames,
            hop_frames=_hop(pieces, frames),
            values_sha256=rows.sha256,
        )
        store.write(record, rows, tensors)


def find_video(folder: Path, clip: Record) -> Path:
    """The file below ``folder`` that a clip was extracted from.

    Raises FileNotFoundError, and ValueError for a file that has changed since; of imported features nobody knows.
    """
    suffixes = [Path(clip.source.path).suffix, *sorted(SUFFIXES)]
    candidates = (folder / f"{clip.name}{suffix}" for suffix in suffixes if suffix.lower() in SUFFIXES)
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(f"{folder}: has no video of {clip.name}; give the folder that vad extract was given")
    if clip.codec is not None and sha256(path) != clip.source.sha256:
        raise ValueError(f"{path}: is another file than the one that its features were made from; extract it again")
    return path


def write_video(path: Path, pieces: Sequence[tuple[Path, Piece]], *, size: Size, fps: float) -> None:
    """Join the frames of the pieces as H.264 in mp4, every picture stretched to ``size``, without sound.

    Raises ValueError when a file has other frames than its features say, and OSError.
    """
    rate = Fraction(fps).limit_denominator(1001)  # 29.97002997… is 30000/1001
    pictures = itertools.chain.from_iterable(_pictures(file, piece, size) for file, piece in pieces)
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        # one thread: with more, the bytes depend on how many the machine has
        stream.options = {"preset": "veryfast", "crf": "18", "threads": "1"}
        stream.codec_context.time_base = 1 / rate
        for number, pixels in enumerate(pictures):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts, picture.time_base = number, 1 / rate
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def even(width: int, height: int) -> Size:
    """The nearest size that H.264 with halved chroma can have.

    >>> even(627, 361), even(8, 8)
    ((628, 360), (16, 16))
    """
    return max(round(width / 2) * 2, SMALLEST), max(round(height / 2) * 2, SMALLEST)


def _pictures(path: Path, piece: Piece, size: Size) -> Iterator[Pixels]:
    number = piece.first_frame
    for frame in itertools.islice(Video(path).frames(size=size), piece.first_frame, piece.end_frame):
        if frame.pixels is None:
            raise ValueError(f"{path}: frame {number} is damaged; copy the file again, or take it off the list")
        yield frame.pixels
        number += 1
    if number < piece.end_frame:
        raise ValueError(f"{path}: has {number} frames, its features stand for {piece.end_frame}; give the same video")


def _hop(pieces: Sequence[Piece], frames: int) -> int | None:
    """That of the clips; where they differ, as under a fixed sampling rate, frames per row on average."""
    hops = {piece.clip.hop_frames for piece in pieces}
    return hops.pop() if len(hops) == 1 else round(frames / sum(piece.end - piece.start for piece in pieces))
