"""Normal-only heads: hand-worked cases, a second implementation, and the contract of every head."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import OAS
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from vad.config import available, load, settings_class
from vad.head import NormalHeadSettings, TooLittleFootageError, principal_components
from vad.heads.gaussian import shrink
from vad.heads.memory import coreset

KINDS = [k for k in available("vad.heads") if issubclass(settings_class("vad.heads", k), NormalHeadSettings)]
PLAIN = {"pool": 1, "unit_length": False, "top": 3}  # distances between features as they are


def batches(features: np.ndarray, videos: int = 8):
    for number, part in enumerate(np.array_split(features, videos)):
        for start in range(0, len(part), 5):
            yield number, part[start : start + 5]


def normal_maps(count: int = 96, size: int = 16, seed: int = 0) -> np.ndarray:
    """Maps (N, 3, 4, D) whose rows differ in mean and spread, as a slanting camera's do."""
    random = np.random.default_rng(seed)
    rows = np.arange(3)[:, None, None]
    return (random.normal(size=(count, 3, 4, size)) * (1 + rows) + 5 * rows).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("context", ["everywhere", "row", "place"])
def test_an_odd_place_raises_the_score_and_is_found_on_the_map(kind, context):
    head = load("vad.heads", {**PLAIN, "kind": kind, "context": context, "reduce": 8}).build()
    head.fit(batches(normal_maps()))
    quiet, odd = normal_maps(8, seed=1), normal_maps(8, seed=1)
    odd[:, 1, 2] += 30
    before, after = head.score(quiet), head.score(odd)
    assert before.raw_B.shape == (8,)
    assert after.heat_BHW.shape == (8, 3, 4)
    assert (after.raw_B > before.raw_B).all()
    assert (after.heat_BHW.reshape(8, -1).argmax(1) == 1 * 4 + 2).all()


@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_places_have_no_heat_map(kind):
    head = load("vad.heads", {**PLAIN, "kind": kind}).build()
    rows = np.random.default_rng(0).normal(size=(64, 12)).astype(np.float32)
    head.fit(batches(rows))
    scores = head.score(np.concatenate([rows[:4], rows[:4] + 9]))
    assert scores.heat_BHW is None
    assert scores.raw_B[4:].min() > scores.raw_B[:4].max()


