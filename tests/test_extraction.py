"""``vad extract``, run for real: what lands in the store, and what no fault can do to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil
import pytest
from conftest import make_video, read_number
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from vad.cli import app
from vad.clips import cuts
from vad.config import load
from vad.extraction.jobs import Job, find_jobs, shard
from vad.extraction.schedule import ATTEMPTS, Died, Finished, Ready, WorkersError
from vad.extraction.schedule import run as run_schedule
from vad.extraction.worker import Outcome
from vad.extractor import cut
from vad.store import Manifest, Store
from vad.video import Video, VideoError

T = TypeVar("T")
CONFIG = "extractor: {kind: colour, clip_frames: 4, hop: 4, size: [32, 32]}\n"


def vad(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def extract(*arguments, code: int = 0):
    done = vad("extract", *arguments)
    assert done.exit_code == code, (done.exit_code, done.stderr, done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done


def assert_one_sentence(done, *words: str) -> None:
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("vad: ")
    for word in words:
        assert word in lines[0], lines[0]


def shades(number: int, width: int, height: int):
    """Every picture has its own colour, so every snippet its own feature."""
    return np.full((height, width, 3), (number * 7 % 256, number * 3 % 256, 255 - number % 256), np.uint8)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def videos(tmp_path):
    """Three videos in two folders, two of them with the same file name."""
    folder = tmp_path / "videos"
    for place in ("a", "b"):
        (folder / place).mkdir(parents=True)
    make_video(folder / "a" / "one.mp4", frames=18, draw=shades)
    make_video(folder / "b" / "one.mp4", frames=25, draw=shades, size=(96, 64), fps=Fraction(30000, 1001), first=50)
    make_video(folder / "two.mkv", frames=40, draw=shades, first=100)
    return folder


def contents(store: Path) -> dict[str, tuple[str, bytes, bytes, bytes]]:
    """What counts in a store: key, values, spans and times of each video, not when and where they were made."""
    opened = Store.open(store)
    found = {}
    for name in opened.names():
        video = opened.read(name)
        assert video.spans_T2 is not None
        assert video.pts_N is not None
        found[name] = (video.record.key, video.values.tobytes(), video.spans_T2.tobytes(), video.pts_N.tobytes())
    return found


class TestStore:
    def test_one_file_per_video_with_features_spans_times_and_manifest(self, videos, config, tmp_path):
        extract(videos, "--config", config, "--out", tmp_path / "s")
        store = Store.open(tmp_path / "s")
        assert store.names() == ["a/one", "b/one", "two"]
        assert sorted(p.name for p in (tmp_path / "s").iterdir()) == ["features", "manifest.json"]
        video = store.read("b/one")
        extractor = load("extractors", store.manifest.extractor).build()
        clips = [c.clip for c in cuts(Video(videos / "b" / "one.mp4"), extractor.settings) if c.clip is not None]
        np.testing.assert_array_equal(video.values, extractor(np.stack([clip.pixels for clip in clips])))
        assert video.spans_T2.tolist() == [[0, 4], [4, 8], [8, 12], [12, 16], [16, 20], [20, 24]]
        assert len(video.pts_N) == video.record.frames == 25
        np.testing.assert_allclose(np.diff(video.pts_N), 1001 / 30000, rtol=1e-6)
        assert video.record.fps == pytest.approx(30000 / 1001)
        assert (video.record.width, video.record.height, video.record.codec) == (96, 64, "h264")
        assert video.record.runtime == "torch"
        assert {"libavcodec", "av", "torch", "vadwatch"} <= video.record.versions.keys()
        assert (store.manifest.normalisation, store.manifest.precision) == ("x / 255", "f32")
        assert video.sequence.values.shape == (6, 3)

    def test_sampling_at_a_rate_keeps_true_frames(self, videos, config, tmp_path):
        extract(videos / "two.mkv", "--config", config, "--out", tmp_path / "s", "--set", "extractor.fps=12.5")
        video = Store.open(tmp_path / "s").read("two")
        assert video.spans_T2[-1].tolist()[1] <= 40
        assert video.record.hop_frames == 8
        assert len(video.pts_N) == 40

    def test_a_slower_video_gives_every_frame_once(self, videos, config, tmp_path):
        extract(videos / "two.mkv", "--config", config, "--out", tmp_path / "s", "--set", "extractor.fps=60")
        video = Store.open(tmp_path / "s").read("two")
        assert video.record.hop_frames == 4
        assert len(video.values) == 10

    def test_float16_halves_the_store(self, videos, config, tmp_path):
        extract(videos, "--config", config, "--out", tmp_path / "s", "--set", "store.dtype=float16")
        extract(videos, "--config", config, "--out", tmp_path / "f")
        short, full = (Store.open(tmp_path / name).read("two") for name in ("s", "f"))
        assert short.values.dtype == np.float16
        np.testing.assert_allclose(short.values, full.values, atol=1e-3)

    def test_a_batch_changes_nothing(self, videos, config, tmp_path):
        for batch in (1, 3, 64):
            extract(videos, "--config", config, "--out", tmp_path / f"s{batch}", "--batch", batch)
        assert contents(tmp_path / "s1") == contents(tmp_path / "s3") == contents(tmp_path / "s64")

    def test_a_pipeline_config_serves_as_well(self, videos, tmp_path):
        (tmp_path / "p.yaml").write_text(CONFIG + "head: {kind: memory}\n")
        extract(videos, "--config", tmp_path / "p.yaml", "--out", tmp_path / "s")
        assert len(Store.open(tmp_path / "s").names()) == 3

    def test_damaged_video_is_extracted_with_its_gaps(self, config, tmp_path):
        path = make_video(tmp_path / "cut.mp4", frames=60, mux={"movflags": "faststart"})
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        done = extract(path, "--config", config, "--out", tmp_path / "s", code=2)
        assert "could not be read; the rest was used" in done.stderr
        assert Store.open(tmp_path / "s").record("cut").gaps

    def test_json_for_programs(self, videos, config, tmp_path):
        done = extract(videos, "--config", config, "--out", tmp_path / "s", "--json")
        summary = json.loads(done.stdout)
        assert (summary["extracted"], summary["kept"], summary["clips"]) == (3, 0, 4 + 6 + 10)


class TestAgain:
    def test_a_second_run_does_nothing(self, videos, config, tmp_path):
        extract(videos, "--config", config, "--out", tmp_path / "s")
        before = {p: p.stat().st_mtime_ns for p in (tmp_path / "s").rglob("*.safetensors")}
        done = extract(videos, "--config", config, "--out", tmp_path / "s")
        assert "0 videos extracted, 3 were there" in done.stdout
        assert {p: p.stat().st_mtime_ns for p in (tmp_path / "s").rglob("*.safetensors")} == before

    def test_a_touched_video_is_recognised_by_its_content(self, videos, config, tmp_path):
        extract(videos, "--config", config, "--out", tmp_path / "s")
        os.utime(videos / "two.mkv", (1, 1))
        done = extract(videos, "--config", config, "--out", tmp_path / "s")
        assert "0 videos extracted, 3 were there" in done.stdout

    def test_a_changed_video_is_extracted_again(self, videos, config, tmp_path):
        extract(videos, "--config", config, "--out", tmp_path / "s")
        before = contents(tmp_path / "s")
        make_video(videos / "two.mkv", frames=41, draw=shades, first=3)
        extract(videos, "--config", config, "--out", tmp_path / "s")
        after = contents(tmp_path / "s")
        assert [name for name in after if after[name] != before[name]] == ["two"]

    def test_a_damaged_feature_file_is_made_anew(self, videos, config, tmp_path):
        extract(videos, "--config", config, "--out", tmp_path / "s")
        before = contents(tmp_path / "s")
        path = Store.open(tmp_path / "s").path("two")
        path.write_bytes(path.read_bytes()[:-40])
        assert json.loads(vad("features", "info", tmp_path / "s", "--json").stdout)["damaged"] == ["two"]
        extract(videos, "--config", config, "--out", tmp_path / "s")
        assert contents(tmp_path / "s") == before

    def test_shares_meet_nowhere_and_miss_nothing(self, videos, config, tmp_path):
        for part in ("1/2", "2/2"):
            extract(videos, "--config", config, "--out", tmp_path / "s", "--shard", part)
        extract(videos, "--config", config, "--out", tmp_path / "whole")
        assert contents(tmp_path / "s") == contents(tmp_path / "whole")


class TestBadInput:
    def test_a_corrupt_video_never_stops_the_run(self, videos, config, tmp_path):
        (videos / "a" / "broken.mp4").write_bytes(b"not a video" * 100)
        make_video(videos / "a" / "short.mp4", frames=3)
        done = extract(videos, "--config", config, "--out", tmp_path / "s", code=2)
        assert Store.open(tmp_path / "s").names() == ["a/one", "b/one", "two"]
        failed = {f["name"]: f for f in map(json.loads, (tmp_path / "s" / "failed.jsonl").read_text().splitlines())}
        assert failed["a/broken"]["reason"].endswith("copy it again if it does not")
        assert "its 3 frames are too few for a clip, which spans 4" in failed["a/short"]["reason"]
        assert done.stderr.count("broken.mp4") == 1
        assert "2 failed" in done.stdout

    def test_a_failure_is_struck_out_once_the_video_is_whole(self, videos, config, tmp_path):
        (videos / "a" / "broken.mp4").write_bytes(b"")
        extract(videos, "--config", config, "--out", tmp_path / "s", code=2)
        make_video(videos / "a" / "broken.mp4", frames=9)
        extract(videos, "--config", config, "--out", tmp_path / "s")
        assert not (tmp_path / "s" / "failed.jsonl").exists()
        assert "a/broken" in Store.open(tmp_path / "s").names()

    def test_two_files_of_one_name_are_refused_with_the_remedy(self, videos, config, tmp_path):
        done = extract(videos / "a", videos / "b", "--config", config, "--out", tmp_path / "s", code=2)
        assert_one_sentence(done, "would both be called 'one'", "the folder above both")
        assert not (tmp_path / "s").exists()

    def test_the_same_file_twice_is_one_job(self, videos, config, tmp_path):
        extract(videos / "two.mkv", videos / "two.mkv", "--config", config, "--out", tmp_path / "s")
        assert Store.open(tmp_path / "s").names() == ["two"]

    @pytest.mark.parametrize(
        ("override", "words"),
        [
            ("extractor.hop=8", "extractor.hop = 4, not 8"),
            ("extractor.size=[16,16]", "extractor.size = [32, 32], not [16, 16]"),
            ("store.dtype=float16", "dtype = 'float32', not 'float16'"),
            ("extractor.output=grid", "extractor.output = 'pooled', not 'grid'"),
        ],
    )
    def test_other_settings_are_refused_and_named(self, videos, config, tmp_path, override, words):
        extract(videos, "--config", config, "--out", tmp_path / "s")
        before = contents(tmp_path / "s")
        done = extract(videos, "--config", config, "--out", tmp_path / "s", "--set", override, code=2)
        assert_one_sentence(done, words, "give another --out")
        assert contents(tmp_path / "s") == before

    def test_other_precision_is_refused(self, videos, config, tmp_path):
        extract(videos, "--config", config, "--out", tmp_path / "s")
        (videos / "new.mp4").write_bytes((videos / "two.mkv").read_bytes())
        done = extract(videos, "--config", config, "--out", tmp_path / "s", "--runtime", "torch-bf16", code=2)
        assert_one_sentence(done, "precision = 'f32', not 'bf16'")

    def test_another_runtime_of_the_same_precision_may_go_on(self, videos, config, tmp_path):
        pytest.importorskip("openvino")
        extract(videos / "a", "--config", config, "--out", tmp_path / "s")
        extract(videos / "two.mkv", "--config", config, "--out", tmp_path / "s", "--runtime", "openvino-f32")
        store = Store.open(tmp_path / "s")
        assert [store.record(name).runtime for name in store.names()] == ["torch", "openvino-f32"]

    def test_a_store_is_not_put_over_something_else(self, videos, config, tmp_path):
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "holiday.jpg").write_bytes(b"precious")
        done = extract(videos, "--config", config, "--out", tmp_path / "full", code=2)
        assert_one_sentence(done, "not a feature store")
        assert os.listdir(tmp_path / "full") == ["holiday.jpg"]

    def test_mixed_rates_are_told(self, videos, config, tmp_path):
        done = extract(videos, "--config", config, "--out", tmp_path / "s")
        assert_one_sentence(done, "2 frame rates (25, 29.97)", "extractor.fps")

    @pytest.mark.parametrize(
        ("part", "words"), [("0/2", "1 <= i <= n"), ("3/2", "1 <= i <= n"), ("x", "i/n"), ("1/", "i/n")]
    )
    def test_bad_shards(self, videos, config, tmp_path, part, words):
        done = extract(videos, "--config", config, "--out", tmp_path / "s", "--shard", part, code=2)
        assert_one_sentence(done, "--shard", words)

    @pytest.mark.parametrize("workers", [1, 2])
    def test_missing_weights_stop_before_anything_is_written(self, videos, tmp_path, workers):
        (tmp_path / "c.yaml").write_text("extractor: {kind: i3d, weights: nowhere.ckpt}\n")
        done = extract(
            videos, "--config", tmp_path / "c.yaml", "--out", tmp_path / "s", "--workers", workers, "-q", code=2
        )
        assert_one_sentence(done, "no weights at nowhere.ckpt")
        assert not (tmp_path / "s" / "manifest.json").exists()

    def test_a_full_disk_stops_the_run_and_loses_nothing(self, videos, config, tmp_path):
        extract(videos / "a", "--config", config, "--out", tmp_path / "s")
        before = contents(tmp_path / "s")
        script = (
            "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700));"
            f"from vad.cli import app; app(['extract', {str(videos)!r}, '--config', {str(config)!r}, "
            f"'--out', {str(tmp_path / 's')!r}, '-q'])"
        )
        # the folder's own names differ from those of its part, so all three are to be extracted
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        assert "free some space" in done.stderr
        assert contents(tmp_path / "s") == before
        assert not list((tmp_path / "s").rglob(".*"))
        extract(videos, "--config", config, "--out", tmp_path / "s")
        assert len(Store.open(tmp_path / "s").names()) == 4

    @pytest.mark.skipif(os.geteuid() != 0 or not Path("/proc/self/mountinfo").exists(), reason="mounting needs root")
    def test_a_really_full_disk(self, videos, config, tmp_path):
        small = tmp_path / "small"
        small.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", str(small)], capture_output=True, text=True, check=False
        )
        if mounted.returncode:
            pytest.skip(f"this machine does not let root mount: {mounted.stderr.strip()}")
        try:
            large = ["--set", "extractor.output=grid", "--set", "extractor.grid=[24,24]"]
            done = extract(videos, "--config", config, "--out", small / "s", "-q", *large, code=1)
            assert_one_sentence(done, "No space left", "free some space")
            assert not list((small / "s").rglob(".*"))
            assert all(Store.open(small / "s").record(name) for name in Store.open(small / "s").names())
        finally:
            subprocess.run(["umount", str(small)], check=True)


class TestJobs:
    def test_lists_name_their_videos(self, videos, tmp_path):
        (videos / "list.txt").write_text("# training\na/one.mp4\n\nb/one.mp4\tother name\n")
        jobs = find_jobs([videos / "list.txt"])
        assert [(job.name, job.path.name) for job in jobs] == [("a/one", "one.mp4"), ("other name", "one.mp4")]
        assert all(job.path.is_file() for job in jobs)

    @pytest.mark.parametrize(
        ("make", "error", "words"),
        [
            (lambda f: (f / "l.txt").write_text("# nothing\n"), VideoError, "lists no video"),
            (lambda f: (f / "l.txt").write_bytes(b"\xff\xfe\x00"), VideoError, "not a text file"),
            (lambda f: None, FileNotFoundError, "no such file"),
        ],
    )
    def test_bad_lists(self, tmp_path, make, error, words):
        make(tmp_path)
        with pytest.raises(error, match=words):
            find_jobs([tmp_path / "l.txt"])

    def test_a_listed_file_that_is_absent_is_a_failure_of_its_own(self, videos, config, tmp_path):
        (videos / "list.txt").write_text("gone.mp4\ntwo.mkv\n")
        done = extract(videos / "list.txt", "--config", config, "--out", tmp_path / "s", code=2)
        assert "gone.mp4" in done.stderr
        assert Store.open(tmp_path / "s").names() == ["two"]

    @given(st.lists(st.text(min_size=1), unique=True), st.integers(1, 9))
    def test_every_job_is_in_exactly_one_share(self, names, count):
        jobs = [Job(name, Path(name)) for name in names]
        shares = [shard(jobs, f"{index}/{count}") for index in range(1, count + 1)]
        assert sorted((job.name for share in shares for job in share), key=names.index) == names


MANIFEST = Manifest(extractor=None, weights="", precision="f32", normalisation="", views=())


class Scripted:
    """Workers that live and die by a script: the world around the schedule, not the schedule."""

    def __init__(self, workers: int, dies: Iterator[bool]) -> None:
        self.workers, self._dies = workers, dies
        self._events: list[object] = []
        self.given: list[str] = []
        self.alive: set[int] = set()
        self.closed = False

    def launch(self, worker: int) -> None:
        assert worker not in self.alive
        self.alive.add(worker)
        self._events.append(Ready(worker, MANIFEST))

    def give(self, worker: int, job: Job) -> None:
        assert worker in self.alive
        self.given.append(job.name)
        if next(self._dies):
            self._events.append(Died(worker, "killed"))
        else:
            self._events.append(Finished(worker, Outcome(job, "stopped" if job.name == "stop" else "done")))

    def wait(self):
        events, self._events = self._events, []
        for event in events:
            if isinstance(event, Died):
                self.alive.discard(event.worker)
        return events

    def close(self) -> None:
        self.closed = True


class TestSchedule:
    @given(st.integers(0, 12), st.integers(1, 5), st.lists(st.booleans(), min_size=40, max_size=40))
    def test_every_job_has_one_outcome_however_workers_die(self, count, workers, dies):
        jobs = [Job(str(number), Path(str(number))) for number in range(count)]
        launcher = Scripted(workers, iter(dies))
        outcomes = list(run_schedule(jobs, launcher, prepare=lambda _: None))
        assert sorted(outcome.job.name for outcome in outcomes) == sorted(job.name for job in jobs)
        for outcome in outcomes:
            tries = launcher.given.count(outcome.job.name)
            assert tries == outcome.attempts <= ATTEMPTS
            assert (outcome.status == "failed") <= (tries == ATTEMPTS)
        assert launcher.closed

    def test_a_run_that_cannot_go_on_starts_no_other_job(self):
        jobs = [Job(name, Path(name)) for name in ("stop", "a", "b")]
        launcher = Scripted(1, iter([False] * 9))
        assert [o.status for o in run_schedule(jobs, launcher, prepare=lambda _: None)] == ["stopped"]
        assert launcher.given == ["stop"]

    def test_workers_that_never_come_up_end_the_run(self):
        class Stillborn(Scripted):
            def launch(self, worker: int) -> None:
                self.alive.add(worker)
                self._events.append(Died(worker, "no memory"))

        launcher = Stillborn(2, iter(()))
        with pytest.raises(WorkersError, match="no memory"):
            list(run_schedule([Job("a", Path("a"))], launcher, prepare=lambda _: None))
        assert launcher.closed


@pytest.fixture(scope="module")
def long_videos(tmp_path_factory):
    """Six videos that take a while, and the store that an undisturbed run makes of them."""
    folder = tmp_path_factory.mktemp("long")
    (folder / "videos").mkdir()
    first = make_video(folder / "videos" / "0.mp4", frames=1500, draw=shades)
    for number in range(1, 6):
        shutil.copy(first, folder / "videos" / f"{number}.mp4")
    (folder / "c.yaml").write_text("extractor: {kind: colour, clip_frames: 4, hop: 4, size: [192, 192]}\n")
    extract(folder / "videos", "--config", folder / "c.yaml", "--out", folder / "undisturbed", "-q")
    return folder


@contextmanager
def running(folder: Path, out: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [str(Path(sys.executable).parent / "vad"), "extract", str(folder / "videos")]
    command += ["--config", str(folder / "c.yaml"), "--out", str(out), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(condition: Callable[[], T], process: subprocess.Popen[str]) -> T:
    """What the condition gave when it first held: asked again, it may not hold any more."""
    deadline = time.monotonic() + 120
    while not (found := condition()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def extracting(store: Path) -> list[psutil.Process]:
    """Processes that are in the middle of a video: they hold a nameless file in the store open."""
    found = []
    for process in psutil.process_iter():
        try:
            files = [os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{process.pid}/fd")]
        except OSError:
            continue
        if any(file.startswith(f"{store.resolve()}/#") for file in files):
            found.append(process)
    return found


def finished(store: Path) -> int:
    return len(list((store / "features").glob("*.safetensors")))


@pytest.mark.parametrize("workers", [1, 2])
def test_kill_9_and_run_again(long_videos, tmp_path, workers):
    store = tmp_path / "s"
    with running(long_videos, store, "--workers", str(workers), "-q") as process:
        until(lambda: finished(store) >= 1 and bool(extracting(store)), process)
        left = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    _, alive = psutil.wait_procs(left, timeout=60)
    assert not alive  # workers go when the one who started them is gone
    assert 1 <= finished(store) < 6
    assert set(contents(store).items()) <= set(contents(long_videos / "undisturbed").items())
    done = extract(long_videos / "videos", "--config", long_videos / "c.yaml", "--out", store)
    assert "0 videos extracted" not in done.stdout
    assert contents(store) == contents(long_videos / "undisturbed")


def test_a_killed_worker_loses_nothing(long_videos, tmp_path):
    store = tmp_path / "s"
    with running(long_videos, store, "--workers", "2") as process:
        until(lambda: extracting(store), process)[0].kill()
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "6 videos extracted, 0 were there, 0 failed" in out
    assert contents(store) == contents(long_videos / "undisturbed")


def test_a_video_that_kills_its_workers_is_given_up(long_videos, tmp_path):
    store = tmp_path / "s"
    with running(long_videos, store, "--workers", "2", "--shard", "1/6") as process:
        names = [job.name for job in shard(find_jobs([long_videos / "videos"]), "1/6")]
        assert names, "the shares changed; choose one that has a video"
        killed: set[int] = set()

        def kill() -> bool:
            for worker in extracting(store):
                if worker.pid not in killed:
                    killed.add(worker.pid)
                    worker.kill()
            return len(killed) == ATTEMPTS * len(names)

        until(kill, process)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    failures = Store.open(store).failures()
    assert sorted(failures) == sorted(names)
    assert all(f.attempts == ATTEMPTS and "SIGKILL" in f.reason for f in failures.values())
    extract(long_videos / "videos", "--config", long_videos / "c.yaml", "--out", store)
    assert contents(store) == contents(long_videos / "undisturbed")
    assert not Store.open(store).failures()


def test_on_ray_a_killed_worker_loses_nothing_and_the_store_is_the_local_one(long_videos, tmp_path):
    pytest.importorskip("ray")
    store = tmp_path / "s"
    with running(long_videos, store, "--launcher", "ray", "--workers", "2") as process:
        victim = until(lambda: finished(store) >= 1 and extracting(store), process)[0]
        assert victim.pid != process.pid
        victim.kill()
        out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    assert "6 videos extracted, 0 were there, 0 failed" in out
    assert contents(store) == contents(long_videos / "undisturbed")


class TestCrops:
    def draw(self, number, width, height):
        """A picture that knows its places: red grows to the right, green downwards."""
        picture = np.zeros((height, width, 3), np.uint8)
        picture[..., 0] = np.linspace(0, 255, width).astype(np.uint8)
        picture[..., 1] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
        return picture

    def test_ten_crops_are_ten_places_in_the_published_order(self, tmp_path):
        make_video(tmp_path / "v.mp4", frames=4, size=(160, 128), draw=self.draw, options={"crf": "4"})
        (tmp_path / "c.yaml").write_text(
            "extractor: {kind: colour, clip_frames: 4, hop: 4, size: [64, 64], resize: 128, crops: 10}\n"
        )
        extract(tmp_path / "v.mp4", "--config", tmp_path / "c.yaml", "--out", tmp_path / "s")
        store = Store.open(tmp_path / "s")
        (rows,) = store.read("v").values  # (K, D) of the only snippet
        centre, left, right, top, bottom = 0.5, 32 / 160, 128 / 160, 32 / 128, 96 / 128
        expected = [(centre, 0.5), (left, top), (right, top), (left, bottom), (right, bottom)]
        np.testing.assert_allclose(rows[:5, :2], expected, atol=0.03)
        np.testing.assert_allclose(rows[5:], rows[:5], atol=1e-6)  # a mean does not see the mirror
        assert store.manifest.views[0] == "centre"
        assert store.manifest.views[5] == "centre, mirrored"

    @pytest.mark.parametrize("crops", [5, 10])
    def test_views_are_cut_from_the_tensor(self, crops):
        import torch

        clips = torch.arange(2 * 3 * 8 * 10 * 3).reshape(2, 3, 8, 10, 3)
        views = torch.stack(cut(clips, (4, 6), crops), 1)
        assert torch.equal(views[:, 0], clips[:, :, 1:7, 3:7])
        assert torch.equal(views[:, 1], clips[:, :, :6, :4])
        assert torch.equal(views[:, 4], clips[:, :, 2:, 6:])
        if crops == 10:
            assert torch.equal(views[:, 5:], views[:, :5].flip(4))

    def test_torchvision_cuts_the_same(self):
        """It numbers corners first, and those of the mirrored picture by where they lie in that."""
        import torch

        import extractors  # noqa: F401  # makes an unloadable torchvision importable

        crop = pytest.importorskip("torchvision.transforms.v2").functional.ten_crop
        clips = torch.randint(0, 256, (1, 2, 64, 80, 3), dtype=torch.uint8)
        theirs = torch.stack(crop(clips[0].permute(0, 3, 1, 2), [32, 32])).permute(0, 1, 3, 4, 2)
        assert torch.equal(torch.cat(cut(clips, (32, 32), 10)), theirs[[4, 0, 1, 2, 3, 9, 6, 5, 8, 7]])

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ("crops: 10", "need a picture larger than size"),
            ("crops: 10, resize: 32", "resize 32 is smaller than size"),
            ("resize: [300, 50]", "is smaller than size"),
            ("crops: 3", "1, 5 or 10"),
            ("clip_at: start, clip_frames: 30", "must fit into it: it spans 30 frames, hop is 16"),
        ],
    )
    def test_crops_that_cannot_be(self, tmp_path, settings, words):
        (tmp_path / "c.yaml").write_text(f"extractor: {{kind: colour, {settings}}}\n")
        done = vad("check-config", tmp_path / "c.yaml")
        assert done.exit_code == 2
        assert_one_sentence(done, words)


def test_heads_take_one_view(tmp_path):
    (tmp_path / "c.yaml").write_text("extractor: {kind: colour, resize: 128, crops: 5}\nhead: {kind: memory}\n")
    done = vad("check-config", tmp_path / "c.yaml")
    assert done.exit_code == 2
    assert_one_sentence(done, "c.yaml:1:40 extractor.crops", "heads fitted on normal footage take one view")


def test_a_clip_at_the_start_gives_the_tail_a_row(tmp_path):
    """Published CLIP features stand on frames 0, 16, 32 …; the last of them may begin a short snippet."""
    path = make_video(tmp_path / "v.mp4", frames=37)
    settings = load("extractors", {"kind": "colour", "clip_frames": 1, "hop": 16, "clip_at": "start"})
    found = [cut.clip for cut in cuts(Video(path), settings) if cut.clip is not None]
    assert [read_number(clip.pixels[0]) for clip in found] == [0, 16, 32]
    assert [(clip.start_frame, clip.end_frame) for clip in found] == [(0, 16), (16, 32), (32, 37)]
