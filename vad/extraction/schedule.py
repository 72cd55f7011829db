"""Share jobs out to workers, wherever they run, and outlive those that die."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from vad.extraction.jobs import Job
from vad.extraction.worker import Outcome
from vad.store import Manifest

ATTEMPTS = 2  # a video that took this many workers down with it is given up


class WorkersError(RuntimeError):
    """No worker can be had."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker is up; what it computes."""

    worker: int
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Finished:
    """A worker is done with its job."""

    worker: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Died:
    """A worker is gone, by its own fault (``unusable``: it could not be built) or not."""

    worker: int
    reason: str
    unusable: bool = False


Message = Ready | Finished | Died


class Launcher(Protocol):
    """Starts workers somewhere and carries messages."""

    workers: int

    def launch(self, worker: int) -> None:
        """Start this worker, or another in its place."""
        ...

    def give(self, worker: int, job: Job) -> None:
        """A job for a worker that is ready or has finished."""
        ...

    def wait(self) -> Sequence[Message]:
        """What happened since; returns within a second or so."""
        ...

    def close(self) -> None:
        """End all workers."""
        ...


def run(
    jobs: Sequence[Job],
    launcher: Launcher,
    *,
    prepare: Callable[[Manifest], object],
) -> Iterator[Outcome]:
    """Outcomes of all jobs, as they come; every job has exactly one.

    ``prepare`` is given what the first worker computes before any job starts, and may refuse it. A worker that dies
    is replaced and its job tried again, ``ATTEMPTS`` times in all. After an outcome ``stopped`` no job is started.
    Raises WorkersError when a worker cannot be built, or none comes up.
    """
    waiting = deque((job, 1) for job in jobs)
    busy: dict[int, tuple[Job, int]] = {}
    idle: list[int] = []
    prepared, stillborn = False, 0
    try:
        for worker in range(min(launcher.workers, len(jobs))):
            launcher.launch(worker)
        while waiting or busy:
            while waiting and idle:
                worker = idle.pop()
                busy[worker] = waiting.popleft()
                launcher.give(worker, busy[worker][0])
            for message in launcher.wait():
                match message:
                    case Ready(worker, manifest):
                        if not prepared:
                            prepare(manifest)
                            prepared = True
                        idle.append(worker)
                        stillborn = 0
                    case Finished(worker, outcome):
                        _, attempt = busy.pop(worker)
                        idle.append(worker)
                        if outcome.status == "stopped":
                            waiting.clear()
                        yield replace(outcome, attempts=attempt)
                    case Died(worker, reason, unusable):
                        stillborn += worker not in busy
                        if unusable or stillborn >= ATTEMPTS * launcher.workers:
                            raise WorkersError(reason)
                        if worker in busy:
                            job, attempt = busy.pop(worker)
                            if attempt < ATTEMPTS:
                                waiting.append((job, attempt + 1))
                            else:
                                yield Outcome(job, "failed", reason, attempts=attempt)
                        if worker in idle:
                            idle.remove(worker)
                        if waiting:
                            launcher.launch(worker)
    finally:
        launcher.close()
