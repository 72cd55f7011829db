"""``vad compose``: trimmed clips in, untrimmed videos with a known truth out.

``--out`` becomes a folder of ``plans.json`` (settings, and what each video is joined from), ``features`` (a feature
store), ``videos`` where they are asked for, and last ``truth.csv`` (of the dataset ``custom``) and ``labels.csv``.
Everything follows from the clips and the settings, so a run that was killed is completed by running it again.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer

from trainers.block import Values
from trainers.lists import ABNORMAL, NORMAL, Listing, group_function, in_store, read_list
from trainers.splits import Group
from trainers.synthesis import Composer, Plan
from vad.cli.console import progress
from vad.files import replacing, writable_folder
from vad.joining import SMALLEST, Piece, Size, Spans, even, find_video, spans_of, write_rows, write_video
from vad.store import Record, Source, Store, StoreError
from vad.video import probe

FORMAT = 1
PLANS, TRUTH, LABELS, FEATURES, VIDEOS = "plans.json", "truth.csv", "labels.csv", "features", "videos"
_CUT = 2  # what a random stream is for; the composer has 0 and 1


@dataclass(frozen=True, slots=True)
class Recipe:
    """How videos are composed; ``single``, ``longest`` and ``similar`` are the composer's."""

    count: int
    groups: str | None  # None: the list's column, or else every clip is its own source
    single: float
    longest: int
    similar: float
    limit: int | None  # rows
    seed: int

    def __post_init__(self) -> None:
        for name, number, least in (("count", self.count, 1), ("limit", self.limit, 1), ("seed", self.seed, 0)):
            if number is not None and number < least:
                raise ValueError(f"--{name} must be at least {least}, got {number}")


@dataclass(frozen=True, slots=True)
class Composed:
    """One video to be made."""

    name: str
    plan: Plan
    pieces: tuple[Piece, ...]
    category: str | None  # of what is abnormal in it; None in a normal one

    @property
    def frames(self) -> int:
        """How many."""
        return sum(piece.frames for piece in self.pieces)

    def intervals(self) -> list[tuple[int, int]]:
        """Abnormal frames ``[start, end)``."""
        ends = np.cumsum([piece.frames for piece in self.pieces]).tolist()
        whole = zip(self.plan.parts, self.pieces, ends, strict=True)
        return [(end - piece.frames, end) for part, piece, end in whole if part.abnormal]


class StoredClips:
    """Clips of a store; the rows of one are read when they are asked for, what else is known of it is kept."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._names: list[str] = []
        self._places: dict[str, int] = {}
        self._known: dict[str, tuple[Record, Spans]] = {}

    def check_labels(self, labels: Mapping[str, bool]) -> None:
        """Raises ValueError for clips whose rows differ in shape."""
        self._names = list(labels)
        self._places = {name: i for i, name in enumerate(self._names)}
        shapes = {name: self._store.shape(name)[1:] for name in labels}
        first = self._names[0]
        if other := next((name for name in labels if shapes[name] != shapes[first]), None):
            raise ValueError(
                f"{self._store.folder}: rows of {other} have shape {shapes[other]}, those of {first} {shapes[first]}; "
                "list clips of one kind"
            )

    def at(self, name: str) -> int:
        """The place of a clip among those that were checked."""
        return self._places[name]

    def rows(self, i: int) -> Values:
        """Of clip ``i``: (T, K, D). Raises ValueError for rows that cannot be joined."""
        clip = self._store.read(self._names[i])
        self._known[clip.record.name] = clip.record, spans_of(clip)
        return clip.values.reshape(len(clip.values), -1, clip.values.shape[-1])

    def pieces(self, plan: Plan) -> tuple[Piece, ...]:
        """What the parts of a plan are in the store."""
        found = []
        for part in plan.parts:
            record, spans_T2 = self._known[part.name]
            frames = int(spans_T2[part.start, 0]), int(spans_T2[part.end - 1, 1])
            found.append(Piece(record, part.start, part.end, *frames))
        return tuple(found)


def run(
    folder: Path,
    *,
    labels: Path,
    out: Path,
    recipe: Recipe,
    videos: Path | None,
    size: str | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Compose what is missing, and say what was done; the exit code."""
    if size is not None and videos is None:
        raise ValueError("--size is that of the pictures; give --videos too")
    side = None if size is None else _size(size)
    store = Store.open(folder)
    listing = _as_stored(read_list(labels), store)
    words = recipe.groups or ("each" if listing.groups is None else "list")
    groups, there = group_function(words, listing), _existing(out)
    composed = _compose(StoredClips(store), listing, groups, recipe)
    document = _document(composed, asdict(recipe) | {"groups": words}, groups, store)
    if there is not None and (reason := _difference(there, document)):
        raise ValueError(f"{out}: {reason}; give another --out")
    files = {} if videos is None else _find(videos, composed)
    sizes = {video.name: side or _shown(video, files) for video in composed} if files else {}
    wanted = [video for video in composed if files and not _is_there(out, video, sizes[video.name])]

    writable_folder(out)
    _write(out / PLANS, json.dumps(document, indent=1) + "\n")
    made = 0
    with progress(sum(video.frames for video in (*composed, *wanted)), quiet=quiet or as_json) as bar:
        target = Store.prepare(out / FEATURES, store.manifest)
        target.remove_leftovers()
        for video, entry in zip(composed, document["videos"], strict=True):
            made += _add(target, video, entry, clips=store)
            bar.advance(video.name, video.frames)
        for video in wanted:
            parts = [(files[piece.clip.name], piece) for piece in video.pieces]
            with replacing(_video(out, video)) as temporary:
                write_video(temporary, parts, size=sizes[video.name], fps=_fps(video, files))
            bar.advance(video.name, video.frames)
    _write(out / LABELS, _labels(composed, document))
    _write(out / TRUTH, _truth(composed))
    facts = _facts(composed, document) | {"composed": made, "encoded": len(wanted), "out": str(out)}
    if as_json:
        typer.echo(json.dumps(facts))
    elif not quiet:
        typer.echo(_summary(facts))
    return 0


