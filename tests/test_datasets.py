import json
import sys

import numpy as np
import pytest
from conftest import data
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from vad import datasets
from vad.datasets import AnnotationError, FrameCount, read, read_frame_counts, video_name
from vad.datasets.annotation import intervals
from vad.datasets.assembly import Source, Written, assemble
from vad.datasets.conventions import Reading
from vad.datasets.ucsd import pixel_masks

UCF = """\
Abuse028_x264.mp4  Abuse  165  240  -1  -1
Arson011_x264.mp4  Arson  150  420  680  1267

Normal_Videos_003_x264.mp4  Normal  -1  -1  -1  -1
"""
UCF_COUNTS = {"Abuse028_x264": 1412, "Arson011_x264": 1266, "Normal_Videos_003_x264": 2820}
XD = """\
v=S-7rRLrxnVQ__#1_label_B4-0-0 0 20 30 80
Bad.Boys.1995__#01-11-55_01-12-40_label_G-B2-B6.mp4 5 12
"""
RIOT, BAD_BOYS = "v=S-7rRLrxnVQ__#1_label_B4-0-0", "Bad.Boys.1995__#01-11-55_01-12-40_label_G-B2-B6"
CALM = "About.Time.2013__#00-23-50_00-24-31_label_A"


def counts(of=None, fps=None, **more):
    return {name: FrameCount(frames, fps) for name, frames in {**(of or {}), **more}.items()}


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def ends(benchmark):
    return {video.name: [(each.start, each.end) for each in video.intervals] for video in benchmark.videos}


def lengths(benchmark):
    return {video.name: video.num_frames for video in benchmark.videos}


def totals(benchmark):
    videos = benchmark.videos
    return len(videos), sum(video.num_frames for video in videos), sum(int(video.labels().sum()) for video in videos)


@pytest.fixture
def ucf(tmp_path):
    return write(tmp_path / "Temporal_Anomaly_Annotation_for_Testing_Videos.txt", UCF)


# names and counts


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Abuse/Abuse028_x264.mp4", "Abuse028_x264"),
        ("D:\\videos\\Normal.AVI", "Normal"),
        (f"{CALM}__0.npy", CALM),
        (f"{CALM}.mp4", CALM),
        (CALM, CALM),
        ("clip.mp4__3.npy", "clip"),
        ("01_0014.npy", "01_0014"),
        ("a.b.c", "a.b.c"),
        (".mp4", ".mp4"),
        (" 01.mp4 ", "01"),
    ],
)
def test_names_lose_folders_types_and_crops(text, name):
    assert video_name(text) == name


def test_frame_counts_come_from_a_table(tmp_path):
    path = write(tmp_path / "counts.csv", "video,frames,fps\nAbuse/a.mp4,100,29.97\nb,7,\n")
    assert read_frame_counts(path) == {"a": FrameCount(100, 29.97), "b": FrameCount(7)}
    assert read_frame_counts(write(path, "video,frames\na,3\n")) == {"a": FrameCount(3)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("video,frames\na,1\na.mp4,1\n", r"counts.csv:3: a has a frame count already"),
        ("video,frames\na,1.5\n", r"counts.csv:2: a frame count must be a whole number, got '1.5'"),
        ("video,frames\na,0\n", r"counts.csv:2: a: a frame count must be at least 1, got 0"),
        ("video,frames,fps\na,9,0\n", r"counts.csv:2: a: a frame rate must be positive, got 0"),
        ("video,frames,fps\na,9,nan\n", r"counts.csv:2: a frame rate must be a number, got 'nan'"),
        ("video,frames\na,1,2\n", r"counts.csv:2: has 3 fields, the header has 2"),
        ("name,frames\na,1\n", r"counts.csv:1: has columns name,frames; expected video,frames\[,fps\]"),
        ("video,frames\n", r"counts.csv: lists no video"),
        ("", r"counts.csv: is empty"),
    ],
)
def test_frame_counts_that_cannot_be_read_name_the_line(tmp_path, text, said):
    with pytest.raises(AnnotationError, match=said):
        read_frame_counts(write(tmp_path / "counts.csv", text))


