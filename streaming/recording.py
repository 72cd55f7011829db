"""Score a recording: a file is a stream that ended, folded over the online steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from streaming import events
from streaming.smoothing import Sample, Smoother
from vad.calibration import Scale
from vad.extractor import Extractor
from vad.head import StreamHead
from vad.pipeline import Scored, Timeline, score_stream
from vad.types import Event, ScoreCurve
from vad.video import Video, VideoError


@dataclass(frozen=True, slots=True)
class Recording:
    """The outcome of scoring one video."""

    curve: ScoreCurve
    events: list[Event]
    snippets: int


def score_recording(
    video: Video,
    extractor: Extractor,
    head: StreamHead,
    calibration: Scale,
    *,
    smoother: Smoother,
    alarms: events.Settings,
    observe: Callable[[Scored, int], None] = lambda _scored, _frames: None,
) -> Recording:
    """Score one opened video from its start. ``head`` and ``smoother`` must be fresh: nothing is carried from video
    to video. Raises VideoError when it is shorter than one clip.

    ``observe`` hears of each snippet, with its heat map, and how many frames have been read so far.
    """
    timeline = Timeline()
    spans: list[tuple[int, int]] = []
    raw: list[float] = []
    samples: list[Sample] = []
    for scored in score_stream(video, extractor, head, calibration, timeline):
        spans.append((scored.start_frame, scored.end_frame))
        raw.append(scored.raw)
        samples += smoother.step(Sample(scored.start, scored.end, scored.score))
        observe(scored, len(timeline.pts))
    if not spans:
        raise VideoError(
            f"{video.path}: too short to score: {len(timeline.pts)} readable frames in a row, one clip needs "
            f"{extractor.settings.first_end}; give a longer video or set a smaller extractor.clip_frames"
        )
    samples += smoother.finish()
    curve = timeline.curve(spans, raw, [sample.score for sample in samples])
    return Recording(curve, events.events(samples, alarms), len(spans))
