"""A search over training runs: that it is complete, goes on after a kill, compares like with like, and refuses."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import test_training
import torch
from conftest import make_video
from test_training import CONFIG, history, vad

from trainers import record
from trainers.settings import Settings
from trainers.sweep import Trial, ranking
from vad.config import Document, to_yaml

data = test_training.data  # a fixture

SHORT = CONFIG.replace("steps: 60\ncheck_every: 10", "steps: 4\ncheck_every: 2\nloggers: []")
GRID = {"optimiser.lr": [0.01, 1e-5], "loss.margin": [1.0, 2.0]}
RANGE = {"optimiser.lr": {"low": 1e-4, "high": 1e-1, "log": True}}


def sweep(data, out, grid, *arguments):
    """With a grid as a mapping, or as the text of its file."""
    return vad(*command(data, out, grid, *arguments))


def command(data, out, grid, *arguments):
    config, file = out.parent / "config.yaml", out.parent / "grid.yaml"
    config.write_text(SHORT)
    file.write_text(grid if isinstance(grid, str) else to_yaml(grid))
    return ["sweep", config, file, f"data={data}", f"out={out}", *arguments]


def rows(out):
    with open(out / "trials.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def starts(out):
    """How often each run folder was begun or gone on with."""
    found = {path.parent.name: len(json.loads(path.read_text())["started"]) for path in out.glob("trials/*/run.json")}
    assert len(found) == len(list(out.glob("trials/*")))
    return found


@pytest.fixture(scope="module")
def swept(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("sweeps") / "sweep"
    result = sweep(data, out, GRID)
    assert result.exit_code == 0, result.output
    return out, result


@pytest.fixture(autouse=True)
def _one_thread():
    """For each test anew: extraction sets as many as there are processors."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# what comes out


def test_a_grid_is_tried_whole_each_combination_once(swept):
    out, result = swept
    found = {(float(row["optimiser.lr"]), float(row["loss.margin"])) for row in rows(out)}
    assert found == {(lr, margin) for lr in GRID["optimiser.lr"] for margin in GRID["loss.margin"]}
    assert list(starts(out).values()) == [1, 1, 1, 1]
    assert len([line for line in result.stderr.splitlines() if "held-out auc" in line]) == 4
    assert {"sweep.yaml", "study.journal", "trials.csv", "best.yaml", "trials", "blocks"} <= set(os.listdir(out))
    assert not list(out.glob("trials/*/*.bin"))  # the packed features are there once
    assert not list(out.glob("trials/*/block.json"))


def test_each_trial_is_an_ordinary_run_and_the_table_says_what_it_found(data, swept):
    out, _ = swept
    for row in rows(out):
        outcome = record.finished(out / row["folder"])
        assert float(row["held_out_auc"]) == outcome.held_out.held_out_auc
        assert float(row["held_out_loss"]) == outcome.held_out.held_out_loss
        assert float(row["test (did not decide)"]) == outcome.held_out.test
        config = Settings.of(Document.read(out / row["folder"] / "config.yaml"))
        assert config.sections.optimiser.lr == float(row["optimiser.lr"])
        again = vad("train", out / row["folder"] / "config.yaml")
        assert "this run is finished" in again.stderr


def test_the_ranking_and_its_worth_are_printed(swept):
    out, result = swept
    best = min(rows(out), key=lambda row: (-float(row["held_out_auc"]), float(row["held_out_loss"])))
    first = result.stdout.splitlines()[1].split()
    assert first[0] == best["trial"]
    assert first[3] == f"{float(best['held_out_auc']):.4f}"
    assert "the best of 4 trials: its held-out number is optimistic" in result.stdout
    assert "several other seeds" in result.stdout


def test_the_held_out_loss_breaks_ties_and_the_test_set_decides_nothing():
    trials = [
        Trial(4, {}, "", failure="its loss became no number"),
        Trial(1, {}, "", 0.8, 0.1, 10, test=0.99),
        Trial(2, {}, "", 0.9, 0.5, 10, test=0.1),
        Trial(3, {}, "", 0.9, 0.4, 10, test=0.05),
    ]
    assert [trial.number for trial in ranking(trials)] == [3, 2, 1, 4]


