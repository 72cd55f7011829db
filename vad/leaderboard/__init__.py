"""Published results as data: every number with its source, what is known against it, and what it may be compared with.

The numbers lie in ``published.yaml``. A number is compared only within its group: same benchmark, metric, protocol and
split, and for average precision the same definition or one that nobody stated.
"""

from __future__ import annotations

import functools
import importlib.resources
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from vad.config import Config, Document

Dataset = Literal[
    "ucf-crime",
    "xd-violence",
    "shanghaitech",
    "msad",
    "nwpu-campus",
    "tad",
    "lad",
    "dota",
    "ped2",
    "avenue",
    "ubnormal",
    "complexvad",
]
Protocol = Literal[
    "weak", "one-class", "zero-shot", "online", "open-vocabulary", "label-guided", "instruction-tuned", "control"
]
Metric = Literal[
    "auc", "auc_abnormal", "auc_macro", "auc_macro_padded", "auc_pixel", "ap", "map", "far", "rbdc", "tbdc"
]
ApDefinition = Literal["step-wise", "trapezoid", "unknown"]
Evidence = Literal["code", "paper", "unverified", "computed"]
Code = Literal["A", "B", "C"]  # public and checked; a repository exists; paper only

DATASETS: tuple[Dataset, ...] = get_args(Dataset)
PROTOCOLS: dict[Protocol, str] = {
    "weak": "weakly supervised",
    "one-class": "normal data only",
    "zero-shot": "training-free or zero-shot",
    "online": "online, training-free",
    "open-vocabulary": "open-vocabulary",
    "label-guided": "uses some labels of the benchmark",
    "instruction-tuned": "tuned on instruction data of the benchmark",
    "control": "content-free controls",
}
METRICS: dict[Metric, str] = {
    "auc": "AUC of all frames together",
    "auc_abnormal": "AUC of abnormal videos only",
    "auc_macro": "mean AUC of abnormal videos",
    "auc_macro_padded": "mean AUC, padded",
    "auc_pixel": "AUC of pixels",
    "ap": "average precision",
    "map": "mAP, mean over tIoU .1 to .5",
    "far": "false-alarm rate at 0.5, lower is better",
    "rbdc": "region-based detection",
    "tbdc": "track-based detection",
}


class _Number(Config):
    system: str
    variant: str = ""  # features, version, or form of the system
    dataset: Dataset
    split: str = ""  # of benchmarks with several; "unknown" compares with nothing but itself
    protocol: Protocol
    metric: Metric
    ap_definition: ApDefinition | None = None
    value: float = Field(ge=0, le=100)
    value_high: float | None = Field(None, ge=0, le=100)  # where a range is reported
    evidence: Evidence
    source: str | None = None  # None: the original has not been traced
    caveats: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.metric == "ap") != (self.ap_definition is not None):
            raise ValueError("ap_definition belongs to the metric ap, and to no other")
        if self.value_high is not None and self.value_high <= self.value:
            raise ValueError("value_high must lie above value")
        if (self.evidence == "computed") != (self.protocol == "control"):
            raise ValueError("controls are computed, and nothing else is")
        return self


class Published(_Number):
    """One reported result. Values are percent."""

    code: Code | None = None
    year: int | None = None

    @property
    def name(self) -> str:
        """System and variant, as printed."""
        return f"{self.system} ({self.variant})" if self.variant else self.system

    @property
    def high(self) -> float:
        """Upper end of the reported range, or the value."""
        return self.value if self.value_high is None else self.value_high


class _System(Config):
    source: str | None = None
    code: Code | None = None
    year: int | None = None
    caveats: tuple[str, ...] = ()


