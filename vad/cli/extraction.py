"""``vad extract``: videos in, a feature store out."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import typer

from vad.cli.composition import Extraction
from vad.cli.console import INPUT, WORLD, hint, say
from vad.extraction import schedule
from vad.extraction.jobs import Job, find_jobs, shard
from vad.extraction.schedule import Launcher, WorkersError
from vad.extraction.worker import Outcome, Task
from vad.files import writable_folder
from vad.store import MANIFEST, Failure, Manifest, Store, StoreError, check_target
from vad.video import Probe, VideoError, probe

_LINE = 30.0  # seconds between two lines of progress where there is no terminal
_FLUSH = 20  # failures are written after so many outcomes, and at the end


@dataclass(frozen=True, slots=True)
class Spread:
    """Where the work is done."""

    launcher: Literal["local", "ray"]
    workers: int | None
    batch: int | None
    cpus: float
    gpus: float


def run(
    inputs: list[Path],
    *,
    config: Path,
    out: Path,
    spread: Spread,
    part: str | None,
    overrides: list[str],
    runtime: str | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Extract what is missing, and say what was done; the exit code."""
    settings = Extraction.read(config, overrides=overrides, runtime=runtime)
    jobs = find_jobs(inputs)
    if part is not None:
        jobs = shard(jobs, part)
    tally, probes = extract(jobs, settings, out=out, spread=spread, quiet=quiet or as_json)
    _report(tally, out, probes, quiet=quiet, as_json=as_json)
    if tally.stopped is not None:
        say(f"vad: {tally.stopped.reason}{hint(tally.stopped.errno)}; what was finished is kept")
        return WORLD
    return INPUT if tally.failed or tally.damaged else 0


def extract(
    jobs: list[Job], settings: Extraction, *, out: Path, spread: Spread, quiet: bool
) -> tuple[Tally, dict[Path, Probe]]:
    """Bring the features of these videos into a store, where they are not there yet; what became of each.

    Raises StoreError, OSError, and ValueError when no worker can be started.
    """
    store = _existing(out, settings)
    there = {job.name for job in jobs if store is not None and _unchanged(store, job)}
    todo = [job for job in jobs if job.name not in there]
    if store is None:
        check_target(out)
        writable_folder(out)
    tally, probes = Tally(kept=len(there)), _probes(todo)
    if todo:
        with Bar(probes, videos=len(todo), quiet=quiet) as bar:
            launcher = _launcher(spread, Task(out, settings.extractor.model_dump(mode="json"), settings.dtype), bar)

            def prepare(manifest: Manifest) -> None:
                nonlocal store
                store = Store.prepare(out, manifest)
                store.remove_leftovers()

            try:
                for outcome in schedule.run(todo, launcher, prepare=prepare):
                    assert store is not None
                    tally.add(outcome)
                    bar.finished()
                    if len(tally.unwritten) >= _FLUSH:
                        tally.flush(store)
            except WorkersError as error:
                raise ValueError(f"no worker could be started: {error}") from error
            finally:
                if store is not None:
                    tally.flush(store)
    return tally, probes


@dataclass
class Tally:
    """What became of the videos so far."""

    kept: int
    done: int = 0
    clips: int = 0
    frames: int = 0
    video_seconds: float = 0.0
    began: float = field(default_factory=time.monotonic)
    failed: list[Failure] = field(default_factory=list)
    damaged: list[Outcome] = field(default_factory=list)
    stopped: Outcome | None = None
    unwritten: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count an outcome."""
        if outcome.status == "stopped":
            self.stopped = self.stopped or outcome
            return
        self.unwritten.append(outcome)
        if outcome.status == "kept":
            self.kept += 1
        elif outcome.status == "failed":
            self.failed.append(_failure(outcome))
            path = str(outcome.job.path)
            say(f"vad: {outcome.reason if path in outcome.reason else f'{path}: {outcome.reason}'}")
        else:
            self.done += 1
            self.clips += outcome.clips
            self.frames += outcome.frames
            self.video_seconds += outcome.video_seconds
            if outcome.lost_seconds:
                self.damaged.append(outcome)
                say(f"vad: {outcome.job.path}: {outcome.lost_seconds:.1f} s could not be read; the rest was used")

    def flush(self, store: Store) -> None:
        """Bring ``failed.jsonl`` up to date."""
        failed = [_failure(outcome) for outcome in self.unwritten if outcome.status == "failed"]
        settled = [outcome.job.name for outcome in self.unwritten if outcome.status != "failed"]
        store.note_failures(failed, settled=settled)
        self.unwritten = []

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return max(time.monotonic() - self.began, 1e-9)


class Bar:
    """Clips per second, video-hours per hour and time left: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, probes: dict[Path, Probe], *, videos: int, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self._lines = not quiet and not console.is_terminal
        self._bar = Progress(
            TextColumn("{task.fields[words]}"),
            BarColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
            transient=True,
        )
        self._total = sum(p.frames or p.duration * p.fps for p in probes.values())
        self._rate = sum(p.fps * (p.frames or p.duration * p.fps) for p in probes.values()) / max(self._total, 1)
        self._task = self._bar.add_task("", total=self._total or None, words="starting")
        self._videos, self._finished = videos, 0
        self._frames = self._clips = 0
        self._began = time.monotonic()
        self._said = time.monotonic()

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def heard(self, frames: int, clips: int) -> None:
        """So many more frames have been read, and clips extracted."""
        self._frames += frames
        self._clips += clips
        self._bar.update(self._task, advance=frames, words=self._words())
        if self._lines and time.monotonic() - self._said >= _LINE:
            self._said = time.monotonic()
            say(f"vad: {self._words()}{self._left()}")

    def finished(self) -> None:
        """A video is through."""
        self._finished += 1
        self.heard(0, 0)

    def _words(self) -> str:
        seconds = max(time.monotonic() - self._began, 1e-9)
        per_hour = self._frames / self._rate / seconds if self._rate and self._frames else 0.0
        return (
            f"{self._finished}/{self._videos} videos, {self._clips / seconds:.1f} clips/s, "
            f"{per_hour:.1f} video-hours per hour"
        )

    def _left(self) -> str:
        if not (self._frames and self._total):
            return ""
        seconds = (self._total - self._frames) / self._frames * (time.monotonic() - self._began)
        return f", {datetime.timedelta(seconds=round(max(seconds, 0)))} left"


