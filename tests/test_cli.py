"""The command, run for real on small videos: results, exit codes, and one clear sentence for every mistake."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import make_sound, make_video
from typer.testing import CliRunner

from vad.cli import app
from vad.config import shipped_configs
from vad.results import read_curve

CONFIG = """\
extractor: {kind: colour, output: grid, clip_frames: 4, hop: 2, size: [64, 48]}
head: {kind: memory}
smoothing: {kind: ema, half_life: 0.1}
events: {min_duration: 0.2, cooldown: 0.5}
"""


def walkers(number: int, width: int, height: int):
    """A quiet scene: noise of a still picture, and a grey block that goes back and forth."""
    picture = np.random.default_rng(0).integers(60, 120, (height, width, 3), dtype=np.uint8)
    x = abs((number * 2) % (2 * (width - 20)) - (width - 20))
    picture[height // 2 : height // 2 + 24, x : x + 12] = 150
    return picture


def intruder(number: int, width: int, height: int):
    picture = walkers(number, width, height)
    if 50 <= number < 80:
        picture[10:70, 20:140] = (250, 20, 20)
    return picture


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with normal and test footage, a config, and a fitted model."""
    folder = tmp_path_factory.mktemp("world")
    make_video(folder / "normal.mp4", frames=200, draw=walkers)
    make_video(folder / "test.mp4", frames=120, draw=intruder)
    (folder / "small.yaml").write_text(CONFIG)
    done = vad("fit", folder / "normal.mp4", "--config", folder / "small.yaml", "--out", folder / "model")
    assert done.exit_code == 0, done.stderr
    return folder


