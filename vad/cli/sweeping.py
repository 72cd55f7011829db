"""``vad sweep``: a config and a grid in, a folder of runs and the best config out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import typer

from trainers.sweep import BEST, Plan, Trial, short, show, sweep
from vad.cli.console import say
from vad.cli.training import train

_SHOWN = 5  # trials in the table


def run(config: Path, grid: Path, *, assignments: list[str], trials: int | None, quiet: bool, as_json: bool) -> int:
    """Train every trial that has not been trained yet, and print the best; the exit code."""
    plan = Plan.read(config, grid, assignments, trials=trials)

    def ended(trial: Trial) -> None:
        where = f"vad: trial {trial.number} of {plan.total}: {show(trial.values)}:"
        if trial.failure is not None:
            say(f"{where} failed: {trial.failure}")
        elif not quiet and not as_json:
            say(f"{where} held-out auc {trial.held_out_auc:.4f}, loss {trial.held_out_loss:.4f}, step {trial.step}")

    ranked = sweep(plan, lambda settings: train(settings, quiet=True), ended=ended)
    if all(trial.failure is not None for trial in ranked):
        raise ValueError(f"{plan.out}: all {len(ranked)} trials failed, the last with: {ranked[-1].failure}")
    if len(ranked) < plan.total:
        say(f"vad: {grid}: nothing new came up after {len(ranked)} of {plan.total} trials")
    if as_json:
        typer.echo(json.dumps({"best": str(plan.out / BEST), "trials": [asdict(trial) for trial in ranked]}))
    elif not quiet:
        typer.echo("\n".join(table(ranked, plan.out)))
    return 0


def table(ranked: Sequence[Trial], out: Path) -> list[str]:
    """The best trials, and what their numbers are worth."""
    done = [trial for trial in ranked if trial.failure is None]
    metric = done[0].test_metric
    head = ["trial", *done[0].values, "held-out auc", "loss", *([] if metric is None else [f"test {metric} *"])]
    rows = [head]
    for trial in done[:_SHOWN]:
        numbers = [trial.held_out_auc, trial.held_out_loss, *([] if metric is None else [trial.test])]
        values = [short(value) for value in trial.values.values()]
        rows.append([str(trial.number), *values, *("" if n is None else f"{n:.4f}" for n in numbers)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    if metric is not None:
        lines.append("* for information: it chose nothing")
    failed = len(ranked) - len(done)
    lines += [
        f"the best of {len(done)} trials{f', {failed} more failed' if failed else ''}: its held-out number is "
        "optimistic, for it was chosen by that number",
        f"confirm it with several other seeds, which hold out other videos: vad train {out / BEST} out=FOLDER seed=N",
        "their mean and spread are what counts, and the test set is for that config alone",
    ]
    return lines
