"""One code path from pixels to scores: decode -> clips -> features -> head -> calibration.

Offline scoring, fitting and the live side all pull from ``feature_stream``; smoothing and events are added
by the caller, who owns them. Decoding runs in a thread, one clip ahead, while the network computes.
"""

from __future__ import annotations

import queue
import threading
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from vad.calibration import Scale
from vad.clips import Cut, cuts
from vad.extractor import Extractor
from vad.head import StreamHead
from vad.types import Array, Frame, Pixels, ScoreCurve, to_frames
from vad.video import Video

T = TypeVar("T")
_END = object()


@dataclass(frozen=True, slots=True)
class Scored:
    """What is known about one snippet after the head."""

    start_frame: int
    end_frame: int
    start: float  # seconds
    end: float
    raw: float
    score: float  # calibrated, not yet smoothed
    heat: Array | None  # (h, w)


@dataclass
class Timeline:
    """What is known about every frame of a video so far: three numbers each, no pixels."""

    pts: array[float] = field(default_factory=lambda: array("d"))
    breaks: list[int] = field(default_factory=list)  # damaged frames, and frames that follow damage

    def add(self, frames: Iterable[Frame]) -> None:
        """Note these frames."""
        for frame in frames:
            self.pts.append(frame.pts)
            if frame.corrupt or frame.after_gap:
                self.breaks.append(frame.index)

    def curve(self, spans: list[tuple[int, int]], raw: list[float], scores: list[float]) -> ScoreCurve:
        """The frame-level curve of snippets with these spans and values."""
        spans_T2 = np.array(spans, np.int64).reshape(-1, 2)
        breaks = np.array(self.breaks, np.int64)

        def hold(values: list[float]) -> Array:
            return to_frames(np.array(values, np.float32), spans_T2, num_frames=len(self.pts), breaks=breaks)

        return ScoreCurve(np.array(self.pts), hold(raw), hold(scores))


def feature_stream(video: Video, extractor: Extractor, *, batch: int = 1) -> Iterator[tuple[Cut, Array | None]]:
    """Cuts with the features (1, …) of their clips; decoding runs ahead in a thread.

    ``batch`` clips go through the network at once, so a cut may come that many clips later.
    """
    waiting: list[Cut] = []
    clips: list[Pixels] = []
    for cut in ahead(cuts(video, extractor.settings), depth=2 * batch):
        waiting.append(cut)
        if cut.clip is not None:
            clips.append(cut.clip.pixels)
        if len(clips) == batch:
            yield from _with_features(waiting, clips, extractor)
            waiting, clips = [], []
    yield from _with_features(waiting, clips, extractor)


def _with_features(cuts: list[Cut], clips: list[Pixels], extractor: Extractor) -> Iterator[tuple[Cut, Array | None]]:
    rows = iter(extractor(np.stack(clips)) if clips else ())
    for cut in cuts:
        yield cut, None if cut.clip is None else next(rows)[None]


def score_stream(
    video: Video, extractor: Extractor, head: StreamHead, calibration: Scale, timeline: Timeline
) -> Iterator[Scored]:
    """Scored snippets of a video, in order; ``timeline`` learns about every frame."""
    for cut, features in feature_stream(video, extractor):
        timeline.add(cut.frames)
        if cut.clip is None or features is None:
            continue
        said = head.score(features)
        start, end = cut.clip.start_frame, cut.clip.end_frame
        yield Scored(
            start,
            end,
            timeline.pts[start],
            cut.clip.pts + 1 / video.probe.fps,
            float(said.raw_B[0]),
            float(calibration(said.raw_B)[0]),
            None if said.heat_BHW is None else said.heat_BHW[0],
        )


def ahead(source: Iterator[T], *, depth: int = 2) -> Iterator[T]:
    """The items of ``source``, made in a thread up to ``depth`` items ahead; its exceptions are raised here."""
    items: queue.Queue[object] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: object) -> None:
        while not stop.is_set():
            try:
                items.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def run() -> None:
        try:
            for item in source:
                put(item)
                if stop.is_set():
                    return
        except BaseException as error:
            put(_Failure(error))
        else:
            put(_END)

    thread = threading.Thread(target=run, name="decode", daemon=True)
    thread.start()
    try:
        while (item := items.get()) is not _END:
            if isinstance(item, _Failure):
                raise item.error
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        thread.join()


@dataclass(frozen=True, slots=True)
class _Failure:
    error: BaseException