def vad(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def assert_refused(done, code: int, *words: str) -> None:
    """One clear sentence on stderr, the right exit code, no traceback."""
    assert done.exit_code == code, (done.exit_code, done.stderr, done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("vad: ")
    for word in words:
        assert word in lines[0]


def assert_nothing_written(folder: Path) -> None:
    left = [path for path in folder.rglob("*") if path.is_file()]
    assert not left, left


class TestFitAndScore:
    def test_the_results_tell_what_happened(self, world, tmp_path):
        done = vad("score", world / "test.mp4", "--model", world / "model", "--out", tmp_path)
        assert done.exit_code == 0, done.stderr
        folder = tmp_path / "test"
        assert sorted(p.name for p in folder.iterdir()) == ["curve.csv", "curve.png", "events.json", "run.json"]
        assert (folder / "curve.csv").read_text().startswith("frame,pts_s,raw,score\n0,0.000000,")
        curve = read_curve(folder / "curve.csv")
        assert len(curve) == 120
        (event,) = json.loads((folder / "events.json").read_text())
        assert event["start"] == pytest.approx(2.0, abs=0.2)  # the intruder is there from 2.0 s to 3.2 s
        assert event["end"] == pytest.approx(3.2, abs=0.4)
        assert event["start"] <= event["peak_time"] < event["end"]
        record = json.loads((folder / "run.json").read_text())
        assert record["label"] == "causal"
        assert record["config"]["head"]["capacity"] > 0  # resolved: defaults are in it
        assert record["frames_per_second"] > 0
        assert set(record["versions"]) >= {"vadwatch", "torch", "av"}

    def test_scores_do_not_depend_on_other_videos_or_on_the_later_part(self, world, tmp_path):
        make_video(tmp_path / "half.mp4", frames=60, draw=intruder)
        vad("score", tmp_path / "half.mp4", world / "test.mp4", "--model", world / "model", "--out", tmp_path / "both")
        vad("score", world / "test.mp4", "--model", world / "model", "--out", tmp_path / "alone")
        both, alone = (read_curve(tmp_path / which / "test" / "curve.csv") for which in ("both", "alone"))
        np.testing.assert_array_equal(both.score_N, alone.score_N)
        half = read_curve(tmp_path / "both" / "half" / "curve.csv")
        # the encoder sees other frames towards the end, so the pictures differ a little
        np.testing.assert_allclose(half.score_N[:48], alone.score_N[:48], atol=0.05)

    def test_a_folder_stands_for_its_videos(self, world, tmp_path):
        shutil.copy(world / "test.mp4", tmp_path / "a.mp4")
        shutil.copy(world / "test.mp4", tmp_path / "b.mp4")
        (tmp_path / "notes.txt").write_text("not a video")
        done = vad("score", tmp_path, "--model", world / "model", "--out", tmp_path / "out", "--json")
        assert [Path(s["video"]).name for s in json.loads(done.stdout)] == ["a.mp4", "b.mp4"]

    def test_overlay_is_a_video_of_the_same_length(self, world, tmp_path):
        import av

        done = vad("score", world / "test.mp4", "--model", world / "model", "--out", tmp_path, "--overlay", "-q")
        assert done.exit_code == 0, done.stderr
        assert done.stdout == ""
        with av.open(str(tmp_path / "test" / "overlay.mp4")) as container:
            assert sum(1 for _ in container.decode(video=0)) == 120

    def test_lookahead_is_labelled(self, world, tmp_path):
        done = vad(
            "score",
            world / "test.mp4",
            "--model",
            world / "model",
            "--out",
            tmp_path,
            "--set",
            "smoothing={kind: gaussian, sigma: 0.2, lookahead: 0.6}",
        )
        assert done.exit_code == 0, done.stderr
        assert json.loads((tmp_path / "test" / "run.json").read_text())["label"] == "lookahead = 0.6 s"

    def test_info_describes_videos_and_models(self, world):
        video = json.loads(vad("info", world / "test.mp4", "--json").stdout)
        assert (video["width"], video["height"], video["fps"], video["frames"]) == (160, 120, 25.0, 120)
        model = json.loads(vad("info", world / "model", "--json").stdout)
        assert model["config"]["head"]["kind"] == "memory"
        assert model["fitted"]["frames"] == 200

    def test_fitting_again_replaces_the_model(self, world, tmp_path):
        for count in (120, 160):
            make_video(tmp_path / "n.mp4", frames=count, draw=walkers)
            assert (
                vad("fit", tmp_path / "n.mp4", "--config", world / "small.yaml", "--out", tmp_path / "m").exit_code == 0
            )
            assert json.loads(vad("info", tmp_path / "m", "--json").stdout)["fitted"]["frames"] == count
        assert len(list((tmp_path / "m").iterdir())) == 2

    @pytest.mark.parametrize("path", shipped_configs(), ids=lambda p: p.stem)
    def test_every_shipped_config_is_sound(self, path):
        done = vad("check-config", path)
        assert done.exit_code == 0, done.stderr
        assert "extractor:" in done.stdout


class TestBadVideos:
    def score(self, world, path, out):
        return vad("score", path, "--model", world / "model", "--out", out)

    def test_missing(self, world, tmp_path):
        assert_refused(self.score(world, tmp_path / "no.mp4", tmp_path / "out"), 2, "no.mp4", "no such file")
        assert_refused(
            vad("fit", tmp_path / "no.mp4", "--config", world / "small.yaml", "--out", tmp_path / "m"),
            2,
            "no such file",
        )

    def test_folder_without_videos(self, world, tmp_path):
        (tmp_path / "empty").mkdir()
        assert_refused(self.score(world, tmp_path / "empty", tmp_path / "out"), 2, "no video in this folder")

    @pytest.mark.parametrize(
        ("name", "content", "word"),
        [
            ("zero.mp4", b"", "empty (0 bytes)"),
            ("text.mp4", b"this is a text, not a video\n" * 50, "not a video that can be read"),
        ],
    )
    def test_not_videos(self, world, tmp_path, name, content, word):
        (tmp_path / name).write_bytes(content)
        assert_refused(self.score(world, tmp_path / name, tmp_path / "out"), 2, name, word)
        assert_nothing_written(tmp_path / "out")

    def test_truncated_before_its_index(self, world, tmp_path):
        data = (world / "test.mp4").read_bytes()
        (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
        assert_refused(self.score(world, tmp_path / "cut.mp4", tmp_path / "out"), 2, "cut.mp4", "its index is cut off")
        assert_nothing_written(tmp_path / "out")

    def test_truncated_after_its_index(self, world, tmp_path):
        make_video(tmp_path / "fast.mp4", frames=120, draw=intruder, mux={"movflags": "faststart"})
        data = (tmp_path / "fast.mp4").read_bytes()
        (tmp_path / "cut.mp4").write_bytes(data[: int(len(data) * 0.7)])
        assert_refused(self.score(world, tmp_path / "cut.mp4", tmp_path / "out"), 2, "cut.mp4", "could not be read")
        record = json.loads((tmp_path / "out" / "cut" / "run.json").read_text())
        assert record["gaps"]
        assert len(read_curve(tmp_path / "out" / "cut" / "curve.csv")) >= 40

    def test_damage_in_the_middle_is_marked_and_the_rest_is_scored(self, world, tmp_path):
        data = bytearray((world / "test.mp4").read_bytes())
        start = data.index(b"mdat")
        middle = start + (len(data) - start) * 4 // 10
        data[middle : middle + 1500] = np.random.default_rng(0).bytes(1500)
        (tmp_path / "hurt.mp4").write_bytes(data)
        assert_refused(self.score(world, tmp_path / "hurt.mp4", tmp_path / "out"), 2, "hurt.mp4", "the rest is scored")
        folder = tmp_path / "out" / "hurt"
        (gap, *_) = json.loads((folder / "run.json").read_text())["gaps"]
        assert 0 < gap["start"] < gap["end"] < 4.8
        curve = read_curve(folder / "curve.csv")
        assert np.isfinite(curve.score_N).mean() > 0.5

    def test_sound_only(self, world, tmp_path):
        make_sound(tmp_path / "sound.mp4")
        assert_refused(self.score(world, tmp_path / "sound.mp4", tmp_path / "out"), 2, "no video stream", "audio")

    @pytest.mark.parametrize("frames", [1, 3])
    def test_shorter_than_a_clip(self, world, tmp_path, frames):
        make_video(tmp_path / "short.mp4", frames=frames, draw=walkers)
        assert_refused(self.score(world, tmp_path / "short.mp4", tmp_path / "out"), 2, "too short to score", "needs 4")
        assert_nothing_written(tmp_path / "out")
        done = vad("fit", tmp_path / "short.mp4", "--config", world / "small.yaml", "--out", tmp_path / "m")
        assert_refused(done, 2, "too little normal footage")
        assert_nothing_written(tmp_path / "m")

    def test_one_bad_video_does_not_stop_the_others(self, world, tmp_path):
        (tmp_path / "bad.mp4").write_bytes(b"")
        shutil.copy(world / "test.mp4", tmp_path / "good.mp4")
        done = self.score(world, tmp_path, tmp_path / "out")
        assert_refused(done, 2, "bad.mp4")
        assert (tmp_path / "out" / "good" / "curve.csv").is_file()

    def test_two_videos_of_one_name(self, world, tmp_path):
        (tmp_path / "other").mkdir()
        shutil.copy(world / "test.mp4", tmp_path / "other" / "test.mp4")
        done = vad(
            "score",
            world / "test.mp4",
            tmp_path / "other" / "test.mp4",
            "--model",
            world / "model",
            "--out",
            tmp_path / "out",
        )
        assert_refused(done, 2, "two --out folders")


class TestBadPlaces:
    def test_unwritable_output(self, world, tmp_path):
        (tmp_path / "file").write_text("in the way")
        done = vad("score", world / "test.mp4", "--model", world / "model", "--out", tmp_path / "file" / "out")
        assert_refused(done, 1, "choose another folder")
        done = vad("score", world / "test.mp4", "--model", world / "model", "--out", "/proc/vad-out")
        assert done.exit_code == 1
        assert_refused(done, 1, "/proc/vad-out")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everywhere")
    def test_no_permission(self, world, tmp_path):
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
        done = vad("score", world / "test.mp4", "--model", world / "model", "--out", locked / "out")
        assert_refused(done, 1, "permission")

    def test_full_disk_leaves_the_older_results_whole(self, world, tmp_path):
        out = tmp_path / "out"
        assert vad("score", world / "test.mp4", "--model", world / "model", "--out", out).exit_code == 0
        before = {path.name: path.read_bytes() for path in (out / "test").iterdir()}
        # a limit on the size of files is what an ordinary user can have of a full disk
        script = (
            f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000));"
            f"from vad.cli import app; app(['score', {str(world / 'test.mp4')!r}, '--model', {str(world / 'model')!r},"
            f"'--out', {str(out)!r}, '--set', 'smoothing.half_life=0.4'])"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        assert "free some space" in done.stderr
        assert {path.name: path.read_bytes() for path in (out / "test").iterdir()} == before

    def test_full_disk_while_fitting(self, world, tmp_path):
        script = (
            f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000));"
            f"from vad.cli import app; app(['fit', {str(world / 'normal.mp4')!r}, '--config', "
            f"{str(world / 'small.yaml')!r}, '--out', {str(tmp_path / 'm')!r}])"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
        assert_nothing_written(tmp_path / "m")

    @pytest.mark.skipif(os.geteuid() != 0 or not Path("/proc/self/mountinfo").exists(), reason="mounting needs root")
    def test_a_really_full_disk(self, world, tmp_path):
        small = tmp_path / "small"
        small.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(small)], capture_output=True, text=True, check=False
        )
        if mounted.returncode:
            pytest.skip(f"this machine does not let root mount: {mounted.stderr.strip()}")
        try:
            done = vad("score", world / "test.mp4", "--model", world / "model", "--out", small / "out")
            assert_refused(done, 1, "No space left", "free some space")
            assert_nothing_written(small / "out")
        finally:
            subprocess.run(["umount", str(small)], check=True)

    def test_a_model_is_not_put_over_something_else(self, world, tmp_path):
        (tmp_path / "holiday.jpg").write_bytes(b"precious")
        done = vad("fit", world / "normal.mp4", "--config", world / "small.yaml", "--out", tmp_path)
        assert_refused(done, 2, "not a model")
        assert (tmp_path / "holiday.jpg").read_bytes() == b"precious"


