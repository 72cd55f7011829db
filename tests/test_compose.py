"""``vad compose`` on small real videos: what is joined, what is said about it, and what is refused."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from conftest import make_video, read_number
from typer.testing import CliRunner

from trainers.lists import Listing, group_function, read_list
from vad import datasets, published
from vad.cli import app, composing
from vad.cli.composing import Recipe
from vad.store import Record, Source, Store, values_sha256
from vad.streamed import Rows
from vad.video import Video, probe

RECIPE = Recipe(count=8, groups=None, single=0.2, longest=3, similar=0.5, limit=None, seed=0)
RATES = (25, Fraction(30000, 1001), 12)
SIZES = ((160, 120), (96, 64), (128, 128))
HOP = 4


def vad(*arguments):
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, (done.stderr, done.exception)
    return done


def extract(folder, out, settings):
    config = out.with_suffix(".yaml")
    config.write_text(f"extractor: {{kind: colour, size: [32, 32], {settings}}}\n")
    vad("extract", folder, "--config", config, "--out", out, "-q")
    return Store.open(out)


def compose(world, out, *, labels=None, store=None, videos=None, size=None, as_json=False, **changes):
    return composing.run(
        store or world / "store",
        labels=labels or world / "labels.csv",
        out=out,
        recipe=replace(RECIPE, **changes),
        videos=videos,
        size=size,
        quiet=True,
        as_json=as_json,
    )


def write_labels(path, lines, header="video,label"):
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Ten clips of three rates and sizes whose pictures carry numbers of their own, their features and a list."""
    folder = tmp_path_factory.mktemp("world")
    for i in range(10):
        path = folder / "clips" / ("fight" if i < 4 else "calm") / f"c{i}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        make_video(path, frames=9 + 5 * (i % 3), first=100 * i, fps=RATES[i % 3], size=SIZES[i % 3])
    extract(folder / "clips", folder / "store", f"clip_frames: {HOP}, hop: {HOP}")
    lines = [f"fight/c{i},{'Fighting' if i % 2 else 1}" for i in range(4)] + [f"calm/c{i},Normal" for i in range(4, 10)]
    write_labels(folder / "labels.csv", lines)
    return folder


@pytest.fixture(scope="module")
def composed(world, tmp_path_factory):
    """A folder of composed features and videos."""
    out = tmp_path_factory.mktemp("composed") / "out"
    assert compose(world, out, videos=world / "clips") == 0
    return out


def plans(out):
    return json.loads((out / "plans.json").read_text())["videos"]


