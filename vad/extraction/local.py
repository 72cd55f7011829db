"""Workers on this machine: processes of their own, so that none takes the others down."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from vad.extraction.jobs import Job
from vad.extraction.schedule import Died, Finished, Message, Ready
from vad.extraction.worker import Heard, Outcome, Task, Worker

_REPORT = 0.2  # seconds between two reports of progress


class Here:
    """One worker in this very process: starts at once, and is easy to look into."""

    workers = 1

    def __init__(self, task: Task, *, heard: Heard) -> None:
        self._task, self._heard = task, heard
        self._messages: list[Message] = []
        self._worker: Worker | None = None

    def launch(self, worker: int) -> None:
        """Build it; what is wrong with its settings or weights is raised."""
        self._worker = Worker(self._task)
        self._messages.append(Ready(worker, self._worker.manifest))

    def give(self, worker: int, job: Job) -> None:
        """Extract, and be done."""
        assert self._worker is not None
        self._messages.append(Finished(worker, self._worker(job, heard=self._heard)))

    def wait(self) -> Sequence[Message]:
        """All messages since."""
        messages, self._messages = self._messages, []
        return messages

    def close(self) -> None:
        """Let go of the network."""
        self._worker = None


class Processes:
    """A number of processes; on a machine with GPUs each sees one of them, in turn."""

    def __init__(self, task: Task, workers: int, *, gpus: Sequence[str], heard: Heard) -> None:
        self.workers = workers
        self._task, self._gpus, self._heard = task, gpus, heard
        self._context = multiprocessing.get_context("spawn")
        self._running: dict[int, tuple[multiprocessing.process.BaseProcess, Connection[Any, Any]]] = {}

    def launch(self, worker: int) -> None:
        """Start a process; it says when it is ready."""
        ours, theirs = self._context.Pipe()
        gpu = self._gpus[worker % len(self._gpus)] if self._gpus else None
        process = self._context.Process(target=_main, args=(theirs, self._task, gpu), name=f"extract-{worker}")
        process.start()
        theirs.close()  # so that its end is the end of the pipe
        self._running[worker] = (process, ours)

    def give(self, worker: int, job: Job) -> None:
        """Send a job; a process that is gone by then is noticed in ``wait``."""
        with contextlib.suppress(OSError):
            self._running[worker][1].send(job)

    def wait(self) -> Sequence[Message]:
        """Messages of all processes that have some, and of those that died."""
        pipes = {worker: pipe for worker, (_, pipe) in self._running.items()}
        ready = wait(list(pipes.values()), timeout=1.0)
        messages = (self._received(worker, pipe) for worker, pipe in pipes.items() if pipe in ready)
        return [message for message in messages if message is not None]

    def _received(self, worker: int, pipe: Connection[Any, Any]) -> Message | None:
        try:
            kind, *facts = pipe.recv()
        except (EOFError, OSError):
            return Died(worker, self._buried(worker))
        match kind:
            case "ready":
                return Ready(worker, facts[0])
            case "finished":
                return Finished(worker, facts[0])
            case "unusable":
                return Died(worker, facts[0], unusable=True)
        self._heard(*facts)
        return None

    def close(self) -> None:
        """End all processes; an unfinished video leaves nothing behind."""
        for process, pipe in self._running.values():
            pipe.close()
            process.terminate()
        for process, _ in self._running.values():
            process.join()
        self._running = {}

    def _buried(self, worker: int) -> str:
        process, pipe = self._running.pop(worker)
        pipe.close()
        process.join()
        code = process.exitcode or 0
        if code < 0:
            hint = " (was the memory used up?)" if -code == signal.SIGKILL else ""
            return f"its worker was ended by {signal.Signals(-code).name}{hint}"
        return f"its worker ended with code {code}"


def _main(pipe: Connection[Any, Any], task: Task, gpu: str | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who started us decides
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    try:
        worker = Worker(task)
    except (ValueError, OSError, MemoryError) as error:
        pipe.send(("unusable", str(error) or "out of memory"))
        return
    pipe.send(("ready", worker.manifest))
    while True:
        try:
            job: Job = pipe.recv()
        except EOFError:
            return
        pipe.send(("finished", _extract(worker, job, pipe)))


def _extract(worker: Worker, job: Job, pipe: Connection[Any, Any]) -> Outcome:
    frames = clips = 0
    reported = time.monotonic()

    def heard(more_frames: int, more_clips: int) -> None:
        nonlocal frames, clips, reported
        frames, clips = frames + more_frames, clips + more_clips
        if time.monotonic() - reported >= _REPORT:
            pipe.send(("heard", frames, clips))
            frames, clips, reported = 0, 0, time.monotonic()

    outcome = worker(job, heard=heard)
    pipe.send(("heard", frames, clips))
    return outcome
