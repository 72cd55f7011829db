"""Training from a feature store to a model: what comes out, that it is exact, and what is refused."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_video
from test_bags import SOURCE, manifest, put
from typer.testing import CliRunner

from trainers.data import read
from trainers.settings import Schedule, Settings, weak_kinds
from trainers.weak import factor
from vad import model
from vad.cli import app
from vad.config import ConfigError, Document, load
from vad.evaluation import scores
from vad.metrics.frame import auc
from vad.results import read_curve
from vad.store import Record, Store, values_sha256
from vad.streamed import Rows
from vad.weak import WeakStream, score_rows

CONFIG = """
listing: {normal: ["Normal*"]}
test: {dataset: custom, annotations: test.csv}
bags: {segments: 16, pairs: 8}
head: {kind: mil, dim: 16}
optimiser: {kind: adagrad, lr: 0.01}
steps: 60
check_every: 10
seed: 1
lightning: {accelerator: cpu}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """40 videos of 20 to 39 snippets, every other one with an anomaly of 6; the last 12 are the test set."""
    folder = tmp_path_factory.mktemp("data")
    store = Store.prepare(folder / "features", manifest())
    random = np.random.default_rng(0)
    rows = ["video,num_frames,intervals"]
    for i in range(40):
        count = int(random.integers(20, 40))
        values = random.normal(size=(count, 2, 16)) + 1
        start = int(random.integers(0, count - 6))
        if i % 2:
            values[start : start + 6, :, :4] += 4
        name = f"{'Abuse' if i % 2 else 'Normal'}{i:03d}"
        put(store, name, values.astype(np.float16))
        if i >= 28:
            rows.append(f"{name},{count * 16},{f'{start * 16}-{(start + 6) * 16}' if i % 2 else ''}")
    (folder / "test.csv").write_text("\n".join(rows) + "\n")
    (folder / "config.yaml").write_text(CONFIG)
    return folder


def vad(*arguments):
    torch.set_num_threads(1)  # extraction in this process sets it; sums, and so weights, depend on it
    return CliRunner().invoke(app, list(map(str, arguments)))


def train(data, out, *assignments):
    return vad("train", data / "config.yaml", f"data={data}", f"out={out}", *assignments)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    result = train(data, out, "--json")
    assert result.exit_code == 0, result.output
    return out, json.loads(result.stdout)


def history(out):
    with open(out / "metrics.csv", newline="", encoding="ascii") as file:
        return list(csv.DictReader(file))


# what comes out


def test_a_run_leaves_all_that_is_needed_to_judge_it(run):
    out, said = run
    assert {"config.yaml", "run.json", "result.json", "metrics.csv", "tensorboard", "model", "checkpoints"} <= {
        path.name for path in out.iterdir()
    }
    record = json.loads((out / "run.json").read_text())
    assert record["seed"] == 1
    assert record["parameters"] == sum(
        p.numel() for p in load("vad.heads", {"kind": "mil", "dim": 16}).build().parameters()
    )
    assert record["videos"]["test"] == 12
    assert {"torch", "lightning", "python"} <= record["started"][0]["versions"].keys()
    assert [int(row["step"]) for row in history(out)] == [10, 20, 30, 40, 50, 60]
    assert Settings.of(Document.read(out / "config.yaml")).resolved()["head"]["dropout"] == 0.6
    assert json.loads((out / "result.json").read_text()) == said


def test_both_columns_are_printed_and_only_honest_selection_is_exported(data, run):
    out, said = run
    rows = history(out)
    best = max(rows, key=lambda row: (float(row["held_out_auc"]), -int(row["step"])))
    best_on_test = max(rows, key=lambda row: (float(row["test"]), -int(row["step"])))
    assert said["held_out"]["step"] == int(best["step"])
    assert said["on_test"]["step"] == int(best_on_test["step"])
    assert said["on_test"]["test"] == pytest.approx(float(best_on_test["test"]), abs=1e-6)
    assert model.load(out / "model").fitted["step"] == said["held_out"]["step"]
    again = train(data, out)
    assert "this run is finished" in again.stderr
    assert f"{said['held_out']['test']:.4f}" in again.stdout
    assert "too high by construction" in again.stdout


