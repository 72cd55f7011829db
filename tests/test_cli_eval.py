"""``vad eval`` as a person uses it: files in, two documents and an exit code out, one clear sentence for a mistake."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from conftest import data
from typer.testing import CliRunner

from vad import datasets
from vad.cli import app

ANNOTATION = """video,num_frames,intervals,category,fps
street one,100,40-60,Fight,25
market,90,,,25
yard,64,0-10;50-64,Fall,25
"""
TRUTH = {"street one": (100, [(40, 60)]), "market": (90, []), "yard": (64, [(0, 10), (50, 64)])}


@pytest.fixture
def vad(tmp_path):
    """Runs the command; gives exit code, stdout, stderr."""

    def run(*arguments):
        result = CliRunner().invoke(app, ["eval", *map(str, arguments)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        return result.exit_code, result.stdout, result.stderr

    return run


@pytest.fixture
def annotation(tmp_path):
    path = tmp_path / "truth.csv"
    path.write_text(ANNOTATION)
    return "--dataset", "custom", "--annotations", path, "--resamples", 20


def save(folder, seed=0, good=0.3, scale=1.0):
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for name, (frames, events) in TRUTH.items():
        scores = random.random(frames) * 0.6
        for start, end in events:
            scores[start:end] += good
        np.save(folder / f"{name}.npy", scale * scores)
    return folder


def test_the_help_names_every_benchmark(vad):
    _, out, _ = vad("--help")
    shown = re.sub(r"-?\s+", "", out)
    assert all(name.replace("-", "") in shown.replace("-", "") for name in datasets.NAMES)


def test_two_documents_are_written_and_the_headline_is_said(vad, annotation, tmp_path):
    code, out, _ = vad(save(tmp_path / "scores"), "--hop", 1, *annotation, "--out", tmp_path / "report")
    assert code == 0
    document = json.loads((tmp_path / "report/metrics.json").read_text())
    assert f"{document['metrics']['auc']['value']:.4f}" in out
    assert "controls" in out
    assert "audit: unknown checkpoint" in " ".join(out.split())
    page = (tmp_path / "report/report.html").read_text()
    assert "street one" in page
    assert not re.search(r'(src|href)="(?!data:|#|\./metrics\.json)', page)  # nothing is fetched from anywhere
    assert len(document["inputs"]["annotations"]) == 64


def test_json_goes_to_stdout_alone(vad, annotation, tmp_path):
    code, out, _ = vad(save(tmp_path / "s"), "--hop", 1, *annotation, "--out", tmp_path / "r", "--json")
    assert code == 0
    assert json.loads(out) == json.loads((tmp_path / "r/metrics.json").read_text())


def test_missing_videos_stop_it_or_stand_in_the_headline(vad, annotation, tmp_path):
    scores = save(tmp_path / "s")
    (scores / "market.npy").unlink()
    (scores / "yard.npy").unlink()
    code, _, err = vad(scores, "--hop", 1, *annotation, "--out", tmp_path / "r")
    assert code == 2
    assert "no scores for 2 of 3 videos" in err
    assert "market, yard" in err
    assert not (tmp_path / "r").exists()
    code, out, _ = vad(scores, "--hop", 1, *annotation, "--out", tmp_path / "r", "--allow-missing")
    assert code == 0
    assert "ONLY 1 OF 3 VIDEOS" in out
    assert "1 of 3 videos" in (tmp_path / "r/report.html").read_text()


@pytest.mark.parametrize(
    ("break_it", "extra", "words"),
    [
        (lambda s: np.save(s / "park.npy", np.zeros(9)), (), "does not have: park"),
        (lambda s: np.save(s / "yard.npy", np.zeros(63)), (), "yard: 63 scores of 1 frames stand for 63 frames"),
        (lambda s: np.save(s / "yard.npy", np.full(64, np.nan)), (), "without a score (NaN) in 1 videos: yard (64)"),
        (lambda s: np.save(s / "yard.npy", np.array([{}]), allow_pickle=True), (), "pickled"),
        (lambda s: None, ("--dataset", "nothing"), "nothing"),
        (lambda s: None, ("--annotations", "/no/such/file.csv"), "/no/such/file.csv"),
        (lambda s: None, ("--convention", "as-i-like"), "as-i-like"),
        (lambda s: None, ("--compare",), "at least two"),
        (lambda s: None, ("--frames", "/no/frames.csv"), "/no/frames.csv"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(vad, annotation, tmp_path, break_it, extra, words):
    scores = save(tmp_path / "s")
    break_it(scores)
    code, _, err = vad(scores, "--hop", 1, *annotation, "--out", tmp_path / "r", *extra)
    assert code == 2
    assert words in err
    assert not (tmp_path / "r").exists()


def test_a_threshold_is_refused_for_scores_that_have_none(vad, annotation, tmp_path):
    scores = save(tmp_path / "s", scale=50.0)
    code, _, err = vad(scores, "--hop", 1, *annotation, "--out", tmp_path / "r", "--threshold", 0.5)
    assert code == 2
    assert "outside [0, 1]" in err
    code, out, _ = vad(scores, "--hop", 1, *annotation, "--out", tmp_path / "r")
    assert code == 0
    assert "left out: metrics with a threshold" in out


def test_an_all_normal_set_is_measured_for_false_alarms(vad, tmp_path):
    (tmp_path / "truth.csv").write_text("video,num_frames,intervals\nmarket,90,\n")
    (tmp_path / "s").mkdir()
    np.save(tmp_path / "s/market.npy", np.linspace(0, 1, 90))
    code, out, _ = vad(
        tmp_path / "s", "--hop", 1, "--dataset", "custom", "--annotations", tmp_path / "truth.csv", "--fps", 25,
        "--out", tmp_path / "r", "--resamples", 5,
    )  # fmt: skip
    assert code == 0
    assert "false_alarm_rate" in out
    assert json.loads((tmp_path / "r/metrics.json").read_text())["metrics"]["auc"]["value"] is None


def test_systems_are_compared_pair_by_pair(vad, annotation, tmp_path):
    sets = [save(tmp_path / name, seed, good) for seed, (name, good) in enumerate([("a", 0.5), ("b", 0.1), ("c", 0.1)])]
    code, _, _ = vad("--compare", *sets, "--hop", 1, *annotation, "--out", tmp_path / "r")
    assert code == 0
    document = json.loads((tmp_path / "r/metrics.json").read_text())
    pairs = {(one["first"], one["second"]) for one in document["differences"]}
    assert pairs == {("a", "b"), ("a", "c"), ("b", "c")}
    (auc,) = [
        one for one in document["differences"] if (one["metric"], one["first"], one["second"]) == ("auc", "a", "b")
    ]
    assert auc["difference"]["value"] == pytest.approx(auc["first_value"] - auc["second_value"])
    assert (tmp_path / "r/report.html").exists()
    code, _, err = vad(*sets, "--hop", 1, *annotation, "--out", tmp_path / "r")
    assert code == 2
    assert "--compare" in err


def test_the_golden_numbers_of_ucf_crime(vad, tmp_path):
    code, out, _ = vad(
        data("ucf_crime", "model_scores_32.npz"), "--dataset", "ucf-crime",
        "--annotations", data("ucf_crime", "test_annotations.csv"), "--out", tmp_path / "r", "--resamples", 20,
    )  # fmt: skip
    assert code == 0
    metrics = json.loads((tmp_path / "r/metrics.json").read_text())["metrics"]
    assert metrics["auc"]["value"] == pytest.approx(0.690289, abs=1e-6)
    assert metrics["ap"]["value"] == pytest.approx(0.191946, abs=1e-6)
    assert "perfect video label" in out
