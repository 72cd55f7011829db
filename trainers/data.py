"""What a run trains on: lists, labels and features brought together, and cut into parts that share no source."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainers.bags import condense
from trainers.block import Block, BlockError
from trainers.lists import Listing, group_function, in_store, read_list, read_names
from trainers.settings import Listing as ListingSettings
from trainers.settings import Settings
from trainers.splits import Group, check_leak, grouped_split
from vad import datasets
from vad.datasets.annotation import Benchmark
from vad.datasets.assembly import listing as some
from vad.datasets.files import FrameCount, read_frame_counts, video_name
from vad.evaluation.alignment import align
from vad.evaluation.scores import Form, Scores, ScoreSet
from vad.metrics.frame import auc, ranks
from vad.store import Grid, Store
from vad.types import Array


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the videos of a block. True is abnormal."""

    labels: Mapping[str, bool]

    def auc(self, scores: Mapping[str, float]) -> float:
        """Area under the ROC of one score per video."""
        return auc(np.array([self.labels[name] for name in scores]), np.array(list(scores.values())))


@dataclass(frozen=True, slots=True)
class Data:
    """Everything that a run reads."""

    store: Store
    block: Block
    train: Part
    held_out: Part
    test: TestPart | None
    categories: Mapping[str, str]  # of abnormal videos, where they are known
    name: str  # of the training data, for provenance


@dataclass(frozen=True, slots=True)
class TestPart:
    """Test videos, and how a result on them is measured."""

    __test__ = False

    labels: Mapping[str, bool]
    benchmark: Benchmark | None  # None: no annotation frame by frame, whole videos are measured
    metric: str
    hop: int | None  # source frames per row; None: equal shares of each video
    grids: Mapping[str, Grid]  # of the videos whose rows have a known place

    @property
    def metric_name(self) -> str:
        """What ``measure`` gives, in words."""
        return f"frame {self.metric}" if self.benchmark is not None else "video auc"

    def measure(self, scores: Mapping[str, Array], videos: Mapping[str, float]) -> float:
        """The metric of snippet scores (T,) by video; of the videos' own scores where only whole videos are labelled.

        Raises ScoresError when scores and annotation do not belong together.
        """
        if self.benchmark is None:
            return Part(self.labels).auc(videos)
        form: Form = "segments" if self.hop is None else "snippets"
        given = {}
        for name, values in scores.items():
            held, hop = (self.grids[name].hold(values), 1) if name in self.grids else (values, self.hop or 1)
            given[video_name(name)] = Scores(held.astype(np.float64), form, hop)
        # frames that no row stands for count as the lowest score: what was not seen raised no alarm
        aligned = align(ScoreSet("features", form, given), self.benchmark, unscored="lowest").videos
        labels_N = np.concatenate([video.labels_N for video in aligned])
        found = ranks(labels_N, np.concatenate([video.scores_N for video in aligned]))
        return {
            "auc": found.auc,
            "ap": found.average_precision,
            "ap_trapezoid": found.average_precision_trapezoid,
        }[self.metric]


def read(settings: Settings) -> Data:
    """Open the store, read the lists, split, and pack the features into a block.

    Raises ValueError about lists, labels, sources and features, FileNotFoundError, and OSError.
    """
    sections = settings.sections
    store = Store.open(settings.store)
    benchmark = _benchmark(settings, store)
    listing = _listing(settings, store, without=() if benchmark is None else _named(store, benchmark))
    groups = group_function(sections.listing.groups, listing)
    names, labels = list(listing.labels), list(listing.labels.values())
    for which in (True, False):
        if which not in labels:
            raise ValueError(f"no {'abnormal' if which else 'normal'} video among the {len(names)} listed ones")
    test: dict[str, bool] | None = None
    if benchmark is not None:
        by_name = {video.name: video.abnormal for video in benchmark.videos}
        test = {name: by_name[video_name(name)] for name in _named(store, benchmark)}
        names = _apart(names, list(test), sections.listing, groups)
        labels = [listing.labels[name] for name in names]
    elif sections.test is not None and sections.test.share is not None:
        names, aside = grouped_split(names, labels, groups, share=sections.test.share, seed=sections.seed)
        test = {name: listing.labels[name] for name in aside}
    rest = [listing.labels[name] for name in names]
    train, held_out = grouped_split(names, rest, groups, share=sections.listing.held_out, seed=sections.seed)
    together = {**{name: listing.labels[name] for name in names}, **(test or {})}
    folder = Path(sections.blocks) if sections.blocks else settings.out
    block = Block.prepare(folder / "block.json", store, list(together), list(together.values()))
    grids = {name: grid for name in test or () if (grid := store.grid(name)) is not None}
    rest_hops = {record.hop_frames for name in test or () if name not in grids and (record := store.record(name))}
    if len(rest_hops) > 1 or (rest_hops and grids):
        raise ValueError(f"{store.folder}: its test videos were not extracted alike; extract them anew, or import them")
    kept = set(names)
    categories = {name: category for name, category in listing.categories.items() if name in kept}
    return Data(
        store,
        block,
        Part({name: listing.labels[name] for name in train}),
        Part({name: listing.labels[name] for name in held_out}),
        None
        if test is None or sections.test is None
        else TestPart(test, benchmark, sections.test.metric, next(iter(rest_hops), 1), grids),
        categories,
        _name(settings),
    )


