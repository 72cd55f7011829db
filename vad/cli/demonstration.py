"""``vad demo``: the main job on footage that travels with the product."""

from __future__ import annotations

import json
from pathlib import Path

import typer

import vad
from vad.cli import fitting, scoring
from vad.config import configs_dir
from vad.plot import clock


def run(*, out: Path, runtime: str | None, quiet: bool) -> int:
    """Fit on the normal part, score the part with the staged event, say where the results lie; the exit code."""
    footage = examples_dir()

    def say(line: str) -> None:
        if not quiet:
            typer.echo(line)

    say("Footage: a street in the PETS pedestrian clip (examples/NOTICE.md). One event in it is staged.")
    code = fitting.run(
        [footage / "street_normal.mp4"],
        config=configs_dir() / "demo.yaml",
        out=out / "model",
        overrides=[],
        runtime=runtime,
        quiet=quiet,
        as_json=False,
    )
    code = max(
        code,
        scoring.run(
            [footage / "street_staged.mp4"],
            model=out / "model",
            out=out,
            only=None,
            overlay=True,
            overrides=[],
            runtime=runtime,
            quiet=quiet,
            as_json=False,
        ),
    )
    staged = json.loads((footage / "street_staged.json").read_text(encoding="utf-8"))["event"]
    say(f"Known: {staged['what']}, {clock(staged['start'])} to {clock(staged['end'])}")
    folder = out / "street_staged"
    for name, file in (
        ("curve", "curve.csv"),
        ("events", "events.json"),
        ("plot", "curve.png"),
        ("overlay", "overlay.mp4"),
        ("record", "run.json"),
    ):
        say(f"{name + ':':9}{folder / file}")
    return code


def examples_dir() -> Path:
    """Folder of the example footage: inside an installed wheel, or beside the package in a checkout."""
    package = Path(vad.__file__).parent
    return package / "examples" if (package / "examples").is_dir() else package.parent / "examples"