def test_the_test_number_is_the_one_that_vad_eval_measures(data, run, tmp_path):
    out, said = run
    store, test = data / "features", data / "test.csv"
    assert vad("score", store, "--only", test, "--model", out / "model", "--out", tmp_path / "s").exit_code == 0
    measured = vad(
        "eval", tmp_path / "s", "--dataset", "custom", "--annotations", test, "--out", tmp_path / "r", "--json"
    )
    assert measured.exit_code == 0, measured.output
    value = json.loads(measured.stdout)["metrics"]["auc"]["value"]
    assert value == pytest.approx(said["held_out"]["test"], abs=1e-6)
    assert value > 0.95
    given = scores.read(tmp_path / "s")
    assert given.provenance.checkpoint == "held-out"
    assert given.provenance.lookahead_s == 0


def test_selection_on_the_test_set_marks_everything(data, tmp_path):
    result = train(data, tmp_path / "run", "--select", "test", "steps=20")
    assert "ON THE TEST SET" in result.stdout
    assert model.load(tmp_path / "run/model").fitted["checkpoint"] == "test"
    vad("score", data / "features", "--model", tmp_path / "run/model", "--out", tmp_path / "s")
    assert scores.read(tmp_path / "s").provenance.checkpoint == "test"


@pytest.mark.parametrize("kind", weak_kinds())
def test_every_head_can_be_trained_kept_and_streamed(data, tmp_path, kind):
    out = tmp_path / "run"
    result = train(data, out, f"head={{kind: {kind}, dim: 16, past: 12}}", "steps=4", "check_every=2", "--json")
    assert result.exit_code == 0, result.output
    loaded = model.load(out / "model")
    head = load("vad.heads", loaded.config["head"]).build()
    loaded.restore(head)
    rows = torch.from_numpy(Store.open(data / "features").read("Abuse001").values.astype(np.float32))
    at_once = score_rows(head.eval(), rows).numpy()
    stream = WeakStream(head)
    one_by_one = [stream.score(row[None].numpy()).raw_B[0] for row in rows]
    np.testing.assert_allclose(one_by_one, at_once, atol=1e-5)


@pytest.mark.parametrize("variant", ["fixed", "faithful"])
def test_mixed_precision_and_clipping_train_either_variant(data, tmp_path, variant):
    said = train(
        data,
        tmp_path / "run",
        f"head={{kind: pel4vad, dim: 16, variant: {variant}}}",
        "lightning.precision=bf16-mixed",
        "lightning.gradient_clip_val=1.0",
        "steps=20",
        "--json",
    )
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout)["held_out"]["held_out_loss"] < 0.7
    assert model.load(tmp_path / "run/model").config["head"]["variant"] == variant


@pytest.mark.slow
def test_two_devices_train_one_model(data, tmp_path):
    out = tmp_path / "run"
    command = [
        str(Path(sys.executable).with_name("vad")),
        "train",
        str(data / "config.yaml"),
        f"data={data}",
        f"out={out}",
    ]
    more = ["steps=20", "lightning.devices=2", "lightning.strategy=ddp"]
    one = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *more], env=one, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [int(row["step"]) for row in history(out)] == [10, 20]
    assert len(json.loads((out / "run.json").read_text())["started"]) == 1
    assert model.load(out / "model").fitted["checkpoint"] == "held-out"


def test_held_out_and_training_videos_share_no_source(data, tmp_path):
    settings = Settings.of(Document("c", {"data": str(data), "out": str(tmp_path), **_plain(data)}, {}))
    found = read(settings)
    assert not set(found.train.labels) & set(found.held_out.labels)
    assert not set(found.test.labels) & (set(found.train.labels) | set(found.held_out.labels))
    assert len(found.held_out.labels) == pytest.approx(0.2 * 28, abs=1)


def _plain(data):
    return Document.read(data / "config.yaml").data


def test_schedules():
    rates = [factor(Schedule(kind="drops", at=(4, 8)), step, 10) for step in (0, 3, 4, 8)]
    assert rates == pytest.approx([1, 1, 0.1, 0.01])
    assert [factor(Schedule(warm_up=3), step, 10) for step in range(5)] == [0.25, 0.5, 0.75, 1, 1]
    assert factor(Schedule(kind="cosine", length=5), 7, 10) == 0


# from videos to alarms


