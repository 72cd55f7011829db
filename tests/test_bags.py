"""Blocks, bags and splits: what weakly supervised training reads, against slow loops and bad input."""

from __future__ import annotations

import tempfile
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import data
from hypothesis import given
from hypothesis import strategies as st

from trainers import bags as b
from trainers import splits
from trainers.bags import Bags
from trainers.block import Block, BlockError
from vad.store import Manifest, Record, Source, Store, values_sha256
from vad.streamed import Rows

SOURCE = Source(path="a.mp4", bytes=1, mtime_ns=1, sha256="")


def manifest(**changes):
    fields = {"extractor": {"kind": "i3d"}, "weights": "w", "precision": "f32", "normalisation": "n", "views": ()}
    return Manifest(**fields | {"dtype": "float16"} | changes)


def put(store, name, values):
    record = Record(name=name, key="", source=SOURCE, hop_frames=16, fps=25.0, values_sha256=values_sha256(values))
    with tempfile.TemporaryFile(buffering=0) as file:
        rows = Rows(file, store.manifest.dtype)
        rows.add(values)
        store.write(record, rows, {})


def some_rows(count, *, crops=2, dim=3, seed=0):
    return np.random.default_rng(seed).normal(size=(count, crops, dim)).astype(np.float16)


def filled_store(folder, lengths, **changes):
    store = Store.prepare(folder, manifest(**changes))
    for i, count in enumerate(lengths):
        put(store, f"v{i}", some_rows(count, seed=i))
    return store


def block_of(folder, lengths, labels, *, crops=2, dim=3, dtype="float16"):
    videos = [(f"v{i}", some_rows(count, crops=crops, dim=dim, seed=i), labels[i]) for i, count in enumerate(lengths)]
    return Block.write(folder / "train.json", videos, origin="test", dtype=dtype)


# segments


@given(st.integers(1, 90), st.integers(1, 40), st.sampled_from([np.float16, np.float32]))
def test_segments_are_what_a_slow_loop_over_linspace_gives(rows, count, dtype):
    values = some_rows(rows, seed=rows).astype(dtype)
    edges = [int(np.floor(edge + 0.5 + 1e-9)) for edge in np.linspace(0, rows, count + 1)]
    expected = [
        values[start:end].astype(np.float64).mean(0) if start < end else values[min(start, rows - 1)]
        for start, end in pairwise(edges)
    ]
    found = b.segments(values, count)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.stack(expected), rtol=1e-5, atol=1e-6)


@given(st.integers(1, 90), st.integers(1, 40))
def test_boundaries_are_within_one_half_of_even_and_cover_every_row_once(rows, count):
    edges = b.boundaries(rows, count)
    assert edges[0] == 0
    assert edges[-1] == rows
    assert (np.diff(edges) >= 0).all()
    assert np.abs(edges - np.linspace(0, rows, count + 1)).max() <= 0.5 + 1e-9


@given(st.integers(1, 32))
def test_a_short_video_repeats_its_rows_in_order_and_loses_none(rows):
    values = np.arange(rows, dtype=np.float32).reshape(rows, 1, 1)
    found = b.segments(values, 32).ravel()
    assert (np.diff(found) >= 0).all()
    assert set(found) == set(range(rows))


@given(st.integers(1, 120))
def test_faithful_segments_are_those_of_the_published_script(rows):
    values = some_rows(rows, crops=1, seed=rows).astype(np.float32)
    shots = [int(np.floor(shot + 0.5 + 1e-9)) for shot in np.linspace(1, rows, 33)]  # MATLAB: from 1, halves up
    expected = []
    for first, after in pairwise(shots):
        last = after - 1
        expected.append(values[first - 1] if last < first else values[first - 1 : last].mean(0))
    np.testing.assert_allclose(b.segments_faithful(values), np.stack(expected), rtol=1e-5, atol=1e-6)


def test_the_last_row_never_enters_a_faithful_segment_of_a_long_video():
    values = np.zeros((70, 1, 1), np.float32)
    values[-1] = 1
    assert b.segments_faithful(values).max() == 0
    assert b.segments(values, 32).max() > 0


@given(st.integers(1, 60), st.integers(1, 40), st.integers(0, 9))
def test_uniform_rows_rise_and_jitter_stays_in_its_share(rows, length, seed):
    values = np.arange(rows, dtype=np.float16).reshape(rows, 1, 1)
    plain = b.uniform(values, length).ravel()
    assert plain[0] == 0
    assert length == 1 or plain[-1] == rows - 1
    assert (np.diff(plain) >= 0).all()
    drawn = b.uniform(values, length, jitter=np.random.default_rng(seed)).ravel()
    edges = b.boundaries(rows, length)
    low = np.minimum(edges[:-1], rows - 1)
    assert ((drawn >= low) & (drawn <= np.maximum(edges[1:] - 1, low))).all()


