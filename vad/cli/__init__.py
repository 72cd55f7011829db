"""The ``vad`` command: the composition root, and the only place that imports upwards.

Nothing heavy is imported here; each command imports what it needs inside its function.
"""

from __future__ import annotations

import enum
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


class Launcher(enum.Enum):
    """Where workers run."""

    local = "local"
    ray = "ray"


class Selection(enum.Enum):
    """What chooses a checkpoint."""

    held_out = "held-out"
    test = "test"


class Unscored(enum.Enum):
    """What frames without a score count as."""

    refuse = "refuse"
    lowest = "lowest"
    leave_out = "leave-out"


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
def train(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="YAML; ready ones are in configs/train/.", show_default=False)
    ],
    assignments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE...", help="data=FOLDER, out=FOLDER, and any other setting.", show_default=False
        ),
    ] = None,
    select: Annotated[
        Selection | None,
        typer.Option(help="What chooses the checkpoint. test repeats the literature; everything is marked."),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Train a head on labels of whole videos; the same command goes on with a run that was stopped."""
    from vad.cli.training import run

    chosen = None if select is None else select.value
    return run(config, assignments=assignments or [], select=chosen, quiet=quiet, as_json=as_json)


@app.command()
@guarded
def sweep(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML, as for vad train.", show_default=False)],
    grid: Annotated[
        Path,
        typer.Argument(
            metavar="GRID",
            help="YAML: setting: [value, ...], or setting: {low: 1e-4, high: 1e-2, log: true}, with int: true instead "
            "for whole numbers.",
            show_default=False,
        ),
    ],
    assignments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE...", help="data=FOLDER, out=FOLDER, and any other setting.", show_default=False
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="How many, where the grid has a range.", show_default=False)
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Search settings over training runs, by held-out videos; the same command goes on with one that was stopped."""
    from vad.cli.sweeping import run

    return run(config, grid, assignments=assignments or [], trials=trials, quiet=quiet, as_json=as_json)


@app.command()
@guarded
def score(
    videos: Annotated[
        list[Path],
        typer.Argument(
            metavar="VIDEO...", help="Video files, folders of videos, or one feature store.", show_default=False
        ),
    ],
    model: Annotated[Path, typer.Option(help="Model directory made by vad fit or vad train.")],
    out: Annotated[Path, typer.Option(help="Folder for the results, one subfolder per video.")],
    only: Annotated[
        Path | None, typer.Option(help="Of a store: only the videos of this list.", show_default=False)
    ] = None,
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write a video with curve and heat map.")] = False,
    overrides: Overrides = None,
    runtime: RuntimeOption = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Score videos: anomaly curve, events and a plot for each. Of stored features: scores for vad eval."""
    from vad.cli.scoring import run

    return run(
        videos,
        model=model,
        out=out,
        only=only,
        overlay=overlay,
        overrides=overrides or [],
        runtime=runtime,
        quiet=quiet,
        as_json=as_json,
    )


@app.command()
@guarded
def monitor(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="YAML: cameras and the models that score them.", show_default=False)
    ],
    overrides: Overrides = None,
    runtime: RuntimeOption = None,
    quiet: Quiet = False,
) -> int:
    """Watch cameras; one JSON line on stdout for each message of an event, and a memory in a database."""
    from vad.cli.monitoring import run

    return run(config, overrides=overrides or [], runtime=runtime, quiet=quiet)


@app.command()
@guarded
def extract(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...", help="Videos, folders (searched below), or lists (.txt).", show_default=False
        ),
    ],
    config: Annotated[Path, typer.Option(help="YAML with the section extractor.")],
    out: Annotated[Path, typer.Option(help="Feature store to write or to complete.")],
    launcher: Annotated[
        Launcher, typer.Option(help="Where workers run: this machine, or a Ray cluster.")
    ] = Launcher.local,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Workers; unset: one per GPU, or one.", show_default=False)
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Clips per call; unset: 16 views on a GPU, else 1.", show_default=False)
    ] = None,
    cpus: Annotated[float, typer.Option(min=0.1, help="Ray: processors per worker.")] = 1.0,
    gpus: Annotated[float, typer.Option(min=0.0, help="Ray: GPUs per worker; a fraction shares one.")] = 0.0,
    part: Annotated[
        str | None, typer.Option("--shard", metavar="I/N", help="Only the i-th of n shares of the videos.")
    ] = None,
    overrides: Overrides = None,
    runtime: RuntimeOption = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Extract features of videos into a store; what is there already is kept."""
    from vad.cli.extraction import Spread, run

    return run(
        inputs,
        config=config,
        out=out,
        spread=Spread(launcher.value, workers, batch, cpus, gpus),
        part=part,
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


features = typer.Typer(help="Look into a feature store, check it, read and write published ones.", no_args_is_help=True)
app.add_typer(features, name="features")

StoreFolder = Annotated[Path, typer.Argument(metavar="STORE", help="A feature store.", show_default=False)]
LayoutOption = Annotated[str, typer.Option(help="ucf-i3d, xd-i3d, rtfm, vadclip, lagovad or c3d.")]


@features.command("info")
@guarded
def features_info(store: StoreFolder, as_json: AsJson = False) -> int:
    """Say what a store holds and how it was made."""
    from vad.cli.features import info as run

    return run(store, as_json=as_json)


@features.command("verify")
@guarded
def features_verify(
    store: StoreFolder,
    against: Annotated[
        Path | None, typer.Option(help="Compare with this store, or with published features (give --layout).")
    ] = None,
    layout: Annotated[str | None, typer.Option(help="Layout of the published features.")] = None,
    source: Annotated[Path | None, typer.Option(help="Folder of the videos, if they were moved.")] = None,
    count: Annotated[int, typer.Option("--sample", min=1, help="Videos to check.")] = 8,
    snippets: Annotated[int, typer.Option(min=1, help="Rows to recompute of each.")] = 16,
    seed: Annotated[int, typer.Option(help="Chooses the sample.")] = 0,
    tolerance: Annotated[
        float | None, typer.Option(help="Largest relative error of a row; unset: 1e-3, for bf16 3e-2.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Recompute a sample of a store, or compare it with a reference."""
    from vad.cli.features import verify as run

    return run(
        store,
        reference=against,
        layout=layout,
        source=source,
        count=count,
        snippets=snippets,
        seed=seed,
        tolerance=tolerance,
        as_json=as_json,
    )


@features.command("import")
@guarded
def features_import(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Published features.", show_default=False)],
    layout: LayoutOption,
    out: Annotated[Path, typer.Option(help="Feature store to write.")],
    frames: Annotated[
        Path | None, typer.Option(help="CSV of name,frames: true frame counts, checked against the rows.")
    ] = None,
) -> int:
    """Read published features into a store."""
    from vad.cli.features import import_published as run

    return run(folder, layout=layout, out=out, frames=frames)


@features.command("export")
@guarded
def features_export(
    store: StoreFolder, layout: LayoutOption, out: Annotated[Path, typer.Option(help="Folder to write.")]
) -> int:
    """Write a store in a published layout."""
    from vad.cli.features import export as run

    return run(store, layout=layout, out=out)


@app.command()
@guarded
def compose(
    store: StoreFolder,
    labels: Annotated[Path, typer.Option(help="CSV of video,label[,group]: normal, abnormal or a category.")],
    out: Annotated[Path, typer.Option(help="Folder to write or to complete: features, truth, labels, plans.")],
    count: Annotated[int, typer.Option(help="Videos to compose, around an abnormal and a normal clip in turn.")] = 100,
    groups: Annotated[
        str | None,
        typer.Option(
            help="Which clips share a source: number-blocks:SIZE, ucf-crime, xd-violence, each or list; "
            "unset: list where the CSV has groups, else each.",
            show_default=False,
        ),
    ] = None,
    single: Annotated[float, typer.Option(help="Share of videos of one clip.")] = 0.3,
    longest: Annotated[int, typer.Option(help="Most clips in a video.")] = 5,
    similar: Annotated[float, typer.Option(help="Share of fillers that look like the clip they surround.")] = 0.5,
    limit: Annotated[
        int | None, typer.Option(metavar="ROWS", help="Cut longer videos to so many rows.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Chooses clips, order and cuts.")] = 0,
    videos: Annotated[
        Path | None,
        typer.Option(help="Folder of the clips' videos: joins their pictures too.", show_default=False),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="Size of the joined pictures; unset: the first clip's.", show_default=False),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Compose untrimmed videos with a known truth from trimmed clips."""
    from vad.cli.composing import Recipe, run

    return run(
        store,
        labels=labels,
        out=out,
        recipe=Recipe(count, groups, single, longest, similar, limit, seed),
        videos=videos,
        size=size,
        quiet=quiet,
        as_json=as_json,
    )


@app.command("eval")
@guarded
def evaluate(
    scores: Annotated[
        list[Path],
        typer.Argument(
            metavar="SCORES...",
            help="A folder of curve.csv or of .npy (one score per snippet, with --hop), or one .npz of segments.",
            show_default=False,
        ),
    ],
    dataset: Annotated[
        str,
        typer.Option(
            help="Whose annotation it is: avenue, custom, dota, lad, lagovad, msad, nwpu-campus, ped1, ped2, "
            "shanghaitech, tad, ubnormal, ucf-crime or xd-violence."
        ),
    ],
    annotations: Annotated[Path, typer.Option(help="The benchmark's own annotation: a file, or a folder.")],
    out: Annotated[Path, typer.Option(help="Folder for metrics.json and report.html.")],
    compare: Annotated[bool, typer.Option("--compare", help="Paired differences between several score sets.")] = False,
    hop: Annotated[int | None, typer.Option(min=1, help="Frames per score of .npy files.", show_default=False)] = None,
    split: Annotated[
        str | None, typer.Option(help="Which split or protocol, where a benchmark has several.", show_default=False)
    ] = None,
    frames: Annotated[
        Path | None, typer.Option(help="CSV of video,frames[,fps]: true frame counts.", show_default=False)
    ] = None,
    conventions: Annotated[
        list[str] | None,
        typer.Option(
            "--convention",
            help="Measure as others do: inclusive-ends, half-open-ends, matlab-ends, dropped-tail, x16 or 30fps.",
        ),
    ] = None,
    fps: Annotated[float | None, typer.Option(min=0.001, help="Frame rate of all videos.", show_default=False)] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="An alarm is a run of frames at or above it; unset: 0.5.")
    ] = None,
    max_delay: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds at which a missed event counts as found; unset: 30.")
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Measure the videos that have scores, and say so.")
    ] = False,
    unscored: Annotated[Unscored, typer.Option(help="What frames without a score count as.")] = Unscored.refuse,
    resamples: Annotated[int | None, typer.Option(min=1, help="Bootstrap resamples; unset: 1000.")] = None,
    seed: Annotated[int, typer.Option(help="Of the resamples and of the random control.")] = 0,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Measure scores against a benchmark's annotation: every metric, the controls beside them, and an audit."""
    from vad.cli.evaluation import Rules, Truth, run
    from vad.evaluation.measure import Settings

    asked = {"threshold": threshold, "max_delay_s": max_delay, "resamples": resamples, "seed": seed}
    return run(
        scores,
        truth=Truth(dataset, annotations, split, frames, conventions or [], fps),
        rules=Rules(hop, allow_missing, unscored.value),
        out=out,
        compare=compare,
        settings=Settings(**{name: value for name, value in asked.items() if value is not None}),
        threshold_asked=threshold is not None,
        quiet=quiet,
        as_json=as_json,
    )


@app.command()
@guarded
def leaderboard(
    dataset: Annotated[
        str | None,
        typer.Option(help="Benchmark: ucf-crime, xd-violence, shanghaitech ...; unset: all.", show_default=False),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="auc, ap, ap_trapezoid, map, far ...; unset: all, with --place the benchmark's headline.",
            show_default=False,
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="weak, one-class, zero-shot, online, open-vocabulary, label-guided or instruction-tuned.",
            show_default=False,
        ),
    ] = None,
    value: Annotated[
        float | None,
        typer.Option(
            "--place",
            metavar="VALUE",
            help="Your result in percent; 1 or less is read as a fraction, except for far. Needs --dataset.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Published results with sources and caveats, and where a value stands among them and the controls."""
    from vad.cli.leaderboard import run

    return run(dataset=dataset, metric=metric, protocol=protocol, value=value, as_json=as_json)


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
