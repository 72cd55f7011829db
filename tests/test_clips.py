"""Clips and snippets: compared with a reference that has the whole stream before it and may look anywhere."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from conftest import make_video, read_number
from hypothesis import given
from hypothesis import strategies as st

from extractors.colour import Settings
from vad.clips import Windower
from vad.types import Frame
from vad.video import Video

GOOD, AFTER_GAP, CORRUPT = "good", "after gap", "corrupt"

settings_st = st.builds(
    Settings,
    kind=st.just("colour"),
    clip_frames=st.integers(1, 9),
    stride=st.integers(1, 5),
    hop=st.integers(1, 20),
)
streams_st = st.lists(st.sampled_from([GOOD] * 25 + [AFTER_GAP, CORRUPT]), max_size=200)


def picture(index):
    """A picture of one pixel that knows its frame."""
    return np.array([[[index // 256, index % 256, 0]]], np.uint8)


def members(clip):
    """The frames that a clip is made of."""
    return [int(high) * 256 + int(low) for high, low in clip.pixels[:, 0, 0, :2]]


def run(settings, kinds, *, times=None):
    """Clips of a stream, and for each frame whether its pixels were wanted; frames come as Video gives them."""
    windower = Windower(settings)
    clips, wanted = [], []
    for index, kind in enumerate(kinds):
        pts = index / 25 if times is None else times[index]
        wanted.append(kind != CORRUPT and windower.wants(pts))
        pixels = picture(index) if wanted[-1] or kind == AFTER_GAP else None
        clip = windower.step(Frame(index, pts, pixels, kind == AFTER_GAP, kind == CORRUPT))
        if clip is not None:
            assert clip.pts == pts
            clips.append(clip)
        assert len(windower._pixels) <= settings.span  # bounded, however long the stream is
    return clips, wanted


def segments(kinds):
    """Runs of frames without a gap inside."""
    found = [[]]
    for index, kind in enumerate(kinds):
        if kind in (AFTER_GAP, CORRUPT):
            found.append([])
        if kind != CORRUPT:
            found[-1].append(index)
    return [segment for segment in found if segment]


def reference(settings, samples, start):
    """(snippet start, snippet end, frames of the clip) for the sampled frames of one segment, by the definition."""
    span = (settings.clip_frames - 1) * settings.stride + 1
    found = []
    for end in range(settings.hop, len(samples) + 1, settings.hop):
        if end >= span:
            clip = [samples[end - 1 - back * settings.stride] for back in reversed(range(settings.clip_frames))]
            found.append((start, samples[end - 1] + 1, clip))
            start = samples[end - 1] + 1
    return found


@given(settings_st, streams_st)
def test_clips_are_those_of_the_definition(settings, kinds):
    clips, _ = run(settings, kinds)
    expected = [row for segment in segments(kinds) for row in reference(settings, segment, segment[0])]
    assert [(clip.start_frame, clip.end_frame, members(clip)) for clip in clips] == expected


@given(settings_st, streams_st)
def test_snippets_are_contiguous_and_clips_do_not_look_beyond_them(settings, kinds):
    clips, _ = run(settings, kinds)
    for segment in segments(kinds):
        inside = [clip for clip in clips if segment[0] <= clip.start_frame <= segment[-1]]
        if not inside:
            assert len(segment) < settings.span + settings.hop
            continue
        assert inside[0].start_frame == segment[0]  # the first one covers the frames before the first whole clip
        for before, after in itertools.pairwise(inside):
            assert after.start_frame == before.end_frame
            assert after.end_frame - after.start_frame == settings.hop
        assert segment[-1] + 1 - inside[-1].end_frame < settings.hop
        for clip in inside:
            assert max(members(clip)) == clip.end_frame - 1
            assert min(members(clip)) >= segment[0]  # no clip crosses a gap
            assert len(clip.pixels) == settings.clip_frames


@given(settings_st, st.integers(0, 60))
def test_wants_exactly_the_frames_of_some_clip(settings, judged):
    """Of an endless stream: frames late enough for every clip that could hold them to be complete are judged."""
    clips, wanted = run(settings, [GOOD] * (judged + 2 * settings.span + 2 * settings.hop))
    used = {index for clip in clips for index in members(clip)}
    assert [index for index in range(judged) if wanted[index]] == [index for index in range(judged) if index in used]


@given(settings_st, streams_st)
def test_a_stream_may_end_or_go_on_without_changing_what_was(settings, kinds):
    whole, _ = run(settings, kinds)
    half, _ = run(settings, kinds[: len(kinds) // 2])
    assert [members(clip) for clip in half] == [members(clip) for clip in whole[: len(half)]]


def test_phases_of_stride_and_hop_that_do_not_divide():
    """Neighbouring clips that share no frame take every frame between them."""
    clips, wanted = run(Settings(clip_frames=3, stride=2, hop=1), [GOOD] * 7)
    assert [members(clip) for clip in clips] == [[0, 2, 4], [1, 3, 5], [2, 4, 6]]
    assert all(wanted)
    clips, _ = run(Settings(clip_frames=2, stride=4, hop=6), [GOOD] * 18)
    assert [members(clip) for clip in clips] == [[1, 5], [7, 11], [13, 17]]


def test_a_gap_without_pixels_starts_a_segment_at_the_next_sample():
    """A camera's reader may not have known that the frame after the gap would be needed."""
    windower = Windower(Settings(clip_frames=2, hop=4))
    clips = []
    for index in range(12):
        windower.wants(index / 25)
        gap = index == 3
        clip = windower.step(Frame(index, index / 25, None if gap else picture(index), after_gap=gap))
        clips += [clip] if clip else []
    assert [(clip.start_frame, clip.end_frame, members(clip)) for clip in clips] == [(3, 8, [6, 7]), (8, 12, [10, 11])]


