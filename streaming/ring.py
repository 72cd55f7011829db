"""Clips from a camera's process to the one that scores: shared memory, the latest win, nobody waits for anybody.

A few slots of one clip each and a header per slot. The writer takes the slots in turn and never waits; a reader that is
too slow finds newer clips in the place of those it did not take, and knows how many it missed. A slot's number is
odd while it is being written, so that a torn copy is noticed (a sequence lock with one writer). There is no lock that a
killed process could take with it.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from vad.types import Clip, Pixels

SLOTS = 3  # one being written, one being read, one waiting
_HEADER = np.dtype(
    [
        ("number", np.int64),  # 2n + 2 when clip n is whole, 2n + 1 while it is written
        ("start_frame", np.int64),
        ("end_frame", np.int64),
        ("start", np.float64),  # seconds of the session
        ("end", np.float64),
        ("arrival", np.float64),  # of its last frame, monotonic seconds
        ("session", np.int64),
    ]
)
_STATUS = np.dtype(
    [
        ("session", np.int64),
        ("frames", np.int64),  # decoded, of all sessions
        ("corrupt", np.int64),
        ("jumps", np.int64),
        ("changes", np.int64),
        ("clips", np.int64),  # written
        ("taken", np.int64),  # taken or missed: a reader that is started again goes on here
        ("last_frame", np.float64),  # arrival, monotonic seconds; 0 before the first
        ("period", np.float64),  # seconds from frame to frame, as the camera says
        ("width", np.int64),
        ("height", np.int64),
        ("still_since", np.float64),  # arrival of the first of the newest pictures that are all the same
    ]
)


class RingError(OSError):
    """There is not enough shared memory."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A clip out of the ring."""

    clip: Clip
    start: float  # seconds of the session: of its snippet's first frame
    arrival: float
    session: int
    missed: int  # clips that were overwritten before anybody took them, since the last one that was taken


class Ring:
    """The memory that a camera's process and the scoring process share. One writer, one reader."""

    def __init__(self, memory: SharedMemory, clip_shape: tuple[int, int, int, int], *, owner: bool) -> None:
        self._memory, self._owner = memory, owner
        self.shape = clip_shape
        size = int(np.prod(clip_shape))
        buffer = memory.buf
        self.status = np.ndarray((1,), _STATUS, buffer)
        at = _STATUS.itemsize
        self._headers = np.ndarray((SLOTS,), _HEADER, buffer, at)
        at += SLOTS * _HEADER.itemsize
        self._pixels = np.ndarray((SLOTS, *clip_shape), np.uint8, buffer, at)
        assert at + SLOTS * size <= memory.size
        self._missed = 0  # noticed, but not reported yet

    @classmethod
    def create(cls, clip_shape: tuple[int, int, int, int]) -> Ring:
        """Memory for clips (T, H, W, 3). Raises RingError, never a crash later, when there is too little of it."""
        size = bytes_of(clip_shape)
        memory = SharedMemory(create=True, size=size)
        try:
            # the file is made sparse; without this the first write to a full /dev/shm is a SIGBUS
            os.posix_fallocate(memory._fd, 0, size)  # type: ignore[attr-defined]
        except OSError as cause:
            memory.close()
            memory.unlink()
            if cause.errno in (errno.ENOSPC, errno.ENOMEM):
                raise RingError(
                    f"shared memory is full: a camera's clips need {size / 2**20:.1f} MiB of /dev/shm; enlarge it "
                    "(docker: --shm-size), or use a smaller extractor.size"
                ) from cause
            raise
        ring = cls(memory, clip_shape, owner=True)
        ring.status[:] = 0
        ring._headers[:] = 0
        return ring

    @classmethod
    def attach(cls, name: str, clip_shape: tuple[int, int, int, int]) -> Ring:
        """The same memory in another process."""
        # a child shares its parent's resource tracker, so attaching registers nothing new there
        return cls(SharedMemory(name), clip_shape, owner=False)

    @property
    def name(self) -> str:
        """For ``attach``."""
        return self._memory.name

    def put(self, clip: Clip, *, start: float, arrival: float, session: int) -> None:
        """Write the next clip over the oldest one."""
        number = int(self.status["clips"][0])
        header = self._headers[number % SLOTS]
        header["number"] = 2 * number + 1
        self._pixels[number % SLOTS] = clip.pixels
        header["start_frame"], header["end_frame"] = clip.start_frame, clip.end_frame
        header["start"], header["end"] = start, clip.pts
        header["arrival"], header["session"] = arrival, session
        header["number"] = 2 * number + 2
        self.status["clips"] = number + 1

    def take(self) -> Taken | None:
        """The oldest clip that is still whole and was not taken yet; None when there is none."""
        while (written := int(self.status["clips"][0])) > (due := int(self.status["taken"][0])):
            oldest = max(due, written - SLOTS)
            found = self._copy(oldest)
            self.status["taken"] = oldest + 1
            self._missed += oldest - due + (found is None)  # overwritten before, or while it was copied
            if found is None:
                continue
            missed, self._missed = self._missed, 0
            pixels, header = found
            clip = Clip(pixels, int(header["start_frame"]), int(header["end_frame"]), float(header["end"]))
            return Taken(clip, float(header["start"]), float(header["arrival"]), int(header["session"]), missed)
        return None

    def _copy(self, number: int) -> tuple[Pixels, np.void] | None:
        slot = number % SLOTS
        header = self._headers[slot].copy()
        if int(header["number"]) != 2 * number + 2:
            return None
        pixels = self._pixels[slot].copy()
        return (pixels, header) if int(self._headers[slot]["number"]) == 2 * number + 2 else None

    def close(self) -> None:
        """Let go of the memory; its owner removes it."""
        del self.status, self._headers, self._pixels
        self._memory.close()
        if self._owner:
            self._memory.unlink()


def bytes_of(clip_shape: tuple[int, int, int, int]) -> int:
    """Size of a ring.

    >>> bytes_of((16, 224, 224, 3)) // 2**20
    6
    """
    return _STATUS.itemsize + SLOTS * (_HEADER.itemsize + int(np.prod(clip_shape)))
