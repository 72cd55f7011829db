"""Which videos are normal: a CSV ``video,label[,group]``, and the words that say which videos share a source.

``video`` is the name in the feature store. A label is ``normal`` or ``0``, ``abnormal`` or ``1``, or the category of
what happens in an abnormal video. ``group`` is the source that a video was cut from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainers.splits import Group, number_blocks, ucf_crime, xd_violence
from vad.datasets.annotation import AnnotationError, repeated
from vad.datasets.assembly import listing as some
from vad.datasets.files import existing, table, video_name
from vad.store import Store

NORMAL, ABNORMAL = "normal", "abnormal"
_COLUMNS = ("label", "group", "category", "num_frames", "frames", "intervals", "intervals_s", "fps")  # of our CSVs
WORDS = ("number-blocks:SIZE", "ucf-crime", "xd-violence", "each", "list")  # what --groups can be

_SAME = {"0": NORMAL, "1": ABNORMAL}
# what programs write for a label, and would otherwise pass for the name of a category
_NO_CATEGORY = re.compile(r"[-+]?[0-9.]+|true|false|yes|no|none|null|nan", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Listing:
    """What a list says about its videos, in its order."""

    labels: dict[str, bool]  # True is abnormal
    categories: dict[str, str]  # of the abnormal ones; "abnormal" where the list says no more
    groups: dict[str, str] | None  # None: the list has no such column


def read_list(path: Path) -> Listing:
    """The videos of a list. Raises FileNotFoundError, and ValueError with the line of what cannot be read."""
    categories: dict[str, str | None] = {}
    groups: dict[str, str] = {}
    lines: dict[str, str] = {}
    for where, row in table(existing(path, what="list of labels"), ["video", "label"], optional=["group"]):
        name, category = row["video"].strip(), _category(row["label"].strip(), where)
        if not name:
            raise AnnotationError(f"{where}: names no video; fill it in, or remove the line")
        if name in lines:
            first, second = categories[name] or NORMAL, category or NORMAL
            remedy = "remove one line" if first == second else f"here it is {second}; keep the line that is right"
            raise AnnotationError(f"{where}: {name} is listed already, as {first} at {lines[name]}; {remedy}")
        if "group" in row and not row["group"].strip():
            raise AnnotationError(f"{where}: {name} has no group; fill it in, or leave the column out")
        lines[name], categories[name], groups[name] = where, category, row.get("group", "").strip()
    return Listing(
        {name: category is not None for name, category in categories.items()},
        {name: category for name, category in categories.items() if category is not None},
        groups if any(groups.values()) else None,
    )


def read_names(path: Path) -> list[str]:
    """The videos of a list: of a CSV its column ``video``, else one name a line. Raises as ``read_list``."""
    if path.suffix.lower() == ".csv":
        rows = table(existing(path, what="list of videos"), ["video"], optional=_COLUMNS)
        names = [row["video"].strip() for _, row in rows]
    else:
        lines = existing(path, what="list of videos").read_text(encoding="utf-8-sig").splitlines()
        names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise ValueError(f"{path}: lists no video")
    if twice := repeated(names):
        raise ValueError(f"{path}: listed more than once: {some(twice)}")
    return names


def in_store(store: Store, names: Sequence[str]) -> dict[str, str]:
    """The store's name of each listed video: the same, or else the one of the same file name.

    Raises ValueError for videos that are not in the store, or that cannot be told apart.
    """
    have = store.names()
    exact = set(have)
    by_file: dict[str, list[str]] = {}
    for name in have:
        by_file.setdefault(video_name(name), []).append(name)
    found: dict[str, str] = {}
    absent: list[str] = []
    for name in names:
        bare = name.rpartition(".")[0] if name.lower().endswith((".mp4", ".avi", ".mkv", ".npy")) else name
        candidates = [bare] if bare in exact else by_file.get(video_name(name), [])
        if len(candidates) > 1:
            raise ValueError(f"{name}: several videos of {store.folder} are named so: {some(candidates)}")
        if candidates:
            found[name] = candidates[0]
        else:
            absent.append(name)
    if absent:
        raise ValueError(f"{store.folder}: no features of {some(absent)}; extract them, or take them off the list")
    taken: dict[str, str] = {}
    for name, there in found.items():
        if (other := taken.setdefault(there, name)) != name:
            raise ValueError(f"{other} and {name} are the same video, {there}; keep one of them on the list")
    return found


def group_function(text: str, listing: Listing) -> Group:
    """What ``--groups`` means: from a video's name to its source. Raises ValueError for unknown words.

    >>> group_function("number-blocks:10", Listing({}, {}, None))("fight_fi012")
    'fight_fi 11-20'
    """
    kind, _, size = text.partition(":")
    if kind == "number-blocks":
        if not size.isdecimal():
            raise ValueError(f"number-blocks needs a size, as in number-blocks:10, got {text!r}")
        return number_blocks(int(size))
    if text == "list":
        if listing.groups is None:
            raise ValueError("the list of labels has no column group; add it, or choose other --groups")
        return listing.groups.__getitem__
    plain: dict[str, Group] = {"ucf-crime": ucf_crime, "xd-violence": xd_violence, "each": str}
    if text not in plain:
        raise ValueError(f"unknown groups {text!r}; available: {', '.join(WORDS)}")
    return plain[text]


def _category(text: str, where: str) -> str | None:
    """None for a normal video."""
    word = _SAME.get(text, text)
    if word.lower() in (NORMAL, ABNORMAL):
        return None if word.lower() == NORMAL else ABNORMAL
    if not word or _NO_CATEGORY.fullmatch(word):
        raise AnnotationError(f"{where}: cannot read label {text!r}; write 0 or 1, normal or abnormal, or a category")
    return word
