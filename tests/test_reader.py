"""A camera's process and the memory that it shares: every clip or a count of the missed, and a clean death."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import rtsp_server
from conftest import make_video
from hypothesis import given
from hypothesis import strategies as st
from rtsp_server import read_video, wait_until

from streaming import reader
from streaming.ring import SLOTS, Ring, RingError, bytes_of
from vad.clips import cuts
from vad.config import load
from vad.types import Clip, Frame
from vad.video import Video

rtsp = rtsp_server.rtsp
SHAPE = (2, 3, 4, 3)


@pytest.fixture
def ring():
    made = Ring.create(SHAPE)
    yield made
    made.close()


def clip(number):
    return Clip(np.full(SHAPE, number % 256, np.uint8), 10 * number, 10 * number + 10, float(number))


def test_clips_come_out_as_they_went_in(ring):
    other = Ring.attach(ring.name, SHAPE)
    other.put(clip(7), start=6.5, arrival=3.0, session=2)
    taken = ring.take()
    np.testing.assert_array_equal(taken.clip.pixels, clip(7).pixels)
    assert (taken.clip.start_frame, taken.clip.end_frame, taken.clip.pts) == (70, 80, 7.0)
    assert (taken.start, taken.arrival, taken.session, taken.missed) == (6.5, 3.0, 2, 0)
    assert ring.take() is None
    other.close()


@given(st.lists(st.integers(0, 7), max_size=20))
def test_every_clip_is_taken_or_counted_as_missed(writes):
    """Between two looks of the reader so many clips are written."""
    ring = Ring.create(SHAPE)
    try:
        written, taken, missed = 0, [], 0
        for count in writes:
            for _ in range(count):
                ring.put(clip(written), start=0, arrival=0, session=0)
                written += 1
            while (found := ring.take()) is not None:
                taken.append(int(found.clip.pts))
                missed += found.missed
                assert (found.clip.pixels == taken[-1] % 256).all()
        assert len(taken) + missed == written
        assert taken == sorted(set(taken))
        if writes and writes[-1]:
            assert taken[-1] == written - 1  # the newest always
        assert all(count > SLOTS for count in writes) is False or missed or not writes
    finally:
        ring.close()


def test_too_little_shared_memory_is_said_and_never_a_crash():
    available = os.statvfs("/dev/shm")
    too_much = available.f_bavail * available.f_frsize // (3 * SLOTS) + 10**7
    before = set(os.listdir("/dev/shm"))
    with pytest.raises(RingError, match=r"shared memory is full: a camera's clips need .* MiB of /dev/shm"):
        Ring.create((1, too_much, 1, 3))
    assert set(os.listdir("/dev/shm")) == before


def test_the_size_of_a_ring_is_its_clips():
    assert bytes_of((16, 224, 224, 3)) - SLOTS * 16 * 224 * 224 * 3 < 1000


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return make_video(tmp_path_factory.mktemp("v") / "a.mp4", frames=75, size=(160, 120), fps=25)


@pytest.fixture(scope="module")
def settings():
    return load("extractors", {"kind": "colour", "clip_frames": 8, "hop": 8, "size": [64, 48]})


class Process:
    """A reader, and our end of it."""

    def __init__(self, url, settings):
        self.ring = Ring.create((8, 48, 64, 3))
        self.pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        sampling = settings.model_dump(mode="json", exclude={"runtime"})
        for extra in set(sampling) - set(reader.Sampling.model_fields):
            del sampling[extra]
        arguments = (url, sampling, self.ring.name, self.ring.shape, theirs)
        self.process = context.Process(target=reader.run, args=arguments, daemon=True)
        self.process.start()
        theirs.close()

    def close(self):
        self.process.kill()
        self.process.join()
        self.pipe.close()
        self.ring.close()


@pytest.fixture
def start(settings):
    made = []

    def one(url):
        made.append(Process(url, settings))
        return made[-1]

    yield one
    for process in made:
        process.close()


def test_a_camera_process_gives_the_clips_of_the_file_and_says_how_it_ended(rtsp, recording, settings, start):
    camera = rtsp.add("a", read_video(recording), ends=True)
    process = start(camera.url)
    process.pipe.send(1)
    taken = []
    while not process.pipe.poll():
        while (found := process.ring.take()) is not None:
            taken.append(found)
        time.sleep(0.01)
    ended = process.pipe.recv()
    assert (ended.session, ended.reason) == (1, "eof")
    while (found := process.ring.take()) is not None:
        taken.append(found)
    theirs = [cut.clip for cut in cuts(Video(recording), settings) if cut.clip is not None]
    assert len(taken) >= 8
    assert sum(found.missed for found in taken) == 0
    for found, other in zip(taken, theirs, strict=False):
        np.testing.assert_array_equal(found.clip.pixels, other.pixels)
        assert found.clip.pts == pytest.approx(other.pts, abs=1e-6)
        assert found.start == pytest.approx(other.start_frame / 25, abs=1e-6)
    status = process.ring.status[0]
    assert status["frames"] >= 70
    assert status["corrupt"] == 0
    assert (status["width"], status["height"]) == (160, 120)


def test_the_same_process_connects_again(rtsp, recording, start):
    camera = rtsp.add("a", read_video(recording), speed=4)
    camera.drop(at=30)
    process = start(camera.url)
    frames = []
    for session in (1, 2, 3):
        process.pipe.send(session)
        assert process.pipe.poll(20)
        assert process.pipe.recv().session == session
        frames.append(int(process.ring.status["frames"][0]))
    assert frames[0] < frames[1] < frames[2]
    assert camera.connections == 3


def test_a_stalled_process_dies_at_once_when_it_is_killed(rtsp, recording, start):
    camera = rtsp.add("a", read_video(recording), speed=2)
    camera.stall(at=20)
    process = start(camera.url)
    process.pipe.send(1)
    wait_until(lambda: process.ring.status["frames"][0] >= 15, timeout=20)
    began = time.monotonic()
    process.process.kill()
    process.process.join(5)
    assert process.process.exitcode == -signal.SIGKILL
    assert time.monotonic() - began < 2
    wait_until(lambda: camera.live == 0)


def test_a_process_without_a_parents_pipe_ends(start):
    process = start("rtsp://127.0.0.1:9/a")
    process.pipe.close()
    process.process.join(20)
    assert process.process.exitcode == 0


def test_a_frozen_picture_is_noticed(rtsp, recording, start):
    camera = rtsp.add("a", read_video(recording), speed=2)
    camera.frozen(at=20)
    process = start(camera.url)
    process.pipe.send(1)
    wait_until(lambda: process.ring.status["frames"][0] >= 60, timeout=20)
    status = process.ring.status[0].copy()
    assert status["last_frame"] - status["still_since"] > 0.3


def test_damage_without_end_takes_no_memory(ring):
    watcher = reader._Watcher(ring)
    for index in range(1000):
        watcher.notice(Frame(index, index / 25, None, False, True))
    assert len(watcher._times) == 1