mixed = st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=2, max_size=12).filter(
    lambda videos: len({label for _, label in videos}) == 2
)
settings = st.fixed_dictionaries(
    {
        "sampling": st.sampled_from(["mean", "mean_faithful", "uniform", "jitter"]),
        "crops": st.sampled_from(["all", "mean", "one"]),
        "ahead": st.booleans(),
        "batch_pairs": st.integers(1, 4),
        "seed": st.integers(0, 3),
    }
)


@given(mixed, settings, st.integers(0, 9))
def test_a_batch_depends_on_its_number_alone(tmp_path_factory, videos, chosen, number):
    lengths, labels = zip(*videos, strict=True)
    block = block_of(tmp_path_factory.mktemp("b"), lengths, labels)
    *_, last = Bags(block, block.labels, segments=4, **chosen).batches(range(number + 1))
    (alone,) = Bags(block, block.labels, segments=4, **{**chosen, "ahead": True}).batches([number])
    assert last.names == alone.names
    assert torch.equal(last.features_BKSD, alone.features_BKSD)


@given(mixed, settings)
def test_batches_are_balanced_and_an_epoch_misses_no_video_of_the_larger_class(tmp_path_factory, videos, chosen):
    lengths, labels = zip(*videos, strict=True)
    block = block_of(tmp_path_factory.mktemp("b"), lengths, labels)
    bags = Bags(block, block.labels, segments=4, **chosen)
    pairs = chosen["batch_pairs"]
    seen: dict[bool, list[str]] = {True: [], False: []}
    for batch in bags.batches(range(len(bags))):
        assert batch.features_BKSD.shape == (2 * pairs, 2 if chosen["crops"] == "all" else 1, 4, 3)
        assert batch.features_BKSD.dtype == torch.float32
        assert batch.labels_B.tolist() == [True] * pairs + [False] * pairs
        for name, label in zip(batch.names, batch.labels_B.tolist(), strict=True):
            assert block.labels[name] == label
            seen[label].append(name)
    for label, names in seen.items():
        counts = [names.count(name) for name, which in block.labels.items() if which == label]
        assert max(counts) - min(counts) <= 1  # cycled evenly
    larger = max(seen, key=lambda label: sum(which == label for which in block.labels.values()))
    assert set(seen[larger]) == {name for name, which in block.labels.items() if which == larger}


def test_a_bag_is_the_segments_of_its_video(tmp_path):
    block = block_of(tmp_path, [9, 4, 2], [True, False, False])
    for crops, reduce in (("all", lambda seg: seg), ("mean", lambda seg: seg.mean(1, keepdims=True))):
        batch = Bags(block, block.labels, segments=4, crops=crops, batch_pairs=2, seed=0).batch(0)
        for bag, name in zip(batch.features_BKSD, batch.names, strict=True):
            expected = reduce(b.segments(block.rows(block.at(name)), 4))
            np.testing.assert_allclose(bag.numpy(), expected.swapaxes(0, 1), rtol=1e-5, atol=1e-6)


def test_one_crop_is_one_of_the_crops(tmp_path):
    block = block_of(tmp_path, [4, 4], [True, False], crops=5)
    bags = Bags(block, block.labels, segments=4, crops="one", batch_pairs=1, seed=0)
    crops = set()
    for batch in bags.batches(range(30)):
        same = [np.array_equal(batch.features_BKSD[0, 0], block.rows(0)[:, k]) for k in range(5)]
        crops.add(same.index(True))
    assert crops == set(range(5))


def test_epochs_and_seeds_differ(tmp_path):
    block = block_of(tmp_path, [2] * 20, [True, False] * 10)
    bags = Bags(block, block.labels, segments=2, batch_pairs=10, seed=0)
    first, second = bags.batches(range(2))
    assert first.names != second.names
    assert first.names != Bags(block, block.labels, segments=2, batch_pairs=10, seed=1).batch(0).names


