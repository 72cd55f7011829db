"""Score sets are read, aligned and measured; whatever does not fit is refused with the names of the videos."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import data

from vad import datasets
from vad.datasets.annotation import AnnotatedVideo, Benchmark, Interval
from vad.evaluation import document
from vad.evaluation.alignment import align
from vad.evaluation.comparison import compare
from vad.evaluation.measure import Settings, evaluate
from vad.evaluation.scores import Scores, ScoresError, ScoreSet, read

QUICK = Settings(resamples=20)


def benchmark(**changes):
    videos = (
        AnnotatedVideo("a", 100, (Interval(40, 60, "Fight"),), ("Fight",), 25.0),
        AnnotatedVideo("b", 90, (), (), 25.0),
        AnnotatedVideo("c", 64, (Interval(0, 10, "Fall"), Interval(50, 64, "Fall")), ("Fall",), 25.0),
    )
    return Benchmark("toy", "made for a test", **{"videos": videos, **changes})


def score_set(seed=0, good=0.3, form="frames", hop=1, **provenance):
    random = np.random.default_rng(seed)
    videos = {}
    for video in benchmark().videos:
        values = np.clip(random.random(video.num_frames) * 0.6 + good * video.labels(), 0, 1)
        videos[video.name] = Scores(values[::hop], form, hop=hop)
    return ScoreSet(f"system {seed}", form, videos, **provenance)


def run(scores=None, of=None, settings=QUICK, **rules):
    scores, of = scores or score_set(), of or benchmark()
    aligned = align(scores, of, **rules)
    return evaluate(scores, of, aligned, settings), aligned


# reading ------------------------------------------------------------------------------------------------------------


def curve(folder, name, rows, header="frame,pts_s,raw,score"):
    path = folder / name / "curve.csv"
    path.parent.mkdir(parents=True)
    path.write_text(header + "\n" + "\n".join(rows) + "\n")
    return path


def test_the_three_forms_give_the_same_frames(tmp_path):
    values = np.round(np.random.default_rng(0).random(32), 3)
    curve(tmp_path / "curves", "v", [f"{n},{n / 25:.3f},1.5,{values[n * 32 // 64]}" for n in range(64)])
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays/v.npy", values.astype(np.float32))
    np.savez(tmp_path / "segments.npz", names=np.array(["v"]), scores=values[None])
    frames = read(tmp_path / "curves").videos["v"]
    assert frames.fps == pytest.approx(25)
    snippets = read(tmp_path / "arrays", hop=2).videos["v"]
    segments = read(tmp_path / "segments.npz").videos["v"]
    np.testing.assert_allclose(frames.on_frames(64), snippets.on_frames(64), atol=1e-7)
    np.testing.assert_allclose(frames.on_frames(64), segments.on_frames(64))


def test_what_vad_score_wrote_says_by_itself_how_it_was_made(tmp_path):
    path = curve(tmp_path, "v", ["0,0,1,0.5", "1,0.04,1,0.25"])
    run_json = {"label": "lookahead = 0.4 s", "model": {"name": "efficientnet_lite + memory"}}
    path.with_name("run.json").write_text(json.dumps(run_json))
    provenance = read(tmp_path).provenance
    assert (provenance.lookahead_s, provenance.per_video_normalisation) == (0.4, False)
    assert provenance.checkpoint is None  # which model was taken, and why, no run can know
    (tmp_path / "provenance.json").write_text('{"checkpoint": "test", "lookahead_s": 0}')
    assert read(tmp_path).provenance.checkpoint == "test"


@pytest.mark.parametrize(
    ("rows", "header", "words"),
    [
        (["0,0,1,0.5"], "frame,pts_s,raw,points", "needs a column 'score'"),
        (["0,0.5,7"], "frame,score,colour", "unknown column 'colour'"),
        (["0,0,1,0.5", "0,0,1,0.5"], "frame,pts_s,raw,score", r"curve.csv:3: frame 0 stands where frame 1 should"),
        (["0,0,1,0.5", "2,0,1,0.5"], "frame,pts_s,raw,score", "frames 0, 1, 2 … each once"),
        (["0,0,1,high"], "frame,pts_s,raw,score", "cannot be read as numbers"),
        (["0,0,1"], "frame,pts_s,raw,score", "names 4 columns, the rows have 3"),
        ([""], "frame,pts_s,raw,score", "no rows"),
    ],
)
def test_a_wrong_csv_is_refused_with_its_place(tmp_path, rows, header, words):
    curve(tmp_path, "v", rows, header)
    with pytest.raises(ValueError, match=words):
        read(tmp_path)


def test_pickled_arrays_are_refused_unread(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (print, ("the pickle ran",))

    np.save(tmp_path / "v.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(ScoresError, match="pickled, which could run any code"):
        read(tmp_path, hop=16)
    np.savez(tmp_path / "all.npz", names=np.array(["v"], dtype=object), scores=np.zeros((1, 32)))
    with pytest.raises(ScoresError, match="pickled, which could run any code"):
        read(tmp_path / "all.npz")


def test_wrong_score_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such scores"):
        read(tmp_path / "nothing")
    with pytest.raises(ScoresError, match=r"no curve.csv, no .csv and no .npy"):
        read(tmp_path)
    np.save(tmp_path / "v.npy", np.zeros((10, 5)))
    with pytest.raises(ScoresError, match="say how many frames that is with --hop"):
        read(tmp_path)
    with pytest.raises(ScoresError, match=r"must be \(T,\), one score per snippet, got \(10, 5\)"):
        read(tmp_path, hop=16)
    np.savez(tmp_path / "a.npz", scores=np.zeros((1, 32)))
    with pytest.raises(ScoresError, match="needs the arrays names"):
        read(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", names=np.array(["v", "v"]), scores=np.zeros((2, 32)))
    with pytest.raises(ScoresError, match="listed more than once: v"):
        read(tmp_path / "b.npz")
    (tmp_path / "c.npz").write_bytes(b"not a zip file")
    with pytest.raises(ScoresError, match=r"not a NumPy \.npz file"):
        read(tmp_path / "c.npz")
    (tmp_path / "sub").mkdir()
    np.save(tmp_path / "sub/v.npy", np.zeros(10))
    with pytest.raises(ScoresError, match="more than one file of scores for: v"):
        read(tmp_path, hop=16)
    (tmp_path / "v.csv").write_text("score\n0.5\n")
    with pytest.raises(ScoresError, match=r"both .csv and .npy"):
        read(tmp_path, hop=16)


# alignment ----------------------------------------------------------------------------------------------------------


def test_a_length_mismatch_names_every_video_and_both_lengths():
    scores = score_set()
    scores.videos["a"] = Scores(np.zeros(99), "frames")
    scores.videos["c"] = Scores(np.zeros(65), "frames")
    with pytest.raises(ScoresError, match="2 of 3 videos") as caught:
        align(scores, benchmark())
    assert "a: 99 scores, the annotation has 100 frames" in str(caught.value)
    assert "c: 65 scores, the annotation has 64 frames" in str(caught.value)


@pytest.mark.parametrize(("snippets", "fits"), [(5, False), (6, True), (7, True), (8, False)])
def test_snippets_may_lack_an_incomplete_last_one_and_nothing_else(snippets, fits):
    scores = Scores(np.arange(snippets, dtype=float), "snippets", hop=16)
    if fits:
        frames = scores.on_frames(100)
        assert frames[0:16].tolist() == [0] * 16
        assert frames[-4:].tolist() == [snippets - 1] * 4
    else:
        with pytest.raises(ScoresError, match=f"{snippets} scores of 16 frames stand for {snippets * 16} frames"):
            scores.on_frames(100)


def test_missing_videos_are_all_listed_or_named_in_the_result():
    scores = score_set()
    del scores.videos["a"], scores.videos["b"]
    with pytest.raises(ScoresError, match=r"no scores for 2 of 3 videos of toy: a, b; .*--allow-missing"):
        align(scores, benchmark())
    found, _ = run(scores, allow_missing=True)
    assert found.missing == ("a", "b")
    assert found.frame.videos == 1
    (finding,) = [one for one in found.findings if one.check == "missing videos"]
    assert finding.verdict == "flagged"


def test_unknown_videos_are_refused_with_the_nearest_name():
    scores = score_set()
    scores.videos["aa"] = scores.videos["a"]
    with pytest.raises(ScoresError, match=r"does not have: aa \(did you mean a\?\)"):
        align(scores, benchmark())


def test_frames_without_a_score_need_a_decision():
    scores = score_set()
    scores.videos["a"].values[40:50] = np.nan
    with pytest.raises(ScoresError, match=r"without a score \(NaN\) in 1 videos: a \(10\)"):
        align(scores, benchmark())
    filled = align(scores, benchmark(), unscored="lowest")
    lowest = min(float(np.nanmin(one.values)) for one in scores.videos.values())
    assert (filled.videos[0].scores_N[40:50] == lowest).all()
    shorter = align(scores, benchmark(), unscored="leave-out")
    assert len(shorter.videos[0].scores_N) == 90
    assert shorter.videos[0].events == ((40, 50),)
    for aligned in (filled, shorter):
        assert aligned.unscored_frames == 10
        assert any(one.check == "unscored frames" and one.verdict == "flagged" for one in aligned.findings)


# measuring ----------------------------------------------------------------------------------------------------------


def test_every_metric_is_there_with_its_controls_and_intervals():
    found, _ = run()
    assert not found.omitted
    assert set(found.controls) == {"perfect video label", "middle of the video", "label × middle", "random"}
    for name, number in found.metrics.items():
        assert np.isfinite(number.value), name
    for name in ("auc", "ap", "event_f1@0.5", "false_alarm_rate", "mean_delay_s", "early_1s"):
        number = found.metrics[name]
        assert number.low <= number.high, name
    assert {one.name for one in found.categories} == {"Fight", "Fall"}
    assert len(found.delays_s) == 3  # one per event


def test_one_video_has_numbers_but_no_intervals():
    scores = score_set()
    del scores.videos["b"], scores.videos["c"]
    found, _ = run(scores, allow_missing=True)
    assert found.metrics["auc"].value == found.frame.auc
    assert all(np.isnan(one.low) for one in found.metrics.values())


def test_values_equal_those_of_the_metric_functions():
    found, aligned = run()
    from vad.metrics import alarms, event, latency

    timed = [alarms.TimedVideo(v.scores_N, v.events, v.fps) for v in aligned.videos]
    rate = alarms.false_alarm_rate(timed, threshold=0.5)
    assert found.metrics["false_alarm_rate"].value == pytest.approx(rate.normal_videos)
    assert found.metrics["false_alarm_rate_all"].value == pytest.approx(rate.all_videos)
    delays = latency.first_alarms(timed, threshold=0.5, max_delay=30)
    assert found.metrics["mean_delay_s"].value == pytest.approx(delays.mean)
    assert found.metrics["missed_events"].value == pytest.approx(delays.missed)
    for seconds in (1, 5, 10):
        assert found.metrics[f"early_{seconds}s"].value == pytest.approx(delays.within(seconds))
    hasty, _ = run(settings=Settings(resamples=5, max_delay_s=0.1))  # a miss is never early, however long is allowed
    assert hasty.metrics["early_10s"].value == pytest.approx(1 - hasty.metrics["missed_events"].value)
    for each in event.event_scores(timed, threshold=0.5, tious=QUICK.tious):
        assert found.metrics[f"event_f1@{each.tiou:g}"].value == pytest.approx(each.f1, nan_ok=True)


def test_scores_outside_the_unit_interval_are_ranked_but_get_no_threshold():
    scores = score_set()
    wide = ScoreSet("wide", "frames", {n: Scores(10 * s.values - 3, "frames") for n, s in scores.videos.items()})
    found, narrow = run(wide)[0], run(scores)[0]
    assert found.metrics["auc"] == narrow.metrics["auc"]
    assert "event_f1@0.5" not in found.metrics
    assert "outside [0, 1]" in found.omitted["metrics with a threshold"]


def test_without_frame_rates_metrics_in_seconds_are_named_as_left_out():
    videos = tuple(AnnotatedVideo(v.name, v.num_frames, v.intervals, v.categories) for v in benchmark().videos)
    found, _ = run(of=benchmark(videos=videos))
    assert "give --fps" in found.omitted["metrics in seconds and hours"]
    assert "false_alarm_rate" in found.metrics
    assert "mean_delay_s" not in found.metrics
    assert "mean_delay_s" in run(of=benchmark(videos=videos), fps=25)[0].metrics


def test_an_all_normal_set_has_no_auc_but_false_alarms():
    normal = tuple(AnnotatedVideo(v.name, v.num_frames, (), (), 25.0) for v in benchmark().videos)
    found, _ = run(of=benchmark(videos=normal))
    assert np.isnan(found.metrics["auc"].value)
    assert np.isfinite(found.metrics["false_alarm_rate"].value)
    text = json.dumps(document.of_evaluation(found, {}), allow_nan=False)
    assert json.loads(text)["metrics"]["auc"]["value"] is None


def test_the_document_is_written_whole_and_says_what_it_was_made_from(tmp_path):
    found, _ = run()
    document.write(tmp_path / "metrics.json", document.of_evaluation(found, {"annotations": "0" * 64}))
    read_back = json.loads((tmp_path / "metrics.json").read_text())
    assert read_back["metrics"]["auc"]["value"] == found.metrics["auc"].value
    assert read_back["inputs"] == {"annotations": "0" * 64}
    assert read_back["controls"]["random"]["auc"] == found.controls["random"].auc


# comparison ---------------------------------------------------------------------------------------------------------


def test_a_better_system_is_told_from_a_worse_one_and_a_copy_from_none():
    aligned = {name: align(score_set(1, good), benchmark()).videos for name, good in (("good", 0.5), ("bad", 0.0))}
    (difference,) = [one for one in compare(aligned, Settings(resamples=200)) if one.metric == "auc_macro"]
    assert difference.difference.value == pytest.approx(difference.first_value - difference.second_value)
    assert difference.difference.low > 0
    assert difference.p < 0.05
    copies = {"one": aligned["good"], "same": aligned["good"]}
    for one in compare(copies, QUICK):
        assert (one.difference.low, one.difference.high, one.p) == (0, 0, 1)


def test_only_the_same_frames_can_be_compared():
    whole = align(score_set(), benchmark()).videos
    with pytest.raises(ScoresError, match="not measured on the same frames, so they cannot be compared: c"):
        compare({"one": whole, "part": whole[:2]}, QUICK)
    with pytest.raises(ScoresError, match="at least two score sets, got 1"):
        compare({"one": whole}, QUICK)


def test_the_golden_numbers_come_out_of_the_whole_path():
    of = datasets.read("ucf-crime", data("ucf_crime", "test_annotations.csv"))
    found, _ = run(read(data("ucf_crime", "model_scores_32.npz")), of)
    assert found.metrics["auc"].value == pytest.approx(0.690289, abs=1e-6)
    assert found.metrics["ap"].value == pytest.approx(0.191946, abs=1e-6)
    assert found.metrics["auc"].low < 0.69 < found.metrics["auc"].high
    assert len(found.categories) == 13
