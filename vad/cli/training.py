"""``vad train``: labels of videos and features in, a run folder with a model out."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch
import typer

from trainers import record
from trainers.record import Column, Outcome
from trainers.settings import Settings
from vad.cli.composition import Extraction
from vad.cli.console import hint, say
from vad.cli.extraction import Spread, extract
from vad.extraction.jobs import find_jobs


def run(config: Path, *, assignments: list[str], select: str | None, quiet: bool, as_json: bool) -> int:
    """Extract what is missing, train, and print both columns; the exit code."""
    settings = Settings.read(config, [*assignments, *([] if select is None else [f"select={select}"])])
    outcome = train(settings, quiet=quiet or as_json)
    if as_json:
        typer.echo(json.dumps(asdict(outcome)))
    elif not quiet:
        typer.echo("\n".join(table(outcome)))
    return 0


def train(settings: Settings, *, quiet: bool) -> Outcome:
    """The whole of one run, from videos where there are any."""
    record.check(settings)  # before anything heavy is imported
    if (outcome := record.finished(settings.out)) is not None:
        say(f"vad: {settings.out}: this run is finished; what it found:")
        return outcome
    if settings.videos is not None and settings.extractor is not None:
        _extract(settings, quiet=quiet)
    from trainers import run

    return run.train(settings, progress=not quiet and sys.stderr.isatty())


def _extract(settings: Settings, *, quiet: bool) -> None:
    assert settings.videos is not None
    assert settings.extractor is not None
    threads = torch.get_num_threads()
    try:
        tally, _ = extract(
            find_jobs([settings.videos]),
            Extraction(settings.extractor, "float32"),
            out=settings.store,
            spread=Spread("local", None, None, 1.0, 0.0),
            quiet=quiet,
        )
    finally:
        torch.set_num_threads(threads)  # sums depend on it: a run that extracted ends as one that found the features
    if tally.stopped is not None:
        raise OSError(tally.stopped.errno, f"{tally.stopped.reason}{hint(tally.stopped.errno)}", str(settings.store))
    if tally.failed and settings.sections.listing.train is None:
        say(f"vad: {len(tally.failed)} videos could not be read and are left out of the training")


def table(outcome: Outcome) -> list[str]:
    """Both columns, in words."""
    held_out, on_test, test = outcome.held_out, outcome.on_test, outcome.test_metric
    columns: list[tuple[str, Column]] = [("held-out", held_out)]
    if on_test is not None:
        columns.append(("best on test *", on_test))
    lines = [f"{'checkpoint chosen by':<22}" + "".join(f"{name:>16}" for name, _ in columns)]
    rows = [
        ("step", [str(column.step) for _, column in columns]),
        ("held-out video auc", [f"{column.held_out_auc:.4f}" for _, column in columns]),
    ]
    if test is not None:
        rows.append((f"test {test}", ["" if column.test is None else f"{column.test:.4f}" for _, column in columns]))
    lines += [f"{name:<22}" + "".join(f"{cell:>16}" for cell in cells) for name, cells in rows]
    if on_test is not None:
        lines.append("* how the literature selects: looked up in the answers, and too high by construction")
    how = "ON THE TEST SET: no number of it counts" if outcome.selected == "test" else "on held-out videos"
    lines.append(f"model: {outcome.model}, chosen {how}")
    lines.append(f"use it: vad score VIDEO --model {outcome.model} --out FOLDER")
    return lines