def contents(out):
    return {path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def frames_of(part):
    """The numbers of a part's pictures."""
    return [100 * int(part["clip"][-1]) + frame for frame in range(*part["frames"])]


def test_rows_spans_and_times_are_those_of_the_parts(world, composed):
    clips, store = Store.open(world / "store"), Store.open(composed / "features")
    assert store.manifest == clips.manifest
    assert store.names() == [f"composed-{i:04}" for i in range(1, 9)] == [video["name"] for video in plans(composed)]
    for video in plans(composed):
        found = store.read(video["name"])
        parts = video["parts"]
        expected = np.concatenate([clips.read(p["clip"]).values[p["rows"][0] : p["rows"][1]] for p in parts])
        np.testing.assert_array_equal(found.values, expected)
        assert found.values.dtype == expected.dtype
        assert found.record.values_sha256 == values_sha256(expected)
        assert found.record.frames == video["frames"] == HOP * len(expected)
        assert (found.record.hop_frames, found.record.date) == (HOP, "")
        assert found.spans_T2.tolist() == [[HOP * i, HOP * i + HOP] for i in range(len(expected))]
        assert found.breaks.tolist() == np.cumsum([p["frames"][1] - p["frames"][0] for p in parts])[:-1].tolist()
        assert found.record.fps == clips.record(parts[0]["clip"]).fps
        np.testing.assert_allclose(found.pts_N, np.arange(video["frames"]) / found.record.fps)
    assert any(len(video["parts"]) > 2 for video in plans(composed))


def test_the_truth_is_that_of_the_parts(composed):
    truth = datasets.read("custom", composed / "truth.csv")
    assert [video.name for video in truth.videos] == [video["name"] for video in plans(composed)]
    for video, plan in zip(truth.videos, plans(composed), strict=True):
        expected = [p["abnormal"] for p in plan["parts"] for _ in frames_of(p)]
        assert video.labels().tolist() == expected
        assert [p["clip"].startswith("fight") for p in plan["parts"]] == [p["abnormal"] for p in plan["parts"]]
        assert video.fps == plan["fps"]
        assert video.categories == (("Fighting",) if plan["label"] == "Fighting" else ())
    assert [video.abnormal for video in truth.videos] == [True, False] * 4
    assert {plan["label"] for plan in plans(composed)} == {"Fighting", "abnormal", "normal"}


def test_perfect_scores_are_measured_as_perfect(composed, tmp_path):
    store = Store.open(composed / "features")
    truth = {video.name: video.labels() for video in datasets.read("custom", composed / "truth.csv").videos}
    (tmp_path / "scores").mkdir()
    for name in store.names():
        np.save(tmp_path / "scores" / f"{name}.npy", truth[name][store.read(name).spans_T2[:, 0]].astype(np.float32))
    arguments = ["--dataset", "custom", "--annotations", composed / "truth.csv", "--out", tmp_path / "report"]
    done = vad("eval", tmp_path / "scores", "--hop", HOP, *arguments, "--resamples", 10, "--json")
    found = json.loads(done.stdout)["frame"]
    assert (found["auc"], found["videos"], found["abnormal_videos"]) == (1, 8, 4)


def test_the_list_for_training_groups_videos_that_share_a_clip(composed):
    listing = read_list(composed / "labels.csv")
    by_name = {video["name"]: video for video in plans(composed)}
    assert listing.labels == {name: any(p["abnormal"] for p in v["parts"]) for name, v in by_name.items()}
    for one, video in by_name.items():
        for other, theirs in by_name.items():
            if {p["clip"] for p in video["parts"]} & {p["clip"] for p in theirs["parts"]}:
                assert listing.groups[one] == listing.groups[other]


def test_videos_show_exactly_the_frames_that_the_truth_counts(composed):
    for video in plans(composed):
        path = composed / "videos" / f"{video['name']}.mp4"
        joined = Video(path)
        frames = list(joined.frames())
        assert joined.gaps == []
        assert [read_number(frame.pixels) for frame in frames] == [n for p in video["parts"] for n in frames_of(p)]
        assert (joined.probe.frames, len(frames)) == (video["frames"], video["frames"])
        assert (joined.probe.width, joined.probe.height) == SIZES[int(video["parts"][0]["clip"][-1]) % 3]
        assert joined.probe.fps == pytest.approx(video["fps"], rel=1e-6)
        np.testing.assert_allclose([f.pts for f in frames], np.arange(len(frames)) / video["fps"], atol=1e-3)


def test_features_of_the_joined_pictures_are_the_joined_features(composed, tmp_path):
    again = extract(composed / "videos", tmp_path / "again", f"clip_frames: {HOP}, hop: {HOP}")
    store = Store.open(composed / "features")
    assert again.names() == store.names()
    for name in store.names():
        np.testing.assert_allclose(again.read(name).values, store.read(name).values, atol=0.02)


def test_a_second_run_keeps_everything_and_another_place_gets_the_same_bytes(world, composed, tmp_path, capsys):
    before = {path: path.stat().st_mtime_ns for path in composed.rglob("*") if path.is_file()}
    assert compose(world, composed, videos=world / "clips", as_json=True) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["videos"], said["composed"], said["encoded"]) == (8, 0, 0)
    assert {path: path.stat().st_mtime_ns for path in composed.rglob("*") if path.is_file()} == before
    assert compose(world, tmp_path / "other", videos=world / "clips") == 0
    assert contents(tmp_path / "other") == contents(composed)


def test_what_was_done_is_said(world, tmp_path, capsys):
    for there in ("", "; 4 were there already"):
        composing.run(
            world / "store",
            labels=world / "labels.csv",
            out=tmp_path,
            recipe=replace(RECIPE, count=4, single=1),
            videos=None,
            size=None,
            quiet=False,
            as_json=False,
        )
        said, groups = capsys.readouterr().out.splitlines()
        assert said.startswith("4 videos (2 abnormal) from 4 clips, ")
        assert said.endswith(f"abnormal: {tmp_path}{there}")
        assert groups == "groups without a common source: 4"