def test_a_mistake_in_a_thread_that_reads_ahead_reaches_the_caller(tmp_path, monkeypatch):
    block = block_of(tmp_path, [2, 2], [True, False])
    bags = Bags(block, block.labels, batch_pairs=1, seed=0, ahead=True)
    monkeypatch.setattr(block, "tensor", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(iter(bags.batches([0])))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segments": 0}, "segments must be at least 1, got 0"),
        ({"batch_pairs": 0}, "batch_pairs must be at least 1, got 0"),
        ({"crops": "some"}, "unknown crops 'some'; available: all, mean, one"),
        ({"sampling": "max"}, "unknown sampling 'max'; available: mean"),
        ({"labels": {"v0": True}}, "no normal video among the 1 listed"),
        ({"labels": {"v1": False}}, "no abnormal video among the 1 listed"),
        ({"labels": {"v0": False, "v1": False}}, "holds the opposite label for v0"),
        ({"labels": {"v0": True, "v7": False}}, "holds no video 'v7'"),
    ],
)
def test_bags_refuse(tmp_path, changes, message):
    block = block_of(tmp_path, [2, 2], [True, False])
    with pytest.raises(ValueError, match=message):
        Bags(block, **{"labels": block.labels, "batch_pairs": 1, "seed": 0} | changes)


def test_a_condensed_block_gives_the_same_bags(tmp_path):
    block = block_of(tmp_path, [50, 9, 3, 32], [True, False, False, True], dtype="float32")
    small = b.condense(tmp_path / "small.json", block, 8)
    assert small.index.rows == (8, 8, 8, 8)
    for one, other in zip(
        Bags(block, block.labels, segments=8, batch_pairs=2, seed=0).batches(range(4)),
        Bags(small, small.labels, segments=8, batch_pairs=2, seed=0).batches(range(4)),
        strict=True,
    ):
        assert one.names == other.names
        torch.testing.assert_close(one.features_BKSD, other.features_BKSD)


# blocks


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_block_holds_the_rows_of_the_store_in_the_order_of_the_list(tmp_path, dtype):
    store = filled_store(tmp_path / "s", [3, 1, 5])
    block = Block.build(tmp_path / "b.json", store, ["v2", "v0"], [True, False], dtype=dtype)
    assert block.names == ("v2", "v0")
    assert block.labels == {"v2": True, "v0": False}
    for name in block.names:
        rows = block.rows(block.at(name))
        assert rows.dtype == dtype
        assert not rows.flags.writeable
        np.testing.assert_array_equal(rows, store.read(name).values.astype(dtype))
    block.check()
    assert Block.open(tmp_path / "b.json", store).digest == block.digest


def test_pooled_features_have_one_crop(tmp_path):
    store = Store.prepare(tmp_path / "s", manifest())
    put(store, "a", some_rows(4)[:, 0])
    block = Block.build(tmp_path / "b.json", store, ["a"], [True])
    assert block.rows(0).shape == (4, 1, 3)


def test_a_block_is_refused_once_its_store_changed_and_prepared_anew(tmp_path):
    store = filled_store(tmp_path / "s", [3, 2])
    path = tmp_path / "b.json"
    first = Block.prepare(path, store, ["v0", "v1"], [True, False])
    inode = path.stat().st_ino
    assert Block.prepare(path, store, ["v0", "v1"], [True, False]).digest == first.digest
    assert path.stat().st_ino == inode  # not built again
    put(store, "v1", some_rows(4, seed=9))
    with pytest.raises(BlockError, match="features have changed since it was built: v1; build the block again"):
        Block.open(path, store)
    second = Block.prepare(path, store, ["v0", "v1"], [True, False])
    assert len(second.rows(1)) == 4
    assert len(first.rows(1)) == 2  # who has the old one mapped keeps it
    assert len(list(tmp_path.glob("b-*.rows"))) == 1
    assert Block.prepare(path, store, ["v0"], [True]).names == ("v0",)  # another list, another block


def test_features_made_in_another_way_outdate_a_block(tmp_path):
    filled = filled_store(tmp_path / "s", [2])
    Block.build(tmp_path / "b.json", filled, ["v0"], [True])
    other = filled_store(tmp_path / "other", [2], weights="others")
    with pytest.raises(BlockError, match="made in another way"):
        Block.open(tmp_path / "b.json", other)


def test_a_build_that_fails_leaves_the_block_that_was_there(tmp_path):
    store = filled_store(tmp_path / "s", [3, 2])
    before = Block.build(tmp_path / "b.json", store, ["v0"], [True])
    broken = some_rows(4)
    broken[2, 0, 1] = np.nan
    put(store, "v1", broken)
    with pytest.raises(ValueError, match="v1: features hold NaN or infinity in 1 rows, first in row 2"):
        Block.build(tmp_path / "b.json", store, ["v0", "v1"], [True, False])
    assert Block.open(tmp_path / "b.json").digest == before.digest
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.is_file()) == [".json", ".rows"]