@pytest.mark.parametrize("kind", KINDS)
def test_snippets_of_a_batch_do_not_see_each_other(kind):
    head = load("vad.heads", {"kind": kind}).build()
    head.fit(batches(normal_maps()))
    maps = normal_maps(7, seed=2)
    together = head.score(maps).raw_B
    alone = np.concatenate([head.score(one[None]).raw_B for one in maps])
    np.testing.assert_allclose(together, alone, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_head_gives_the_same_scores(kind):
    settings = load("vad.heads", {"kind": kind, "reduce": 6})
    head, twin = settings.build(), settings.build()
    head.fit(batches(normal_maps()))
    twin.restore(head.state_dict())
    maps = normal_maps(5, seed=3)
    np.testing.assert_array_equal(head.score(maps).raw_B, twin.score(maps).raw_B)


@pytest.mark.parametrize("kind", KINDS)
def test_leave_one_out_scores_are_like_those_of_unseen_normal_footage(kind):
    head = load("vad.heads", {"kind": kind, "top": 1}).build()
    held_out = head.fit(batches(normal_maps(160)))
    unseen = head.score(normal_maps(160, seed=4)).raw_B
    seen = head.score(normal_maps(160)).raw_B
    assert abs(np.median(held_out) / np.median(unseen) - 1) < 0.05
    assert np.median(seen) < np.median(unseen)  # what a calibration on fitted footage would have got wrong


@pytest.mark.parametrize("kind", KINDS)
def test_misuse_is_told(kind):
    head = load("vad.heads", {"kind": kind}).build()
    with pytest.raises(ValueError, match="has not been fitted"):
        head.score(normal_maps(1))
    with pytest.raises(TooLittleFootageError, match="3 snippets, at least 16 are needed"):
        head.fit([(0, normal_maps(3))])
    head.fit(batches(normal_maps()))
    with pytest.raises(ValueError, match="5 values per place, this head was fitted on 16"):
        head.score(np.zeros((1, 3, 4, 5), np.float32))
    with pytest.raises(ValueError, match=r"must be \(B, D\) or \(B, h, w, D\)"):
        head.score(np.zeros((1, 3, 5), np.float32))


def test_long_footage_is_sampled_evenly_and_within_its_budget():
    # 1 MiB holds 512 maps of 2 KiB
    settings = load("vad.heads", {"kind": "memory", "fit_memory_mb": 1, "reduce": None, "capacity": 64})
    maps = np.arange(4000, dtype=np.float32)[:, None, None, None] * np.ones((1, 2, 2, 256), np.float32)
    held_out = settings.build().fit((0, part) for part in np.array_split(maps, 100))
    assert len(held_out) == 512


def test_pooling_averages_neighbours_and_unit_length_keeps_directions():
    head = load("vad.heads", {"kind": "memory", "pool": 3}).build()
    maps = torch.zeros(1, 3, 3, 2)
    maps[0, 1, 1] = torch.tensor([9.0, 0.0])
    maps[0, 0, 0] = torch.tensor([0.0, 4.0])
    prepared = head._prepare(maps)
    corner = torch.tensor([9 / 4, 4 / 4])  # four places, only those inside the map count
    torch.testing.assert_close(prepared[0, 0, 0], corner / corner.norm())
    torch.testing.assert_close(prepared[0, 2, 2], torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="pool must be odd"):
        load("vad.heads", {"kind": "memory", "pool": 2})


def test_equalised_contexts_reach_one_at_their_farthest_normal_place():
    settings = {**PLAIN, "kind": "memory", "top": 1, "context": "row", "equalise": True}
    held_out = load("vad.heads", settings).build().fit(batches(normal_maps()))
    assert held_out.max() == pytest.approx(1)
    as_it_is = load("vad.heads", {**settings, "equalise": False}).build().fit(batches(normal_maps()))
    assert as_it_is.max() > 5  # the lowest row varies three times as much as the highest


class TestMemory:
    def test_distances_equal_an_independent_nearest_neighbour_search(self):
        maps = normal_maps(64)
        head = load(
            "vad.heads",
            {
                "kind": "memory",
                "context": "everywhere",
                "reduce": None,
                "pool": 1,
                "unit_length": False,
                "neighbours": 3,
                "top": 12,
            },
        ).build()
        head.fit(batches(maps))
        bank = maps.reshape(-1, 16)
        queries = normal_maps(6, seed=5)
        reference = (
            NearestNeighbors(n_neighbors=3)
            .fit(bank)
            .kneighbors(queries.reshape(-1, 16))[0]
            .mean(1)
            .reshape(6, -1)
            .mean(1)
        )
        np.testing.assert_allclose(head.score(queries).raw_B * float(head.scale_C[0]), reference, rtol=1e-4)

    def test_what_is_in_the_memory_scores_zero(self):
        maps = normal_maps(64)
        head = load("vad.heads", {"kind": "memory", "reduce": None}).build()
        head.fit(batches(maps))
        # float32: half a squared distance is a difference of numbers around 1e3
        assert head.score(maps[:4]).raw_B.max() < 1e-2

    def test_a_coreset_covers_better_than_chance(self):
        generator = torch.Generator().manual_seed(0)
        clusters = torch.cat([torch.randn(2000, 4, generator=generator), 20 + torch.randn(20, 4, generator=generator)])

        def cover(chosen: torch.Tensor) -> float:
            return float(torch.cdist(clusters, clusters[chosen]).amin(1).max())

        chosen = coreset(clusters, 64, candidates=4000, generator=generator)
        assert len(chosen.unique()) == 64
        by_chance = [cover(torch.randperm(len(clusters), generator=generator)[:64]) for _ in range(5)]
        assert cover(chosen) < min(by_chance)

    def test_a_small_set_is_its_own_coreset(self):
        rows = torch.randn(10, 3)
        assert sorted(coreset(rows, 64, candidates=64, generator=torch.Generator()).tolist()) == list(range(10))


class TestGaussian:
    def test_identity_covariance_gives_the_euclidean_distance(self):
        head = load("vad.heads", {"kind": "gaussian"}).build()
        head.centre_CE, head.whitener_CEE = torch.zeros(1, 2), torch.eye(2)[None]
        assert head._distances(torch.tensor([[[[3.0, 4.0]]]])).item() == pytest.approx(5)

    def test_full_shrinkage_is_a_scaled_euclidean_distance(self):
        rows = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32) * [1, 2, 3, 4, 5]
        head = load("vad.heads", {**PLAIN, "kind": "gaussian", "shrinkage": 1.0, "reduce": None}).build()
        head.fit(batches(rows.astype(np.float32)))
        queries = np.eye(5, dtype=np.float32) * 7
        euclid = np.linalg.norm(queries - rows.mean(0), axis=1)
        np.testing.assert_allclose(
            head.score(queries).raw_B / euclid, (head.score(queries).raw_B / euclid)[0], rtol=1e-3
        )

    def test_mean_squared_distance_of_standard_normal_data_is_its_dimension(self):
        rows = np.random.default_rng(0).normal(size=(4000, 6)).astype(np.float32)
        head = load("vad.heads", {**PLAIN, "kind": "gaussian", "reduce": None}).build()
        head.fit(batches(rows))
        squared = (head.score(rows).raw_B * float(head.scale_C[0])) ** 2
        assert squared.mean() == pytest.approx(6, rel=0.01)

    @pytest.mark.parametrize("count", [12, 60, 2000])
    def test_shrinkage_equals_an_independent_implementation(self, count):
        rows = np.random.default_rng(count).normal(size=(count, 8)) @ np.diag(np.arange(1, 9))
        reference = OAS(assume_centered=False).fit(rows).covariance_
        centred = torch.from_numpy(rows - rows.mean(0))
        ours = shrink((centred.T @ centred / count)[None], count, None)[0]
        # scikit-learn drops the -2/E terms of the paper's formula
        np.testing.assert_allclose(ours, reference, rtol=0.15, atol=0.02 * np.abs(reference).max())