def _as_stored(listing: Listing, store: Store) -> Listing:
    """The list with the store's names."""
    names = in_store(store, list(listing.labels))
    groups = None if listing.groups is None else {names[name]: group for name, group in listing.groups.items()}
    return Listing(
        {names[name]: label for name, label in listing.labels.items()},
        {names[name]: category for name, category in listing.categories.items()},
        groups,
    )


def _compose(clips: StoredClips, listing: Listing, groups: Group, recipe: Recipe) -> list[Composed]:
    composer = Composer(
        clips,
        listing.labels,
        groups,
        single=recipe.single,
        longest=recipe.longest,
        similar=recipe.similar,
        seed=recipe.seed,
    )
    digits = max(4, len(str(recipe.count)))
    composed = []
    for i in range(recipe.count):
        plan = composer.plan(i // 2, abnormal=i % 2 == 0)
        if recipe.limit is not None and len(plan) > recipe.limit:
            plan = plan.crop(recipe.limit, np.random.default_rng((recipe.seed, _CUT, i)))
        category = next((listing.categories[part.name] for part in plan.parts if part.abnormal), None)
        composed.append(Composed(f"composed-{i + 1:0{digits}}", plan, clips.pieces(plan), category))
    return composed


def _document(composed: Sequence[Composed], settings: dict[str, Any], groups: Group, store: Store) -> dict[str, Any]:
    """What ``plans.json`` says."""
    shared = _components([{groups(part.name) for part in video.plan.parts} for video in composed])
    return {
        "format": FORMAT,
        "settings": settings,
        "features": store.key(""),  # how they were made
        "videos": [
            {
                "name": video.name,
                "label": video.category or NORMAL,
                "group": f"sources-{group}",
                "frames": video.frames,
                "fps": video.pieces[0].clip.fps,
                "parts": [
                    {
                        "clip": part.name,
                        "abnormal": part.abnormal,
                        "rows": [piece.start, piece.end],
                        "frames": [piece.first_frame, piece.end_frame],
                        "source_sha256": piece.clip.source.sha256,
                        "values_sha256": piece.clip.values_sha256,
                    }
                    for part, piece in zip(video.plan.parts, video.pieces, strict=True)
                ],
            }
            for video, group in zip(composed, shared, strict=True)
        ],
    }


def _components(sources: Sequence[set[str]]) -> list[int]:
    """Numbers from 1 for videos of these sources: the same one where videos share a source, even by way of others.

    >>> _components([{"a", "b"}, {"c"}, {"b", "d"}, {"d"}])
    [1, 2, 1, 1]
    """
    joined: list[set[str]] = []
    for mine in sources:
        touching = [group for group in joined if group & mine]
        joined = [group for group in joined if not group & mine] + [mine.union(*touching)]
    found = [next(i for i, group in enumerate(joined) if group & mine) for mine in sources]
    numbers = {i: number for number, i in enumerate(dict.fromkeys(found), start=1)}
    return [numbers[i] for i in found]


def _existing(out: Path) -> dict[str, Any] | None:
    """The plans of an earlier run; None where nothing is yet. Raises ValueError for a folder of other things."""
    if out.is_file():
        raise ValueError(f"{out}: is a file; give a folder for the composed videos")
    if not (out / PLANS).is_file():
        if out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir()):  # hidden: of a killed run
            raise ValueError(f"{out}: holds something that is not composed videos; give another --out")
        return None
    try:
        found = json.loads((out / PLANS).read_text(encoding="utf-8"))
        if found["format"] != FORMAT or not isinstance(found["settings"], dict):
            raise ValueError
    except (ValueError, KeyError, TypeError) as cause:
        raise ValueError(f"{out / PLANS}: is damaged, or no file of vad compose; give another --out") from cause
    return dict(found)


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    """Why what is there cannot be completed."""
    mine, theirs = old["settings"], new["settings"]
    for name in theirs:
        if mine.get(name) != theirs[name]:
            return f"was composed with {name} = {mine.get(name)!r}, not {theirs[name]!r} as asked for now"
    return None if old == new else "was composed from the same settings, but the clips or their labels have changed"