# ---- sampling


def sampled(times, fps):
    settings = Settings(clip_frames=1, hop=1, fps=fps)
    _, wanted = run(settings, [GOOD] * len(times), times=times)
    return [index for index, is_wanted in enumerate(wanted) if is_wanted]


def nearest(source, fps, count):
    """Frames nearest to the ticks 0, 1/fps, 2/fps …; of two as near the earlier."""
    ticks = [Fraction(k) / Fraction(fps) for k in range(int(count * Fraction(fps) / source) + 1)]
    frames = [min(range(count), key=lambda n, tick=tick: (abs(n / source - tick), n)) for tick in ticks]
    return [n for n in frames if n < count - 1]


@pytest.mark.parametrize(
    ("source", "fps"),
    [
        (Fraction(25), 5),
        (Fraction(30000, 1001), 10),
        (Fraction(30), 7),
        (Fraction(60), 25),
        (Fraction(25), 24),
        (Fraction(25), 10),
        (Fraction(50), 12.5),
        (Fraction(30), 30),
    ],
)
def test_sampling_takes_the_frame_nearest_to_each_tick(source, fps):
    found = sampled([float(n / source) for n in range(400)], fps)
    assert [n for n in found if n < 399] == nearest(source, fps, 400)


def test_sampling_25_to_5_takes_every_fifth():
    assert sampled([n / 25 for n in range(100)], 5) == list(range(0, 100, 5))


def test_sampling_faster_than_the_source_takes_every_frame():
    assert sampled([n / 15 for n in range(100)], 25) == list(range(100))


@pytest.mark.parametrize("source", [25.0, 30000 / 1001, 30.0])
def test_sampling_at_the_rate_of_the_source_takes_every_frame_of_a_container_that_counts_in_milliseconds(source):
    assert sampled([round(n / source, 3) for n in range(1000)], source) == list(range(1000))


def test_sampling_bears_a_camera_that_is_not_punctual():
    times = np.arange(2000) / 25 + np.random.default_rng(0).uniform(-0.01, 0.01, 2000)
    assert len(sampled(times.tolist(), 25)) == pytest.approx(2000, rel=0.01)
    assert len(sampled(times.tolist(), 8)) == pytest.approx(640, rel=0.01)


@given(st.lists(st.floats(0.001, 0.5), min_size=2, max_size=300), st.floats(1, 40))
def test_sampling_an_irregular_rate_never_exceeds_the_one_asked_for(steps, fps):
    times = np.cumsum(steps).tolist()
    found = [times[index] for index in sampled(times, fps)]
    assert found[0] == times[0]
    assert len(found) <= (times[-1] - times[0]) * fps + 2
    # nor does it fall behind: two samples are far apart only where the frames are
    for before, after in itertools.pairwise(found):
        last_skipped = max(time for time in times if time < after)
        assert last_skipped - before < 1.5 / fps + 1e-9


def test_sampling_starts_anew_after_a_gap():
    kinds = [GOOD] * 12 + [CORRUPT] * 2 + [AFTER_GAP] + [GOOD] * 15
    settings = Settings(clip_frames=2, hop=2, fps=5)
    clips, _ = run(settings, kinds)
    assert [(clip.start_frame, clip.end_frame, members(clip)) for clip in clips] == [
        (0, 6, [0, 5]),
        (14, 20, [14, 19]),
        (20, 30, [24, 29]),
    ]


# ---- the whole way from a file


def test_clips_of_a_real_video(tmp_path):
    path = make_video(tmp_path / "real.mp4", frames=50, bframes=2)
    windower = Windower(Settings(clip_frames=4, stride=2, hop=5, fps=12.5))
    frames = Video(path).frames(size=(80, 60), wants=windower.wants)
    found = [clip for frame in frames if (clip := windower.step(frame))]
    assert [(clip.start_frame, clip.end_frame) for clip in found] == [(0, 19), (19, 29), (29, 39), (39, 49)]
    assert [read_number(picture) for picture in found[1].pixels] == [16, 20, 24, 28]


@pytest.mark.parametrize(("rate", "fps"), [(25, 24), (Fraction(30000, 1001), 24), (30, 25), (50, 12.5), (25, 25)])
def test_the_last_frame_before_each_tick(rate, fps):
    times = [float(index / Fraction(rate)) for index in range(200)]
    settings = Settings(clip_frames=1, hop=1, fps=fps, tick="before")
    clips, _ = run(settings, [GOOD] * 200, times=times)
    found = [frame for clip in clips for frame in members(clip)]
    expected = [int(tick * Fraction(rate) / Fraction(fps)) for tick in range(len(found))]
    assert found == expected
    assert len(found) >= int(200 * fps / rate) - 1
