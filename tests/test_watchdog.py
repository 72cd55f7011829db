"""The watchdog as a pure function: it never gives up, never acts on the sleep of its own, and spreads its tries."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.watchdog import Seen, Settings, Watchdog

PERIOD = 0.04


def dog(**settings):
    return Watchdog(Settings(**settings), random.Random(0))


def running(watchdog, now=0.0):
    """Connected, with a picture at ``now``."""
    assert watchdog.step(now, Seen(alive=True)) == ["connect"]
    assert watchdog.step(now + 0.001, Seen(True, last_frame=now + 0.001, period=PERIOD)) == []
    assert watchdog.state == "online"
    return watchdog


def test_a_camera_comes_online_with_its_first_picture():
    watchdog = dog()
    assert watchdog.state == "offline"
    assert watchdog.step(0, Seen(False)) == ["connect"]
    assert watchdog.state == "connecting"
    watchdog.step(1, Seen(True, last_frame=1, period=PERIOD))
    assert (watchdog.state, watchdog.reason) == ("online", "ok")


def test_a_stall_is_seen_after_its_limit_killed_and_counted():
    watchdog = running(dog())
    assert watchdog.step(4.9, Seen(True, last_frame=0.001, period=PERIOD)) == []
    assert watchdog.step(5.2, Seen(True, last_frame=0.001, period=PERIOD)) == ["kill"]
    assert (watchdog.state, watchdog.reason, watchdog.stalls) == ("stalled", "timeout", 1)


def test_a_camera_of_one_picture_in_two_seconds_is_no_stall():
    watchdog = dog()
    watchdog.step(0, Seen(True))
    for second in range(0, 200, 2):
        assert watchdog.step(second + 1.9, Seen(True, last_frame=second + 0.001, period=2.0)) == []


def test_a_try_without_a_picture_is_killed():
    watchdog = dog(open=10)
    watchdog.step(0, Seen(True))
    assert watchdog.step(9, Seen(True)) == []
    assert watchdog.step(10.5, Seen(True)) == ["kill"]
    assert watchdog.state == "offline"


def waits(watchdog, reason, count, now=0.0):
    found = []
    for _ in range(count):
        while watchdog.step(now, Seen(True)) != ["connect"]:
            now += 0.1
        watchdog.step(now, Seen(True, ended=reason))
        began = now
        while watchdog.step(now, Seen(True)) != ["connect"]:
            now += 0.1
        found.append(now - began)
        watchdog.step(now, Seen(True, ended=reason))
    return found


def test_waits_double_up_to_the_cap_and_never_end():
    expected = [2.0 ** min(n, 6) for n in range(0, 40, 2)]
    for wait, plain in zip(waits(dog(), "refused", 20), expected, strict=True):
        assert 0.5 * min(plain, 60) - 0.2 <= wait <= 1.5 * min(plain, 60) + 0.2


def test_a_refused_password_is_tried_seldom():
    assert max(waits(dog(jitter=0), "auth_failed", 12)) == pytest.approx(300, abs=0.3)


def test_after_a_healthy_minute_the_next_failure_is_the_first_again():
    watchdog = dog(jitter=0)
    waits(watchdog, "eof", 5)
    now = 10_000.0
    assert watchdog.step(now, Seen(True)) == ["connect"]
    for second in range(62):
        watchdog.step(now + second, Seen(True, last_frame=now + second, period=PERIOD))
    assert watchdog.tries == 0
    watchdog.step(now + 62, Seen(True, ended="eof"))
    assert watchdog.step(now + 63.1, Seen(True)) == ["connect"]


def test_who_overslept_kills_nobody_in_the_first_pass():
    watchdog = running(dog())
    assert watchdog.step(60, Seen(True, last_frame=0.1, period=PERIOD), overslept=True) == []
    assert watchdog.step(60.5, Seen(True, last_frame=0.1, period=PERIOD)) == []
    assert watchdog.step(65.2, Seen(True, last_frame=0.1, period=PERIOD)) == ["kill"]


def test_a_process_that_dies_again_and_again_is_failed_and_comes_back():
    watchdog, now = dog(crashes=3, jitter=0, first=0.1, cap=0.1), 0.0
    for _ in range(3):
        while watchdog.step(now, Seen(False)) != ["connect"]:
            now += 0.1
        watchdog.step(now, Seen(False))
    assert (watchdog.state, watchdog.reason) == ("failed", "crash")
    assert watchdog.step(now + 299, Seen(False)) == []
    assert watchdog.step(now + 301, Seen(False)) == ["connect"]


def test_pictures_that_cannot_be_judged_are_degraded_and_recover():
    watchdog = running(dog(frozen=20))
    watchdog.step(30, Seen(True, last_frame=30, period=PERIOD, still_since=5))
    assert (watchdog.state, watchdog.reason) == ("degraded", "frozen")
    watchdog.step(31, Seen(True, last_frame=31, period=PERIOD, still_since=31, corrupt=True))
    assert (watchdog.state, watchdog.reason) == ("degraded", "corrupt")
    watchdog.step(32, Seen(True, last_frame=32, period=PERIOD, still_since=32))
    assert watchdog.state == "online"


def test_disabled_does_nothing_until_it_is_enabled():
    watchdog = running(dog())
    assert watchdog.disable() == ["kill"]
    assert watchdog.step(100, Seen(False)) == []
    watchdog.enable(100)
    assert watchdog.step(100, Seen(False)) == ["connect"]


seens = st.builds(
    Seen,
    alive=st.booleans(),
    ended=st.sampled_from([None, None, None, "eof", "timeout", "auth_failed"]),
    last_frame=st.floats(0, 1000),
    period=st.floats(0, 3),
    still_since=st.floats(0, 1000),
    corrupt=st.booleans(),
)


@given(st.lists(st.tuples(st.floats(0, 40), seens, st.booleans()), max_size=60))
def test_whatever_happens_it_tries_again_within_the_longest_pause(story):
    watchdog, now = dog(), 0.0
    for passed, seen, overslept in story:
        now += passed
        commands = watchdog.step(now, seen, overslept=overslept)
        assert commands in ([], ["connect"], ["kill"])
        assert watchdog.state in ("connecting", "online", "stalled", "degraded", "offline", "failed")
        if commands == ["kill"]:
            assert watchdog.state in ("stalled", "offline")
    # from here on the process is dead and nothing comes: a new try within the longest pause there is
    tried = False
    for _ in range(1000):
        now += 1
        tried |= watchdog.step(now, Seen(False)) == ["connect"]
    assert tried