def test_a_list_of_counts_that_is_absent_is_said_plainly(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such list of frame counts") as raised:
        read_frame_counts(tmp_path / "counts.csv")
    assert raised.value.errno is None


# what every importer shares


def test_an_unknown_dataset_lists_the_known_ones(tmp_path):
    with pytest.raises(AnnotationError, match=r"unknown dataset 'ucf'; available: avenue, custom, dota, .*xd-violence"):
        read("ucf", tmp_path)


@pytest.mark.parametrize("name", datasets.NAMES)
def test_every_dataset_says_that_its_file_is_absent(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="absent: there is no such annotation file") as raised:
        read(name, tmp_path / "absent")
    assert raised.value.errno is None


@pytest.mark.parametrize("name", datasets.NAMES)
def test_every_dataset_refuses_a_folder_without_annotation(tmp_path, name):
    with pytest.raises((AnnotationError, FileNotFoundError), match=r"is a folder|holds no|holds neither"):
        read(name, tmp_path, split="one-class" if name == "shanghaitech" else None)


@pytest.mark.parametrize("name", ["ucf-crime", "xd-violence", "tad"])
@pytest.mark.parametrize(("content", "said"), [(b"", "is empty"), (b"\xff\xfe\x00", "is not a text file")])
def test_a_file_without_text_is_refused(tmp_path, name, content, said):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(AnnotationError, match=said):
        read(name, tmp_path / "a.txt")


@pytest.mark.parametrize("name", [name for name in datasets.NAMES if name not in ("msad", "shanghaitech")])
def test_a_split_is_refused_where_there_is_none(tmp_path, name):
    with pytest.raises(AnnotationError, match=f"{name} has one test set; --split weak has no meaning"):
        read(name, write(tmp_path / "a.csv", "video,num_frames,intervals\na,1,\n"), split="weak")


def test_only_the_importer_asked_for_is_imported(tmp_path, ucf):
    for module in [name for name in sys.modules if name.startswith("vad.datasets.") and name.endswith("nwpu_campus")]:
        del sys.modules[module]
    read("ucf-crime", ucf, frames=counts(UCF_COUNTS))
    assert "vad.datasets.nwpu_campus" not in sys.modules


@pytest.mark.parametrize(
    ("conventions", "said"),
    [
        (["matlab-ends", "half-open-ends"], "half-open-ends and matlab-ends contradict each other"),
        (["x16", "dropped-tail"], "dropped-tail and x16 contradict"),
        (["30fps", "x16"], "30fps and x16 contradict"),
        (["16x"], "unknown convention '16x'; available: inclusive-ends, half-open-ends, matlab-ends, dropped-tail"),
        (["x16"], "x16 takes lengths from feature rows: it needs scores per row, and --hop"),
    ],
)
def test_conventions_that_make_no_sense_are_refused(ucf, conventions, said):
    with pytest.raises(AnnotationError, match=said):
        read("ucf-crime", ucf, frames=counts(UCF_COUNTS), conventions=conventions)


def test_missing_counts_are_listed_with_the_remedy(ucf):
    with pytest.raises(AnnotationError, match=r"no frame count for 3 videos: Abuse028_x264, .*give --frames CSV of"):
        read("ucf-crime", ucf)
    with pytest.raises(
        AnnotationError, match="no frame count for 2 videos: Arson011_x264, Normal_Videos_003_x264; the"
    ):
        read("ucf-crime", ucf, frames=counts(Abuse028_x264=1412))


def test_a_long_list_of_missing_counts_says_how_many(tmp_path):
    text = "".join(f"v{number}.mp4 Abuse 1 2 -1 -1\n" for number in range(8))
    with pytest.raises(AnnotationError, match=r"8 videos: v0, v1, v2, v3, v4 … \(8 in all\)"):
        read("ucf-crime", write(tmp_path / "a.txt", text))


# UCF-Crime


def test_ucf_text_is_read_as_its_authors_do(ucf):
    found = read("ucf-crime", ucf, frames=counts({f"x/{name}.mp4": n for name, n in UCF_COUNTS.items()}))
    assert ends(found) == {
        "Abuse028_x264": [(164, 240)],
        "Arson011_x264": [(149, 420), (679, 1266)],
        "Normal_Videos_003_x264": [],
    }
    assert lengths(found) == UCF_COUNTS
    assert [video.categories for video in found.videos] == [("Abuse",), ("Arson",), ()]
    assert found.fps == 30
    assert found.protocol == "annotation text of the authors; pairs s e read as [s - 1, e); given frame counts"
    assert "Arson011_x264: 680-1267 cut to [679, 1266)" in found.notes
    assert "3 videos; the official test set has 290" in found.notes


@pytest.mark.parametrize(
    ("convention", "pair"),
    [("matlab-ends", (164, 240)), ("half-open-ends", (165, 240)), ("inclusive-ends", (165, 241))],
)
def test_ends_are_read_as_asked(ucf, convention, pair):
    found = read("ucf-crime", ucf, frames=counts(UCF_COUNTS), conventions=[convention])
    assert ends(found)["Abuse028_x264"] == [pair]
    assert f"({convention})" in found.protocol


def test_dropped_tails_cut_length_and_intervals(ucf):
    found = read("ucf-crime", ucf, frames=counts(UCF_COUNTS), conventions=["dropped-tail"])
    assert lengths(found) == {name: frames - frames % 16 for name, frames in UCF_COUNTS.items()}
    assert ends(found)["Arson011_x264"][-1] == (679, 1264)
    assert "multiples of 16 (dropped-tail)" in found.protocol
    with pytest.raises(AnnotationError, match="leaves nothing of videos under 16 frames: Abuse028_x264"):
        read("ucf-crime", ucf, frames=counts({**UCF_COUNTS, "Abuse028_x264": 15}), conventions=["dropped-tail"])


def test_x16_needs_no_counts(ucf):
    rows = {"Abuse028_x264__0.npy": 10, "Arson011_x264__0.npy": 79, "Normal_Videos_003_x264__0.npy": 2}
    found = read("ucf-crime", ucf, conventions=["x16"], rows=rows, hop=16)
    assert lengths(found) == {"Abuse028_x264": 160, "Arson011_x264": 1264, "Normal_Videos_003_x264": 32}
    assert ends(found)["Abuse028_x264"] == []
    assert found.videos[0].abnormal
    assert "Abuse028_x264: 165-240 lies behind the last frame, 160: left out" in found.notes
    assert "lengths of feature rows times 16 (x16)" in found.protocol
    with pytest.raises(AnnotationError, match="no frame count for 2 videos: Abuse028_x264, Arson011_x264"):
        read("ucf-crime", ucf, conventions=["x16"], rows={"Normal_Videos_003_x264": 2}, hop=16)
    with pytest.raises(AnnotationError, match="x16: no feature rows: Abuse028_x264"):
        read("ucf-crime", ucf, conventions=["x16"], rows={**rows, "Abuse028_x264__0.npy": 0}, hop=16)


def test_rows_change_nothing_unless_asked_for(ucf):
    plain = read("ucf-crime", ucf, frames=counts(UCF_COUNTS))
    assert read("ucf-crime", ucf, frames=counts(UCF_COUNTS), rows={"Abuse028_x264": 1}, hop=16) == plain


def test_30fps_counts_durations_and_leaves_numbers(ucf):
    found = read("ucf-crime", ucf, frames=counts(UCF_COUNTS, fps=15), conventions=["30fps"])
    assert lengths(found) == {name: 2 * frames for name, frames in UCF_COUNTS.items()}
    assert ends(found)["Arson011_x264"] == [(149, 420), (679, 1267)]
    assert {video.fps for video in found.videos} == {30.0}
    assert "(30fps)" in found.protocol
    with pytest.raises(AnnotationError, match="30fps needs the true frame rate, unknown for 3 videos"):
        read("ucf-crime", ucf, frames=counts(UCF_COUNTS), conventions=["30fps"])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a.mp4 Abuse 1 2 -1", "a.txt:2: expected NAME CATEGORY START END START END, got 5 fields"),
        ("a.mp4 Abuse", "a.txt:2: expected NAME CATEGORY"),
        ("a.mp4 Abuse 1 2.5 -1 -1", "a.txt:2: a frame number must be a whole number, got '2.5'"),
        ("a.mp4 Abuse 9 2 -1 -1", "a.txt:2: an interval ends before it starts, got 9 to 2"),
        ("a.mp4 Abuse -1 2 -1 -1", "a.txt:2: an interval cannot start before the video, got -1 to 2"),
        ("a.mp4 Abuse -1 -1 -1 -1", "a.txt:2: a.mp4 is Abuse, but has no interval"),
        ("a.mp4 Normal 1 2 -1 -1", "a.txt:2: a.mp4 is Normal, but has intervals"),
        ("b.avi Abuse 1 2 -1 -1", "a.txt:2: b is annotated already, at .*a.txt:1"),
    ],
)
def test_ucf_lines_that_make_no_sense_are_named(tmp_path, line, said):
    path = write(tmp_path / "a.txt", f"b.mp4 Abuse 1 2 -1 -1\n{line}\n")
    with pytest.raises(AnnotationError, match=said):
        read("ucf-crime", path, frames=counts(a=9, b=9))


