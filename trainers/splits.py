"""Parts of the training videos that share no source.

Pieces of one recording look alike: with a piece on either side, a held-out score measures memory. A group function
says for a name which source it comes from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from vad.datasets.annotation import repeated
from vad.datasets.assembly import listing
from vad.datasets.files import video_name

Group = Callable[[str], str]
Held = npt.NDArray[np.bool_]  # of each source
Table = npt.NDArray[np.float64]  # normal and abnormal videos of each source
Order = npt.NDArray[np.int64]
_TRIES = 50


def number_blocks(size: int, *, first: int = 1) -> Group:
    """Sources of ``size`` neighbouring numbers at the name's end, counted from ``first``.

    >>> of = number_blocks(10)
    >>> of("fight_fi010"), of("fight_fi011")
    ('fight_fi 1-10', 'fight_fi 11-20')
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")

    def group(name: str) -> str:
        match = re.fullmatch(r"(.*?)(\d+)", video_name(name), re.DOTALL)
        if match is None:
            raise ValueError(f"{name!r} has no number at its end to group by")
        start = first + (int(match[2]) - first) // size * size
        return f"{match[1]} {start}-{start + size - 1}"

    return group


def ucf_crime(name: str) -> str:
    """Each video of UCF-Crime is a source of its own, whatever pieces or crops were made of it.

    >>> ucf_crime("Abuse/Abuse001_x264__5.npy"), ucf_crime("Normal_Videos_003_x264.mp4")
    ('Abuse001', 'Normal_Videos_003')
    """
    return video_name(name).split("_x264")[0]


def xd_violence(name: str) -> str:
    """The film or the online video that a piece of XD-Violence was cut from.

    >>> xd_violence("v=S-7rRLrxnVQ__#1_label_B4-0-0"), xd_violence("About.Time.2013__#00-23-50_00-24-31_label_A")
    ('v=S-7rRLrxnVQ', 'About.Time.2013')
    """
    source, mark, _ = video_name(name).partition("__#")
    if not mark:
        raise ValueError(f"{name!r} is not a name of XD-Violence: it has no '__#' after its source")
    return source