def test_a_run_that_was_killed_is_completed(world, composed, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(composed, out)
    for name in ("truth.csv", "labels.csv", "features/features/composed-0003.safetensors", "videos/composed-0002.mp4"):
        (out / name).unlink()
    (out / "features/features/composed-0005.safetensors").write_bytes(b"cut off")
    shutil.copy(
        out / "features/features/composed-0001.safetensors", out / "features/features/composed-0006.safetensors"
    )
    first = SIZES[int(plans(out)[3]["parts"][0]["clip"][-1]) % 3]
    make_video(out / "videos/composed-0004.mp4", frames=2, size=first)
    assert compose(world, out, videos=world / "clips", as_json=True) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["composed"], said["encoded"]) == (3, 2)
    assert contents(out) == contents(composed)


def test_videos_can_be_added_later(world, composed, tmp_path):
    out = tmp_path / "out"
    (out / ".plans-left.json").parent.mkdir()
    (out / ".plans-left.json").touch()  # of a run that was killed
    assert compose(world, out) == 0
    assert not (out / "videos").exists()
    (out / ".plans-left.json").unlink()
    assert compose(world, out, videos=world / "clips") == 0
    assert contents(out) == contents(composed)


def test_all_pictures_can_have_one_size(world, tmp_path):
    assert compose(world, tmp_path / "out", videos=world / "clips", size="64x48", count=3) == 0
    found = [probe(path) for path in sorted((tmp_path / "out/videos").iterdir())]
    assert [(each.width, each.height) for each in found] == [(64, 48)] * 3
    with pytest.raises(
        ValueError, match=r"composed-0001\.mp4: is 64x48, not 96x64 as asked for now; give another --out"
    ):
        compose(world, tmp_path / "out", videos=world / "clips", size="96x64", count=3)


def test_a_limit_cuts_rows_frames_and_truth_alike(world, tmp_path):
    assert compose(world, tmp_path / "out", videos=world / "clips", limit=4, single=0, count=20) == 0
    truth = {video.name: video for video in datasets.read("custom", tmp_path / "out/truth.csv").videos}
    assert compose(world, tmp_path / "whole", single=0, count=20) == 0
    store = Store.open(tmp_path / "out/features")
    for video, whole in zip(plans(tmp_path / "out"), plans(tmp_path / "whole"), strict=True):
        assert (video["parts"] == whole["parts"]) == (whole["frames"] <= 4 * HOP)
        found = store.read(video["name"])
        assert 1 <= len(found.values) <= 4
        assert found.spans_T2.tolist() == [[HOP * i, HOP * i + HOP] for i in range(len(found.values))]
        assert truth[video["name"]].abnormal == any(p["abnormal"] for p in video["parts"])
        frames = Video(tmp_path / "out/videos" / f"{video['name']}.mp4").frames()
        assert [read_number(f.pixels) for f in frames] == [n for p in video["parts"] for n in frames_of(p)]
    starts = {p["rows"][0] for video in plans(tmp_path / "out") for p in video["parts"]}
    assert starts > {0}
    # a video around an abnormal clip whose clip was cut off is normal
    assert sum(video["label"] != "normal" for video in plans(tmp_path / "out")) < 10


@pytest.mark.parametrize(
    "settings",
    [
        "clip_frames: 6, hop: 4",  # the first row waits for a whole clip and stands for 8 frames
        "clip_frames: 2, hop: 2, fps: 6",  # every second to fifth frame is looked at
        "clip_frames: 2, hop: 4, clip_at: start",  # the tail has a row of its own
    ],
)
def test_rows_stand_for_their_own_frames_however_they_were_made(world, tmp_path, settings):
    clips = extract(world / "clips", tmp_path / "store", settings)
    assert compose(world, tmp_path / "out", store=tmp_path / "store", videos=world / "clips") == 0
    store = Store.open(tmp_path / "out/features")
    truth = {video.name: video for video in datasets.read("custom", tmp_path / "out/truth.csv").videos}
    for video in plans(tmp_path / "out"):
        found, at, spans = store.read(video["name"]), 0, []
        for part in video["parts"]:
            own = clips.read(part["clip"]).spans_T2
            assert part["frames"] == [own[0, 0], own[-1, 1]]
            spans += (own - own[0, 0] + at).tolist()
            at += own[-1, 1] - own[0, 0]
        assert found.spans_T2.tolist() == spans
        assert truth[video["name"]].num_frames == found.record.frames == len(found.pts_N) == at
        joined = Video(tmp_path / "out/videos" / f"{video['name']}.mp4")
        assert [read_number(f.pixels) for f in joined.frames()] == [n for p in video["parts"] for n in frames_of(p)]
        hops = {clips.record(part["clip"]).hop_frames for part in video["parts"]}
        expected = hops.pop() if len(hops) == 1 else round(at / len(spans))
        assert found.record.hop_frames == expected