def street(red_from):
    """Grey pictures that flicker, with a red second from one frame on."""

    def draw(number, width, height):
        picture = np.full((height, width, 3), 90 + number % 7, np.uint8)
        if red_from is not None and red_from <= number < red_from + 32:
            picture[...] = (200, 30, 30)
        return picture

    return draw


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """16 videos of 8 snippets, every other one with two red snippets somewhere."""
    folder = tmp_path_factory.mktemp("videos")
    for i in range(16):
        name = f"{'red' if i % 2 else 'grey'}{i:02d}.mp4"
        make_video(folder / name, frames=128, size=(32, 32), draw=street(16 * (1 + i // 3) if i % 2 else None))
    (folder / "config.yaml").write_text("""
extractor: {kind: colour, size: [16, 16]}
videos: .
listing: {normal: ["grey*"], held_out: 0.25}
test: {share: 0.25}
bags: {segments: 8, pairs: 4}
head: {kind: mil, dim: 3}
optimiser: {kind: adam, lr: 0.01}
steps: 80
check_every: 20
lightning: {accelerator: cpu}
""")
    return folder


@pytest.mark.parametrize("kind", ["mil", "pel4vad"])
def test_videos_become_features_become_a_model_that_scores_videos_and_stores_alike(videos, tmp_path, kind):
    out = tmp_path / "run"
    said = vad("train", videos / "config.yaml", f"data={videos}", f"out={out}", f"head.kind={kind}", "--json")
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout)["test_metric"] == "video auc"
    scored = vad("score", videos / "red07.mp4", "--model", out / "model", "--out", tmp_path / "s", "-q")
    assert scored.exit_code == 0, scored.output
    curve = read_curve(tmp_path / "s/red07/curve.csv")
    assert vad("score", out / "features", "--model", out / "model", "--out", tmp_path / "n", "-q").exit_code == 0
    stored = np.load(tmp_path / "n/red07.npy")
    np.testing.assert_allclose(curve.raw_N, stored, atol=1e-5)  # frame by frame
    record = json.loads((tmp_path / "s/red07/run.json").read_text())
    assert record["label"] == "causal"
    assert scores.read(tmp_path / "s").provenance.checkpoint == "held-out"
    if kind == "mil":
        assert set(np.argsort(stored)[-32:]) == set(range(48, 80))  # where it is red


def test_a_video_that_cannot_be_read_is_left_out_with_a_word(videos, tmp_path):
    broken = tmp_path / "data"
    shutil.copytree(videos, broken, ignore=shutil.ignore_patterns("features"))
    (broken / "red15.mp4").write_bytes(b"no video")
    said = vad("train", broken / "config.yaml", f"data={broken}", f"out={tmp_path / 'run'}", "steps=20", "test=null")
    assert said.exit_code == 0, said.output
    assert "red15.mp4" in said.stderr
    assert "1 videos could not be read and are left out of the training" in said.stderr


# names, sources and places as the benchmarks have them


def xd_store(folder):
    """Films with two pieces each; the first film is in the test set, too."""
    store = Store.prepare(folder / "features", manifest())
    random = np.random.default_rng(0)
    films = [f"Film.{i}.2001" for i in range(12)]
    for i, film in enumerate(films):
        for piece, label in ((0, "A"), (1, "G-B2-0" if i % 2 else "B1-0-0")):
            put(store, f"{film}__#00-00-{piece}0_00-00-{piece}9_label_{label}", random.normal(size=(12, 2, 16)))
    test = [f"{films[0]}__#00-09-00_00-09-09_label_{label}" for label in ("A", "B1-0-0")]
    for name in test:
        put(store, name, random.normal(size=(12, 2, 16)))
    (folder / "frames.csv").write_text("video,frames\n" + "".join(f"{name},192\n" for name in test))
    (folder / "annotations.txt").write_text(f"{test[1]} 32 64\n")
    (folder / "config.yaml").write_text("""
listing: {normal: ["*_label_A*"], groups: xd-violence, categories: xd-violence}
test: {dataset: xd-violence, annotations: annotations.txt, frames: frames.csv, metric: ap}
bags: {segments: 8, pairs: 4}
head: {kind: dual_branch, dim: 16, classes: [normal, B1, G], width: 8, window: 2, layers: 1, block: 4}
steps: 4
check_every: 2
lightning: {accelerator: cpu}
loggers: []
""")


def test_training_videos_of_a_test_film_are_refused_left_out_or_kept_as_asked(tmp_path):
    xd_store(tmp_path)
    refused = train(tmp_path, tmp_path / "run")
    assert refused.exit_code == 2
    assert "sources on both sides of the split: Film.0.2001" in refused.stderr
    for how, count in (("leave_out", 22), ("keep", 24)):
        out = tmp_path / how
        assert train(tmp_path, out, f"listing.shared={how}").exit_code == 0
        videos = json.loads((out / "run.json").read_text())["videos"]
        assert videos["train"] + len(videos["held_out"]) == count
        assert videos["test"] == 2


def test_a_head_with_classes_learns_the_category_that_a_name_says_first(tmp_path):
    xd_store(tmp_path)
    result = train(tmp_path, tmp_path / "run", "listing.shared=leave_out", "head.classes=[normal, B1, B2]")
    assert result.exit_code == 2
    assert "categories that head.classes lacks: G; it has normal, B1, B2" in result.stderr
    result = train(tmp_path, tmp_path / "run", "listing.shared=leave_out", "listing.categories=null")
    assert "head.classes has 3 classes, but no video's is known: set listing.categories" in result.stderr


def test_rows_that_are_wider_than_their_hop_lie_where_the_store_says(data, tmp_path):
    """Clips of 64 frames every 16: three rows fewer than hops, and the first stands for 64 frames."""
    store = Store.prepare(tmp_path / "features", manifest())
    spans = np.array([[0, 64], [64, 80], [80, 96]])
    for i in range(20):
        values = np.ones((3, 16), np.float32)
        values[2, :4] += 4 * (i % 2)
        record = Record(
            name=f"{'Abuse' if i % 2 else 'Normal'}{i:02d}",
            key="",
            source=SOURCE,
            hop_frames=16,
            fps=25.0,
            frames=100,
            values_sha256=values_sha256(values),
        )
        with tempfile.TemporaryFile(buffering=0) as file:
            rows = Rows(file, "float32")
            rows.add(values)
            store.write(record, rows, {"spans": spans})
    truth = "".join(f"{'Abuse' if i % 2 else 'Normal'}{i:02d},,{'80-100' if i % 2 else ''}\n" for i in range(12, 20))
    (tmp_path / "test.csv").write_text("video,num_frames,intervals\n" + truth)
    (tmp_path / "config.yaml").write_text(CONFIG)
    said = train(tmp_path, tmp_path / "run", "head.kind=linear", "optimiser.kind=adam", "--json")
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout)["held_out"]["test"] == 1.0  # every frame from 80 on, the tail as well


# exactness


def test_a_killed_and_resumed_run_ends_with_the_weights_of_an_unbroken_one(data, run, tmp_path):
    unbroken, said = run
    out = tmp_path / "run"
    command = [
        str(Path(sys.executable).with_name("vad")),
        "train",
        str(data / "config.yaml"),
        f"data={data}",
        f"out={out}",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (out / "metrics.csv").is_file() or len(history(out)) < 2:
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "result.json").exists()
    resumed = json.loads(train(data, out, "--json").stdout)
    assert len(json.loads((out / "run.json").read_text())["started"]) == 2
    assert {**resumed, "model": ""} == {**said, "model": ""}
    assert history(out) == history(unbroken)
    last, other = (torch.load(folder / "checkpoints/last.ckpt", weights_only=True) for folder in (unbroken, out))
    assert last["global_step"] == other["global_step"] == 60
    for name, value in last["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name


def test_early_stopping_ends_a_run_that_gets_no_better(data, tmp_path):
    result = json.loads(train(data, tmp_path / "run", "patience=2", "--json").stdout)
    steps = [int(row["step"]) for row in history(tmp_path / "run")]
    assert steps[-1] == result["held_out"]["step"] + 20


# bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["head={kind: memory}"], "'memory' learns from normal footage, with vad fit; here: "),
        (["head.kind=mill"], "did you mean"),
        (["loss.margn=2"], "mil has no such loss setting; known: margin, sparsity, smoothness, decay"),
        (["steps=25"], "must be a multiple of check_every, 10"),
        (["head.dim=32"], "features are 16 wide, not 32; set head.dim"),
        (["listing.normal=[]"], "which videos are normal is not known"),
        (['listing.normal=["Nothing*"]'], "no normal video among the 28 listed ones"),
        (['listing.normal=["*"]'], "no abnormal video among the 28 listed ones"),
        (["test=null", "--select", "test"], "there is no section test to select on"),
        (["features=elsewhere"], "is not a feature store"),
        (["listing.train=absent.txt"], "no such list of videos"),
        (["loggers=[wandb]"], "logger wandb: wandb is not installed; run: pip install wandb"),
        (["lightning.precision=8"], "lightning.precision"),
    ],
)
def test_mistakes_are_refused_in_one_sentence(data, tmp_path, changes, message):
    result = train(data, tmp_path / "run", *changes)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run/result.json").exists()


