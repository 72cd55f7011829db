"""``vad fit``: normal footage in, model directory out."""

from __future__ import annotations

import datetime
import json
import time
from pathlib import Path

import typer

from trainers.normal import fit
from vad import model
from vad.cli.composition import Composition
from vad.cli.console import INPUT, progress, say
from vad.files import sha256, writable_folder
from vad.head import NormalHeadSettings
from vad.video import find_videos, probe


def run(
    videos: list[Path],
    *,
    config: Path,
    out: Path,
    overrides: list[str],
    runtime: str | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Fit, save, and say what was done; the exit code."""
    settings = Composition.read(config, overrides=overrides, runtime=runtime)
    assert isinstance(settings.head, NormalHeadSettings)
    paths = find_videos(videos)
    probes = [probe(path) for path in paths]
    model.check_target(out)
    writable_folder(out)
    extractor = settings.extractor.build()
    head = settings.head.build()
    began = time.monotonic()
    with progress(sum(p.frames for p in probes), quiet=quiet or as_json) as bar:
        fitted = fit(paths, extractor, head, progress=lambda path, frames: bar.advance(path.name, frames))
    seconds = time.monotonic() - began
    record = {
        "videos": [{"name": path.name, "sha256": sha256(path)} for path in paths],
        "frames": fitted.frames,
        "snippets": fitted.snippets,
        "runtime": extractor.runtime,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    model.save(
        out,
        config=settings.resolved(),
        extractor_digest=extractor.digest,
        head=head,
        calibration=fitted.calibration,
        fitted=record,
    )
    for path, gaps in fitted.gaps.items():
        say(f"vad: {path}: {sum(g.end - g.start for g in gaps):.1f} s could not be read; the rest was used")
    if as_json:
        typer.echo(json.dumps({"model": str(out), "frames_per_second": round(fitted.frames / seconds, 1), **record}))
    elif not quiet:
        typer.echo(
            f"fitted {settings.extractor.kind} + {settings.head.kind} on {fitted.frames} frames of {len(paths)} videos "
            f"in {seconds:.1f} s ({fitted.frames / seconds:.0f} frames/s, {extractor.runtime}): {out}"
        )
    return INPUT if fitted.gaps else 0