def grouped_split(
    names: Sequence[str], labels: Sequence[bool], groups: Group, *, share: float, seed: int
) -> tuple[list[str], list[str]]:
    """Training and held-out names, in the order given: no source on both sides, both classes on both.

    About ``share`` of each class is held out, as near as whole sources allow. Raises ValueError, about a class too
    when its videos come from fewer than two sources.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1, got {share}")
    members, counts = _members(names, labels, groups)
    for label, which in enumerate(("normal", "abnormal")):
        sources = sum(1 for count in counts.values() if count[label])
        if sources < 2:
            raise ValueError(
                f"the {which} videos come from {sources} source{'' if sources == 1 else 's'}; "
                "a split with both classes on both sides needs two of each"
            )
    table_G2 = np.array(list(counts.values()), np.float64)
    total_2 = table_G2.sum(0)
    random = np.random.default_rng(seed)
    choices = [_greedy(table_G2, total_2 * share, random.permutation(len(table_G2))) for _ in range(_TRIES)]
    choices.append(_smallest(table_G2))  # always possible, seldom near
    held_G = min(choices, key=lambda held_G: _distance(table_G2, held_G, share))
    held = {name for group, is_held in zip(members, held_G, strict=True) if is_held for name in members[group]}
    train = [name for name in names if name not in held]
    held_out = [name for name in names if name in held]
    check_leak(train, held_out, groups)
    return train, held_out


def check_leak(train: Sequence[str], held_out: Sequence[str], groups: Group) -> None:
    """Raises ValueError with the sources that lie on both sides."""
    if shared := sorted({groups(name) for name in train} & {groups(name) for name in held_out}):
        raise ValueError(f"sources on both sides of the split: {listing(shared)}; keep all of a source on one side")


def folds(
    names: Sequence[str], groups: Group, k: int, seed: int, *, labels: Sequence[bool] | None = None
) -> list[list[str]]:
    """Names in ``k`` parts of about equal size that share no source; with ``labels``, of about equal classes too.

    Raises ValueError when there are fewer sources than parts.
    """
    members, counts = _members(names, [False] * len(names) if labels is None else labels, groups)
    if not 2 <= k <= len(members):
        raise ValueError(f"k must be at least 2 and at most the {len(members)} sources, got {k}")
    table_G2 = np.array(list(counts.values()), np.float64)
    scale_2 = np.maximum(table_G2.sum(0), 1)
    order = np.random.default_rng(seed).permutation(len(table_G2))
    order = order[np.argsort(-table_G2[order].sum(1), kind="stable")]  # the largest first, equal ones by chance
    filled_F2 = np.zeros((k, 2))
    sources_F = np.zeros(k, np.int64)
    place: dict[str, int] = {}
    keys = list(members)
    for nth, g in enumerate(order):
        # a part's fullness in the classes that this source brings, then overall; an empty part comes before the end
        brings = table_G2[g] / scale_2
        fullness_F = ((filled_F2 / scale_2) * brings).sum(1) + 1e-6 * filled_F2.sum(1)
        if len(order) - nth <= int((sources_F == 0).sum()):
            fullness_F[sources_F > 0] = np.inf
        part = int(np.argmin(fullness_F))
        filled_F2[part] += table_G2[g]
        sources_F[part] += 1
        place[keys[g]] = part
    parts: list[list[str]] = [[] for _ in range(k)]
    for name in names:
        parts[place[groups(name)]].append(name)
    return parts


def _members(
    names: Sequence[str], labels: Sequence[bool], groups: Group
) -> tuple[dict[str, list[str]], Mapping[str, list[int]]]:
    """Names of each source, and how many of them are normal and abnormal."""
    if len(names) != len(labels):
        raise ValueError(f"need one label per video, got {len(names)} names and {len(labels)} labels")
    if twice := repeated(names):
        raise ValueError(f"listed more than once: {listing(twice)}")
    members: dict[str, list[str]] = {}
    counts: dict[str, list[int]] = {}
    for name, label in zip(names, labels, strict=True):
        group = groups(name)
        members.setdefault(group, []).append(name)
        counts.setdefault(group, [0, 0])[int(label)] += 1
    return members, counts


def _greedy(table_G2: Table, target_2: Table, order: Order) -> Held:
    """Hold out each source, in this order, that brings the held-out counts nearer to the target."""
    held_G = np.zeros(len(table_G2), np.bool_)
    missing_2 = target_2.copy()
    scale_2 = table_G2.sum(0)
    for g in order:
        nearer = (((missing_2 - table_G2[g]) / scale_2) ** 2).sum() < ((missing_2 / scale_2) ** 2).sum()
        if nearer:
            held_G[g] = True
            missing_2 -= table_G2[g]
    return held_G


def _smallest(table_G2: Table) -> Held:
    """One source that has both classes, or one of each class; both classes stay on the other side."""
    held_G = np.zeros(len(table_G2), np.bool_)
    size_G = table_G2.sum(1)
    both = np.flatnonzero((table_G2 > 0).all(1))
    if len(both):
        held_G[both[np.argmin(size_G[both])]] = True
        return held_G
    for label in (0, 1):
        of_class = np.flatnonzero(table_G2[:, label])
        held_G[of_class[np.argmin(size_G[of_class])]] = True
    return held_G


def _distance(table_G2: Table, held_G: Held, share: float) -> float:
    """How far the held-out share of each class is from the one asked for; infinite where a side lacks a class."""
    held_2, left_2 = table_G2[held_G].sum(0), table_G2[~held_G].sum(0)
    if not (held_2.all() and left_2.all()):
        return float("inf")
    return float(((held_2 / table_G2.sum(0) - share) ** 2).sum())
