"""The daemon against a real RTSP server: the scores are the offline ones, and a fault stays where it is."""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import rtsp_server
import torch
from conftest import make_video
from rtsp_server import read_video, wait_until
from typer.testing import CliRunner

from streaming.config import Settings
from streaming.store import Store
from streaming.supervisor import Supervisor
from streaming.watchdog import Settings as Watching
from vad.cli import app
from vad.cli.monitoring import camera, tool
from vad.config import ConfigError
from vad.results import read_curve

rtsp = rtsp_server.rtsp

CONFIG = """
extractor: {kind: colour, clip_frames: 8, hop: 8, size: [16, 16]}
head: {kind: memory, reduce: null}
smoothing: {kind: none}
events: {on: 0.5, off: 0.4, min_duration: 0.3, cooldown: 0.6}
"""


def vad(*arguments):
    torch.set_num_threads(1)
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, (done.stdout, done.stderr)
    return done


def street(red):
    """Grey pictures that flicker, red within these frames."""

    def draw(number, width, height):
        shade = random.Random(number).randrange(80, 120)
        picture = np.full((height, width, 3), shade, np.uint8)
        if number in red:
            picture[...] = (200, 30, 30)
        return picture

    return draw


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A fitted model, a recording with an event from 4.0 s to 6.4 s, and its offline result."""
    folder = tmp_path_factory.mktemp("site")
    make_video(folder / "normal.mp4", frames=400, size=(64, 48), draw=street(()))
    make_video(folder / "today.mp4", frames=300, size=(64, 48), draw=street(range(100, 160)))
    (folder / "config.yaml").write_text(CONFIG)
    vad("fit", folder / "normal.mp4", "--config", folder / "config.yaml", "--out", folder / "model", "-q")
    vad("score", folder / "today.mp4", "--model", folder / "model", "--out", folder / "offline", "-q")
    return folder


class Daemon:
    """A supervisor in a thread, and what it said."""

    def __init__(self, site, urls, **watching):
        listed = "".join(f'  {name}: {{url: "{url}"}}\n' for name, url in urls.items())
        (site / "monitor.yaml").write_text(f"model: {site / 'model'}\ncameras:\n{listed}")
        settings = Settings.read(site / "monitor.yaml", overrides=[])
        self.alarms, self.scores = [], []
        cameras = [camera(name, settings) for name in urls]
        if watching:
            cameras = [type(one)(**{**_fields(one), "watching": Watching(**watching)}) for one in cameras]
        self.supervisor = Supervisor(
            cameras,
            {str(site / "model"): functools.partial(tool, site / "model", "torch")},
            tell=self.alarms.append,
            hear=lambda score, sample, _: self.scores.append((score, sample)),
            seed=0,
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.supervisor.run, args=(self._stop.is_set,))
        self._thread.start()

    def status(self, name):
        return self.supervisor.status()[name]

    def close(self):
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()


def _fields(one):
    return {name: getattr(one, name) for name in one.__dataclass_fields__}


@pytest.fixture
def start(site):
    running = []

    def one(urls, **watching):
        running.append(Daemon(site, urls, **watching))
        return running[-1]

    yield one
    for daemon in running:
        daemon.close()


def test_the_daemons_scores_are_the_offline_ones(rtsp, site, start):
    yard = rtsp.add("yard", read_video(site / "today.mp4"), speed=1, ends=True)
    daemon = start({"yard": yard.url}, first=600, cap=600)
    wait_until(lambda: daemon.scores, timeout=60)
    wait_until(lambda: daemon.status("yard")["state"] == "offline" and len(daemon.scores) > 30, timeout=60)
    curve = read_curve(site / "offline/today/curve.csv")
    spans = [(round(score.start * 25), round(score.end * 25)) for score, _ in daemon.scores]
    assert spans == [(8 * i, 8 * i + 8) for i in range(len(spans))]
    for (score, sample), (first, _) in zip(daemon.scores, spans, strict=True):
        assert score.raw == pytest.approx(curve.raw_N[first], rel=1e-5)
        assert sample.score == pytest.approx(curve.score_N[first], abs=1e-5)
    assert daemon.status("yard")["dropped"] == {"queue_full": 0, "stale": 0}
    offline = json.loads((site / "offline/today/events.json").read_text())
    assert [alarm.kind for alarm in daemon.alarms] == ["new", "end"] * len(offline)
    assert len(offline) == 1
    ended = daemon.alarms[-1]
    assert (ended.event.start, ended.event.end) == pytest.approx((offline[0]["start"], offline[0]["end"]), abs=1e-5)
    assert ended.reason == "normal"
    assert abs(time.time() - ended.began) < 120


def test_a_stalled_camera_is_seen_killed_and_comes_back_while_another_goes_on(rtsp, site, start):
    video = read_video(site / "normal.mp4")
    bad, good = rtsp.add("bad", video), rtsp.add("good", video)
    daemon = start({"bad": bad.url, "good": good.url}, stall=2, first=0.5, cap=0.5)
    wait_until(lambda: daemon.status("bad")["frames"] > 25 and daemon.status("good")["frames"] > 25, timeout=60)
    bad.stall()
    wait_until(lambda: daemon.status("bad")["stalls"] == 1, timeout=15)
    before = daemon.status("good")["frames"]
    bad.normal()
    frames = daemon.status("bad")["frames"]
    wait_until(lambda: daemon.status("bad")["frames"] > frames + 25, timeout=30)
    good_now = daemon.status("good")
    assert good_now["sessions"] == 1
    assert good_now["frames"] > before + 25
    assert daemon.status("bad")["state"] == "online"
    wait_until(lambda: bad.live == 1)  # the stalled connection is gone


def test_an_event_that_is_open_when_the_camera_goes_is_ended(rtsp, site, start):
    yard = rtsp.add("yard", read_video(site / "today.mp4"))
    yard.drop(at=140)
    daemon = start({"yard": yard.url}, first=600, cap=600)
    wait_until(lambda: len(daemon.alarms) == 2, timeout=60)
    assert [(alarm.kind, alarm.reason) for alarm in daemon.alarms] == [("new", None), ("end", "camera_offline")]


@pytest.mark.parametrize("which", ["scores", "camera"])
def test_a_process_that_is_killed_is_started_again(rtsp, site, start, which):
    yard = rtsp.add("yard", read_video(site / "normal.mp4"))
    daemon = start({"yard": yard.url}, first=0.5, cap=0.5)
    wait_until(lambda: len(daemon.scores) > 2, timeout=60)
    live = daemon.supervisor.cameras["yard"]
    victim = daemon.supervisor._backend if which == "scores" else live.process
    os.kill(victim.pid, signal.SIGKILL)
    wait_until(lambda: not victim.is_alive())
    scored = len(daemon.scores)
    wait_until(lambda: len(daemon.scores) > scored + 3, timeout=60)
    assert daemon.supervisor.backend_starts == (2 if which == "scores" else 1)
    times = [score.end for score, _ in daemon.scores if score.session == daemon.scores[-1][0].session]
    assert times == sorted(set(times))  # no snippet twice


def no_model():
    raise OSError("the model is gone")


def test_a_process_that_cannot_load_its_model_is_not_started_all_the_time(site):
    (site / "broken.yaml").write_text(f"model: {site / 'model'}\ncameras: {{yard: {{url: 'rtsp://127.0.0.1:9/x'}}}}\n")
    one = camera("yard", Settings.read(site / "broken.yaml", overrides=[]))
    supervisor = Supervisor([one], {one.model: no_model}, tell=lambda _: None)
    try:
        for _ in range(40):
            supervisor.step()
            time.sleep(0.1)
        assert 1 <= supervisor.backend_starts <= 3
        assert not supervisor.ready
        assert supervisor.status()["yard"]["sessions"] == 0  # nobody connects while nothing can be scored
    finally:
        supervisor.close()


def monitor(site, folder, url):
    (folder / "live.yaml").write_text(
        f"model: {site / 'model'}\ndata: {folder / 'data'}\ncameras: {{yard: {{url: '${{env:YARD}}'}}}}\n"
    )
    command = [str(Path(sys.executable).with_name("vad")), "monitor", str(folder / "live.yaml"), "--runtime", "torch"]
    environment = {**os.environ, "YARD": url}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_command_prints_events_remembers_them_and_ends_cleanly(rtsp, site, tmp_path):
    yard = rtsp.add("yard", read_video(site / "today.mp4"))
    yard.basic("op", "S3cr3t@/?#:%")
    process = monitor(site, tmp_path, yard.url)
    lines = [json.loads(process.stdout.readline()) for _ in range(2)]
    process.send_signal(signal.SIGTERM)
    rest, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert [(one["type"], one["seq"], one["after"]["end_reason"]) for one in lines] == [
        ("new", 1, None),
        ("end", 2, "normal"),
    ]
    after = lines[1]["after"]
    assert after["camera"] == "yard"
    assert after["end_time"] - after["start_time"] == pytest.approx(2.4, abs=0.7)
    assert after["model"]["head"] == "memory"
    assert "yard: online (ok)" in said
    everything = said + rest + json.dumps(lines) + (tmp_path / "data/vad.db").read_bytes().decode("latin-1")
    assert "S3cr3t" not in everything
    wait_until(lambda: yard.live == 0)
    store = Store.open(f"sqlite:///{tmp_path / 'data/vad.db'}", sinks=["stdout"])
    try:
        (event,) = store.events()
        assert event.id == after["id"]
        history = store.scores("yard", after["start_time"] - 2, after["end_time"])
        assert history.scores.max() == pytest.approx(after["top_score"], abs=1e-6)
    finally:
        store.close()


def test_an_event_that_a_killed_daemon_left_open_is_ended_once_by_the_next(rtsp, site, tmp_path):
    yard = rtsp.add("yard", read_video(site / "today.mp4"))
    process = monitor(site, tmp_path, yard.url)
    first = json.loads(process.stdout.readline())
    process.kill()
    process.communicate()
    yard.stall()
    process = monitor(site, tmp_path, yard.url)
    lines = [json.loads(process.stdout.readline())]
    while lines[-1]["type"] != "end":  # what was not acknowledged comes again
        lines.append(json.loads(process.stdout.readline()))
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=30)
    assert first["type"] == "new"
    end = lines[-1]
    assert (end["after"]["id"], end["seq"], end["after"]["end_reason"]) == (first["after"]["id"], 2, "restart")
    assert rest == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cameras: {}", "at least 1"),
        ("cameras: {a: {url: 'file:///etc/passwd'}}", "a camera's address starts with rtsp"),
        ("cameras: {'a b': {url: 'rtsp://h/x'}}", "a camera's name is up to 64"),
        ("cameras: {a: {url: 'rtsp://h/x'}}", "needs a model"),
        (
            "model: m\ncameras: {a: {url: 'rtsp://${env:NOBODY_SET_THIS}@h/x'}}",
            "the environment has no NOBODY_SET_THIS",
        ),
        ("model: m\ncameras: {a: {url: 'rtsp://${file:/nowhere}@h/x'}}", "cannot read /nowhere"),
        ("model: m\ncameras: {a: {url: 'rtsp://h/x', modl: m}}", "unknown key"),
    ],
)
def test_mistakes_in_the_config_are_refused(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        Settings.read(tmp_path / "c.yaml", overrides=[])


def test_check_config_shows_everything_but_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("CAMERA_PASSWORD", "S3cr3t")
    (tmp_path / "c.yaml").write_text("model: m\ncameras: {a: {url: 'rtsp://op:${env:CAMERA_PASSWORD}@h/x'}}\n")
    shown = vad("check-config", tmp_path / "c.yaml").stdout
    assert "stall:" in shown
    assert "S3cr3t" not in shown
    assert "op:" not in shown


def test_no_secret_is_in_a_message(tmp_path, monkeypatch):
    monkeypatch.setenv("CAMERA_PASSWORD", "S3cr3t")
    (tmp_path / "c.yaml").write_text(
        "model: m\ncameras: {a: {url: 'ftp://op:${env:CAMERA_PASSWORD}@h/x', half: S3cr3t}}"
    )
    with pytest.raises(ConfigError) as caught:
        Settings.read(tmp_path / "c.yaml", overrides=[])
    assert "S3cr3t" not in str(caught.value)
    assert "***" in str(caught.value)
