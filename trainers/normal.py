"""Fit a head on normal footage of one camera, in one pass, and calibrate it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vad.calibration import Calibration
from vad.extractor import Extractor
from vad.head import NormalHead, TooLittleFootageError
from vad.pipeline import feature_stream
from vad.types import Array, Gap
from vad.video import Video, VideoError


@dataclass(frozen=True, slots=True)
class Fitted:
    """What came out of a fit, besides the head's own tables."""

    calibration: Calibration
    frames: int
    snippets: int
    gaps: dict[Path, list[Gap]]  # of the videos that could not be read whole


def fit(
    videos: Sequence[Path],
    extractor: Extractor,
    head: NormalHead,
    *,
    progress: Callable[[Path, int], None] = lambda _path, _frames: None,
) -> Fitted:
    """Fit ``head`` on these videos; each is its own group for leave-one-out. ``progress`` hears of frames read.

    Raises VideoError for unreadable videos and when together they hold too few snippets.
    """
    frames, snippets = 0, 0
    gaps: dict[Path, list[Gap]] = {}

    def batches() -> Iterator[tuple[int, Array]]:
        nonlocal frames, snippets
        for number, path in enumerate(videos):
            video = Video(path)
            for cut, features in feature_stream(video, extractor):
                frames += len(cut.frames)
                progress(path, len(cut.frames))
                if features is not None:
                    snippets += 1
                    yield number, features
            if video.gaps:
                gaps[path] = video.gaps

    try:
        raw = head.fit(batches())
    except TooLittleFootageError as cause:
        raise VideoError(str(cause)) from cause
    return Fitted(Calibration.fit(raw), frames, snippets, gaps)