def published_clips(folder, count=8, crops=2, dim=3):
    for i in range(count):
        rows = np.random.default_rng(i).normal(size=(2 + i % 3, crops, dim)).astype(np.float32)
        folder.mkdir(exist_ok=True)
        for crop in range(crops):
            np.save(folder / f"c{i}__{crop}.npy", rows[:, crop])
    return folder


def test_published_features_are_composed_without_times(world, tmp_path):
    clips = published.import_into(tmp_path / "store", published_clips(tmp_path / "set"), "vadclip")
    labels = write_labels(tmp_path / "l.csv", [f"c{i},{int(i < 3)},g{i}" for i in range(8)], "video,label,group")
    assert compose(world, tmp_path / "out", store=tmp_path / "store", labels=labels) == 0
    store = Store.open(tmp_path / "out/features")
    for video in plans(tmp_path / "out"):
        found = store.read(video["name"])
        assert found.values.shape[1:] == (2, 3)
        np.testing.assert_array_equal(
            found.values, np.concatenate([clips.read(p["clip"]).values for p in video["parts"]])
        )
        assert (found.record.fps, found.pts_N, found.record.frames) == (None, None, 16 * len(found.values))
    assert all(video.fps is None for video in datasets.read("custom", tmp_path / "out/truth.csv").videos)
    with open(tmp_path / "out/plans.json") as file:
        assert json.load(file)["settings"]["groups"] == "list"


# refusals


def put(store, name, values, **facts):
    """A clip that no video gives; ``spans`` and ``breaks`` as they are given."""
    tensors = {key: np.array(facts.pop(key), np.int64) for key in ("spans", "breaks") if key in facts}
    source = Source(path=f"{name}.mp4", bytes=1, mtime_ns=1, sha256=name)
    record = Record(name=name, key="", source=source, values_sha256="", **{"hop_frames": HOP, "fps": 25.0} | facts)
    with tempfile.TemporaryFile(buffering=0) as file:
        rows = Rows(file, store.manifest.dtype)
        rows.add(np.asarray(values, np.float32))
        store.write(record, rows, tensors)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"spans": [[0, 4], [4, 8]], "breaks": [4]}, "odd: there is a gap among its rows"),
        ({"spans": [[0, 4], [6, 10]], "breaks": []}, "odd: there is a gap among its rows"),
        ({}, "odd: nobody says which frames its rows stand for"),
        ({"spans": [[0, 4], [4, 8]], "hop_frames": None}, "odd: nobody says which frames its rows stand for"),
        ({"spans": [[0, 4], [4, 8]], "values": [[1, 2, np.nan]] * 2}, "odd: features hold NaN or infinity"),
        (
            {"spans": [[0, 4], [4, 8]], "values": [[1, 2]] * 2},
            r"rows of odd have shape \(2,\), those of fight/c0 \(3,\)",
        ),
    ],
)
def test_clips_that_cannot_be_joined_are_refused(world, tmp_path, facts, message):
    shutil.copytree(world / "store", tmp_path / "store")
    put(Store.open(tmp_path / "store"), "odd", **{"values": np.ones((2, 3))} | facts)
    labels = tmp_path / "l.csv"
    labels.write_text((world / "labels.csv").read_text() + "odd,0\n")
    with pytest.raises(ValueError, match=message):
        compose(world, tmp_path / "out", store=tmp_path / "store", labels=labels)
    assert not (tmp_path / "out").exists()


