"""The code path from a video to its curve, on real small videos."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from conftest import draw_number, make_video

from streaming.events import Settings as EventSettings
from streaming.recording import score_recording
from streaming.smoothing import EmaSettings, GaussianSettings
from trainers.normal import fit
from vad.clips import cuts
from vad.config import load
from vad.pipeline import ahead, feature_stream
from vad.video import Video, VideoError


def grey(level):
    def draw(number, width, height):
        return np.full((height, width, 3), level(number), np.uint8)

    return draw


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    extractor = load("extractors", {"kind": "colour", "clip_frames": 4, "hop": 3, "size": [32, 32]}).build()
    head = load("vad.heads", {"kind": "memory", "unit_length": False}).build()
    normal = make_video(folder / "normal.mp4", frames=150, draw=grey(lambda n: 100 + 10 * (n % 5)))
    return extractor, head, fit([normal], extractor, head)


def score(tools, path, smoothing=None):
    extractor, head, fitted = tools
    smoother = (smoothing or EmaSettings()).build()
    return score_recording(Video(path), extractor, head, fitted.calibration, smoother=smoother, alarms=EventSettings())


def test_the_curve_rises_where_the_picture_changes_and_not_before(tools, tmp_path):
    path = make_video(tmp_path / "v.mp4", frames=60, draw=grey(lambda n: 240 if 30 <= n < 45 else 120))
    curve = score(tools, path).curve
    assert len(curve) == 60
    snippet_end = 33  # [30, 33): the first snippet whose clip holds a bright frame
    assert curve.raw_N[:30].max() < curve.raw_N[snippet_end:45].min()


def test_a_curve_does_not_depend_on_what_comes_later(tools, tmp_path):
    bright = lambda start: grey(lambda n: 240 if n >= start else 120)  # noqa: E731
    # keyframes only: the encoder does not look ahead either
    options = {"frames": 60, "gop": 1, "options": {"crf": "18", "preset": "ultrafast", "tune": "zerolatency"}}
    calm = score(tools, make_video(tmp_path / "calm.mp4", draw=bright(99), **options)).curve
    late = score(tools, make_video(tmp_path / "late.mp4", draw=bright(42), **options)).curve
    assert late.score_N[45:].max() > calm.score_N[45:].max() + 0.1
    np.testing.assert_allclose(late.score_N[:42], calm.score_N[:42], atol=2e-2)


def test_a_smoother_that_looks_ahead_still_covers_every_frame(tools, tmp_path):
    path = make_video(tmp_path / "v.mp4", frames=50, draw=draw_number)
    curve = score(tools, path, GaussianSettings(sigma=0.2, lookahead=0.5)).curve
    assert np.isfinite(curve.score_N).all()


def test_features_come_in_order_and_none_is_lost(tools, tmp_path):
    extractor, *_ = tools
    path = make_video(tmp_path / "v.mp4", frames=100, draw=grey(lambda n: 2 * n))
    found = [float(features.mean()) for _, features in feature_stream(Video(path), extractor) if features is not None]
    direct = [
        float(extractor(cut.clip.pixels[None]).mean()) for cut in cuts(Video(path), extractor.settings) if cut.clip
    ]
    assert found == direct
    assert found == sorted(found)


def test_too_short_a_video_says_how_long_it_must_be(tools, tmp_path):
    path = make_video(tmp_path / "short.mp4", frames=5, draw=draw_number)
    with pytest.raises(VideoError, match=r"too short to score: 5 readable frames in a row, one clip needs 6"):
        score(tools, path)


class TestAhead:
    def test_items_keep_their_order(self):
        assert list(ahead(iter(range(100)))) == list(range(100))

    def test_errors_of_the_thread_reach_the_consumer(self):
        def source():
            yield 1
            raise OSError("disk gone")

        items = ahead(source())
        assert next(items) == 1
        with pytest.raises(OSError, match="disk gone"):
            next(items)

    def test_it_never_runs_further_ahead_than_its_depth(self):
        made = []

        def source():
            for number in range(50):
                made.append(number)
                yield number

        items = ahead(source(), depth=2)
        next(items)
        assert len(made) <= 1 + 2 + 2  # taken, in the queue, waiting to be put
        items.close()

    def test_a_consumer_that_stops_leaves_no_thread(self):
        before = threading.active_count()
        items = ahead(iter(range(1000)))
        next(items)
        items.close()
        assert threading.active_count() == before