@pytest.mark.parametrize(
    ("names", "labels", "message"),
    [
        (["v0", "v0"], [True, False], "listed both as normal and as abnormal: v0"),
        (["v0", "v0"], [True, True], "listed more than once: v0"),
        (["v0", "v1"], [True], "got 2 names and 1 labels"),
        (["v0"], [2], "a label is True .abnormal. or False .normal., got v0 = 2"),
        ([], [], "at least one video"),
        (["v0", "gone"], [True, False], "no features of gone; extract them, or take them off the list"),
    ],
)
def test_lists_that_contradict_themselves_or_the_store_are_refused(tmp_path, names, labels, message):
    with pytest.raises(ValueError, match=message):
        Block.build(tmp_path / "b.json", filled_store(tmp_path / "s", [3, 2]), names, labels)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones((2, 2, 5), np.float16), "odd: features are 5 wide, those of v0 3; one block takes one extractor"),
        (np.ones((2, 4, 3), np.float16), "odd: has 4 crops, v0 has 2"),
        (np.ones((2, 4, 4, 3), np.float16), "odd: features must be .T, D. or .T, K, D., got .2, 4, 4, 3."),
        (np.ones((0, 2, 3), np.float16), "odd: has no features"),
    ],
)
def test_features_that_do_not_fit_each_other_are_refused(tmp_path, values, message):
    store = filled_store(tmp_path / "s", [3])
    put(store, "odd", values)
    with pytest.raises(ValueError, match=message):
        Block.build(tmp_path / "b.json", store, ["v0", "odd"], [True, False])


def test_two_extractors_are_refused_with_both(tmp_path):
    ours, theirs = (
        filled_store(tmp_path / "ours", [3]),
        Store.prepare(tmp_path / "theirs", manifest(extractor={"kind": "slowfast"})),
    )
    put(theirs, "w", some_rows(2))
    with pytest.raises(ValueError, match=r"ours and .*theirs cannot lie in one block: .*'i3d', not 'slowfast'"):
        Block.build(tmp_path / "b.json", ours, ["v0", "w"], [True, False], also=[theirs])


def test_stores_of_one_extractor_can_be_joined(tmp_path):
    ours, theirs = filled_store(tmp_path / "ours", [3]), Store.prepare(tmp_path / "t", manifest(dtype="float32"))
    put(theirs, "w", some_rows(2, seed=5))
    with pytest.raises(ValueError, match="dtype = 'float16', not 'float32'"):
        Block.build(tmp_path / "b.json", ours, ["v0", "w"], [True, False], also=[theirs])
    block = Block.build(tmp_path / "b.json", ours, ["v0", "w"], [True, False], also=[theirs], dtype="float16")
    np.testing.assert_array_equal(block.rows(1), some_rows(2, seed=5))
    Block.open(tmp_path / "b.json", ours, theirs)


def test_values_beyond_half_precision_are_refused(tmp_path):
    with pytest.raises(ValueError, match="v: features reach 100000, more than float16 can hold; use float32"):
        Block.write(tmp_path / "b.json", [("v", np.full((1, 3), 1e5), True)], origin="", dtype="float16")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path, _: path.unlink(), "there is no such block"),
        (lambda path, _: path.write_text("{"), "is not a block's index"),
        (lambda path, _: path.write_text(path.read_text().replace('"v0"', '"v7"')), "does not match its own digest"),
        (lambda _, raw: raw.write_bytes(raw.read_bytes()[:-1]), "has 11 bytes, its index says 12"),
        (lambda _, raw: raw.unlink(), "has 0 bytes"),
    ],
)
def test_a_damaged_block_is_refused(tmp_path, damage, message):
    path = tmp_path / "b.json"
    Block.write(path, [("v0", some_rows(1), True)], origin="", dtype="float16")
    damage(path, next(tmp_path.glob("*.rows")))
    with pytest.raises(BlockError, match=message):
        Block.open(path)


def test_damaged_rows_are_found_when_they_are_checked(tmp_path):
    Block.write(tmp_path / "b.json", [("v0", some_rows(1), True)], origin="", dtype="float16")
    raw = next(tmp_path.glob("*.rows"))
    raw.write_bytes(b"x" + raw.read_bytes()[1:])
    with pytest.raises(BlockError, match="rows are damaged"):
        Block.open(tmp_path / "b.json").check()


# splits