def test_damage_before_and_behind_the_rows_is_no_gap(world, tmp_path):
    shutil.copytree(world / "store", tmp_path / "store")
    put(Store.open(tmp_path / "store"), "odd", np.ones((2, 3)), spans=[[1, 5], [5, 9]], breaks=[0, 1, 9])
    labels = tmp_path / "l.csv"
    labels.write_text((world / "labels.csv").read_text() + "odd,0\n")
    assert compose(world, tmp_path / "out", store=tmp_path / "store", labels=labels, count=14) == 0
    parts = [part for video in plans(tmp_path / "out") for part in video["parts"]]
    assert next(part["frames"] for part in parts if part["clip"] == "odd") == [1, 9]


def test_maps_of_places_are_refused(world, tmp_path):
    extract(world / "clips", tmp_path / "store", "clip_frames: 4, hop: 4, output: grid")
    with pytest.raises(ValueError, match=r"has maps of places, \(\d, 4, 4, 3\), not rows; extract it with a pooled"):
        compose(world, tmp_path / "out", store=tmp_path / "store")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 0}, "--count must be at least 1, got 0"),
        ({"limit": 0}, "--limit must be at least 1, got 0"),
        ({"seed": -1}, "--seed must be at least 0, got -1"),
        ({"single": 2}, "single must lie between 0 and 1, got 2"),
        ({"longest": 7}, "takes as many normal sources, there are 6; lower longest or give more clips"),
        ({"groups": "number-blocks:10"}, "takes as many normal sources, there are 1"),
        ({"groups": "number-blocks:x"}, "needs a size, as in number-blocks:10, got 'number-blocks:x'"),
        ({"groups": "xd-violence"}, "is not a name of XD-Violence"),
        ({"groups": "list"}, "has no column group; add it, or choose other --groups"),
        (
            {"groups": "films"},
            "unknown groups 'films'; available: number-blocks:SIZE, ucf-crime, xd-violence, each, list",
        ),
        ({"size": "64x48"}, "--size is that of the pictures; give --videos too"),
    ],
)
def test_settings_that_make_no_sense_are_refused(world, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        compose(world, tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", ["64", "0x0", "63x48", "64x8", "axb", "-64x48"])
def test_sizes_that_cannot_be_encoded_are_refused(world, tmp_path, size):
    with pytest.raises(ValueError, match=f"must be WIDTHxHEIGHT in even numbers of at least 16, got '{size}'"):
        compose(world, tmp_path / "out", videos=world / "clips", size=size)


def test_a_store_without_a_listed_clip_is_refused(world, tmp_path):
    labels = tmp_path / "l.csv"
    labels.write_text((world / "labels.csv").read_text() + "calm/c77,0\n")
    with pytest.raises(ValueError, match="no features of calm/c77; extract them, or take them off the list"):
        compose(world, tmp_path / "out", labels=labels)


def test_a_list_may_name_the_files(world, composed, tmp_path):
    text = (world / "labels.csv").read_text().replace("calm/", "").replace(",", ".mp4,").replace("video.mp4", "video")
    (tmp_path / "l.csv").write_text(text)
    assert compose(world, composed, labels=tmp_path / "l.csv") == 0


def test_a_folder_without_a_clips_video_is_refused(world, tmp_path):
    shutil.copytree(world / "clips", tmp_path / "clips")
    gone = plans_of(world, tmp_path)[0]["parts"][0]["clip"]
    (tmp_path / "clips" / f"{gone}.mp4").unlink()
    with pytest.raises(FileNotFoundError, match=f"has no video of {gone}; give the folder that vad extract was given"):
        compose(world, tmp_path / "out", videos=tmp_path / "clips")
    make_video(tmp_path / "clips" / f"{gone}.mp4", frames=9)
    with pytest.raises(ValueError, match=f"{gone}.mp4: is another file than the one that its features were made from"):
        compose(world, tmp_path / "out", videos=tmp_path / "clips")
    assert not (tmp_path / "out").exists()


def plans_of(world, tmp_path):
    compose(world, tmp_path / "for-its-plans")
    return plans(tmp_path / "for-its-plans")


def test_a_video_shorter_than_its_published_features_is_refused(world, tmp_path):
    published.import_into(tmp_path / "store", published_clips(tmp_path / "set"), "vadclip")
    labels = write_labels(tmp_path / "l.csv", [f"c{i},{int(i < 3)}" for i in range(8)])
    (tmp_path / "clips").mkdir()
    for i in range(8):
        make_video(tmp_path / "clips" / f"c{i}.mp4", frames=20)
    with pytest.raises(ValueError, match=r"c\d.mp4: has 20 frames, its features stand for (32|48|64); give the same"):
        compose(world, tmp_path / "out", store=tmp_path / "store", labels=labels, videos=tmp_path / "clips")
    assert list((tmp_path / "out/videos").iterdir()) == []


def test_a_folder_of_other_things_is_refused(world, tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(ValueError, match="holds something that is not composed videos; give another --out"):
        compose(world, tmp_path)
    with pytest.raises(ValueError, match=r"photo\.jpg: is a file; give a folder for the composed videos"):
        compose(world, tmp_path / "photo.jpg")
    (tmp_path / "plans.json").write_text('["of something else"]')
    with pytest.raises(ValueError, match=r"plans\.json: is damaged, or no file of vad compose"):
        compose(world, tmp_path)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"seed": 1}, "seed = 0, not 1"),
        ({"count": 9}, "count = 8, not 9"),
        ({"limit": 2}, "limit = None, not 2"),
        ({"groups": "ucf-crime"}, "groups = 'each', not 'ucf-crime'"),
    ],
)
def test_other_settings_are_refused_with_the_difference(world, composed, changes, difference):
    before = contents(composed)
    with pytest.raises(ValueError, match=f"was composed with {difference} as asked for now; give another --out"):
        compose(world, composed, **changes)
    assert contents(composed) == before