def _existing(out: Path, settings: Extraction) -> Store | None:
    """The store that is there, if its settings are the ones asked for."""
    if not (out / MANIFEST).exists():
        return None
    store = Store.open(out)
    asked = store.manifest.model_copy(
        update={"extractor": settings.extractor.model_dump(mode="json"), "layout": None, "dtype": settings.dtype}
    )
    return Store.prepare(out, asked)


def _unchanged(store: Store, job: Job) -> bool:
    """Whether features of this file are there, by its size and time alone; workers look closer."""
    with contextlib.suppress(StoreError, OSError):
        record, facts = store.record(job.name), job.path.stat()
        return record is not None and (record.source.bytes, record.source.mtime_ns) == (
            facts.st_size,
            facts.st_mtime_ns,
        )
    return False


def _probes(jobs: list[Job]) -> dict[Path, Probe]:
    """What the containers say, for the time that is left; what cannot be read is a worker's to report."""

    def one(job: Job) -> Probe | None:
        try:
            return probe(job.path)
        except (VideoError, OSError):
            return None

    with ThreadPoolExecutor(4) as pool:
        found = dict(zip((job.path for job in jobs), pool.map(one, jobs), strict=True))
    return {path: facts for path, facts in found.items() if facts is not None}


def _launcher(spread: Spread, task: Task, bar: Bar) -> Launcher:
    import torch

    from vad.extraction.local import Here, Processes

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
    if spread.launcher == "ray":
        try:
            from vad.extraction.ray import Cluster
        except ModuleNotFoundError as cause:
            if cause.name != "ray":
                raise
            raise ValueError("ray is not installed; run: pip install 'vadwatch[ray]'") from cause
        task = replace(task, store=task.store.absolute(), batch=spread.batch, threads=max(int(spread.cpus), 1))
        return Cluster(task, spread.workers or 1, cpus=spread.cpus, gpus=spread.gpus, heard=bar.heard)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = spread.workers or len(gpus) or 1
    task = replace(task, batch=spread.batch, threads=None if gpus else max(cores // workers, 1))
    if workers == 1:
        return Here(task, heard=bar.heard)
    return Processes(task, workers, gpus=gpus, heard=bar.heard)


def _failure(outcome: Outcome) -> Failure:
    return Failure(
        name=outcome.job.name,
        path=str(outcome.job.path),
        reason=outcome.reason,
        attempts=outcome.attempts,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _report(tally: Tally, out: Path, probes: dict[Path, Probe], *, quiet: bool, as_json: bool) -> None:
    summary: dict[str, Any] = {
        "store": str(out),
        "extracted": tally.done,
        "kept": tally.kept,
        "failed": [failure.model_dump() for failure in tally.failed],
        "clips": tally.clips,
        "seconds": round(tally.seconds, 2),
        "clips_per_second": round(tally.clips / tally.seconds, 2),
        "frames_per_second": round(tally.frames / tally.seconds, 1),
        "video_hours_per_hour": round(tally.video_seconds / tally.seconds, 2),
    }
    if as_json:
        typer.echo(json.dumps(summary))
        return
    if quiet:
        return
    rates = Counter(round(p.fps, 2) for p in probes.values())
    if len(rates) > 1:
        shown = ", ".join(f"{rate:g}" for rate in sorted(rates)[:6])
        say(f"vad: the videos have {len(rates)} frame rates ({shown}); extractor.fps samples all of them alike")
    typer.echo(
        f"{tally.done} videos extracted, {tally.kept} were there, {len(tally.failed)} failed: {tally.clips} clips in "
        f"{tally.seconds:.1f} s ({summary['clips_per_second']:g} clips/s, "
        f"{summary['video_hours_per_hour']:g} video-hours per hour): {out}"
    )
    if tally.failed:
        typer.echo(f"reasons: {out / 'failed.jsonl'}")