def test_paths_are_asked_for(data):
    result = vad("train", data / "config.yaml", f"data={data}")
    assert result.exit_code == 2
    assert "out is not set; add out=FOLDER to the command" in result.stderr


@pytest.mark.parametrize(
    ("lines", "changes", "message"),
    [
        ("video,label\nAbuse001,normal\nNormal000,normal\n", [], "labels that contradict listing.normal: Abuse001"),
        ("video,label\nAbuse001,1\nAbuse001,0\n", [], "Abuse001 is listed already, as abnormal at"),
        ("video,label\nAbuse001,1\nAbuse003,1\n", [], "no normal video among the 2 listed ones"),
        ("video,label\nAbuse001,1\nNormal000,0\nAbuse029,1\n", [], "test videos on the training list: Abuse029"),
        ("video,label\nAbuse001,1\nNormal000,0\nAbuse999,1\n", [], "no features of Abuse999"),
        (
            "video,label\nAbuse001,1\nNormal000,0\nAbuse003,1\nNormal002,0\n",
            ["listing.groups=number-blocks:100"],
            "sources on both sides of the split: Abuse 1-100",
        ),
    ],
)
def test_lists_that_contradict_something_are_refused(data, tmp_path, lines, changes, message):
    (tmp_path / "list.csv").write_text(lines)
    result = train(data, tmp_path / "run", f"listing.train={tmp_path / 'list.csv'}", *changes)
    assert result.exit_code == 2
    assert message in result.stderr


