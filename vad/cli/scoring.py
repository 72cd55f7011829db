"""``vad score``: videos in; per video a curve, events, a plot and a record of how they were made."""

from __future__ import annotations

import datetime
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import typer

from streaming.recording import Recording, score_recording
from vad import plot, results
from vad.cli.composition import Scorer, scorer
from vad.cli.console import INPUT, Progress, progress, report, say
from vad.cli.scoring_features import is_store
from vad.cli.scoring_features import run as score_store
from vad.files import sha256, writable_folder
from vad.overlay import HeatTrack, draw
from vad.pipeline import Scored
from vad.versions import versions
from vad.video import Probe, Video, VideoError, find_videos, probe


def run(
    videos: list[Path],
    *,
    model: Path,
    out: Path,
    only: Path | None,
    overlay: bool,
    overrides: list[str],
    runtime: str | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Score each video; one that cannot be read does not stop the others. The exit code is the worst one."""
    if len(videos) == 1 and is_store(videos[0]):
        if overlay:
            raise ValueError(f"{videos[0]}: a feature store has no pictures to draw over; leave out --overlay")
        return score_store(
            videos[0], only=only, model=model, out=out, overrides=overrides, quiet=quiet, as_json=as_json
        )
    if only is not None:
        raise ValueError("--only chooses videos of a feature store; give the videos themselves")
    paths = find_videos(videos)
    _refuse_same_names(paths)
    writable_folder(out)
    tool = scorer(model, overrides=overrides, runtime=runtime)
    code, summaries = 0, []
    probes: dict[Path, Probe] = {}
    for path in paths:
        try:
            probes[path] = probe(path)
        except (VideoError, OSError) as error:
            code = max(code, report(error))
    with progress(sum(p.frames for p in probes.values()), quiet=quiet or as_json) as bar:
        for path in probes:
            try:
                summary = score_one(path, tool, out / path.stem, overlay=overlay, bar=bar)
            except (VideoError, FileNotFoundError) as error:
                code = max(code, report(error))
                continue
            summaries.append(summary)
            if summary["gaps"]:
                lost = sum(gap["end"] - gap["start"] for gap in summary["gaps"])
                say(
                    f"vad: {path}: {lost:.1f} s in {len(summary['gaps'])} places could not be read (first at "
                    f"{summary['gaps'][0]['start']:.1f} s); the rest is scored, the gaps are in run.json"
                )
                code = max(code, INPUT)
    if as_json:
        typer.echo(json.dumps(summaries))
    elif not quiet:
        for summary in summaries:
            _print(summary)
    return code


def score_one(path: Path, tool: Scorer, folder: Path, *, overlay: bool, bar: Progress) -> dict[str, Any]:
    """Score one video into ``folder``; a summary for the reader."""
    video = Video(path)
    read = 0
    with tempfile.TemporaryFile() as file:
        heat = HeatTrack(file, tool.calibration)

        def observe(scored: Scored, frames: int) -> None:
            nonlocal read
            bar.advance(path.name, frames - read)
            read = frames
            if overlay:
                heat.add(scored)

        began = time.monotonic()
        recording = score_recording(
            video,
            tool.extractor,
            tool.stream(),
            tool.calibration,
            smoother=tool.settings.smoothing.build(),
            alarms=tool.settings.events,
            observe=observe,
        )
        record = run_record(video, tool, recording, time.monotonic() - began)
        bar.advance(path.name, len(recording.curve) - read)
        curve, events, alarms = recording.curve, recording.events, tool.settings.events

        def draw_plot(target: Path) -> None:
            caption = plot.Caption(f"{path.name} · {record['model']['name']}", record["label"], alarms.on, alarms.off)
            plot.draw(
                target,
                video=path,
                aspect=video.probe.width / video.probe.height,
                curve=curve,
                events=events,
                gaps=video.gaps,
                caption=caption,
            )

        def draw_overlay(target: Path) -> None:
            draw(target, video=path, curve=curve, events=events, on=alarms.on, heat=heat)

        results.write(
            folder,
            curve=curve,
            events=events,
            record=record,
            pictures={"curve.png": draw_plot, **({"overlay.mp4": draw_overlay} if overlay else {})},
        )
    return {
        "video": str(path),
        "out": str(folder),
        "frames": len(curve),
        "frames_per_second": record["frames_per_second"],
        "gaps": record["gaps"],
        "events": results.plain_events(events),
    }


def run_record(video: Video, tool: Scorer, recording: Recording, seconds: float) -> dict[str, Any]:
    """How a result was made: enough to make it again, and to judge it."""
    lookahead = tool.settings.smoothing.lookahead
    return {
        "video": {
            "name": video.path.name,
            "sha256": sha256(video.path),
            "width": video.probe.width,
            "height": video.probe.height,
            "fps": video.probe.fps,
            "frames": len(recording.curve),
        },
        "gaps": results.plain_gaps(video.gaps),
        "label": f"lookahead = {lookahead:g} s" if lookahead else "causal",
        "snippets": recording.snippets,
        "model": {
            "name": f"{tool.settings.extractor.kind} + {tool.settings.head.kind}",
            "sha256": tool.model.digest,
            "extractor_sha256": tool.extractor.digest,
            "fitted": tool.model.fitted,
        },
        "config": tool.settings.resolved(),
        "runtime": tool.extractor.runtime,
        "versions": versions(),
        "seconds": round(seconds, 3),
        "frames_per_second": round(len(recording.curve) / seconds, 1),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _refuse_same_names(paths: list[Path]) -> None:
    taken: dict[str, Path] = {}
    for path in paths:
        other = taken.setdefault(path.stem, path)
        if other is not path:
            raise VideoError(
                f"{other} and {path} would both be written to a folder {path.stem!r}; score them with two --out folders"
            )


def _print(summary: dict[str, Any]) -> None:
    typer.echo(
        f"{summary['video']}: {summary['frames']} frames at {summary['frames_per_second']:.0f} frames/s, "
        f"{len(summary['events'])} events, in {summary['out']}"
    )
    for event in summary["events"]:
        typer.echo(
            f"  {plot.clock(event['start'])} to {plot.clock(event['end'])}  peak {event['peak']:.2f} "
            f"at {plot.clock(event['peak_time'])}"
        )