def test_other_labels_are_refused_too(world, composed, tmp_path):
    text = (world / "labels.csv").read_text()
    (tmp_path / "l.csv").write_text(text.replace("Fighting", "Abuse"))
    with pytest.raises(ValueError, match="from the same settings, but the clips or their labels have changed"):
        compose(world, composed, labels=tmp_path / "l.csv")


# lists


def test_a_list_is_read_as_it_is_meant(tmp_path):
    lines = ["a,0,s1", "b,NORMAL,s1", "c , 1 , s2", "d,Abnormal,s2", '"e,f",Road accident,s3']
    assert read_list(write_labels(tmp_path / "l.csv", lines, "video,label,group")) == Listing(
        {"a": False, "b": False, "c": True, "d": True, "e,f": True},
        {"c": "abnormal", "d": "abnormal", "e,f": "Road accident"},
        {"a": "s1", "b": "s1", "c": "s2", "d": "s2", "e,f": "s3"},
    )
    assert read_list(write_labels(tmp_path / "l.csv", ["0,a"], "label,video")).groups is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "l.csv: is empty"),
        ("video,label\n", "l.csv: lists no video"),
        ("video,abnormal\na,1\n", r"l.csv:1: has columns video,abnormal; expected video,label\[,group\]"),
        ("video,label\na,0\n,1\n", "l.csv:3: names no video; fill it in, or remove the line"),
        ("video,label\na,0\na,normal\n", "l.csv:3: a is listed already, as normal at .*l.csv:2; remove one line"),
        (
            "video,label\na,0\n\na,Abuse\n",
            "l.csv:4: a is listed already, as normal at .*:2; here it is Abuse; keep the",
        ),
        ("video,label\na,1\na,Abuse\n", "l.csv:3: a is listed already, as abnormal at .*:2; here it is Abuse"),
        ("video,label\na,\n", "l.csv:2: cannot read label ''; write 0 or 1, normal or abnormal, or a category"),
        ("video,label\na,2\n", "l.csv:2: cannot read label '2'"),
        ("video,label\na,False\n", "l.csv:2: cannot read label 'False'"),
        ("video,label\na\n", "l.csv:2: has 1 fields, the header has 2"),
        ("video,label,group\na,0,s\nb,1,\n", "l.csv:3: b has no group; fill it in, or leave the column out"),
    ],
)
def test_lists_that_cannot_be_read_are_refused(tmp_path, text, message):
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_list(tmp_path / "l.csv")


def test_a_list_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such list of labels"):
        read_list(tmp_path / "l.csv")


def test_words_for_groups():
    listing = Listing({}, {}, {"a": "s1"})
    assert group_function("list", listing)("a") == "s1"
    assert group_function("each", listing)("a1") == "a1"
    assert group_function("ucf-crime", listing)("Abuse/Abuse001_x264__5.npy") == "Abuse001"
    assert group_function("number-blocks:5", listing)("c7") == "c 6-10"