def test_features_that_are_no_numbers_are_refused_with_the_file(tmp_path):
    store = Store.prepare(tmp_path / "features", manifest())
    for i in range(8):
        values = np.ones((4, 2, 16), np.float16)
        values[2, 1, 3] = np.nan if i == 5 else 1
        put(store, f"{'Abuse' if i % 2 else 'Normal'}{i}", values)
    (tmp_path / "config.yaml").write_text(CONFIG)
    result = train(tmp_path, tmp_path / "run", "test=null")
    assert result.exit_code == 2
    assert "Abuse5: features hold NaN or infinity in 1 rows, first in row 2" in result.stderr


def test_other_settings_in_the_same_folder_are_refused_with_the_difference(data, run):
    out, _ = run
    before = (out / "config.yaml").read_bytes()
    result = train(data, out, "optimiser.lr=0.02", "seed=5")
    assert result.exit_code == 2
    assert "optimiser.lr was 0.01, is 0.02; seed was 1, is 5" in result.stderr
    assert (out / "config.yaml").read_bytes() == before


def test_a_folder_of_something_else_is_left_alone(data, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    result = train(data, tmp_path)
    assert result.exit_code == 2
    assert "holds something that is not a training run" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_checkpoint(data, tmp_path):
    out = tmp_path / "run"
    assert train(data, out, "steps=10").exit_code == 0
    good = (out / "checkpoints/last.ckpt").read_bytes()
    result = train(
        data, tmp_path / "other", "schedule.kind=drops", "schedule.at=[12]", "schedule.factor=0.5", "optimiser.lr=1e18"
    )
    assert result.exit_code == 2
    assert "became no number" in result.stderr
    assert "ranking = nan" in result.stderr or "decay = inf" in result.stderr
    assert good  # the run beside it is untouched


def test_a_model_of_imported_features_scores_stores_but_no_video(data, run, tmp_path):
    out, _ = run
    (tmp_path / "a.mp4").write_bytes(b"")
    result = vad("score", tmp_path / "a.mp4", "--model", out / "model", "--out", tmp_path / "o")
    assert result.exit_code == 2
    assert "imported" in result.stderr or "extractor" in result.stderr


def test_other_features_than_a_model_was_trained_on_are_refused(run, tmp_path):
    out, _ = run
    store = Store.prepare(tmp_path / "features", manifest(weights="other"))
    put(store, "a", np.ones((4, 2, 16), np.float16))
    result = vad("score", tmp_path / "features", "--model", out / "model", "--out", tmp_path / "o")
    assert result.exit_code == 2
    assert "has other features than" in result.stderr


def test_settings_are_checked_together(data):
    with pytest.raises(ConfigError) as caught:
        Settings.of(Document("c.yaml", {"head": {"kind": "mil", "dims": 3}, "step": 5, "loss": {"x": 1}}, {}))
    lines = str(caught.value).splitlines()
    assert any("dims" in line for line in lines)
    assert any("step" in line for line in lines)


def test_ranking_finds_the_planted_snippets(data, run):
    out, _ = run
    loaded = model.load(out / "model")
    head = load("vad.heads", loaded.config["head"]).build()
    loaded.restore(head)
    values = Store.open(data / "features").read("Abuse001").values.astype(np.float32)
    truth = values[..., :4].mean((1, 2)) > 3
    assert auc(truth, score_rows(head.eval(), torch.from_numpy(values)).numpy()) > 0.95