def test_an_interval_that_a_convention_empties_names_its_line(tmp_path):
    path = write(tmp_path / "a.txt", "b.mp4 Abuse 5 5 -1 -1\n")
    assert ends(read("ucf-crime", path, frames=counts(b=9))) == {"b": [(4, 5)]}
    with pytest.raises(AnnotationError, match=r"a.txt:1: b: an interval must end after it starts, got 5-5"):
        read("ucf-crime", path, frames=counts(b=9), conventions=["half-open-ends"])


def test_a_csv_has_no_ends_to_read_in_another_way(tmp_path):
    text = "video,category,num_frames,start1,end1,start2,end2\na,Abuse,20,3,9,-1,-1\n"
    path = write(tmp_path / "a.csv", text)
    assert ends(read("ucf-crime", path)) == {"a": [(3, 9)]}
    with pytest.raises(AnnotationError, match="has no written ends to read in another way; leave inclusive-ends out"):
        read("ucf-crime", path, conventions=["inclusive-ends"])


def test_given_counts_override_those_of_the_file_and_say_so(tmp_path):
    text = "video,category,num_frames,start1,end1,start2,end2\na,Abuse,20,3,25,-1,-1\nb,Normal,9,-1,-1,-1,-1\n"
    found = read("ucf-crime", write(tmp_path / "a.csv", text), frames=counts(a=30))
    assert lengths(found) == {"a": 30, "b": 9}
    assert ends(found)["a"] == [(3, 25)]
    assert "frame counts given differ from those of the annotation: a (30, not 20)" in found.notes
    assert "frame counts of the annotation itself used: b" in found.notes


def test_golden_numbers_of_the_ucf_table():
    found = read("ucf-crime", data("ucf_crime", "test_annotations.csv"))
    assert totals(found) == (290, 1_109_680, 84_128)
    assert sum(video.abnormal for video in found.videos) == 140
    assert not [note for note in found.notes if "official" in note]
    assert any("every frame count of the annotation is a multiple of 16" in note for note in found.notes)
    assert any(note.startswith("Assault006_x264: 1185-8096 cut to [1185, 8080)") for note in found.notes)


def test_ucf_json_gives_the_intervals_of_the_table_on_true_counts():
    table_path, json_path = data("ucf_crime", "test_annotations.csv"), data("labels", "ucf_test_anno.json")
    shares = {video_name(each["path"]): each["anomaly_span"] for each in json.loads(json_path.read_text())}
    rows = [line.split(",") for line in table_path.read_text().splitlines()[1:]]
    # a share is a written end over the true count, which the table has cut to a multiple of 16
    true = {
        name: FrameCount(round(int(end) / shares[name][0][1]) if shares[name] else int(frames))
        for name, _, frames, _, end, *_ in rows
    }
    of_json = read("ucf-crime", json_path, frames=true)
    assert ends(of_json) == ends(read("ucf-crime", table_path, frames=true))
    assert totals(of_json) == (290, 1_110_727, 84_182)


# XD-Violence


def test_xd_text_knows_the_abnormal_videos_and_names_the_normal_ones(tmp_path):
    path = write(tmp_path / "annotations.txt", XD)
    found = read("xd-violence", path, frames=counts({f"{CALM}.mp4": 50, RIOT: 60, BAD_BOYS: 40}))
    assert ends(found) == {RIOT: [(0, 20), (30, 60)], BAD_BOYS: [(5, 12)], CALM: []}
    assert [video.categories for video in found.videos] == [("Riot",), ("Explosion", "Shooting", "Car accident"), ()]
    assert [each.category for video in found.videos for each in video.intervals] == ["Riot", "Riot", None]
    assert f"{RIOT}: 30-80 cut to [30, 60)" in found.notes
    assert found.fps == 24


def test_xd_videos_without_a_line_are_normal_only_by_name(tmp_path):
    path = write(tmp_path / "annotations.txt", XD)
    have = {CALM: 50, RIOT: 60, BAD_BOYS: 40}
    with pytest.raises(AnnotationError, match="has no line for v=x__#1_label_B1-0-0, abnormal by name"):
        read("xd-violence", path, frames=counts({**have, "v=x__#1_label_B1-0-0": 9}))
    with pytest.raises(AnnotationError, match="list of frame counts: other must end in a label such as label_A"):
        read("xd-violence", path, frames=counts({**have, "other": 9}))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("v__#1_label_B1-0-0 1 2 3", "a.txt:1: starts and ends must come in pairs, got 3 numbers"),
        ("v__#1_label_B1-0-0", "a.txt:1: v__#1_label_B1-0-0 has no interval"),
        ("v__#1_label_B3-0-0 1 2", "a.txt:1: v__#1_label_B3-0-0 must end in a label"),
        ("v__#1_label_A 1 2", "a.txt:1: v__#1_label_A is normal by its name, but has intervals"),
        (f"{RIOT} 1 2\n{RIOT}.mp4 1 2", "a.txt:2: .* is annotated already, at .*a.txt:1"),
    ],
)
def test_xd_lines_that_make_no_sense_are_named(tmp_path, line, said):
    with pytest.raises(AnnotationError, match=said):
        read("xd-violence", write(tmp_path / "a.txt", line), frames=counts({RIOT: 9}))


def test_xd_table_agrees_with_its_names(tmp_path):
    text = f"video,num_frames,intervals_half_open\n{RIOT}__0.npy,90,1-5;7-9\n{CALM}__0.npy,50,\n"
    assert ends(read("xd-violence", write(tmp_path / "a.csv", text))) == {RIOT: [(1, 5), (7, 9)], CALM: []}
    with pytest.raises(AnnotationError, match=r"a.csv:2: .* is normal by its name, not by intervals"):
        read("xd-violence", write(tmp_path / "a.csv", f"video,num_frames,intervals_half_open\n{CALM},50,1-3\n"))