def test_principal_components_equal_an_independent_implementation():
    maps = torch.from_numpy(normal_maps(50)).half()
    mean, basis = principal_components(maps, 4)
    reference = PCA(4).fit(maps.float().reshape(-1, 16).numpy())
    np.testing.assert_allclose(mean, reference.mean_, atol=1e-3)
    np.testing.assert_allclose((basis.T @ torch.from_numpy(reference.components_.T)).abs(), np.eye(4), atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("more", [PLAIN, {"top": 3}], ids=["plain", "default"])
def test_a_planted_anomaly_is_ranked_first(kind, more):
    head = load("vad.heads", {**more, "kind": kind}).build()
    head.fit(batches(normal_maps(128)))
    test = normal_maps(100, seed=9)
    labels = np.zeros(100)
    labels[40:60] = 1
    test[40:60, 2, :2] += 12 * np.sign(np.arange(16) - 7.5)  # another direction, not only another length
    assert roc_auc_score(labels, head.score(test).raw_B) > 0.95


def test_features_that_do_not_vary_in_every_direction_are_refused_by_the_gaussian():
    grey = np.repeat(np.random.default_rng(0).random((400, 1)), 3, axis=1).astype(np.float32)
    head = load("vad.heads", {"kind": "gaussian", "reduce": None, "unit_length": False, "shrinkage": 0.0}).build()
    with pytest.raises(ValueError, match="do not vary in all of their 3 directions"):
        head.fit([(i // 50, row[None]) for i, row in enumerate(grey)])