sources = st.lists(
    st.lists(st.booleans(), min_size=1, max_size=6), min_size=2, max_size=12
)  # labels of each source's videos


def listed(found):
    names = [f"{source}/{i}" for source, labels in enumerate(found) for i in range(len(labels))]
    return names, [label for labels in found for label in labels]


def source_of(name):
    return name.split("/")[0]


@given(sources, st.floats(0.05, 0.95), st.integers(0, 5))
def test_a_split_leaks_nothing_and_has_both_classes_on_both_sides_whenever_that_is_possible(found, share, seed):
    names, labels = listed(found)
    by_name = dict(zip(names, labels, strict=True))
    lacking = [which for which in (False, True) if sum(which in labels for labels in found) < 2]
    if lacking:
        with pytest.raises(ValueError, match=f"the {'abnormal' if lacking[0] else 'normal'} videos come from"):
            splits.grouped_split(names, labels, source_of, share=share, seed=seed)
        return
    train, held_out = splits.grouped_split(names, labels, source_of, share=share, seed=seed)
    assert sorted(train + held_out) == sorted(names)
    assert not {source_of(name) for name in train} & {source_of(name) for name in held_out}
    for side in (train, held_out):
        assert {by_name[name] for name in side} == {True, False}
    assert (train, held_out) == splits.grouped_split(names, labels, source_of, share=share, seed=seed)


def test_a_split_comes_near_the_share_of_each_class():
    names = [f"{kind}{n:03}" for kind in ("fi", "no") for n in range(1, 101)]
    labels = [name.startswith("fi") for name in names]
    splits_found = set()
    for seed in range(5):
        _, held_out = splits.grouped_split(names, labels, splits.number_blocks(10), share=0.2, seed=seed)
        assert [name[:2] for name in held_out].count("fi") == 20
        assert len(held_out) == 40
        splits_found.add(tuple(held_out))
    assert len(splits_found) > 1


def test_a_split_that_leaks_is_refused_with_the_source():
    with pytest.raises(ValueError, match="sources on both sides of the split: film; keep all"):
        splits.check_leak(["film__#1", "a__#1"], ["film__#2"], splits.xd_violence)


@given(sources, st.integers(2, 5), st.integers(0, 3), st.booleans())
def test_folds_share_no_source_and_none_is_empty(found, k, seed, stratified):
    names, labels = listed(found)
    if len(found) < k:
        with pytest.raises(ValueError, match=f"at most the {len(found)} sources, got {k}"):
            splits.folds(names, source_of, k, seed)
        return
    parts = splits.folds(names, source_of, k, seed, labels=labels if stratified else None)
    assert sorted(name for part in parts for name in part) == sorted(names)
    assert len(parts) == k
    for i, part in enumerate(parts):
        assert part
        splits.check_leak([name for other in parts[:i] for name in other], part, source_of)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: splits.grouped_split(["a"], [True], str, share=1.0, seed=0), "share must lie between 0 and 1, got 1"),
        (lambda: splits.grouped_split(["a"], [], str, share=0.5, seed=0), "got 1 names and 0 labels"),
        (lambda: splits.grouped_split(["a", "a"], [True] * 2, str, share=0.5, seed=0), "listed more than once: a"),
        (lambda: splits.number_blocks(10)("fight"), "'fight' has no number at its end"),
        (lambda: splits.number_blocks(0), "size must be at least 1, got 0"),
        (lambda: splits.xd_violence("Abuse001_x264"), "is not a name of XD-Violence"),
    ],
)
def test_splits_refuse(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_real_clips_are_split_by_source_and_batched(tmp_path):
    with np.load(data("fight", "i3d_features_fp16.npz")) as file:
        rows = np.split(file["feat"], np.cumsum(file["count"])[:-1])
        names, labels = file["names"].tolist(), [bool(label) for label in file["label"]]
    videos = zip(names, rows, labels, strict=True)
    block = Block.write(tmp_path / "fight.json", videos, origin="fight", dtype="float16")
    parts = splits.folds(names, splits.number_blocks(10), 10, 0, labels=labels)
    for part in parts:
        assert sum(block.labels[name] for name in part) == len(part) / 2 == 10
    train, held_out = splits.grouped_split(names, labels, splits.number_blocks(10), share=0.2, seed=0)
    assert (len(train), len(held_out)) == (160, 40)
    bags = Bags(block, {name: block.labels[name] for name in train}, segments=4, batch_pairs=16, seed=0)
    seen = {name for batch in bags.batches(range(len(bags))) for name in batch.names}
    assert seen == set(train)