class _File(Config):
    systems: dict[str, _System]
    numbers: tuple[_Number, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """What may be ranked against each other."""

    dataset: Dataset
    metric: Metric
    protocol: Protocol
    split: str = ""
    ap_definition: ApDefinition | None = None  # None: not ap, or a listing of all definitions

    def holds(self, entry: Published) -> bool:
        """Whether ``entry`` belongs here; an average precision of unstated definition always may."""
        theirs = (entry.dataset, entry.metric, entry.protocol, entry.split)
        ours = (self.dataset, self.metric, self.protocol, self.split)
        return theirs == ours and _compatible(entry, self.ap_definition)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a value stands among published ones; each tuple best first."""

    value: float  # percent
    group: Group
    above: tuple[Published, ...]  # better than the value, by their whole range
    tied: tuple[Published, ...]  # the same, or a range around it
    below: tuple[Published, ...]
    beaten: tuple[Published, ...]  # controls
    unbeaten: tuple[Published, ...]  # controls that are as good or better

    @property
    def rank(self) -> int:
        """1 for the best; ties share the better rank."""
        return len(self.above) + 1

    @property
    def total(self) -> int:
        """Published results in the group, without the value itself."""
        return len(self.above) + len(self.tied) + len(self.below)

    @property
    def next_above(self) -> Published | None:
        """The nearest better result."""
        return self.above[-1] if self.above else None

    @property
    def next_below(self) -> Published | None:
        """The nearest worse result."""
        return self.below[0] if self.below else None


@functools.cache
def load() -> tuple[Published, ...]:
    """Every published result, in the order of the file.

    >>> control = load()[0]
    >>> control.system, control.dataset, control.metric, control.value
    ('perfect video label, constant', 'ucf-crime', 'auc', 81.5)
    """
    with importlib.resources.as_file(importlib.resources.files(__name__) / "published.yaml") as path:
        document = Document.read(path)
    file = document.validate(_File, document.data)
    return tuple(_joined(file.systems, number) for number in file.numbers)


def select(
    dataset: str | None = None, metric: str | None = None, *, entries: Iterable[Published] | None = None
) -> tuple[Published, ...]:
    """The entries of a benchmark and a metric, controls among them; ``None`` takes all.

    Raises ValueError, naming what there is, when there are none.

    >>> {entry.dataset for entry in select("msad", "auc")}
    {'msad'}
    """
    known = tuple(load() if entries is None else entries)
    if dataset is not None:
        names = list(dict.fromkeys(entry.dataset for entry in known))
        if dataset not in names:
            raise ValueError(f"no published results for dataset {dataset!r}; available: {', '.join(names)}")
        known = tuple(entry for entry in known if entry.dataset == dataset)
    if metric is not None:
        metrics = sorted({entry.metric for entry in known})
        if metric not in metrics:
            where = f" for {dataset}" if dataset else ""
            raise ValueError(f"no published results{where} by metric {metric!r}; available: {', '.join(metrics)}")
        known = tuple(entry for entry in known if entry.metric == metric)
    return known


def groups(entries: Iterable[Published], *, ap_definition: ApDefinition | None = None) -> tuple[Group, ...]:
    """The groups of ``entries``, by benchmark, metric and protocol.

    Controls stand beside every group of their benchmark and metric; they form one of their own only where no
    published result does.
    """
    found: dict[tuple[Dataset, Metric], set[Group]] = {}
    for entry in entries:
        if _compatible(entry, ap_definition):
            definition = ap_definition if entry.metric == "ap" else None
            group = Group(entry.dataset, entry.metric, entry.protocol, entry.split, definition)
            found.setdefault((entry.dataset, entry.metric), set()).add(group)
    kept = [
        group for several in found.values() for group in several if group.protocol != "control" or len(several) == 1
    ]
    datasets, metrics, protocols = list(DATASETS), list(METRICS), list(PROTOCOLS)
    return tuple(
        sorted(
            kept,
            key=lambda g: (datasets.index(g.dataset), metrics.index(g.metric), protocols.index(g.protocol), g.split),
        )
    )


def ranked(group: Group, *, entries: Iterable[Published] | None = None) -> tuple[Published, ...]:
    """Published results of a group, best first, equal ones by name; controls are none."""
    known = load() if entries is None else entries
    rows = (entry for entry in known if entry.protocol != "control" and group.holds(entry))
    return tuple(sorted(rows, key=lambda e: (-_merit(e), e.name)))


def controls(group: Group, *, entries: Iterable[Published] | None = None) -> tuple[Published, ...]:
    """Content-free controls of the group's benchmark and metric, best first.

    An average precision is never held against a control of another definition; a group of all definitions gets all.
    """
    known = load() if entries is None else entries
    same = (
        entry
        for entry in known
        if entry.protocol == "control" and (entry.dataset, entry.metric) == (group.dataset, group.metric)
    )
    fitting = (entry for entry in same if group.ap_definition in (None, entry.ap_definition))
    return tuple(sorted(fitting, key=lambda e: (-_merit(e), e.name)))


def place(
    value: float,
    dataset: str,
    metric: str,
    *,
    protocol: str,
    split: str | None = None,
    ap_definition: ApDefinition = "step-wise",
    entries: Iterable[Published] | None = None,
) -> Placement:
    """Where ``value``, in percent, stands among the comparable results, and which controls it beats.

    ``split`` may be left out where the protocol has one. ``ap_definition`` is that of the value and matters for ``ap``
    only. Raises ValueError for a value outside [0, 100] and for a group without published results.

    >>> placement = place(85.3, "ucf-crime", "auc", protocol="one-class")
    >>> placement.rank, [control.value for control in placement.unbeaten]
    (1, [86.5])
    """
    check_percent(value)
    known = select(dataset, metric, entries=entries)
    offered = groups(known, ap_definition=ap_definition if metric == "ap" else None)
    protocols = list(dict.fromkeys(group.protocol for group in offered))
    if protocol not in protocols:
        raise ValueError(
            f"no published {metric} on {dataset} by protocol {protocol!r}; available: {', '.join(protocols) or 'none'}"
        )
    fitting = [group for group in offered if group.protocol == protocol and split in (None, group.split)]
    if len(fitting) != 1:
        splits = ", ".join(repr(group.split) for group in offered if group.protocol == protocol)
        raise ValueError(f"{metric} on {dataset} by protocol {protocol!r} needs one split of: {splits}; got {split!r}")
    return place_in(fitting[0], value, entries=known)


def place_in(group: Group, value: float, *, entries: Iterable[Published] | None = None) -> Placement:
    """``place`` for a group that is already chosen."""
    check_percent(value)
    known = tuple(load() if entries is None else entries)
    rows, bars = ranked(group, entries=known), controls(group, entries=known)
    return Placement(
        value=value,
        group=group,
        above=tuple(row for row in rows if _better(row, value) > 0),
        tied=tuple(row for row in rows if _better(row, value) == 0),
        below=tuple(row for row in rows if _better(row, value) < 0),
        beaten=tuple(bar for bar in bars if _better(bar, value) < 0),
        unbeaten=tuple(bar for bar in bars if _better(bar, value) >= 0),
    )


def check_percent(value: float) -> None:
    """Raise ValueError unless ``value`` is a percentage."""
    if not (math.isfinite(value) and 0 <= value <= 100):
        raise ValueError(f"a value to place must lie in 0 to 100 percent, got {value}")


def as_percent(value: float, metric: str) -> float:
    """A value as people write it, in percent: 1 or less is a fraction, except for ``far``, which may be that small.

    >>> as_percent(0.853, "auc"), as_percent(85.3, "auc"), as_percent(0.47, "far")
    (85.3, 85.3, 0.47)
    """
    check_percent(value)
    return round(value * 100, 10) if value <= 1 and metric != "far" else value


def _joined(systems: dict[str, _System], number: _Number) -> Published:
    if number.system not in systems:
        raise ValueError(f"published.yaml: number of unknown system {number.system!r}")
    about = systems[number.system]
    return Published(
        **{
            **number.model_dump(),
            "source": number.source or about.source,
            "code": about.code,
            "year": about.year,
            "caveats": (*number.caveats, *about.caveats),
        }
    )


def _compatible(entry: Published, ap_definition: ApDefinition | None) -> bool:
    """Whether an entry may stand beside values of that average precision; other metrics always may."""
    return ap_definition is None or entry.ap_definition in (None, ap_definition, "unknown")


def _merit(entry: Published) -> float:
    return -entry.value if entry.metric == "far" else entry.high


def _better(entry: Published, value: float) -> int:
    """1, 0 or -1: ``entry`` is better than the value, cannot be told from it, or is worse."""
    if entry.value <= value <= entry.high:
        return 0
    return 1 if (entry.value > value) != (entry.metric == "far") else -1