class TestBadConfigs:
    def check(self, tmp_path, text):
        (tmp_path / "c.yaml").write_text(text)
        return vad("check-config", tmp_path / "c.yaml")

    @pytest.mark.parametrize(
        ("old", "new", "words"),
        [
            (
                "kind: colour",
                "kind: colur",
                (
                    "c.yaml:1:13",
                    "unknown extractors kind 'colur'",
                    "available: clip, colour, conse",
                    'did you mean "colour"',
                ),
            ),
            ("clip_frames", "clip_frame", ("c.yaml:1:", "unknown key", 'did you mean "clip_frames"?')),
            ("half_life: 0.1", "half_life: -2", ("c.yaml:3:", "greater than 0", "got -2")),
            ("smoothing:", "smothing:", ("c.yaml:3:1", 'did you mean "smoothing"?')),
            ("kind: memory", "kind: mil2", ("c.yaml:2:", "unknown heads kind 'mil2'")),
            ("kind: memory", "kind: mil", ("c.yaml:2:", "'mil' learns from labels of videos", "gaussian, memory")),
            ("head: {kind: memory}", "head: {capacity: 3}", ("c.yaml:2:1", "needs a 'kind'")),
            ("head: {kind: memory}", "", ("head", "required")),
            ("kind: ema", "kind: [", ("c.yaml:", "not valid YAML")),
        ],
    )
    def test_every_mistake_has_its_place(self, tmp_path, old, new, words):
        assert old in CONFIG
        assert_refused(self.check(tmp_path, CONFIG.replace(old, new)), 2, *words)

    def test_missing_and_odd_files(self, tmp_path):
        assert_refused(vad("check-config", tmp_path / "no.yaml"), 2, "no such config file")
        assert_refused(self.check(tmp_path, "just words"), 2, "must be a mapping")
        assert_refused(vad("check-config", tmp_path), 2, "is a folder")

    def test_bad_overrides(self, world, tmp_path):
        base = ("fit", world / "normal.mp4", "--config", world / "small.yaml", "--out", tmp_path / "m")
        assert_refused(vad(*base, "--set", "head.capacity"), 2, "write section.key=value")
        assert_refused(vad(*base, "--set", "head.capacty=3"), 2, 'did you mean "capacity"?')
        assert_refused(vad(*base, "--runtime", "tensorflow"), 2, "extractor.runtime", "openvino-bf16")