def test_the_best_config_trains(swept, tmp_path):
    out, _ = swept
    result = vad("train", out / "best.yaml", f"out={tmp_path / 'run'}", "--json")
    assert result.exit_code == 0, result.output
    best = max(rows(out), key=lambda row: (float(row["held_out_auc"]), -float(row["held_out_loss"])))
    found = json.loads((out / best["folder"] / "result.json").read_text())
    assert json.loads(result.stdout)["held_out"] == found["held_out"]


def test_a_finished_sweep_says_what_it_found_and_trains_nothing(data, swept):
    out, first = swept
    before = (out / "trials.csv").read_bytes()
    result = sweep(data, out, GRID, "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert result.stderr == ""
    assert said["best"] == str(out / "best.yaml")
    assert [trial["number"] for trial in said["trials"]] == [
        int(line.split()[0]) for line in first.stdout.splitlines()[1:5]
    ]
    assert (out / "trials.csv").read_bytes() == before
    assert list(starts(out).values()) == [1, 1, 1, 1]


def test_a_range_is_searched_for_so_many_trials_and_more_on_request(data, tmp_path):
    out = tmp_path / "sweep"
    grid = RANGE | {"bags.pairs": {"low": 4, "high": 8, "int": True}, "schedule.at": [[2], [1, 3]]}
    assert sweep(data, out, grid, "--trials", 2, "-q").exit_code == 0
    early = rows(out)
    result = sweep(data, out, grid, "--trials", 3, "-q")
    assert result.exit_code == 0, result.output
    assert result.output == ""
    assert rows(out)[:2] == early
    assert len(rows(out)) == len({row["optimiser.lr"] for row in rows(out)}) == 3
    assert all(1e-4 <= float(row["optimiser.lr"]) <= 1e-1 for row in rows(out))
    assert {row["bags.pairs"] for row in rows(out)} <= set("45678")
    assert {row["schedule.at"] for row in rows(out)} <= {"[2]", "[1, 3]"}


def test_a_small_space_ends_before_its_trials_do(data, tmp_path):
    out = tmp_path / "sweep"
    result = sweep(data, out, {"bags.pairs": {"low": 4, "high": 5, "int": True}}, "--trials", 9)
    assert result.exit_code == 0, result.output
    assert {row["bags.pairs"] for row in rows(out)} == {"4", "5"}
    assert "nothing new came up after 2 of 9 trials" in result.stderr


def test_a_loss_that_is_no_number_fails_its_trial_only(data, tmp_path):
    out = tmp_path / "sweep"
    result = sweep(data, out, {"optimiser.lr": [1e38, 0.01]})
    assert result.exit_code == 0, result.output
    assert "trial 1 of 2: optimiser.lr=1e+38: failed: training stopped at step" in result.stderr
    assert "the best of 1 trials, 1 more failed" in result.stdout
    assert [row["failure"] != "" for row in rows(out)] == [True, False]
    assert sweep(data, out, {"optimiser.lr": [1e38, 0.01]}, "-q").stderr == ""
    assert list(starts(out).values()) == [1, 1]


def test_a_sweep_in_which_all_fails_ends_as_an_error(data, tmp_path):
    result = sweep(data, tmp_path / "sweep", {"optimiser.lr": [1e38]})
    assert result.exit_code == 2
    assert "all 1 trials failed, the last with: training stopped" in result.stderr
    assert not (tmp_path / "sweep/best.yaml").exists()


def test_features_of_videos_are_extracted_once_for_all_trials(tmp_path):
    (tmp_path / "clips").mkdir()
    for i in range(8):
        make_video(tmp_path / f"clips/{'Abuse' if i % 2 else 'Normal'}{i}.mp4", frames=32, size=(64, 48), first=i * 40)
    given = ["videos=clips", "extractor={kind: colour}", "head.dim=3", "test=null", "listing.held_out=0.5"]
    result = sweep(tmp_path, tmp_path / "sweep", {"optimiser.lr": [0.01, 0.02]}, *given)
    assert result.exit_code == 0, result.output
    assert "test" not in result.stdout.splitlines()[0]
    assert (tmp_path / "sweep/features").is_dir()
    assert not list((tmp_path / "sweep").glob("trials/*/features"))
    trained = vad("train", tmp_path / "sweep/best.yaml", f"out={tmp_path / 'run'}", "--json")
    assert trained.exit_code == 0, trained.output
    assert not (tmp_path / "run/features").exists()


# going on


def test_a_killed_sweep_goes_on_trains_nothing_twice_and_ends_with_the_same_table(data, tmp_path):
    out, arguments = tmp_path / "sweep", ["steps=12", "check_every=1", "--trials", "3"]
    program = Path(sys.executable).with_name("vad")
    process = subprocess.Popen(
        [program, *command(data, out, RANGE, *arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not (begun := [path.parent for path in out.glob("trials/*/metrics.csv")])[1:] or len(rows(out)) < 1:
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (broken,) = (folder for folder in begun if not (folder / "result.json").exists())
    with open(out / "study.journal", "ab") as file:
        file.write(b'{"op_code": 4, "wor')  # as if the kill had come in the middle of a line,
    os.symlink("study.journal", out / "study.journal.lock")  # with Optuna's own lock held

    assert sweep(data, out, RANGE, *arguments).exit_code == 0
    assert starts(out) == {path.name: 2 if path.name == broken.name else 1 for path in out.glob("trials/*")}
    assert len(history(broken)) == 12
    (tmp_path / "other").mkdir()
    assert sweep(data, tmp_path / "other/sweep", RANGE, *arguments).exit_code == 0
    assert rows(out) == rows(tmp_path / "other/sweep")


def test_a_run_that_ended_just_before_a_kill_is_only_put_down(data, tmp_path):
    out = tmp_path / "sweep"
    sweep(data, out, {"optimiser.lr": [0.01, 0.02]})
    table = rows(out)
    journal = (out / "study.journal").read_bytes().splitlines(keepends=True)
    (out / "study.journal").write_bytes(b"".join(journal[:-1]))
    (out / "trials.csv").unlink()
    result = sweep(data, out, {"optimiser.lr": [0.01, 0.02]})
    assert "finished" not in result.stderr
    assert rows(out) == table
    assert list(starts(out).values()) == [1, 1]


def test_a_second_process_in_the_same_folder_is_refused(data, tmp_path):
    (tmp_path / "sweep").mkdir()
    with open(tmp_path / "sweep/.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = sweep(data, tmp_path / "sweep", GRID)
    assert result.exit_code == 2
    assert "another process is at work on this sweep" in result.stderr


def test_another_sweep_in_the_same_folder_is_refused_with_the_difference(data, swept):
    out, _ = swept
    before = (out / "sweep.yaml").read_bytes()
    result = sweep(data, out, {**GRID, "loss.margin": [1.0]}, "head.dropout=0.5")
    assert result.exit_code == 2
    assert "grid loss.margin was [1.0, 2.0], is [1.0]; head.dropout was 0.6, is 0.5" in result.stderr
    assert (out / "sweep.yaml").read_bytes() == before


def test_other_features_or_lists_under_the_same_name_are_refused(data, tmp_path):
    listing = tmp_path / "list.txt"
    listing.write_text("".join(f"{'Abuse' if i % 2 else 'Normal'}{i:03d}\n" for i in range(28)))
    given = tmp_path / "sweep", {"optimiser.lr": [0.01, 0.02]}, f"listing.train={listing}"
    sweep(data, *given)
    journal = (tmp_path / "sweep/study.journal").read_bytes().splitlines(keepends=True)
    (tmp_path / "sweep/study.journal").write_bytes(b"".join(journal[:-1]))
    last = tmp_path / "sweep" / rows(tmp_path / "sweep")[-1]["folder"]
    last.rename(tmp_path / "elsewhere")
    listing.write_text("".join(f"{'Abuse' if i % 2 else 'Normal'}{i:03d}\n" for i in range(24)))
    result = sweep(data, *given)
    assert result.exit_code == 2
    assert "the features or the lists have changed since this sweep began; bring them back" in result.stderr


def test_a_folder_of_something_else_is_left_alone(data, tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/thesis.txt").write_text("years of work")
    result = sweep(data, tmp_path / "sweep", GRID)
    assert result.exit_code == 2
    assert "holds something that is not a sweep" in result.stderr
    assert os.listdir(tmp_path / "sweep") == ["thesis.txt"]


# bad input


@pytest.mark.parametrize(
    ("grid", "arguments", "message"),
    [
        ("optimiser.lrr: [0.1]", [], 'grid.yaml (optimiser.lrr=0.1): optimiser.lrr: unknown key, did you mean "lr"?'),
        ("loss.margn: [1]", [], "mil has no such loss setting; known: margin"),
        ("optimiser.lr: [0.01, -1]", [], "(optimiser.lr=-1): optimiser.lr: input should be greater than 0"),
        ("{steps: [4, 8], check_every: [2, 3]}", [], "(check_every=3, steps=4): steps: must be a multiple of"),
        ("steps: {low: 4, high: 8, int: true}", ["--trials", 2], "(steps=5): steps: must be a multiple of"),
        ("head.hidden: {low: 8, high: 64}", ["--trials", 2], "head.hidden: "),
        ("optimiser.lr: []", [], "1:1 optimiser.lr: give a list of values, or low and high, got []"),
        ("optimiser.lr: 0.1", [], "give a list of values, or low and high, got 0.1"),
        ("optimiser: {lr: [0.1]}", [], "give a list of values, or low and high, got {'lr': [0.1]}"),
        ("optimiser.lr: [0.1, 0.1]", [], "the value 0.1 is listed twice"),
        ("optimiser.lr: [2020-01-01]", [], "a value is neither number, word, list nor mapping"),
        ("{}", [], "names no setting to vary"),
        ("- 1", [], "the top level must be a mapping"),
        ("steps: [4]\nsteps: [8]", [], 'found duplicate key "steps"'),
        ("{head: [{kind: mil}], head.dim: [16]}", [], "head.dim: is set twice, by head as well"),
        ("optimiser.lr: [0.1]", ["optimiser.lr=0.2"], "is set twice, by the command as well: optimiser.lr=0.2"),
        ("optimiser.lr: {low: 1, high: 1}", ["--trials", 2], "low must be below high, got 1 and 1"),
        ("optimiser.lr: {low: 0, high: 1, log: true}", ["--trials", 2], "with log, low must be positive, got 0"),
        ("steps: {low: 1.5, high: 3, int: true}", ["--trials", 2], "with int, low and high must be whole"),
        ("optimiser.lr: {low: 1}", ["--trials", 2], "optimiser.lr.high: this key is required"),
        ("optimiser.lr: {low: 1, high: 2, logs: true}", ["--trials", 2], 'logs: unknown key, did you mean "log"?'),
        ("optimiser.lr: {low: 1, high: .inf}", ["--trials", 2], "optimiser.lr.high: input should be a finite number"),
        ("optimiser.lr: {low: 0.1, high: 1}", [], "has a range, so say how many trials there shall be: --trials N"),
        ("optimiser.lr: [0.1, 1]", ["--trials", 1], "has lists only, of which all 2 combinations are tried"),
        (f"{{bags.pairs: {[*range(1, 102)]}, seed2: {[*range(100)]}}}", [], "has 10100 combinations, more than 10000"),
        ("seed: [1, 2]", [], "seed: a sweep cannot vary it: it also chooses the held-out videos"),
        ("select: [test]", [], "select: a sweep cannot vary it: trials are compared on held-out videos only"),
        ("out: [a]", [], "a sweep cannot vary it: each trial has its folder"),
        ("blocks: [a]", [], "a sweep cannot vary it: all trials share the packed features"),
        ("loggers: [[]]", [], "a sweep cannot vary it: it changes no result"),
        ("extractor.size: [1]", [], "a sweep cannot vary it: all trials share the features"),
        *(
            (f"{key}: [a]", [], f"{key}: a sweep cannot vary it: all trials must be measured on the same videos")
            for key in ("data", "features", "videos", "listing", "listing.held_out", "test.metric")
        ),
        ("optimiser.lr: [0.1]", ["select=test"], "the best of many trials on the test set is a number about that"),
        ("optimiser.lr: [0.1]", ["lightning.devices=2"], "a trial is trained on one device, got lightning.devices=2"),
        ("lightning.devices: [1, -1]", [], "(lightning.devices=-1): a trial is trained on one device"),
    ],
)
def test_mistakes_are_refused_in_one_sentence_before_anything_is_trained(data, tmp_path, grid, arguments, message):
    result = sweep(data, tmp_path / "sweep", grid, *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "sweep").exists()


def test_a_mistake_about_the_data_stops_the_sweep_at_once(data, tmp_path):
    result = sweep(data, tmp_path / "sweep", GRID, "features=elsewhere")
    assert result.exit_code == 2
    assert "is not a feature store" in result.stderr
    assert not (tmp_path / "sweep/trials.csv").exists()


def test_a_missing_optuna_is_named(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = sweep(data, tmp_path / "sweep", GRID)
    assert result.exit_code == 2
    assert "optuna is not installed; run: pip install" in result.stderr
