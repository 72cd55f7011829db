"""Pixel and region metrics against slow implementations that go through pixels, thresholds and boxes one by one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from vad.metrics.pixel import equal_error_rate, pixel_auc, pixel_criterion, pixel_ranks
from vad.metrics.region import rbdc_tbdc
from vad.metrics.tracks import Detections, Tracks, detections_from_heat, tracks_from_masks

seeds = st.integers(0, 2**32 - 1)


def blown_up(heats_NHW, size):
    """Nearest neighbour: each pixel takes the cell that its centre lies in."""
    rows, columns = ([int((p + 0.5) * c / n) for p in range(n)] for n, c in zip(size, heats_NHW.shape[1:], strict=True))
    return heats_NHW[:, rows][:, :, columns]


def videos(random, count=3):
    """Small random masks and maps of few levels, of a different size in each video."""
    masks, heats = [], []
    for _ in range(count):
        frames, height, width = random.integers(1, [5, 9, 9])
        grid = random.integers(1, [height + 1, width + 1])
        masks.append(random.random((frames, height, width)) < random.choice([0, 0.05, 0.4]))
        heats.append(random.integers(0, 5, (frames, *grid)) / np.float32(4))
    return masks, heats


def pixels(masks, heats):
    flat = [blown_up(heat, mask.shape[1:]).ravel() for mask, heat in zip(masks, heats, strict=True)]
    return np.concatenate([mask.ravel() for mask in masks]), np.concatenate(flat)


@given(seeds)
def test_pixels_counted_per_cell_rank_as_the_map_blown_up_to_the_picture(seed):
    masks, heats = videos(np.random.default_rng(seed))
    labels, scores = pixels(masks, heats)
    found = pixel_ranks(masks, heats)
    assert (found.abnormal, found.normal) == (labels.sum(), (~labels).sum())
    if labels.all() or not labels.any():
        assert np.isnan(pixel_auc(masks, heats))
    else:
        assert pixel_auc(masks, heats) == pytest.approx(roc_auc_score(labels, scores))
        assert found.average_precision == pytest.approx(average_precision_score(labels, scores))


@given(seeds, st.sampled_from([0.1, 0.4, 1.0]))
def test_pixel_criterion_equals_flagging_pixels_at_every_threshold(seed, share):
    masks, heats = videos(np.random.default_rng(seed))
    big = [blown_up(heat, mask.shape[1:]) for mask, heat in zip(masks, heats, strict=True)]
    frames = [pair for mask, heat in zip(masks, big, strict=True) for pair in zip(mask, heat, strict=True)]
    abnormal = sum(mask.any() for mask, _ in frames)
    curve = []
    for threshold in [np.inf, 1, 0.75, 0.5, 0.25, 0]:
        hits = sum((heat[mask] >= threshold).sum() >= share * mask.sum() - 1e-9 for mask, heat in frames if mask.any())
        false = sum((heat >= threshold).any() for mask, heat in frames if not mask.any())
        curve.append((false / max(len(frames) - abnormal, 1), hits / max(abnormal, 1)))
    found = pixel_criterion(masks, heats, share=share)
    assert (found.abnormal_frames, found.normal_frames) == (abnormal, len(frames) - abnormal)
    if abnormal in (0, len(frames)):
        assert np.isnan(found.auc)
        assert np.isnan(found.eer)
        return
    x, y = np.array(curve).T
    assert found.auc == pytest.approx(np.trapezoid(y, x))
    fine = np.linspace(0, len(x) - 1, 20 * len(x) + 1)  # along the curve, point by point
    along_x, along_y = (np.interp(fine, np.arange(len(x)), values) for values in (x, y))
    best = np.argmin(np.abs(along_x - (1 - along_y)))
    assert found.eer == pytest.approx(along_x[best], abs=0.06)


def test_pixel_criterion_asks_for_two_fifths_of_the_pixels():
    masks = np.zeros((3, 1, 10), bool)
    masks[0, 0, :5] = masks[1, 0, :5] = True
    heats = np.array([[[9, 9, 0, 0, 0, 0, 0, 0, 0, 0]], [[9, 0, 0, 0, 0, 9, 9, 9, 9, 9]], [[1] + 9 * [0]]], np.float32)
    # 2 of 5 are enough, 1 of 5 is not, however much is flagged beside; the normal frame scores 1
    assert pixel_criterion([masks], [heats]).auc == 0.5
    assert pixel_criterion([masks], [heats], share=0.2).auc == 1
    assert pixel_criterion([masks], [heats], share=0.2).eer == 0
    with pytest.raises(ValueError, match=r"share must lie in \(0, 1\], got 0"):
        pixel_criterion([masks], [heats], share=0)


@given(seeds)
def test_as_many_normal_frames_are_flagged_as_abnormal_ones_missed_at_the_equal_error_rate(seed):
    masks, heats = videos(np.random.default_rng(seed))
    found = pixel_ranks(masks, heats)
    rate = equal_error_rate(found)
    if found.abnormal and found.normal:
        recall = np.cumsum(found.abnormal_G) / found.abnormal
        x = np.r_[0, np.c_[found.above_G, found.level_G].ravel() / found.normal, 1]
        y = np.r_[0, np.c_[np.r_[0, recall[:-1]], recall].ravel(), 1]
        # on the curve at this rate lies a point with a recall of 1 - rate
        segments = [
            (x0, x1, y0, y1)
            for x0, x1, y0, y1 in zip(x[:-1], x[1:], y[:-1], y[1:], strict=True)
            if x0 - 1e-9 <= rate <= x1 + 1e-9
        ]
        assert any(
            min(y0, y1) - 1e-9 <= 1 - rate <= max(y0, y1) + 1e-9
            and (x1 - x0 < 1e-9 or abs(y0 + (rate - x0) / (x1 - x0) * (y1 - y0) - (1 - rate)) < 1e-6)
            for x0, x1, y0, y1 in segments
        )
    else:
        assert np.isnan(rate)


@pytest.mark.parametrize("measure", [pixel_auc, pixel_criterion])
def test_bad_maps_are_refused(measure):
    mask, heat = np.zeros((2, 4, 4), bool), np.zeros((2, 2, 2), np.float32)
    with pytest.raises(ValueError, match="need one map per mask"):
        measure([mask], [heat[:1]])
    with pytest.raises(ValueError, match="must not be finer than the picture, got 5 cells for 4 pixels"):
        measure([mask], [np.zeros((2, 5, 2), np.float32)])
    with pytest.raises(ValueError, match="1 frames have no complete heat map"):
        measure([mask], [np.array([[[0, np.nan]], [[0, 0]]])])
    with pytest.raises(ValueError, match="there is no video"):
        measure([], [])


# Regions and tracks


def tracks(*rows, frames=10):
    """Truth from (frame, box, track)."""
    return Tracks(
        np.array([r[0] for r in rows], int), np.array([r[1] for r in rows], int).reshape(-1, 4),
        np.array([r[2] for r in rows], int), frames,
    )  # fmt: skip


def found(*rows):
    """Detections from (frame, box, score)."""
    return Detections(
        np.array([r[0] for r in rows], int), np.array([r[1] for r in rows], int).reshape(-1, 4),
        np.array([r[2] for r in rows], float),
    )  # fmt: skip


def slow_iou(a, b):
    def cells(box):
        return {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}

    return len(cells(a) & cells(b)) / len(cells(a) | cells(b))


def slow_rbdc_tbdc(truth, detections, alpha, beta):
    """Both criteria from every threshold at which something can change, box by box."""
    lowest = [np.full(len(d.score_B), -np.inf) if d.lowest_B is None else d.lowest_B for d in detections]
    heights = {float(s) for d in detections for s in d.score_B}
    heights |= {float(np.nextafter(value, -np.inf)) for values in lowest for value in values if value > -np.inf}
    frames = sum(t.num_frames for t in truth)
    points = [(0.0, 0.0, 0.0)]
    for threshold in heights:
        false, hit, per_track = 0, 0, {}
        for v, (true, detected) in enumerate(zip(truth, detections, strict=True)):
            stands = [i for i, s in enumerate(detected.score_B) if lowest[v][i] <= threshold <= s]
            for i in stands:
                here = true.boxes_R4[true.frame_R == detected.frame_B[i]]
                false += all(slow_iou(detected.boxes_B4[i], box) < beta for box in here)
            for frame, box, track in zip(true.frame_R, true.boxes_R4, true.track_R, strict=True):
                near = any(detected.frame_B[i] == frame and slow_iou(detected.boxes_B4[i], box) >= beta for i in stands)
                hit += near
                per_track.setdefault((v, track), []).append(near)
        regions = sum(len(t.frame_R) for t in truth)
        enough = [sum(hits) >= alpha * len(hits) - 1e-9 for hits in per_track.values()]
        points.append((false / frames, hit / max(regions, 1), sum(enough) / max(len(enough), 1)))
    edges = sorted({0.0, 1.0} | {x for x, _, _ in points if x < 1})
    areas = [0.0, 0.0]
    for left, right in itertools.pairwise(edges):
        for k in (0, 1):
            areas[k] += (right - left) * max(point[1 + k] for point in points if point[0] <= left)
    return areas


def random_boxes(random, count):
    low = random.integers(0, 4, (count, 2))
    return np.concatenate([low, low + random.integers(1, 4, (count, 2))], axis=1)


@settings(deadline=None)
@given(seeds, st.sampled_from([0.1, 0.5, 1.0]), st.sampled_from([0.1, 0.5, 1.0]), st.booleans())
def test_rbdc_and_tbdc_equal_going_through_every_threshold(seed, alpha, beta, bounded):
    random = np.random.default_rng(seed)
    truth, detections = [], []
    for _ in range(random.integers(1, 4)):
        frames, regions, boxes = random.integers([1, 0, 0], [5, 7, 9])
        truth.append(
            Tracks(
                random.integers(0, frames, regions),
                random_boxes(random, regions),
                random.integers(0, 3, regions),
                frames,
            )
        )
        score = random.integers(0, 6, boxes) / 5
        lowest = score - random.integers(0, 6, boxes) / 5 if bounded else None
        detections.append(Detections(random.integers(0, frames, boxes), random_boxes(random, boxes), score, lowest))
    result = rbdc_tbdc(truth, detections, alpha=alpha, beta=beta)
    assert result.regions == sum(len(t.frame_R) for t in truth)
    if not result.regions:
        assert np.isnan([result.rbdc, result.tbdc]).all()
        return
    assert [result.rbdc, result.tbdc] == pytest.approx(slow_rbdc_tbdc(truth, detections, alpha, beta))


A, B, FAR = (0, 0, 10, 10), (20, 0, 30, 10), (50, 50, 60, 60)


def test_regions_and_tracks_by_hand():
    truth = tracks((0, A, 1), (1, A, 1), (2, B, 2), (3, B, 2))
    result = rbdc_tbdc([truth], [found((0, A, 0.9), (5, FAR, 0.8), (2, B, 0.7), (6, FAR, 0.6), (7, FAR, 0.6))])
    assert result.false_per_frame_P.tolist() == [0, 0, 0.1, 0.1, 0.3]
    assert result.region_recall_P.tolist() == [0, 0.25, 0.25, 0.5, 0.5]
    assert result.track_recall_P.tolist() == [0, 0.5, 0.5, 1, 1]
    # the detections end at 0.3 false positives per frame: flat from there to 1
    assert result.rbdc == pytest.approx(0.1 * 0.25 + 0.9 * 0.5)
    assert result.tbdc == pytest.approx(0.1 * 0.5 + 0.9 * 1)


def test_only_up_to_one_false_positive_per_frame_counts():
    truth = tracks((0, A, 1), (1, A, 1), frames=2)
    noise = [(frame, FAR, 0.5) for frame in (0, 0, 1)]
    result = rbdc_tbdc([truth], [found((0, A, 0.9), *noise, (1, A, 0.1))])
    assert (result.rbdc, result.tbdc) == (0.5, 1)


def test_no_detections_find_nothing_and_no_regions_leave_nothing_to_find():
    assert rbdc_tbdc([tracks((0, A, 1))], [found()]).rbdc == 0
    assert rbdc_tbdc([tracks((0, A, 1))], [found()]).tbdc == 0
    nothing = rbdc_tbdc([tracks()], [found((0, A, 0.5))])
    assert np.isnan([nothing.rbdc, nothing.tbdc]).all()
    assert nothing.false_per_frame_P.tolist() == [0, 0.1]


def test_more_detections_of_a_found_region_count_neither_way():
    truth = tracks((0, A, 1), (1, A, 1))
    once = rbdc_tbdc([truth], [found((0, A, 0.9))])
    often = rbdc_tbdc([truth], [found((0, A, 0.9), (0, (1, 1, 10, 10), 0.8), (0, (0, 0, 9, 9), 0.7))])
    assert often.rbdc == once.rbdc == 0.5
    assert often.false_per_frame_P.max() == 0


def test_one_detection_may_find_two_regions():
    truth = tracks((0, (0, 0, 10, 10), 1), (0, (10, 0, 20, 10), 2))
    assert rbdc_tbdc([truth], [found((0, (0, 0, 20, 10), 0.9))]).rbdc == 1


def test_limits_are_reached_by_equality():
    truth = tracks(*((frame, A, 1) for frame in range(10)))
    tenth = found((0, (0, 0, 1, 10), 0.9))  # an IoU of 1 / 10, in 1 of 10 regions
    assert rbdc_tbdc([truth], [tenth]).tbdc == 1
    assert rbdc_tbdc([truth], [tenth], alpha=0.11).tbdc == 0
    assert rbdc_tbdc([truth], [tenth], beta=0.11).rbdc == 0


def test_numbers_of_frames_and_tracks_are_of_one_video():
    one, other = tracks((0, A, 1), frames=1), tracks((0, A, 1), frames=3)
    result = rbdc_tbdc([one, other], [found(), found((0, A, 0.9))])
    assert (result.regions, result.tracks, result.frames) == (2, 2, 4)
    assert (result.rbdc, result.tbdc) == (0.5, 0.5)


def test_bad_regions_are_refused():
    with pytest.raises(ValueError, match="has 10 frames, got a detection in frame 10"):
        rbdc_tbdc([tracks()], [found((10, A, 0.5))])
    with pytest.raises(ValueError, match="has 10 frames, got a region in frame 10"):
        tracks((10, A, 1))
    with pytest.raises(ValueError, match="1 detections have no score"):
        found((0, A, np.nan))
    with pytest.raises(ValueError, match="x0 < x1"):
        found((0, (5, 0, 5, 2), 0.5))
    with pytest.raises(ValueError, match="frames count from 0, got -1"):
        found((-1, A, 0.5))
    with pytest.raises(ValueError, match="not above its score"):
        Detections(np.array([0]), np.array([A]), np.array([0.5]), np.array([0.6]))
    with pytest.raises(ValueError, match="of each video, got 1 and 0"):
        rbdc_tbdc([tracks()], [])
    with pytest.raises(ValueError, match=r"alpha and beta must lie in \(0, 1\], got 0 and 0.1"):
        rbdc_tbdc([tracks()], [found()], alpha=0)


# From maps and masks to regions


def slow_parts(mask):
    """Sets of cells that hang together, corners included."""
    todo, parts = set(zip(*map(list, np.nonzero(mask)), strict=True)), []
    while todo:
        part, edge = set(), {todo.pop()}
        while edge:
            part |= edge
            edge = {(y, x) for y, x in todo if any(abs(y - b) <= 1 and abs(x - a) <= 1 for b, a in edge)}
            todo -= edge
        parts.append(part)
    return parts


def slow_box(part):
    rows, columns = zip(*part, strict=True)
    return (min(columns), min(rows), max(columns) + 1, max(rows) + 1)


@settings(deadline=None)
@given(seeds)
def test_the_regions_that_stand_at_a_threshold_are_the_connected_parts_there(seed):
    random = np.random.default_rng(seed)
    heat = random.random((2, 5, 6))
    levels = [0.2, 0.5, 0.6, 0.9]
    result = detections_from_heat(heat, size=(6, 5), thresholds=levels)
    for threshold in [*levels, 0.3, 0.55, 0.95]:
        level = max(one for one in levels if one <= threshold)
        for frame in (0, 1):
            stands = (result.frame_B == frame) & (result.lowest_B <= threshold) & (threshold <= result.score_B)
            parts = slow_parts(heat[frame] >= level)
            wanted = {slow_box(part) for part in parts if max(heat[frame][cell] for cell in part) >= threshold}
            assert len(result.boxes_B4[stands]) == len(wanted)
            assert set(map(tuple, result.boxes_B4[stands].tolist())) == wanted
    assert not ((result.lowest_B <= 0.1) & (result.score_B >= 0.1)).any()


def test_one_threshold_gives_fixed_boxes_with_their_highest_heat():
    heat = np.array([[[0.9, 0.6, 0], [0, 0, 0], [0, 0, 0.7]]])
    result = detections_from_heat(heat, size=(30, 60), thresholds=[0.5])
    assert sorted(zip(result.boxes_B4.tolist(), result.score_B.tolist(), strict=True)) == [
        ([0, 0, 20, 20], 0.9),
        ([20, 40, 30, 60], 0.7),
    ]
    assert result.lowest_B.tolist() == [0.5, 0.5]


def test_a_map_held_over_frames_gives_its_regions_in_each():
    heat = np.repeat(np.array([[[0.9, 0.1]], [[0.1, 0.9]]], np.float32), [3, 2], axis=0)
    result = detections_from_heat(heat, size=(2, 1), thresholds=[0.5])
    assert result.frame_B.tolist() == [0, 1, 2, 3, 4]
    assert result.boxes_B4[:, 0].tolist() == [0, 0, 0, 1, 1]
    assert len(detections_from_heat(heat, size=(2, 1), thresholds=[0.95]).frame_B) == 0
    assert len(detections_from_heat(heat[:0], size=(2, 1)).frame_B) == 0


def test_bad_thresholds_and_maps_are_refused():
    heat = np.zeros((1, 2, 2))
    for thresholds in ([], [0.5, 0.5]):
        with pytest.raises(ValueError, match="thresholds must rise"):
            detections_from_heat(heat, size=(2, 2), thresholds=thresholds)
    with pytest.raises(ValueError, match="1 frames have no complete heat map"):
        detections_from_heat(heat * np.nan, size=(2, 2))
    with pytest.raises(ValueError, match=r"heat maps must be \(N, h, w\), got \(2, 2\)"):
        detections_from_heat(heat[0], size=(2, 2))


def picture(*lines):
    return np.array([[cell == "#" for cell in line] for line in lines])


def test_tracks_follow_the_largest_overlap_and_end_with_a_frame_without_it():
    masks = np.stack(
        [
            picture("##....", "......", "...##."),
            picture(".##...", "......", "..####"),
            picture("..##..", "......", "##..##"),
            picture("......", "......", "......"),
            picture("..##..", "......", "......"),
        ]
    )
    result = tracks_from_masks(masks)
    assert result.num_frames == 5
    assert result.frame_R.tolist() == [0, 0, 1, 1, 2, 2, 2, 4]
    assert result.boxes_R4.tolist()[:3] == [[0, 0, 2, 1], [3, 2, 5, 3], [1, 0, 3, 1]]
    # at frame 2 the part at the left shares nothing with the frame before
    assert result.track_R.tolist() == [0, 1, 0, 1, 0, 2, 1, 3]


def test_where_a_region_splits_the_larger_overlap_keeps_the_track():
    result = tracks_from_masks(np.stack([picture("#######"), picture("##.####")]))
    assert result.track_R.tolist() == [0, 1, 0]
    merged = tracks_from_masks(np.stack([picture("##.####"), picture("#######")]))
    assert merged.track_R.tolist() == [0, 1, 1]


def test_corners_connect_and_empty_masks_have_no_tracks():
    assert tracks_from_masks(np.stack([picture("#.", ".#")])).boxes_R4.tolist() == [[0, 0, 2, 2]]
    assert tracks_from_masks(np.zeros((3, 2, 2), bool)).boxes_R4.shape == (0, 4)


def test_perfect_maps_find_every_region_and_track():
    masks = np.zeros((6, 8, 8), bool)
    for frame in range(1, 5):
        masks[frame, 2:4, frame : frame + 2] = True
    heat = masks.astype(np.float32) * 0.9
    result = rbdc_tbdc([tracks_from_masks(masks)], [detections_from_heat(heat, size=(8, 8))])
    assert (result.rbdc, result.tbdc, result.regions, result.tracks) == (1, 1, 4, 1)
    assert pixel_auc([masks], [heat]) == pixel_criterion([masks], [heat]).auc == 1