class TestBadModels:
    @pytest.fixture
    def model(self, world, tmp_path):
        return Path(shutil.copytree(world / "model", tmp_path / "model"))

    def score(self, world, model, tmp_path, *more):
        return vad("score", world / "test.mp4", "--model", model, "--out", tmp_path / "out", *more)

    def test_not_a_model(self, world, tmp_path):
        (tmp_path / "empty").mkdir()
        assert_refused(self.score(world, tmp_path / "empty", tmp_path), 2, "not a model directory", "vad fit")

    def test_another_version(self, world, model, tmp_path):
        manifest = json.loads((model / "manifest.json").read_text())
        (model / "manifest.json").write_text(json.dumps({**manifest, "format": 99, "vadwatch": "9.0"}))
        assert_refused(self.score(world, model, tmp_path), 2, "format 99", "vadwatch 9.0", "fit it again")

    def test_changed_weights(self, world, model, tmp_path):
        (weights,) = model.glob("head-*.safetensors")
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
        assert_refused(self.score(world, model, tmp_path), 2, "was changed after it was fitted")
        weights.unlink()
        assert_refused(self.score(world, model, tmp_path), 2, "is missing")

    @pytest.mark.parametrize("text", ["{", "[]", '{"format": 1}'])
    def test_damaged_manifest(self, world, model, tmp_path, text):
        (model / "manifest.json").write_text(text)
        assert_refused(self.score(world, model, tmp_path), 2, "manifest.json is damaged")

    def test_settings_that_the_model_was_fitted_with_cannot_be_changed(self, world, model, tmp_path):
        assert_refused(
            self.score(world, model, tmp_path, "--set", "extractor.hop=4"), 2, "extractor.hop = 2", "fit it again"
        )

    def test_other_extractor_weights(self, world, model, tmp_path):
        manifest = json.loads((model / "manifest.json").read_text())
        manifest["extractor"]["digest"] = "0" * 64
        (model / "manifest.json").write_text(json.dumps(manifest))
        assert_refused(self.score(world, model, tmp_path), 2, "fitted with other colour weights")


def test_help_imports_nothing_heavy():
    script = (
        "import sys; sys.argv = ['vad', '--help']\n"
        "from vad.cli import app\n"
        "try: app()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'av', 'matplotlib', 'pydantic', 'openvino', 'decord'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "fit" in done.stdout
