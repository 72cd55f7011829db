"""The one thread that writes. Callers hand it commands and never wait, unless they want to.

Commands are carried out in order, many in one transaction. When the database is locked, full or away, the writer
keeps what it has and tries again for ever; what comes meanwhile waits in a bounded queue in memory. It does not
spill to a file: the disk that holds the database is the disk that is full. Scores may fill half of the queue, so
events find room long after history has none; what finds none is refused to its caller at once, and counted.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from sqlalchemy import Connection, select
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, ProgrammingError

from streaming.store.database import Database, StoreError, StoreFullError, reason
from streaming.store.schema import writers

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """Of the writer; times in seconds."""

    queue: int = 10_000  # commands: hours of events, and minutes of scores, while nothing can be written
    batch: int = 256  # commands in one transaction
    busy_timeout: float = 30.0  # how long one attempt waits for another's lock
    patience: float = 2.0  # health tells of a write that takes longer
    first_delay: float = 0.1  # before the second attempt; doubles with each
    longest_delay: float = 5.0

    def __post_init__(self) -> None:
        if self.queue < 2 or self.batch < 1:
            raise ValueError(f"queue must be at least 2 and batch at least 1, got {self.queue} and {self.batch}")
        if not 0 < self.first_delay <= self.longest_delay:
            raise ValueError(f"delays must be positive and rise, got {self.first_delay} to {self.longest_delay}")


@dataclass(frozen=True, slots=True)
class Health:
    """How writing goes. ``since`` is Unix seconds; counters run from the start of the process."""

    status: Literal["ok", "degraded", "failed"]  # failed: the writer is gone, only a restart helps
    reason: str | None
    since: float | None
    queued: int  # commands that wait or are being written
    written: int
    retries: int
    refused: Mapping[str, int]  # by kind of command: the queue was full or the writer gone


@dataclass(frozen=True, slots=True, eq=False)
class _Command:
    run: Callable[[Connection], Any]
    future: Future[Any]


class Writer:
    """Owns the write connection of ``database``. ``observe`` hears how many seconds each transaction took.

    Callbacks of its futures run on its thread: they must be short and must not wait for another write.
    """

    def __init__(
        self,
        database: Database,
        node: str,
        *,
        limits: Limits,
        clock: Callable[[], float],
        observe: Callable[[float], None],
    ) -> None:
        self._database, self._node = database, node
        self._limits, self._clock, self._observe = limits, clock, observe
        self._changed = threading.Condition()  # guards all below
        self._queue: deque[_Command] = deque()
        self._batch: list[_Command] = []  # in hand
        self._began = 0.0  # monotonic: when the batch was taken
        self._fault: str | None = None  # why the last attempt failed
        self._ended: tuple[str, float] | None = None  # why the thread is gone, and when (monotonic)
        self._closing = self._given_up = False
        self._written = self._retries = 0
        self._refused: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, kind: str, run: Callable[[Connection], T], *, expendable: bool = False) -> Future[T]:
        """Carry out ``run`` inside a transaction; the future has its result once that is committed.

        Never waits and never raises: a full queue or a writer that is gone shows in the future, as StoreError.
        ``run`` may be called again after a failure, so it must do nothing but use the connection.
        """
        future: Future[T] = Future()
        with self._changed:
            refusal = self._refusal(self._limits.queue // 2 if expendable else self._limits.queue)
            if refusal is None:
                self._queue.append(_Command(run, future))
                self._changed.notify_all()
                return future
            self._refused[kind] += 1
            first = self._refused[kind] == 1
        if first:  # the counter tells of the others
            log.error("%s lost: %s", kind, refusal)
        future.set_exception(refusal)
        return future

    def health(self) -> Health:
        """How it stands now."""
        with self._changed:
            status, why, since = self._status(time.monotonic())
            waiting = len(self._queue) + len(self._batch)
            return Health(status, why, since, waiting, self._written, self._retries, dict(self._refused))

    def close(self, timeout: float) -> int:
        """Write what is queued and end; gives how many commands were not written within ``timeout`` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        with self._changed:
            self._given_up = True
            self._changed.notify_all()
            left = len(self._queue) + len(self._batch)
        if left:
            log.error("%s: closed with %d writes undone after %.1f s", self._database.name, left, timeout)
        return left

    def _refusal(self, room: int) -> StoreError | None:
        if self._ended or self._closing:
            why = self._ended[0] if self._ended else "closing"
            return StoreError(f"{self._database.name}: takes no more writes: {why}")
        if len(self._queue) >= room:
            return StoreFullError(
                f"{self._database.name}: {room} writes are waiting already: {self._fault or 'too slow'}"
            )
        return None

    def _status(self, now: float) -> tuple[Literal["ok", "degraded", "failed"], str | None, float | None]:
        def unix(moment: float) -> float:
            return self._clock() - (now - moment)

        if self._ended:
            return "failed", self._ended[0], unix(self._ended[1])
        if self._batch and self._fault:
            return "degraded", self._fault, unix(self._began)
        if self._batch and now - self._began > self._limits.patience:
            return "degraded", "a write takes long: the database is locked or slow", unix(self._began)
        return "ok", None, None

    def _run(self) -> None:
        why = "closed"
        try:
            while (batch := self._take()) is not None:
                self._write(batch)
        except BaseException as cause:
            why = f"the writer died: {cause!r}"
            log.exception("%s: the writer died", self._database.name)
        finally:
            with self._changed:
                self._ended = (why, time.monotonic())
                undone = [*self._batch, *self._queue]
                self._batch = []
                self._queue.clear()
            for command in undone:
                with contextlib.suppress(InvalidStateError):  # cancelled, or settled before the end came
                    command.future.set_exception(StoreError(f"{self._database.name}: not written: {why}"))
            self._database.close()

    def _take(self) -> list[_Command] | None:
        """The next commands, in order; None when there is nothing more to do."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            if not self._queue or self._given_up:
                return None
            taken = [self._queue.popleft() for _ in range(min(self._limits.batch, len(self._queue)))]
            self._batch = [command for command in taken if command.future.set_running_or_notify_cancel()]
            self._began = time.monotonic()
            return list(self._batch)

    def _write(self, batch: list[_Command]) -> None:
        """Write until it is done. A command that fails by its own fault is taken out, the others go on."""
        name, delay = uuid.uuid4().hex, self._limits.first_delay
        results: list[Any] = []
        while batch:
            if self._given_up:
                return
            try:
                results = self._attempt(name, batch, results)
                break
            except _CommandFailed as failed:
                log.error("%s: a write was refused: %s", self._database.name, failed.cause)
                batch.remove(failed.command)
                failed.command.future.set_exception(failed.cause)
            except (DBAPIError, OSError) as cause:
                self._note_failure(cause)
                self._pause(delay)
                delay = min(2 * delay, self._limits.longest_delay)
        self._note_end(len(batch))
        for command, result in zip(batch, results, strict=True):
            command.future.set_result(result)

    def _attempt(self, name: str, batch: list[_Command], earlier: list[Any]) -> list[Any]:
        """One transaction. Its name is written with it, so that a commit whose answer was lost is not repeated."""
        began = time.monotonic()
        with self._database.writing.begin() as connection:
            if connection.scalar(select(writers.c.batch).where(writers.c.node == self._node)) == name:
                return earlier
            earlier.clear()
            earlier.extend(_run(command, connection) for command in batch)
            connection.execute(writers.update().where(writers.c.node == self._node).values(batch=name))
        self._observe(time.monotonic() - began)
        return earlier

    def _note_failure(self, cause: Exception) -> None:
        self._database.writing.dispose()  # the next attempt starts on a fresh connection
        with self._changed:
            news = self._fault is None
            self._fault = reason(cause)
            self._retries += 1
        if news:
            log.warning("%s: cannot write: %s; trying again until it works", self._database.name, self._fault)

    def _note_end(self, written: int) -> None:
        with self._changed:
            was, self._fault = self._fault, None
            self._batch = []
            self._written += written
        if was:
            log.info("%s: writes again", self._database.name)

    def _pause(self, delay: float) -> None:
        """Wait; closing cuts it short once, and giving up at any time."""
        with self._changed:
            if self._closing:
                self._changed.wait_for(lambda: self._given_up, self._limits.first_delay)
            else:
                self._changed.wait_for(lambda: self._closing, delay)


class _CommandFailed(Exception):  # noqa: N818 (no error of ours: it carries one)
    def __init__(self, command: _Command, cause: Exception) -> None:
        super().__init__(str(cause))
        self.command, self.cause = command, cause


def _run(command: _Command, connection: Connection) -> Any:
    try:
        return command.run(connection)
    except Exception as cause:
        if _passes(cause, connection.dialect.name):
            raise
        raise _CommandFailed(command, cause) from cause


def _passes(cause: Exception, dialect: str) -> bool:
    """Whether it is worth to try again: also when a right was taken away or a table is missing, which people mend."""
    if isinstance(cause, IntegrityError | DataError):
        return False
    if dialect == "sqlite" and isinstance(cause, InterfaceError | ProgrammingError):
        return False  # there they mean a value or a call that can never do
    return isinstance(cause, DBAPIError | OSError)