def _name(settings: Settings) -> str:
    """What provenance says that a model was trained on: the benchmark, or the folder."""
    dataset = None if settings.sections.test is None else settings.sections.test.dataset
    return settings.data.resolve().name if dataset in (None, "custom") else str(dataset)


def training_block(data: Data, folder: Path, *, segments: int, sampling: str) -> Block:
    """What bags are drawn from: where bags are means, a block of the means, a tenth as large."""
    if sampling != "mean" or max(data.block.index.rows) <= segments:
        return data.block
    path = folder / f"segments-{segments}.json"
    try:
        block = Block.open(path)
        if block.index.origin == f"means of {segments} segments of {data.block.digest}":
            return block
    except BlockError:
        pass
    return condense(path, data.block, segments)


def _listing(settings: Settings, store: Store, *, without: Sequence[str]) -> Listing:
    """Labels, categories and groups by the names of the store."""
    sections = settings.sections.listing
    by_pattern = _pattern(sections.normal) if sections.normal else None
    table = None
    if sections.train is None:
        names = [name for name in store.names() if name not in set(without)]
    elif not sections.train.lower().endswith(".csv"):
        names = read_names(settings.data / sections.train)
    else:
        table = read_list(settings.data / sections.train)
        names = list(table.labels)
        wrong = [name for name, label in table.labels.items() if by_pattern and by_pattern(name) == label]
        if wrong:
            raise ValueError(f"{sections.train}: labels that contradict listing.normal: {some(wrong)}; correct either")
    if table is None and by_pattern is None:
        raise ValueError(
            "which videos are normal is not known: give patterns of their names in listing.normal, or a CSV "
            "video,label in listing.train"
        )
    place = in_store(store, names)
    labels = table.labels if table else {name: not by_pattern(name) for name in names} if by_pattern else {}
    category = _category(sections.categories, table)
    return Listing(
        {place[name]: labels[name] for name in names},
        {place[name]: category(name) for name in names if labels[name]} if category else {},
        {place[name]: table.groups[name] for name in names} if table and table.groups else None,
    )


def _pattern(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Whether a name, with its folders or without, matches one of the patterns."""
    return lambda name: any(
        fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(video_name(name), pattern) for pattern in patterns
    )


def _category(how: str | None, table: Listing | None) -> Callable[[str], str] | None:
    """From the name of an abnormal video to its category.

    UCF-Crime names a video after it (Abuse001), XD-Violence after all that happen, of which the first counts.
    """
    if how == "list":
        if table is None:
            raise ValueError("listing.categories is list, but listing.train is not a CSV video,label")
        return table.categories.__getitem__
    pattern = {"ucf-crime": r"([A-Za-z]+)\d", "xd-violence": r".*_label_(B\d|G)"}.get(how or "")
    if pattern is None:
        return None

    def read(name: str) -> str:
        match = re.match(pattern, video_name(name))
        if match is None:
            raise ValueError(f"{name!r} does not name a category as {how} does; set listing.categories")
        return match[1]

    return read


def _benchmark(settings: Settings, store: Store) -> Benchmark | None:
    test = settings.sections.test
    if test is None or test.dataset is None or test.annotations is None:
        return None
    if test.frames is not None:
        frames = read_frame_counts(settings.data / test.frames)
    else:
        records = ((name, store.record(name)) for name in store.names())
        frames = {video_name(name): FrameCount(r.frames, r.fps) for name, r in records if r is not None and r.frames}
    rows: dict[str, int] = {}
    if "x16" in test.conventions:
        rows = {video_name(name): store.shape(name)[0] for name in store.names()}
    return datasets.read(
        test.dataset,
        settings.data / test.annotations,
        split=test.split,
        frames=frames or None,
        conventions=test.conventions,
        rows=rows or None,
        hop=16 if rows else None,
    )


def _named(store: Store, benchmark: Benchmark) -> list[str]:
    return list(in_store(store, [video.name for video in benchmark.videos]).values())


def _apart(train: Sequence[str], test: Sequence[str], how: ListingSettings, groups: Group) -> list[str]:
    """Training videos that are not test videos, and share no source with one as far as the settings ask for it."""
    if both := sorted(set(train) & set(test)):
        raise ValueError(f"test videos on the training list: {some(both)}; take them off it")
    if how.groups in ("each", "list") or how.shared == "keep":
        return list(train)
    if how.shared == "refuse":
        check_leak(train, test, groups)
    sources = {groups(name) for name in test}
    return [name for name in train if groups(name) not in sources]
