"""A camera's session against a real RTSP server: the same clips as from the file, and honest endings."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import rtsp_server
from conftest import make_video
from rtsp_server import read_video

from streaming.source import LiveClock, LiveStream, StreamError, Timeouts, check_address
from vad.clips import cuts
from vad.config import load
from vad.video import Video

rtsp = rtsp_server.rtsp
QUICK = Timeouts(open=2, read=1)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return make_video(tmp_path_factory.mktemp("v") / "a.mp4", frames=75, size=(160, 120), fps=25)


@pytest.fixture(scope="module")
def settings():
    return load("extractors", {"kind": "colour", "clip_frames": 8, "hop": 8, "size": [64, 48]})


def session(url, settings):
    """Frames and clips until the session ends, and how it ended."""
    frames, clips = [], []
    stream = LiveStream(url, timeouts=QUICK)
    try:
        for cut in cuts(stream, settings):
            frames += cut.frames
            clips += [cut.clip] if cut.clip is not None else []
    except StreamError as end:
        return frames, clips, end, stream.counts
    finally:
        stream.close()
    raise AssertionError("a live source ended without an error")


def test_a_stream_gives_the_clips_of_the_file_it_plays(rtsp, recording, settings):
    camera = rtsp.add("a", read_video(recording), speed=2, ends=True)
    frames, clips, end, counts = session(camera.url, settings)
    cut = list(cuts(Video(recording), settings))
    theirs = [c.clip for c in cut if c.clip is not None]
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert len(clips) == len(frames) // 8
    for clip, other in zip(clips, theirs, strict=False):
        np.testing.assert_array_equal(clip.pixels, other.pixels)
        assert (clip.start_frame, clip.end_frame) == (other.start_frame, other.end_frame)
        assert clip.pts == pytest.approx(other.pts, abs=1e-6)
    assert len(frames) >= 70  # the last stay in the decoder when the camera hangs up
    assert end.reason == "eof"
    assert counts.corrupt == 0


def test_with_a_sampling_rate_the_samples_are_the_same(rtsp, recording):
    settings = load("extractors", {"kind": "colour", "clip_frames": 4, "hop": 4, "fps": 10, "size": [64, 48]})
    camera = rtsp.add("a", read_video(recording), speed=2, ends=True)
    _, clips, _, _ = session(camera.url, settings)
    theirs = [c.clip for c in cuts(Video(recording), settings) if c.clip is not None]
    assert len(clips) >= len(theirs) - 1 > 5
    for clip, other in zip(clips, theirs, strict=False):
        np.testing.assert_array_equal(clip.pixels, other.pixels)


@pytest.mark.parametrize(
    ("fault", "reason"), [("auth401", "auth_failed"), ("e404", "not_found"), ("accept_silent", "timeout")]
)
def test_a_session_that_cannot_begin_says_why(rtsp, recording, fault, reason):
    camera = rtsp.add("a", read_video(recording))
    getattr(camera, fault)()
    with pytest.raises(StreamError) as caught:
        LiveStream(camera.url.replace("rtsp://", "rtsp://operator:s3cr3t@"), timeouts=QUICK)
    assert caught.value.reason == reason
    assert "s3cr3t" not in str(caught.value)
    assert "s3cr3t" not in repr(caught.value.__context__ or "") or caught.value.__suppress_context__


def test_nobody_there():
    with pytest.raises(StreamError, match="nobody listens") as caught:
        LiveStream("rtsp://127.0.0.1:9/a", timeouts=QUICK)
    assert caught.value.reason == "refused"


def test_a_camera_that_hangs_up_has_failed(rtsp, recording, settings):
    camera = rtsp.add("a", read_video(recording), speed=4)
    camera.drop(at=40)
    _, _, end, _ = session(camera.url, settings)
    assert end.reason == "eof"


@pytest.mark.parametrize("how", ["basic", "digest"])
def test_passwords_of_any_characters_log_in(rtsp, recording, settings, how):
    camera = rtsp.add("a", read_video(recording), speed=4, ends=True)
    getattr(camera, how)("op er@tor", "S3cr3t@/?#:%")
    assert "op%20er%40tor:S3cr3t%40%2F%3F%23%3A%25@" in camera.url
    frames, _, _, _ = session(camera.url, settings)
    assert len(frames) > 60


def test_corruption_never_gets_into_a_clip(rtsp, recording, settings):
    camera = rtsp.add("a", read_video(recording), speed=2, ends=True)
    camera.corrupt(0.3, at=15)
    frames, clips, _, counts = session(camera.url, settings)
    assert counts.corrupt > 0
    corrupt = {frame.index for frame in frames if frame.corrupt}
    for clip in clips:
        assert not corrupt & set(range(clip.start_frame, clip.end_frame))


def test_another_size_begins_a_new_clip(rtsp, recording, settings, tmp_path):
    other = make_video(tmp_path / "b.mp4", frames=75, size=(320, 240), fps=25)
    camera = rtsp.add("a", read_video(recording), speed=2)
    camera.res(read_video(other), at=40)
    stream = LiveStream(camera.url, timeouts=QUICK)
    clips = [cut.clip for cut in itertools.islice(cuts(stream, settings), 12) if cut.clip is not None]
    stream.close()
    assert stream.counts.changes == 1
    assert (stream.counts.width, stream.counts.height) == (320, 240)
    assert {clip.pixels.shape for clip in clips} == {(8, 48, 64, 3)}


@pytest.mark.parametrize("fault", ["tsfwd", "tsback"])
def test_a_jump_of_the_cameras_clock_moves_no_time(rtsp, recording, settings, fault):
    camera = rtsp.add("a", read_video(recording), speed=1, ends=True)
    getattr(camera, fault)(at=30)
    frames, _, _, counts = session(camera.url, settings)
    assert counts.jumps >= 1
    times = np.array([frame.pts for frame in frames])
    assert (np.diff(times) > 0).all()
    assert times[-1] == pytest.approx(len(frames) / 25, abs=0.5)


def test_the_wrap_of_the_counters_is_no_jump(rtsp, recording, settings):
    camera = rtsp.add("a", read_video(recording), speed=2, ends=True)
    camera.wrap()
    frames, _, _, counts = session(camera.url, settings)
    assert counts.jumps == 0
    assert np.diff([frame.pts for frame in frames]) == pytest.approx(0.04, abs=1e-4)


def test_the_clock_of_frames_without_times():
    clock = LiveClock(0.04)
    assert [clock.repair(None, now) for now in (0.0, 1.0)] == pytest.approx([0, 0.04])
    assert clock.repair(7.0, 1.04) == pytest.approx(0.08)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "concat:a|b",
        "subfile,,start,0,end,9,,:/etc/passwd",
        "async:rtsp://a/b",
        "/dev/video0",
        "rtsp:///no-host",
        "rtsp://[broken/x",
    ],
)
def test_addresses_that_are_no_cameras_are_refused(url):
    with pytest.raises(ValueError, match="address"):
        check_address(url)


def test_a_playlist_cannot_open_files(tmp_path):
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    with pytest.raises(ValueError, match="address"):
        LiveStream(str(tmp_path / "list.m3u8"))