def test_golden_numbers_of_the_xd_table_and_the_text_agrees():
    table = read("xd-violence", data("labels", "xd_violence_test.csv"))
    assert totals(table) == (800, 2_330_384, 537_805)
    assert sum(video.abnormal for video in table.videos) == 500
    text = read("xd-violence", data("labels", "xd_violence_annotations.txt"), frames=counts(lengths(table)))
    assert ends(text) == ends(table)
    assert sum(" cut to [" in note for note in text.notes) == 71
    of = {video.name: video.categories for video in table.videos}
    assert all(video.categories == of[video.name] for video in text.videos)


# the JSON of LaGoVAD


@pytest.mark.parametrize(
    ("name", "file", "videos", "abnormal"),
    [
        ("ucf-crime", "ucf", 290, 140),
        ("xd-violence", "xd", 800, 500),
        ("msad", "msad", 240, 120),
        ("ubnormal", "ubnormal", 211, 158),
        ("tad", "tad", 100, 60),
        ("lad", "lad", 560, 280),
        ("dota", "dota", 1402, 1402),
    ],
)
def test_json_holds_the_official_test_sets(name, file, videos, abnormal):
    path = data("labels", f"{file}_test_anno.json")
    true = {video_name(each["video_path"]): FrameCount(1000) for each in json.loads(path.read_text())}
    for found in (read(name, path, frames=true), read("lagovad", path, frames=true)):
        assert len(found.videos) == videos
        assert sum(video.abnormal for video in found.videos) == abnormal
        assert not [note for note in found.notes if "official" in note]
    with pytest.raises(AnnotationError, match=f"no frame count for {videos} videos: .*give --frames CSV"):
        read(name, path)


def spans(tmp_path, *videos):
    listed = [{"video_path": f"x/{name}.mp4", "class_name": kind, "anomaly_span": span} for name, kind, span in videos]
    return write(tmp_path / "a.json", json.dumps(listed))


def test_shares_are_rounded_to_the_length_in_use(tmp_path):
    path = spans(tmp_path, ("a", "Fire", [[53 / 190, 118 / 190]]), ("b", "Normal", []), ("c", "Fire", [[0.5, 1.0006]]))
    found = read("lagovad", path, frames=counts(a=190, b=9, c=10_000))
    assert ends(found) == {"a": [(53, 118)], "b": [], "c": [(5000, 10_000)]}
    assert "c: 5000-10006 cut to [5000, 10000)" in found.notes
    scaled = read("lagovad", path, conventions=["x16"], rows={"a": 2, "b": 1, "c": 1}, hop=8)
    assert ends(scaled)["a"] == [(4, 10)]
    tiny = read("lagovad", spans(tmp_path, ("a", "Fire", [[0.5, 0.51]])), frames=counts(a=10))
    assert tiny.notes == ("a: 0.5-0.51 covers no frame at this length: left out",)
    with pytest.raises(AnnotationError, match="has no written ends"):
        read("lagovad", path, frames=counts(a=190, b=9, c=9), conventions=["matlab-ends"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "a.json: is not JSON"),
        ("{}", "a.json: must hold a list of videos"),
        ("[]", "the annotation lists no video"),
        ('[{"video_path": "a"}]', "video 1: needs video_path, class_name and anomaly_span"),
        ("[3]", "video 1: needs video_path"),
        ('[{"video_path": "a", "class_name": "Fire", "anomaly_span": [[1]]}]', "video 1: needs .* of .start, end."),
        (
            '[{"video_path": "a", "class_name": "Fire", "anomaly_span": []}]',
            "video 1: a is Fire, but has no anomaly_span",
        ),
        (
            '[{"video_path": "a", "class_name": "Normal", "anomaly_span": [[0, 1]]}]',
            "a is Normal, but has anomaly_span",
        ),
        ('[{"video_path": "a", "class_name": "Fire", "anomaly_span": [[0.5, 0.1]]}]', "ends before it starts"),
        ('[{"video_path": "a", "class_name": "Fire", "anomaly_span": [[NaN, 0.1]]}]', "cannot be nan"),
        ('[{"video_path": "a", "class_name": "Fire", "anomaly_span": [[7, 9]]}]', "cannot be 7"),
    ],
)
def test_json_that_makes_no_sense_is_named(tmp_path, text, said):
    with pytest.raises(AnnotationError, match=said):
        read("lagovad", write(tmp_path / "a.json", text), frames=counts(a=9))


# ShanghaiTech


@pytest.fixture
def shanghai(tmp_path):
    folder = tmp_path / "test_frame_mask"
    folder.mkdir()
    np.save(folder / "01_0014.npy", np.array([0, 1, 1, 0]))
    np.save(folder / "01_0015.npy", np.array([0, 0, 1], np.int8))
    return tmp_path


def test_shanghaitech_needs_its_split(shanghai):
    for split in (None, "both"):
        with pytest.raises(AnnotationError, match=r"needs --split one-class \(107 .*never compared"):
            read("shanghaitech", shanghai, split=split)


def test_shanghaitech_one_class_is_every_mask(shanghai):
    for path in (shanghai, shanghai / "test_frame_mask"):
        found = read("shanghaitech", path, split="one-class")
        assert ends(found) == {"01_0014": [(1, 3)], "01_0015": [(2, 3)]}
        assert lengths(found) == {"01_0014": 4, "01_0015": 3}
        assert found.protocol.startswith("one-class split")
        assert found.notes == ("2 videos; the official test set has 107",)
        assert found.fps == 24


@pytest.mark.parametrize("listed", ["01_001,0,764\n01_0015,1,764\n", "x/01_001_i3d.npy\nx/01_0015_i3d.npy\n"])
def test_shanghaitech_weak_takes_its_list(shanghai, listed):
    path = write(shanghai / "SH_Test_NEW.txt", listed)
    for where in (shanghai, path):
        found = read("shanghaitech", where, split="weak", frames=counts({"01_001": 764}))
        assert lengths(found) == {"01_001": 764, "01_0015": 3}
        assert ends(found) == {"01_001": [], "01_0015": [(2, 3)]}
        assert "weak split" in found.protocol


