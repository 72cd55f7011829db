"""One video into the store: what every worker does, on one machine or on many."""

from __future__ import annotations

import contextlib
import datetime
import functools
import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vad.config import load
from vad.extraction.jobs import Job
from vad.extractor import VIEWS, Extractor, ExtractorSettings
from vad.files import sha256
from vad.pipeline import Timeline, feature_stream
from vad.results import plain_gaps
from vad.store import Manifest, Record, Source, Store, StoreError, WriteError, writing
from vad.streamed import Dtype, Rows
from vad.versions import versions
from vad.video import Video, VideoError

log = logging.getLogger(__name__)
Heard = Callable[[int, int], None]  # frames and clips since the call before


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one video."""

    job: Job
    status: str  # "done", "kept" (it was there already), "failed" or "stopped" (the run cannot go on)
    reason: str = ""
    clips: int = 0
    frames: int = 0
    video_seconds: float = 0.0
    seconds: float = 0.0
    lost_seconds: float = 0.0  # of the video: gaps
    attempts: int = 1
    errno: int | None = None  # of what stopped the run


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker needs to know; plain data, so that it can travel."""

    store: Path
    extractor: Mapping[str, Any]
    dtype: Dtype
    batch: int | None = None  # clips per call; None: 16 views on a GPU, one clip on a processor
    threads: int | None = None  # None: as many as torch takes by itself


class Worker:
    """Builds the extractor once, then extracts one video after the other into a store that has been prepared."""

    def __init__(self, task: Task) -> None:
        if task.threads is not None:
            import torch

            torch.set_num_threads(task.threads)
        settings: ExtractorSettings = load("extractors", task.extractor)
        self.extractor = settings.build()
        self.manifest = manifest_of(self.extractor, dtype=task.dtype)
        self._folder = task.store
        self._batch = task.batch or _batch(settings)

    @functools.cached_property
    def store(self) -> Store:
        """The store; it has to fit what this machine computes."""
        return Store.prepare(self._folder, self.manifest)

    def __call__(self, job: Job, *, heard: Heard = lambda _frames, _clips: None) -> Outcome:
        """Extract one video unless its features are there. What is wrong with it is in the outcome, never raised."""
        try:
            return self._extract(job, heard)
        except WriteError as error:
            return Outcome(job, "stopped", f"{error.filename}: {error.strerror}", errno=error.errno)
        except MemoryError:
            return Outcome(job, "stopped", "out of memory; use fewer --workers or a smaller --batch")
        except (VideoError, OSError) as error:
            return Outcome(job, "failed", _words(error))
        except Exception as error:  # one video must never end a run over thousands
            log.debug("extraction of %s failed", job.path, exc_info=True)
            return Outcome(job, "failed", f"{type(error).__name__}: {_words(error)}")

    def _extract(self, job: Job, heard: Heard) -> Outcome:
        source = up_to_date(self.store, job)
        if source is None:
            return Outcome(job, "kept")
        began = time.monotonic()
        video, timeline = Video(job.path), Timeline()
        spans: list[tuple[int, int]] = []
        with contextlib.ExitStack() as stack:
            with writing(self.store.folder):  # a nameless file: it ends with us
                file = stack.enter_context(tempfile.TemporaryFile(dir=self.store.folder, buffering=0))
            rows = Rows(file, self.store.manifest.dtype)
            for cut, features in feature_stream(video, self.extractor, batch=self._batch):
                timeline.add(cut.frames)
                heard(len(cut.frames), int(cut.clip is not None))
                if cut.clip is not None and features is not None:
                    spans.append((cut.clip.start_frame, cut.clip.end_frame))
                    with writing(self.store.folder):
                        rows.add(features)
            if not len(rows):
                raise VideoError(
                    f"{job.path}: its {len(timeline.pts)} frames are too few for a clip, which spans "
                    f"{self.extractor.settings.span}; set a smaller extractor.clip_frames, stride or hop"
                )
            seconds = round(time.monotonic() - began, 3)
            self.store.write(
                self._record(job, source, video, frames=len(timeline.pts), seconds=seconds, digest=rows.sha256),
                rows,
                {
                    "spans": np.array(spans, np.int64),
                    "pts": np.array(timeline.pts),
                    "breaks": np.array(timeline.breaks, np.int64),
                },
            )
        return Outcome(
            job,
            "done",
            clips=len(rows),
            frames=len(timeline.pts),
            video_seconds=len(timeline.pts) / video.probe.fps,
            seconds=seconds,
            lost_seconds=sum(gap.end - gap.start for gap in video.gaps),
        )

    def _record(self, job: Job, source: Source, video: Video, *, frames: int, seconds: float, digest: str) -> Record:
        probe, settings = video.probe, self.extractor.settings
        # a video slower than the rate asked for gives every frame once
        step = 1.0 if settings.fps is None else max(probe.fps / settings.fps, 1.0)
        return Record(
            name=job.name,
            key=self.store.key(source.sha256),
            source=source,
            width=probe.width,
            height=probe.height,
            fps=probe.fps,
            frames=frames,
            codec=probe.codec,
            hop_frames=round(settings.hop * step),
            gaps=tuple(plain_gaps(video.gaps)),
            runtime=self.extractor.runtime,
            versions=versions(),
            seconds=seconds,
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            values_sha256=digest,
        )


def manifest_of(extractor: Extractor, *, dtype: Dtype) -> Manifest:
    """What a store says about all features that ``extractor`` puts into it."""
    settings = extractor.settings
    return Manifest(
        extractor=settings.model_dump(mode="json"),
        weights=extractor.digest,
        precision="bf16" if extractor.runtime.endswith("bf16") else "f32",
        normalisation=extractor.normalisation,
        views=VIEWS[: settings.crops] if settings.crops > 1 else (),
        dtype=dtype,
    )


def up_to_date(store: Store, job: Job) -> Source | None:
    """None when the store has features of this very file, else the file's description.

    Size and time of change settle it; only where they differ the file is read.
    """
    facts = job.path.stat()
    record = None
    with contextlib.suppress(StoreError):  # a damaged file is made anew
        record = store.record(job.name)
    if record and (record.source.bytes, record.source.mtime_ns) == (facts.st_size, facts.st_mtime_ns):
        return None
    digest = sha256(job.path)
    if record and record.key == store.key(digest):
        return None
    path = os.path.abspath(job.path)
    return Source(path=path, bytes=facts.st_size, mtime_ns=facts.st_mtime_ns, sha256=digest)


def _batch(settings: ExtractorSettings) -> int:
    import torch

    return max(16 // settings.crops, 1) if torch.cuda.is_available() else 1


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())
