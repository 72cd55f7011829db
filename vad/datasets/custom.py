"""One's own videos: a CSV ``video,num_frames,intervals[,category][,fps]``.

Intervals like ``12-40;80-95``, half-open frames from 0; empty for a normal video. With a column ``intervals_s`` in the
place of ``intervals`` they are seconds, and ``fps`` is needed. ``num_frames`` may be empty where ``frames`` is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vad.datasets.annotation import AnnotationError, Benchmark
from vad.datasets.assembly import Source, Written, assemble, no_split
from vad.datasets.conventions import Reading
from vad.datasets.files import FrameCount, header, real, table, video_name, whole, written, written_frames


def read(name: str, path: Path, split: str | None, reading: Reading) -> Benchmark:
    """The videos of the list. Raises AnnotationError."""
    no_split(name, split)
    seconds = "intervals_s" in header(path)
    about = f"CSV of half-open {'seconds' if seconds else 'frames'}"
    return assemble(
        Source(name, about, unit="seconds" if seconds else "frames"), _table(path, seconds=seconds), reading
    )


def _table(path: Path, *, seconds: bool) -> Iterator[Written]:
    column = "intervals_s" if seconds else "intervals"
    for where, row in table(path, ["video", "num_frames", column], optional=["category", "fps"]):
        category, count, rate = (row.get(key, "").strip() for key in ("category", "num_frames", "fps"))
        found = written(row[column], where) if seconds else written_frames(row[column], where)
        if category and not found:
            raise AnnotationError(f"{where}: a video with a category needs an interval; leave {category!r} out")
        fps = real(rate, where, "a frame rate") if rate else None
        frames = whole(count, where, "a frame count") if count else None
        try:
            FrameCount(1, fps)
        except AnnotationError as cause:
            raise AnnotationError(f"{where}: {cause}") from cause
        yield Written(video_name(row["video"]), where, found, (category,) if category else (), frames, fps)