def test_shanghaitech_weak_names_what_is_missing(shanghai):
    with pytest.raises(FileNotFoundError, match=r"holds no test list .* which --split weak needs"):
        read("shanghaitech", shanghai, split="weak")
    write(shanghai / "a_test.list", "01_001\n")
    with pytest.raises(AnnotationError, match="no frame count for 1 videos: 01_001"):
        read("shanghaitech", shanghai, split="weak")
    write(shanghai / "a_test.list", "01_0016\n")
    with pytest.raises(AnnotationError, match=r"a_test.list:1: 01_0016 is a test video .* has no 01_0016.npy"):
        read("shanghaitech", shanghai, split="weak")
    write(shanghai / "b_test.txt", "01_0015\n")
    with pytest.raises(AnnotationError, match=r"holds several test lists \(a_test.list, b_test.txt\); keep one"):
        read("shanghaitech", shanghai, split="weak")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.array([0, 2]), "must hold one label per frame, 0 or 1"),
        (np.zeros((2, 3)), "must hold one label per frame"),
        (np.zeros(0), "must hold one label per frame"),
        (np.array(["a"]), "must hold one label per frame"),
        (np.array([None, 1]), r"holds Python objects \(a pickle\), which are never loaded; convert it"),
    ],
)
def test_labels_that_are_none_are_refused(shanghai, labels, said):
    np.save(shanghai / "test_frame_mask" / "01_0014.npy", labels, allow_pickle=True)
    with pytest.raises(AnnotationError, match=f"01_0014.npy: {said}"):
        read("shanghaitech", shanghai, split="one-class")


def test_labels_that_are_no_array_file_are_refused(shanghai):
    path = shanghai / "test_frame_mask" / "01_0014.npy"
    for content in (b"", b"hello", b"\x93NUMPY"):
        path.write_bytes(content)
        with pytest.raises(AnnotationError, match=r"01_0014.npy: is not a readable array file"):
            read("shanghaitech", shanghai, split="one-class")
    path.write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(AnnotationError, match="holds Python objects"):
        read("shanghaitech", shanghai, split="one-class")


def test_labels_per_frame_leave_nothing_to_reread(shanghai):
    with pytest.raises(AnnotationError, match="has no written ends to read in another way"):
        read("shanghaitech", shanghai, split="one-class", conventions=["half-open-ends"])
    with pytest.raises(AnnotationError, match="labels every frame, so nothing is left to be read as at 30 fps"):
        read("shanghaitech", shanghai, split="one-class", conventions=["30fps"])


# UCSD

PED = """\
% ground truth
TestVideoFile = {};
TestVideoFile{end+1}.gt_frame = [3:5];
TestVideoFile{end+1}.gt_frame = [1:2, 7:8];
"""


def test_ucsd_ranges_are_matlab_ranges(tmp_path):
    path = write(tmp_path / "UCSDped2" / "Test" / "UCSDped2.m", PED)
    found = read("ped2", tmp_path, frames=counts(Test001=9, Test002=8))
    assert ends(found) == {"Test001": [(2, 5)], "Test002": [(0, 2), (6, 8)]}
    assert (found.fps, found.notes) == (
        10,
        ("2 videos; the official test set has 12", "2 abnormal videos; the official test set has 12"),
    )
    with pytest.raises(AnnotationError, match="no frame count for 2 videos: Test001, Test002"):
        read("ped2", path)
    for clip, frames in (("Test001", 9), ("Test002", 8)):
        for number in range(frames):
            write(path.parent / clip / f"{number:03d}.tif", "")
    assert lengths(read("ped2", path)) == {"Test001": 9, "Test002": 8}


def test_every_ped1_clip_has_200_frames(tmp_path):
    assert set(lengths(read("ped1", write(tmp_path / "UCSDped1.m", PED))).values()) == {200}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("TestVideoFile{end+1}.gt_frame = 5;", r":1: expected gt_frame = \[START:END"),
        ("TestVideoFile{end+1}.gt_frame = [9:5];", ":1: an interval ends before it starts"),
        ("x = 1;", "has no line of gt_frame"),
    ],
)
def test_ucsd_lines_that_make_no_sense_are_named(tmp_path, line, said):
    with pytest.raises(AnnotationError, match=f"UCSDped1.m{said}|{said}"):
        read("ped1", write(tmp_path / "UCSDped1.m", line))


@pytest.mark.parametrize(("name", "first"), [("ped2", "Test001"), ("avenue", "01")])
def test_events_of_liu_et_al_are_matlab_ranges(tmp_path, name, first):
    cells = np.empty((1, 1), object)
    cells[0, 0] = np.array([[3, 7], [5, 8]])
    savemat(tmp_path / "gt.mat", {"gt": cells})
    assert ends(read(name, tmp_path / "gt.mat", frames=counts({first: 9}))) == {first: [(2, 5), (6, 8)]}
    read(name, tmp_path / "gt.mat", frames=counts({first: 9}), conventions=["half-open-ends"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no matlab", "is not a MATLAB file that can be read; get this file again"),
        ({"other": [1]}, "holds no variable gt"),
        ({"gt": np.array([[1, 2]])}, r"must be starts over ends \(2, K\)"),
    ],
)
def test_matlab_files_that_hold_something_else_are_refused(tmp_path, content, said):
    path = tmp_path / "ped2.mat"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        savemat(path, content)
    with pytest.raises(AnnotationError, match=said):
        read("ped2", path, frames=counts(Test001=9))


def test_ped2_table_is_its_masks():
    found, masks = (
        read("ped2", data("ped2", "test_intervals.csv")),
        datasets.masks("ped2", data("ped2", "test_masks_packed.npz")),
    )
    assert totals(found) == (12, 2010, 1648)
    assert len(masks) == 12
    assert not found.notes
    for video in found.videos:
        mask = masks[video.name]
        assert mask.shape == (video.num_frames, 240, 360)
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask.any((1, 2)), video.labels())


def test_masks_of_pictures_are_read_one_clip_at_a_time(tmp_path):
    truth = np.zeros((3, 4, 5), np.uint8)
    truth[1, 2, 3] = 255
    for number, picture in enumerate(truth):
        (tmp_path / "Test" / "Test001_gt").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "Test" / "Test001_gt" / f"{number:03d}.bmp")
    (tmp_path / "Test" / "Test002_gt").mkdir()
    masks = datasets.masks("ped1", tmp_path)
    assert list(masks) == ["Test001", "Test002"]
    assert "01" in masks
    assert "Test003" not in masks
    np.testing.assert_array_equal(pixel_masks(tmp_path, "01"), truth > 0)
    with pytest.raises(AnnotationError, match=r"Test002_gt: holds no .bmp"):
        masks["Test002"]
    with pytest.raises(AnnotationError, match="no masks for '7'; available: Test001, Test002"):
        masks["7"]
    write(tmp_path / "Test" / "Test002_gt" / "a.bmp", "no picture")
    with pytest.raises(AnnotationError, match=r"a.bmp: is not a readable picture"):
        masks["Test002"]


