"""Workers on a Ray cluster: the same worker as an actor, which takes a path and gives back one small row.

Pixels and features never enter Ray's object store: decoding and the network share an actor, and it writes the
features itself, so the store and the videos have to lie on a file system that all machines see. Plain actors
instead of Ray Data: its actor pools try a block again for as long as workers die, so that one poisonous file would
never let a run end; here ``schedule`` counts the attempts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from vad.extraction.jobs import Job
from vad.extraction.schedule import Died, Finished, Message, Ready
from vad.extraction.worker import Heard, Outcome, Task, Worker
from vad.store import Manifest


class _Actor:
    def __init__(self, task: Task) -> None:
        self._worker = Worker(task)

    def manifest(self) -> Manifest:
        return self._worker.manifest

    def extract(self, job: Job) -> Outcome:
        return self._worker(job)


class Cluster:
    """Actors on the cluster that ``RAY_ADDRESS`` names, or on a new one of this machine alone."""

    def __init__(self, task: Task, workers: int, *, cpus: float, gpus: float, heard: Heard) -> None:
        self.workers = workers
        self._task, self._heard = task, heard
        self._started_ray = not ray.is_initialized()
        if self._started_ray:
            ray.init(log_to_driver=False, include_dashboard=False, configure_logging=False)
        # no restarts and no retries by Ray itself: the schedule counts them
        self._remote: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0)(_Actor)
        self._actors: dict[int, Any] = {}
        self._pending: dict[Any, int] = {}  # what an actor was asked for, and which worker it is

    def launch(self, worker: int) -> None:
        """Ask for an actor and for what it computes."""
        self._actors[worker] = self._remote.remote(self._task)
        self._pending[self._actors[worker].manifest.remote()] = worker

    def give(self, worker: int, job: Job) -> None:
        """Ask an actor to extract."""
        self._pending[self._actors[worker].extract.remote(job)] = worker

    def wait(self) -> Sequence[Message]:
        """Answers that are there."""
        done, _ = ray.wait(list(self._pending), num_returns=1, timeout=1.0)
        return [self._message(self._pending.pop(answer), answer) for answer in done]

    def close(self) -> None:
        """End all actors, and the cluster if it was made here."""
        for actor in self._actors.values():
            with contextlib.suppress(ValueError):
                ray.kill(actor)
        self._actors, self._pending = {}, {}
        if self._started_ray:
            ray.shutdown()

    def _message(self, worker: int, answer: Any) -> Message:
        try:
            given = ray.get(answer)
        except RayActorError as error:
            cause = error.__cause__
            if isinstance(cause, (ValueError, OSError)):
                return Died(worker, str(cause), unusable=True)
            return Died(worker, f"its worker died: {str(error).splitlines()[0]}")
        except RayTaskError as error:
            return Died(worker, str(error.cause), unusable=True)
        if isinstance(given, Manifest):
            return Ready(worker, given)
        self._heard(given.frames, given.clips)  # of a whole video at once: progress is not worth messages
        return Finished(worker, given)
