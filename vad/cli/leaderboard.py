"""``vad leaderboard``: published results beside each other, and a value among them."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import typer

from vad import leaderboard
from vad.leaderboard import ApDefinition, Group, Placement, Published

_HEADLINE = {"xd-violence": "ap"}  # else auc
_DEFINITIONS = {"step-wise": "step", "trapezoid": "trap", "unknown": "def?", None: ""}
_LEGEND = (
    "Percent. ? = unverified: second-hand, check the original before quoting. "
    "= is a content-free control: no pixel was looked at. "
    "Code: A public and checked, B a repository exists, C paper only."
)
_LEGEND_AP = "AP: step = step-wise, trap = trapezoid (higher for the same scores), def? = not stated."


def run(
    *,
    dataset: str | None,
    metric: str | None,
    protocol: str | None = None,
    value: float | None = None,
    as_json: bool = False,
) -> int:
    """Print published results, and where ``value`` stands among them; the exit code."""
    if value is not None and dataset is None:
        raise ValueError(f"--place needs --dataset; available: {', '.join(leaderboard.DATASETS)}")
    if value is not None and metric is None:
        metric = _HEADLINE.get(str(dataset), "auc")
    definition: ApDefinition | None = "step-wise" if metric == "ap" and value is not None else None
    if metric == "ap_trapezoid":
        metric, definition = "ap", "trapezoid"
    known = leaderboard.select(dataset, metric)
    groups = leaderboard.groups(known, ap_definition=definition)
    if protocol is not None:
        offered = list(dict.fromkeys(group.protocol for group in groups))
        groups = tuple(group for group in groups if group.protocol == protocol)
        if not groups:
            raise ValueError(f"no published results by protocol {protocol!r}; available: {', '.join(offered)}")
    percent = None if value is None else leaderboard.as_percent(value, str(metric))
    placements = [] if percent is None else [leaderboard.place_in(group, percent, entries=known) for group in groups]
    if as_json:
        typer.echo(json.dumps(_document(known, groups, placements), ensure_ascii=False))
        return 0
    page = _Page(width=_width())
    for number, group in enumerate(groups):
        page.table(group, known, placements[number] if placements else None)
    if placements:
        page.verdict(placements[0], typed=value)
    page.end()
    typer.echo("\n".join(page.lines))
    return 0


def _document(known: Iterable[Published], groups: Sequence[Group], placements: Sequence[Placement]) -> dict[str, Any]:
    known = tuple(known)
    shown = {
        entry
        for group in groups
        for entry in (*leaderboard.ranked(group, entries=known), *leaderboard.controls(group, entries=known))
    }
    return {
        "results": [entry.model_dump(mode="json") for entry in known if entry in shown],
        "placements": [
            {
                "value": one.value,
                "dataset": one.group.dataset,
                "metric": one.group.metric,
                "protocol": one.group.protocol,
                "split": one.group.split,
                "ap_definition": one.group.ap_definition,
                "rank": one.rank,
                "published": one.total,
                "above": [entry.name for entry in one.above],
                "tied": [entry.name for entry in one.tied],
                "below": [entry.name for entry in one.below],
                "controls_beaten": [entry.name for entry in one.beaten],
                "controls_not_beaten": [entry.name for entry in one.unbeaten],
            }
            for one in placements
        ],
    }


@dataclass(slots=True)
class _Page:
    """Tables, and the footnotes and sources that they have called for so far; printed in one piece."""

    width: int
    lines: list[str] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    untraced: list[str] = field(default_factory=list)
    ap: bool = False

    def table(self, group: Group, known: Iterable[Published], placement: Placement | None) -> None:
        """One group, best first, its controls in their places, and the value in its own."""
        known = tuple(known)
        rows = [*leaderboard.ranked(group, entries=known), *leaderboard.controls(group, entries=known)]
        better = -1 if group.metric == "far" else 1
        # best first; of equals first the published ones, then the controls, then the value
        order: list[tuple[float, int, Published | None]] = [
            (-better * row.high, 1 if row.protocol == "control" else 0, row) for row in rows
        ]
        if placement is not None:
            order.append((-better * placement.value, 2, None))
        order.sort(key=lambda item: item[:2])
        values = max((len(_figure(row)) for row in rows), default=5)
        names = max(len("your result"), *(len(row.name) for row in rows))
        self.ap = self.ap or group.metric == "ap"
        self.lines.append(typer.style(self._title(group), bold=True))
        for _, _, row in order:
            if row is None:
                assert placement is not None
                mine = f"> {placement.value:.2f}".ljust(values + 2) + "   your result"
                self.lines.append(typer.style(mine, bold=True, fg="green"))
            else:
                line = self._row(row, values, names)
                self.lines.append(typer.style(line, dim=True) if row.protocol == "control" else line)
        if placement is not None and placement.total:
            self._say(_rank(placement))
        self.lines.append("")

    def verdict(self, placement: Placement, *, typed: float | None) -> None:
        """What the value says beside scores without content."""
        if typed is not None and typed != placement.value:
            self._say(f"{typed:g} was read as a fraction: {placement.value:.2f} percent.")
        if placement.group.ap_definition == "step-wise":
            self._say("Taken as step-wise AP; --metric ap_trapezoid places the other.")
        if placement.unbeaten:
            self._say(f"{placement.value:.2f} does not beat: {_listed(placement.unbeaten)}.")
        if placement.beaten:
            self._say(f"{placement.value:.2f} beats: {_listed(placement.beaten)}.")
        if not (placement.beaten or placement.unbeaten):
            self._say(
                f"No content-free control is published for {placement.group.metric} on {placement.group.dataset}; "
                "vad eval computes them beside a result."
            )
        self.lines.append("")

    def end(self) -> None:
        """Legend, footnotes and sources."""
        self._say(f"{_LEGEND} {_LEGEND_AP}" if self.ap else _LEGEND)
        self.lines.append("")
        for note, number in self.notes.items():
            self._say(note, first=f"{f'[{number}]':<5}")
        if self.notes:
            self.lines.append("")
        for name, source in self.sources.items():
            self._say(f"{name}: {source}")
        if self.untraced:
            self._say(f"Original not traced: {', '.join(sorted(self.untraced))}.")

    def _row(self, row: Published, values: int, names: int) -> str:
        mark = "=" if row.protocol == "control" else " "
        doubt = "?" if row.evidence == "unverified" else " "
        about = [row.name.ljust(names), row.code or " ", str(row.year or "").rjust(4)]
        if row.metric == "ap":
            about.append(_DEFINITIONS[row.ap_definition].ljust(4))
        line = f"{mark} {_figure(row):<{values}} {doubt} {' '.join(about)}"
        numbers = [self.notes.setdefault(note, len(self.notes) + 1) for note in row.caveats]
        self._remember(row)
        if not numbers:
            return line.rstrip()
        notes = f"[{' '.join(map(str, sorted(numbers)))}]"
        if len(line) + 1 + len(notes) <= self.width:
            return f"{line} {notes}"
        return f"{line.rstrip()}\n{' ' * (values + 5)}{notes}"

    def _remember(self, row: Published) -> None:
        if row.source is None:
            if row.system not in self.untraced:
                self.untraced.append(row.system)
        elif row.source not in (known := self.sources.get(row.system, "")):
            self.sources[row.system] = f"{known}; {row.source}" if known else row.source

    def _title(self, group: Group) -> str:
        split = f", split: {group.split}" if group.split else ""
        return "\n".join(
            textwrap.wrap(
                f"{group.dataset}{split} | {group.metric}: {leaderboard.METRICS[group.metric]} | "
                f"{leaderboard.PROTOCOLS[group.protocol]}",
                self.width,
            )
        )

    def _say(self, text: str, *, first: str = "") -> None:
        self.lines.append(
            textwrap.fill(
                text,
                self.width,
                initial_indent=first,
                subsequent_indent=" " * (len(first) or 2),
                break_on_hyphens=False,
                break_long_words=False,
            )
        )


def _rank(placement: Placement) -> str:
    doubtful = sum(entry.evidence == "unverified" for entry in placement.above)
    parts = [f"{len(placement.above)} above" + (f", {doubtful} of them unverified" if doubtful else "")]
    if unstated := sum(e.ap_definition == "unknown" for e in (*placement.above, *placement.tied, *placement.below)):
        parts.append(f"{unstated} of unstated AP definition")
    if placement.next_above:
        parts.append(f"next above: {_named(placement.next_above)}")
    if placement.tied:
        parts.append(f"tied with: {_listed(placement.tied)}")
    if placement.next_below:
        parts.append(f"next below: {_named(placement.next_below)}")
    results = f"{placement.total} published result{'' if placement.total == 1 else 's'}"
    return f"> rank {placement.rank} beside {results} ({'; '.join(parts)})"


def _listed(entries: Iterable[Published]) -> str:
    return "; ".join(_named(entry) for entry in entries)


def _named(entry: Published) -> str:
    return f"{entry.name} {_figure(entry)}{'?' if entry.evidence == 'unverified' else ''}"


def _figure(entry: Published) -> str:
    low = f"{entry.value:.2f}"
    return low if entry.value_high is None else f"{low}-{entry.value_high:.2f}"


def _width() -> int:
    """Columns to fill: those of the terminal within reason, 80 in a pipe."""
    return min(max(shutil.get_terminal_size().columns, 60), 110) if sys.stdout.isatty() else 80