def test_packed_masks_are_checked(tmp_path):
    np.savez(tmp_path / "a.npz", **{"01": np.zeros((2, 3))})
    with pytest.raises(AnnotationError, match=r"01 must be packed masks \(N, H, W / 8\) uint8"):
        pixel_masks(tmp_path / "a.npz", "01")
    with pytest.raises(AnnotationError, match="no pixel masks for 'avenue'; available: ped1, ped2"):
        datasets.masks("avenue", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(AnnotationError, match="holds no masks"):
        datasets.masks("ped2", tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="there is no such"):
        datasets.masks("ped2", tmp_path / "absent")


# the others


def test_avenue_masks_say_which_frames(tmp_path):
    for number, abnormal in ((2, [0, 1, 1]), (10, [1, 0])):
        cells = np.empty((1, len(abnormal)), object)
        for at, on in enumerate(abnormal):
            cells[0, at] = np.full((2, 3), on, np.uint8)
        savemat(tmp_path / f"{number}_label.mat", {"volLabel": cells})
    found = read("avenue", tmp_path)
    assert ends(found) == {"02": [(1, 3)], "10": [(0, 1)]}
    assert found.fps == 25
    savemat(tmp_path / "2_label.mat", {"volLabel": np.zeros((2, 3))})
    with pytest.raises(AnnotationError, match=r"2_label.mat: volLabel must have one cell per frame"):
        read("avenue", tmp_path)


def test_ubnormal_tracks_include_their_end(tmp_path):
    write(tmp_path / "Scene1" / "abnormal_a_annotations" / "abnormal_a_tracks.txt", "1,3,5\n2,4.0,8.0\n")
    write(tmp_path / "Scene1" / "abnormal_train_annotations" / "abnormal_train_tracks.txt", "1,0,9\n")
    given = counts(abnormal_a=10, abnormal_train=10, normal_b=7)
    everything = read("ubnormal", tmp_path, frames=given)
    assert ends(everything) == {"abnormal_a": [(3, 6), (4, 9)], "abnormal_train": [(0, 10)], "normal_b": []}
    write(tmp_path / "abnormal_test_video_names.txt", "abnormal_a\n")
    write(tmp_path / "normal_test_video_names.txt", "normal_b\n")
    found = read("ubnormal", tmp_path, frames=given)
    assert ends(found) == {"abnormal_a": [(3, 6), (4, 9)], "normal_b": []}
    assert "pairs s e read as [s, e + 1)" in found.protocol
    write(tmp_path / "abnormal_test_video_names.txt", "abnormal_a\nabnormal_c\n")
    with pytest.raises(AnnotationError, match="holds no tracks of abnormal videos abnormal_c"):
        read("ubnormal", tmp_path, frames=given)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1,3", "_tracks.txt:1: expected OBJECT,START,END, got 2 fields"),
        ("1,3,x", "_tracks.txt:1: a frame number must be a number, got 'x'"),
        ("1,3,5.5", "_tracks.txt:1: a frame number must be a whole number"),
    ],
)
def test_ubnormal_tracks_that_make_no_sense_are_named(tmp_path, line, said):
    write(tmp_path / "abnormal_a_tracks.txt", line)
    with pytest.raises(AnnotationError, match=said):
        read("ubnormal", tmp_path, frames=counts(abnormal_a=9))


def test_ubnormal_labels_as_the_authors_script_writes_them(tmp_path):
    write(
        tmp_path / "abnormal_a" / "ground_truth_frame_level.txt", "0.000000000000000000e+00\n1.000000000000000000e+00\n"
    )
    found = read("ubnormal", tmp_path)
    assert (ends(found), lengths(found)) == ({"abnormal_a": [(1, 2)]}, {"abnormal_a": 2})


MSAD = "name,scenario,total frames,starting frame of anomaly,ending frame of anomaly\n"


def test_msad_protocols_test_different_videos(tmp_path):
    path = write(
        tmp_path / "anomaly_annotation.csv", MSAD + "Assault_1,shop,426,55,426\nPeople_falling_2,road,90,1,9\n"
    )
    given = counts(MSAD_normal_testing_1=40, other=5)
    for where in (path, tmp_path):
        found = read("msad", where, frames=given)
        assert ends(found) == {"Assault_1": [(54, 426)], "People_falling_2": [(0, 9)], "MSAD_normal_testing_1": []}
    assert [video.categories for video in found.videos] == [("Assault",), ("People_falling",), ()]
    assert found.protocol.startswith("protocol-ii, CSV of the authors; pairs s e read as [s - 1, e)")
    assert "3 videos; the official test set has 240" in found.notes
    assert "2 abnormal videos; the official test set has 120" in found.notes
    write(tmp_path / "MSAD_I3D_WS_Test.list", "x/Assault_1_i3d.npy\nx/MSAD_normal_testing_1_i3d.npy\n")
    assert list(ends(read("msad", path, frames=given))) == ["Assault_1", "MSAD_normal_testing_1"]
    first = read("msad", path, split="protocol-i", frames=given)
    assert list(ends(first)) == ["Assault_1", "People_falling_2", "MSAD_normal_testing_1"]
    assert "3 videos; the official test set has 360" in first.notes
    with pytest.raises(AnnotationError, match=r"knows --split protocol-i .* never compared; got 'weak'"):
        read("msad", path, split="weak")
    write(tmp_path / "MSAD_I3D_WS_Test.list", "Assault_9_i3d.npy\n")
    with pytest.raises(
        AnnotationError, match=r"Assault_9 is abnormal by its name, but anomaly_annotation.csv has no line"
    ):
        read("msad", path)


