"""``vad features``: look into a feature store, check it, read and write published ones."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from vad import published, verification
from vad.cli.console import INPUT
from vad.config import to_yaml
from vad.store import Store, StoredVideo, StoreError
from vad.types import Array


def info(folder: Path, *, as_json: bool) -> int:
    """Say what a store holds; the exit code."""
    facts = _facts(Store.open(folder))
    typer.echo(json.dumps(facts) if as_json else to_yaml(facts), nl=as_json)
    return 0


def verify(
    folder: Path,
    *,
    reference: Path | None,
    layout: str | None,
    source: Path | None,
    count: int,
    snippets: int,
    seed: int,
    tolerance: float | None,
    as_json: bool,
) -> int:
    """Recompute a sample or compare with a reference, and say how far they agree; the exit code."""
    store = Store.open(folder)
    names = store.names()
    if not names:
        raise StoreError(f"{folder}: holds no features; extract some first")
    if reference is None:
        chosen = verification.sample(names, count, seed)
        findings = verification.recompute(store, chosen, snippets=snippets, tolerance=tolerance, find=_finder(source))
    else:
        theirs, known = _reference(reference, layout)
        common = [name for name in names if name in known]
        if not common:
            raise StoreError(f"{reference}: has none of the {len(names)} videos of {folder}, by name")
        chosen = verification.sample(common, count, seed)
        findings = verification.against(store, theirs, chosen, tolerance=tolerance)
    rows = []
    for finding in findings:
        rows.append(finding)
        if not as_json:
            typer.echo(_line(finding))
    bad = [finding for finding in rows if finding.problem]
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(finding) for finding in rows]))
    else:
        typer.echo(f"{len(rows) - len(bad)} of {len(rows)} videos agree ({len(names)} in {folder})")
    return INPUT if bad else 0


def import_published(folder: Path, *, layout: str, out: Path, frames: Path | None) -> int:
    """Read a published set into a store; the exit code."""
    _check_layout(layout)
    counts = None if frames is None else published.read_frame_counts(frames)
    store = published.import_into(out, folder, layout, frames=counts)
    typer.echo(f"{len(store.names())} videos in {out}")
    return 0


def export(folder: Path, *, layout: str, out: Path) -> int:
    """Write a store in a published layout; the exit code."""
    _check_layout(layout)
    typer.echo(f"{published.export(Store.open(folder), out, layout)} videos in {out}")
    return 0


def _facts(store: Store) -> dict[str, Any]:
    names = store.names()
    snippets = size = 0
    seconds = 0.0
    rates: Counter[float] = Counter()
    shapes: Counter[tuple[int, ...]] = Counter()
    damaged: list[str] = []
    for name in names:
        try:
            record, shape = store.record(name), store.shape(name)
        except StoreError:
            damaged.append(name)
            continue
        assert record is not None
        snippets += shape[0]
        shapes[shape[1:]] += 1
        size += store.path(name).stat().st_size
        if record.fps:
            rates[round(record.fps, 3)] += 1
            seconds += (record.frames or 0) / record.fps
    failures = store.failures()
    return {
        "store": str(store.folder),
        "videos": len(names),
        "rows": snippets,
        "row_shapes": [list(shape) for shape in sorted(shapes)],
        "hours": round(seconds / 3600, 4),
        "frame_rates": {str(rate): count for rate, count in sorted(rates.items())},
        "bytes": size,
        "failed": len(failures),
        "damaged": damaged,
        **store.manifest.model_dump(mode="json"),
    }


def _finder(source: Path | None) -> Callable[[StoredVideo], Path]:
    def find(video: StoredVideo) -> Path:
        recorded = Path(video.record.source.path)
        return recorded if source is None else source / f"{video.record.name}{recorded.suffix}"

    return find


def _reference(folder: Path, layout: str | None) -> tuple[Callable[[str], Array | None], set[str]]:
    """Values by name, and the names, of a store or of a published set."""
    if layout is None:
        other = Store.open(folder)
        known = set(other.names())
        return lambda name: other.read(name).values if name in known else None, known
    _check_layout(layout)
    found = published.find(folder, layout)
    return lambda name: published.read(found[name], layout) if name in found else None, set(found)


def _check_layout(layout: str) -> None:
    if layout not in published.LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; available: {', '.join(published.LAYOUTS)}")


def _line(finding: verification.Finding) -> str:
    found = finding.agreement
    numbers = (
        f"{found.rows} rows, cosine {found.cosine_min:.6f}, error {found.max_error:.2e}, "
        f"relative {found.relative_error:.2e}"
        if found
        else ""
    )
    verdict = f"NOT VERIFIED: {finding.problem}" if finding.problem else "agrees"
    return ": ".join(part for part in (finding.name, "; ".join(filter(None, (numbers, finding.note, verdict)))) if part)