def _find(folder: Path, composed: Sequence[Composed]) -> dict[str, Path]:
    """The file of every clip in use, by name."""
    clips = {piece.clip.name: piece.clip for video in composed for piece in video.pieces}
    return {name: find_video(folder, clip) for name, clip in clips.items()}


def _shown(video: Composed, files: Mapping[str, Path]) -> Size:
    """The size of its first clip."""
    found = probe(files[video.pieces[0].clip.name])
    return even(found.width, found.height)


def _fps(video: Composed, files: Mapping[str, Path]) -> float:
    first = video.pieces[0].clip
    return first.fps or probe(files[first.name]).fps


def _video(out: Path, video: Composed) -> Path:
    return out / VIDEOS / f"{video.name}.mp4"


def _is_there(out: Path, video: Composed, size: Size) -> bool:
    path = _video(out, video)
    if not path.is_file():
        return False
    found = probe(path)
    if (found.width, found.height) != size:
        raise ValueError(
            f"{path}: is {found.width}x{found.height}, not {size[0]}x{size[1]} as asked for now; give another --out"
        )
    return found.frames == video.frames


def _add(store: Store, video: Composed, entry: dict[str, Any], *, clips: Store) -> bool:
    """Write a video's features unless they are there; whether they were written."""
    digest = hashlib.sha256(json.dumps(entry["parts"], sort_keys=True).encode()).hexdigest()
    with contextlib.suppress(StoreError):  # a damaged file is made anew
        record = store.record(video.name)
        if record is not None and record.source.sha256 == digest:
            return False
    source = Source(path=PLANS, bytes=0, mtime_ns=0, sha256=digest)
    write_rows(store, video.name, video.pieces, clips=clips, source=source)
    return True


def _labels(composed: Sequence[Composed], document: dict[str, Any]) -> str:
    rows = ((entry["name"], entry["label"], entry["group"]) for entry in document["videos"])
    return _csv([("video", "label", "group"), *rows])


def _truth(composed: Sequence[Composed]) -> str:
    rows: list[tuple[object, ...]] = [("video", "num_frames", "intervals", "category", "fps")]
    for video in composed:
        intervals = ";".join(f"{start}-{end}" for start, end in video.intervals())
        category = "" if video.category in (None, ABNORMAL) else video.category
        rows.append((video.name, video.frames, intervals, category, video.pieces[0].clip.fps or ""))
    return _csv(rows)


def _csv(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _size(text: str) -> Size:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    found = (int(match[1]), int(match[2])) if match else (0, 0)
    if min(found) < SMALLEST or found[0] % 2 or found[1] % 2:
        raise ValueError(f"--size must be WIDTHxHEIGHT in even numbers of at least {SMALLEST}, got {text!r}")
    return found


def _facts(composed: Sequence[Composed], document: dict[str, Any]) -> dict[str, Any]:
    return {
        "videos": len(composed),
        "abnormal": sum(video.category is not None for video in composed),
        "clips": len({part.name for video in composed for part in video.plan.parts}),
        "groups": len({entry["group"] for entry in document["videos"]}),
        "rows": sum(len(video.plan) for video in composed),
        "frames": sum(video.frames for video in composed),
        "abnormal_frames": sum(end - start for video in composed for start, end in video.intervals()),
    }


def _summary(facts: dict[str, Any]) -> str:
    share = facts["abnormal_frames"] / facts["frames"]
    kept = facts["videos"] - facts["composed"]
    return (
        f"{facts['videos']} videos ({facts['abnormal']} abnormal) from {facts['clips']} clips, {facts['rows']} rows of "
        f"{facts['frames']} frames, {share:.0%} abnormal: {facts['out']}"
        + (f"; {kept} were there already" if kept else "")
        + (f"; {facts['encoded']} encoded" if facts["encoded"] else "")
        + f"\ngroups without a common source: {facts['groups']}"
    )