def test_msad_training_videos_are_not_tested_for_want_of_a_list(tmp_path):
    text = MSAD + "".join(f"Fire_{number},shop,90,1,9\n" for number in range(121))
    path = write(tmp_path / "anomaly_annotation.csv", text)
    with pytest.raises(
        AnnotationError, match="annotates 121 videos, training ones too; protocol-ii needs the authors' list"
    ):
        read("msad", path)
    assert len(read("msad", path, split="protocol-i").videos) == 121
    with pytest.raises(AnnotationError, match=r"csv:3: Fire_1 is annotated already, at .*csv:2"):
        read("msad", write(path, MSAD + "Fire_1,shop,90,1,9\nFire_1,shop,90,1,9\n"))


def test_msad_json_is_protocol_ii(tmp_path):
    path = spans(tmp_path, ("Fire_2", "Fire", [[0.1, 0.5]]))
    assert read("msad", path, frames=counts(Fire_2=10)).protocol.startswith("protocol-ii, ")
    with pytest.raises(AnnotationError, match="JSON holds protocol-ii, not protocol-i"):
        read("msad", path, split="protocol-i")


def test_tad_lines_have_their_counts(tmp_path):
    path = write(tmp_path / "vals.txt", "01_Accident_004.mp4 190 53 118\nNormal_012.mp4 70 -1 -1\n")
    found = read("tad", path)
    assert ends(found) == {"01_Accident_004": [(53, 118)], "Normal_012": []}
    assert lengths(found) == {"01_Accident_004": 190, "Normal_012": 70}
    assert found.videos[0].categories == ("Accident",)
    assert ends(read("tad", path, conventions=["inclusive-ends"]))["01_Accident_004"] == [(53, 119)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("01_Accident_004.mp4 190 53", "vals.txt:1: expected NAME FRAMES START END, got 3 fields"),
        ("01_Accident_004.mp4 190 -1 -1", "vals.txt:1: 01_Accident_004 has no intervals, against its name"),
        ("Normal_012.mp4 70 1 2", "vals.txt:1: Normal_012 has intervals, against its name"),
        ("Normal_012.mp4 many -1 -1", "vals.txt:1: a frame count must be a whole number, got 'many'"),
        ("Normal_012.mp4 0 -1 -1", "vals.txt:1: Normal_012: a frame count must be at least 1, got 0"),
    ],
)
def test_tad_lines_that_make_no_sense_are_named(tmp_path, line, said):
    with pytest.raises(AnnotationError, match=said):
        read("tad", write(tmp_path / "vals.txt", line))


def test_lad_labels_and_names_agree(tmp_path):
    savemat(tmp_path / "gt_Crash_a_s017_c001.mat", {"gt": np.array([[0, 1, 1]])})
    savemat(tmp_path / "gt_Crash_n_s001_c001.mat", {"gt": np.array([[0, 0]])})
    found = read("lad", tmp_path)
    assert ends(found) == {"v_Crash_a_s017_c001": [(1, 3)], "v_Crash_n_s001_c001": []}
    assert [video.categories for video in found.videos] == [("Crash",), ()]
    write(tmp_path / "test.txt", "v_Crash_a_s017_c001.avi\nv_Fire_n_s002_c001.avi\n")
    listed = read("lad", tmp_path, frames=counts(v_Fire_n_s002_c001=9))
    assert lengths(listed) == {"v_Crash_a_s017_c001": 3, "v_Fire_n_s002_c001": 9}
    write(tmp_path / "test.txt", "v_Fire_a_s002_c001\n")
    with pytest.raises(
        AnnotationError, match=r"test.txt:1: v_Fire_a_s002_c001 is abnormal by its name, but has no .mat"
    ):
        read("lad", tmp_path)
    write(tmp_path / "test.txt", "Fire\n")
    with pytest.raises(AnnotationError, match=r"test.txt:1: Fire is not a name like"):
        read("lad", tmp_path)
    (tmp_path / "test.txt").unlink()
    savemat(tmp_path / "gt_Crash_a_s017_c001.mat", {"gt": np.array([[0, 0]])})
    with pytest.raises(AnnotationError, match="has no abnormal frames, against its name"):
        read("lad", tmp_path)


def test_dota_metadata_names_the_tested_ones(tmp_path):
    one = {"anomaly_start": 41, "anomaly_end": 94, "num_frames": 120, "anomaly_class": "ego: turning"}
    text = json.dumps({"a": {**one, "subset": "val"}, "b": {**one, "subset": "train"}})
    found = read("dota", write(tmp_path / "a.json", text))
    assert (ends(found), found.fps) == ({"a": [(41, 94)]}, 10)
    with pytest.raises(AnnotationError, match="a: needs anomaly_start"):
        read("dota", write(tmp_path / "a.json", '{"a": {}}'))
    with pytest.raises(AnnotationError, match=r"a: frame numbers must be whole, got 1.5, 94, 120"):
        read("dota", write(tmp_path / "a.json", json.dumps({"a": {**one, "anomaly_start": 1.5}})))
    with pytest.raises(AnnotationError, match="must hold an object per video name"):
        read("dota", write(tmp_path / "a.json", "3"))


def test_nwpu_campus_has_an_array_per_video(tmp_path):
    path = tmp_path / "gt.npz"
    np.savez(path, D001_03=np.array([0, 1, 1, 0]), D002_01=np.zeros(3))
    for where in (path, tmp_path):
        found = read("nwpu-campus", where)
        assert ends(found) == {"D001_03": [(1, 3)], "D002_01": []}
    np.savez(path, allow_pickle=True, D001_03=np.array([None]))
    with pytest.raises(AnnotationError, match="holds Python objects"):
        read("nwpu-campus", path)
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(AnnotationError, match=r"is not an .npz of named arrays"):
        read("nwpu-campus", tmp_path / "a.npy")
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(AnnotationError, match="is not a readable array file"):
        read("nwpu-campus", path)


# custom


def test_custom_frames(tmp_path):
    text = "video,num_frames,intervals,category,fps\ncam/a.mp4,100,80-95;12-40,fall,12.5\nb,7,,,\n"
    found = read("custom", write(tmp_path / "a.csv", "\ufeff" + text))
    assert ends(found) == {"a": [(12, 40), (80, 95)], "b": []}
    assert [(video.categories, video.fps) for video in found.videos] == [(("fall",), 12.5), ((), None)]
    assert (found.fps, found.notes) == (None, ())


