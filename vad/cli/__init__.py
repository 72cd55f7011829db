"""The ``vad`` command: the composition root, and the only place that imports upwards.

Nothing heavy is imported here; each command imports what it needs inside its function.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vad import __version__
from vad.cli.console import guarded

app = typer.Typer(
    name="vad",
    help="Video in, frame-level anomaly curve and events out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Videos = Annotated[
    list[Path], typer.Argument(metavar="VIDEO...", help="Video files, or folders of videos.", show_default=False)
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one setting; may be repeated.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, for programs.")]
RuntimeOption = Annotated[
    str | None, typer.Option("--runtime", help="openvino-bf16, openvino-f32, torch (the reference) or torch-bf16.")
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vadwatch {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
@guarded
def fit(
    videos: Videos,
    config: Annotated[Path, typer.Option(help="YAML with the sections extractor, head, smoothing and events.")],
    out: Annotated[Path, typer.Option(help="Model directory to write.")],
    overrides: Overrides = None,
    runtime: RuntimeOption = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Fit a model on normal footage of one camera."""
    from vad.cli.fitting import run

    return run(videos, config=config, out=out, overrides=overrides or [], runtime=runtime, quiet=quiet, as_json=as_json)


@app.command()
@guarded
def score(
    videos: Videos,
    model: Annotated[Path, typer.Option(help="Model directory made by vad fit.")],
    out: Annotated[Path, typer.Option(help="Folder for the results, one subfolder per video.")],
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write a video with curve and heat map.")] = False,
    overrides: Overrides = None,
    runtime: RuntimeOption = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Score videos: anomaly curve, events and a plot for each."""
    from vad.cli.scoring import run

    return run(
        videos,
        model=model,
        out=out,
        overlay=overlay,
        overrides=overrides or [],
        runtime=runtime,
        quiet=quiet,
        as_json=as_json,
    )


@app.command()
@guarded
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the model and the results.")] = Path("demo-output"),
    runtime: RuntimeOption = None,
    quiet: Quiet = False,
) -> int:
    """Fit on normal street footage, score footage with a staged event."""
    from vad.cli.demonstration import run

    return run(out=out, runtime=runtime, quiet=quiet)


@app.command()
@guarded
def info(
    target: Annotated[
        Path, typer.Argument(metavar="VIDEO|MODEL_DIR", help="A video or a model directory.", show_default=False)
    ],
    as_json: AsJson = False,
) -> int:
    """Say what a video or a model is."""
    from vad.cli.inspection import info as run

    return run(target, as_json=as_json)


@app.command("check-config")
@guarded
def check_config(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A YAML config.", show_default=False)],
    overrides: Overrides = None,
) -> int:
    """Check a config and print it with all defaults filled in."""
    from vad.cli.inspection import check_config as run

    return run(file, overrides=overrides or [])


def main() -> None:
    """Entry point of the ``vad`` command."""
    app()
