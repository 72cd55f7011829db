"""Composed videos: their parts, their truth, and what a cut does to both."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import data
from hypothesis import given
from hypothesis import strategies as st

from trainers.block import Block
from trainers.splits import number_blocks
from trainers.synthesis import Composer, Part, Plan

parts = st.lists(
    st.builds(
        lambda name, start, count, abnormal: Part(f"c{name}", start, start + count, abnormal),
        st.integers(0, 9),
        st.integers(0, 3),
        st.integers(1, 5),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


def clips(folder, *, sources=8, of_each=3, seed=0):
    """A block of clips a0…, n0… of 1 to 6 rows; every value of a clip is its place in the block."""
    random = np.random.default_rng(seed)
    names = [f"{kind}{n:02}" for kind in "an" for n in range(sources * of_each)]
    videos = [
        (name, np.full((int(random.integers(1, 7)), 2, 3), i, np.float32), name[0] == "a")
        for i, name in enumerate(names)
    ]
    return Block.write(folder / "clips.json", videos, origin="test", dtype="float32")


GROUPS = number_blocks(3, first=0)


@pytest.fixture(scope="module")
def block(tmp_path_factory):
    return clips(tmp_path_factory.mktemp("clips"))


@given(number=st.integers(0, 500), abnormal=st.booleans(), seed=st.integers(0, 3), similar=st.sampled_from([0, 0.5, 1]))
def test_a_plan_is_one_anchor_among_normal_clips_of_other_sources(block, number, abnormal, seed, similar):
    plan = Composer(block, block.labels, GROUPS, similar=similar, seed=seed).plan(number, abnormal=abnormal)
    names = [part.name for part in plan.parts]
    assert 1 <= len(names) <= 5
    assert len(set(names)) == len(names)
    assert len({GROUPS(name) for name in names}) == len(names)
    assert sum(part.abnormal for part in plan.parts) == int(abnormal)
    assert plan.abnormal == abnormal
    for part in plan.parts:
        assert part.abnormal == block.labels[part.name]
        assert (part.start, part.end) == (0, len(block.rows(block.at(part.name))))


@given(number=st.integers(0, 500), abnormal=st.booleans())
def test_rows_and_labels_are_those_of_the_parts(block, number, abnormal):
    plan = Composer(block, block.labels, GROUPS, seed=0).plan(number, abnormal=abnormal)
    rows, labels = plan.rows(block), plan.labels()
    assert rows.shape == (len(plan), 2, 3)
    assert len(labels) == len(plan)
    for part, (start, end) in zip(plan.parts, plan.spans, strict=True):
        assert (rows[start:end] == block.at(part.name)).all()
        assert (labels[start:end] == part.abnormal).all()


def test_a_plan_depends_on_seed_and_number_only(block):
    one, other = (Composer(block, block.labels, GROUPS, seed=4) for _ in range(2))
    expected = [one.plan(number, abnormal=True) for number in range(20)]
    assert [other.plan(number, abnormal=True) for number in reversed(range(20))] == expected[::-1]
    assert [plan for plan in other.plans(5, first=15) if plan.abnormal] == expected[15:]
    assert Composer(block, block.labels, GROUPS, seed=5).plan(0, abnormal=True) != expected[0]


def test_every_abnormal_clip_has_its_turn(block):
    composer = Composer(block, block.labels, GROUPS, seed=0)
    anchors = [next(part.name for part in plan.parts if part.abnormal) for plan in composer.plans(24) if plan.abnormal]
    assert sorted(anchors) == [name for name, label in block.labels.items() if label]


def test_lengths_and_slots_follow_the_recipe(block):
    composer = Composer(block, block.labels, GROUPS, seed=0)
    plans = [composer.plan(number, abnormal=True) for number in range(2000)]
    counts = np.bincount([len(plan.parts) for plan in plans], minlength=6)[1:] / len(plans)
    np.testing.assert_allclose(counts, [0.3 + 0.7 / 5, *[0.7 / 5] * 4], atol=0.035)
    five = [[part.abnormal for part in plan.parts].index(True) for plan in plans if len(plan.parts) == 5]
    np.testing.assert_allclose(np.bincount(five, minlength=5) / len(five), 0.2, atol=0.09)


def test_similar_fillers_are_the_nearest_normal_clips(tmp_path):
    angles = {"a00": 0.0} | {f"n{i:02}": 0.1 * (i + 1) for i in range(12)}
    videos = [(name, np.float32([[np.cos(angle), np.sin(angle)]]), name[0] == "a") for name, angle in angles.items()]
    block = Block.write(tmp_path / "b.json", videos, origin="test", dtype="float32")
    composer = Composer(block, block.labels, str, single=0, longest=3, similar=1, nearest=4, seed=0)
    fillers = [
        [part.name for part in composer.plan(number, abnormal=True).parts if not part.abnormal] for number in range(200)
    ]
    assert {names[0] for names in fillers if names} == {"n00", "n01", "n02", "n03"}
    assert {names[1] for names in fillers if len(names) > 1} == {"n00", "n01", "n02", "n03", "n04"}
    composer = Composer(block, block.labels, str, single=0, longest=3, similar=0, nearest=4, seed=0)
    by_chance = {part.name for number in range(200) for part in composer.plan(number, abnormal=True).parts}
    assert by_chance == set(block.names)


@given(parts, st.data())
def test_a_cut_takes_rows_and_truth_alike(chosen, random):
    plan = Plan(tuple(chosen))
    start = random.draw(st.integers(0, len(plan) - 1))
    end = random.draw(st.integers(start + 1, len(plan) + 3))
    cut = plan.cut(start, end)

    def each_row(plan):
        return [(part.name, row, part.abnormal) for part in plan.parts for row in range(part.start, part.end)]

    assert each_row(cut) == each_row(plan)[start:end]
    assert cut.labels().tolist() == plan.labels().tolist()[start:end]
    assert cut.abnormal == bool(plan.labels()[start:end].any())


def test_a_bag_whose_anomaly_is_cut_off_becomes_normal():
    plan = Plan((Part("walk", 0, 4, False), Part("fight", 0, 2, True)))
    assert plan.abnormal
    assert not plan.cut(0, 4).abnormal
    assert not plan.cut(0, 4).labels().any()


@given(parts, st.integers(1, 12), st.integers(0, 99))
def test_a_crop_starts_in_the_first_half_and_keeps_the_limit(chosen, limit, seed):
    plan = Plan(tuple(chosen))
    marked = plan.crop(limit, np.random.default_rng(seed))
    start = int(np.random.default_rng(seed).integers(max(len(plan) // 2, 1)))
    assert start < max(len(plan) / 2, 1)
    assert marked == plan.cut(start, start + limit)
    assert len(marked) <= limit


def test_frames_to_join_and_their_labels_fit_each_other():
    plan = Plan((Part("walk", 1, 3, False), Part("fight", 0, 1, True)))
    assert plan.frames(hop_frames=16) == [("walk", 16, 48), ("fight", 0, 16)]
    assert plan.labels(hop_frames=16).tolist() == [False] * 32 + [True] * 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"single": 1.5}, "single must lie between 0 and 1, got 1.5"),
        ({"similar": -0.1}, "similar must lie between 0 and 1, got -0.1"),
        ({"longest": 0}, "longest must be at least 1, got 0"),
        ({"nearest": 0}, "nearest must be at least 1, got 0"),
        ({"longest": 9}, "takes as many normal sources, there are 8"),
        ({"labels": {"a00": True}}, "takes as many normal sources, there are 0"),
        ({"labels": {"a00": False}}, "holds the opposite label for a00"),
    ],
)
def test_a_composer_refuses(block, changes, message):
    with pytest.raises(ValueError, match=message):
        Composer(block, **{"labels": block.labels, "groups": GROUPS, "seed": 0} | changes)


def test_a_class_without_clips_has_no_plans(block):
    normal = {name: label for name, label in block.labels.items() if not label}
    with pytest.raises(ValueError, match="no abnormal clip to build a video around"):
        Composer(block, normal, GROUPS, seed=0).plan(0, abnormal=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Part("a", 2, 2, True), r"0 <= start < end, got \[2, 2\) of a"),
        (lambda: Plan(()), "at least one part"),
        (lambda: Plan((Part("a", 0, 2, True),)).cut(2, 3), r"start < 2 rows, got \[2, 3\)"),
        (lambda: Plan((Part("a", 0, 2, True),)).crop(0, np.random.default_rng()), "limit must be at least 1, got 0"),
    ],
)
def test_plans_refuse(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_real_clips_become_untrimmed_videos_with_a_known_truth(tmp_path):
    with np.load(data("fight", "i3d_features_fp16.npz")) as file:
        rows = np.split(file["feat"], np.cumsum(file["count"])[:-1])
        names, labels = file["names"].tolist(), [bool(label) for label in file["label"]]
    block = Block.write(tmp_path / "fight.json", zip(names, rows, labels, strict=True), origin="fight", dtype="float16")
    composer = Composer(block, block.labels, number_blocks(10), seed=0)
    plans = list(composer.plans(100))
    by_name = dict(zip(names, rows, strict=True))
    for plan in plans:
        expected = np.concatenate([by_name[part.name] for part in plan.parts])[:, None]
        np.testing.assert_array_equal(plan.rows(block), expected)
        truth = [part.name.startswith("fight") for part in plan.parts for _ in by_name[part.name]]
        assert plan.labels().tolist() == truth
    composed = Block.write(
        tmp_path / "composed.json",
        ((f"composed-{i:03}", plan.rows(block), plan.abnormal) for i, plan in enumerate(plans)),
        origin=f"composed of {block.digest}",
        dtype="float16",
    )
    assert sum(composed.index.labels) == 100
    assert composed.index.rows == tuple(map(len, plans))
    assert any(len(plan) > 12 for plan in plans)