def test_custom_seconds_need_a_rate(tmp_path):
    path = write(tmp_path / "a.csv", "video,num_frames,intervals_s,fps\na,100,1.5-2.5,20\n")
    assert ends(read("custom", path)) == {"a": [(30, 50)]}
    assert ends(read("custom", path, conventions=["30fps"])) == {"a": [(45, 75)]}
    assert ends(read("custom", path, frames=counts(a=100, fps=10))) == {"a": [(15, 25)]}
    with pytest.raises(AnnotationError, match=r"a.csv:2: a: intervals in seconds need its fps"):
        read("custom", write(path, "video,num_frames,intervals_s\na,100,1.5-2.5\n"))


def test_custom_counts_may_come_from_elsewhere(tmp_path):
    path = write(tmp_path / "a.csv", "video,num_frames,intervals\na,,1-2\n")
    assert lengths(read("custom", path, frames=counts(a=9))) == {"a": 9}
    with pytest.raises(AnnotationError, match="no frame count for 1 videos: a"):
        read("custom", path)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a,9,5-3", "a.csv:2: an interval ends before it starts, got 5 to 3"),
        ("a,9,3-3", "a.csv:2: a: an interval must end after it starts, got 3-3"),
        ("a,9,3", "a.csv:2: cannot read interval '3'; write START-END;START-END"),
        ("a,9,-3-5", "a.csv:2: cannot read interval '-3-5'"),
        ("a,9,1.5-3", "a.csv:2: frame numbers must be whole, got '1.5-3'"),
        ("a,x,1-3", "a.csv:2: a frame count must be a whole number, got 'x'"),
        ("a,0,", "a.csv:2: a: a frame count must be at least 1, got 0"),
        ("a,9", "a.csv:2: has 2 fields, the header has 3"),
        ("a,9,\na.mp4,9,", "a.csv:3: a is annotated already, at .*a.csv:2"),
        (",9,", "a.csv:2: names no video"),
    ],
)
def test_custom_rows_that_make_no_sense_are_named(tmp_path, row, said):
    with pytest.raises(AnnotationError, match=said):
        read("custom", write(tmp_path / "a.csv", f"video,num_frames,intervals\n{row}\n"))


def test_custom_rates_are_checked(tmp_path):
    with pytest.raises(AnnotationError, match="csv:2: a frame rate must be positive, got -1"):
        read("custom", write(tmp_path / "a.csv", "video,num_frames,intervals,fps\na,9,,-1\n"))


def test_custom_columns_are_checked(tmp_path):
    for columns in ("video,intervals", "video,num_frames,intervals,intervals_s", "video,video,num_frames,intervals"):
        with pytest.raises(
            AnnotationError, match=f"a.csv:1: has columns {columns}; expected video,num_frames,interval"
        ):
            read("custom", write(tmp_path / "a.csv", f"{columns}\n"))
    with pytest.raises(AnnotationError, match="a video with a category needs an interval; leave 'fall' out"):
        read("custom", write(tmp_path / "a.csv", "video,num_frames,intervals,category\na,9,,fall\n"))


# whatever is written


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 40)), max_size=5),
    st.sampled_from(["matlab", "half-open", "inclusive"]),
    st.integers(1, 80),
)
def test_no_frame_outside_the_written_pairs_is_abnormal(starts, how, num_frames):
    pairs = [(start, start + length + (how == "half-open")) for start, length in starts]
    kept, cut = intervals(pairs, ends=how, num_frames=num_frames)
    inside = set()
    for start, end in pairs:  # frame by frame, as each convention says it in words
        first, last = {"matlab": (start - 1, end - 1), "half-open": (start, end - 1), "inclusive": (start, end)}[how]
        inside |= set(range(first, last + 1))
    assert {n for each in kept for n in range(each.start, each.end)} == {n for n in inside if n < num_frames}
    assert bool(cut) == any(n >= num_frames for n in inside)


@given(
    st.lists(st.tuples(st.integers(1, 400), st.integers(1, 100)), max_size=4),
    st.integers(16, 400),
    st.integers(1, 30),
    st.floats(5, 60),
    st.sampled_from([None, "matlab-ends", "half-open-ends", "inclusive-ends"]),
    st.sampled_from([None, "dropped-tail", "x16", "30fps"]),
)
def test_labels_are_as_long_as_the_convention_says(starts, frames, rows, fps, end, length):
    pairs = [(start, start + more) for start, more in starts]
    reading = Reading.of(
        [name for name in (end, length) if name], frames={"a": FrameCount(frames, fps)}, rows={"a": rows}, hop=16
    )
    source = Source("any", "any file", ends="half-open")
    (video,) = assemble(source, [Written("a", "file:1", pairs, ("x",))], reading).videos
    expected = {
        None: frames,
        "dropped-tail": frames // 16 * 16,
        "x16": rows * 16,
        "30fps": max(round(frames / fps * 30), 1),
    }[length]
    labels = video.labels()
    assert len(labels) == video.num_frames == expected
    first = min((start for start, _ in pairs), default=expected) - (end == "matlab-ends")
    last = max((stop for _, stop in pairs), default=0) + (end == "inclusive-ends")
    assert not labels[:first].any()
    assert not labels[last:].any()


def test_a_video_without_rows_keeps_its_count_under_x16(ucf):
    found = read("ucf-crime", ucf, frames=counts(UCF_COUNTS), conventions=["x16"], rows={"Abuse028_x264": 80}, hop=16)
    assert lengths(found) == {**UCF_COUNTS, "Abuse028_x264": 1280}
    with pytest.raises(AnnotationError, match="hop must be at least 1, got 0"):
        read("ucf-crime", ucf, conventions=["x16"], rows={}, hop=0)


def test_what_could_be_meant_twice_is_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        np.savez(tmp_path / folder / "gt.npz", D001_03=np.zeros(2))
    with pytest.raises(AnnotationError, match=r"holds 2 files gt.npz, the labels of all test videos; give the file"):
        read("nwpu-campus", tmp_path)
    np.savez(tmp_path / "masks.npz", a=np.zeros((1, 1, 1), np.uint8))
    assert pixel_masks(tmp_path / "masks.npz", "a").shape == (1, 1, 8)
    for number, width in enumerate((3, 4)):
        (tmp_path / "Test001_gt").mkdir(exist_ok=True)
        Image.fromarray(np.zeros((2, width), np.uint8)).save(tmp_path / "Test001_gt" / f"{number}.bmp")
    with pytest.raises(AnnotationError, match=r"1.bmp: has another size than 0.bmp"):
        pixel_masks(tmp_path, "Test001")
