"""``vad monitor``: watch cameras, print events as they come."""

from __future__ import annotations

import functools
import json
import signal
import threading
from pathlib import Path
from typing import Any

import typer

from streaming.config import Settings
from streaming.supervisor import Alarm, Camera, Supervisor
from vad import model
from vad.cli.composition import Composition, Scorer, scorer
from vad.cli.console import say
from vad.config import ConfigError, Document
from vad.model import ModelError
from vad.sampling import Sampling


def run(config: Path, *, overrides: list[str], runtime: str | None, quiet: bool) -> int:
    """Watch until a signal comes; one JSON line per beginning and end of an event on stdout. The exit code."""
    settings = Settings.read(config, overrides=overrides)
    cameras = [camera(name, settings) for name in settings.cameras]
    builds = {each.model: functools.partial(tool, Path(each.model), runtime) for each in cameras}
    stop = threading.Event()
    for which in (signal.SIGINT, signal.SIGTERM):
        signal.signal(which, lambda *_: stop.set())

    def tell(alarm: Alarm) -> None:
        typer.echo(json.dumps(line(alarm)))

    supervisor = Supervisor(cameras, builds, tell=tell, batching=settings.batching)
    shown: dict[str, tuple[str, str]] = {}

    def stopped() -> bool:
        if not quiet:
            for name, status in supervisor.status().items():
                if shown.get(name) != (status["state"], status["reason"]):
                    shown[name] = (status["state"], status["reason"])
                    say(f"vad: {name}: {status['state']} ({status['reason']})")
        return stop.is_set()

    supervisor.run(stopped)
    return 0


def camera(name: str, settings: Settings) -> Camera:
    """A camera with all that its model says. Raises ModelError for models that cannot watch a stream."""
    one = settings.cameras[name]
    folder = Path(one.model or settings.model or "")
    loaded = model.load(folder)
    if "extractor" not in loaded.config:
        raise ModelError(f"{folder}: was trained on imported features, and nothing here makes such from video")
    made = Composition.of(Document(str(folder), loaded.config, {}))
    if made.extractor.crops > 1:
        raise ConfigError(f"{folder}: scores {made.extractor.crops} crops of a clip; cameras are watched with one")
    lookahead = getattr(one.smoothing or made.smoothing, "lookahead", 0)
    if lookahead:
        raise ConfigError(f"cameras.{name}.smoothing: looks {lookahead:g} s ahead, which a live stream cannot")
    sampling = Sampling(**{key: getattr(made.extractor, key) for key in Sampling.model_fields})
    return Camera(
        name,
        one.url.get_secret_value(),
        str(folder),
        sampling,
        one.smoothing or made.smoothing,
        one.events or made.events,
        one.watchdog or settings.watchdog,
    )


def tool(folder: Path, runtime: str | None) -> Scorer:
    """A model, loaded in the process that scores."""
    return scorer(folder, overrides=[], runtime=runtime)


def line(alarm: Alarm) -> dict[str, Any]:
    """An alarm for programs; times are Unix seconds."""
    event = alarm.event
    return {
        "type": alarm.kind,
        "camera": alarm.camera,
        "start_time": round(alarm.began + event.start, 3),
        "end_time": round(alarm.began + event.end, 3) if alarm.kind == "end" else None,
        "end_reason": alarm.reason,
        "top_score": round(event.peak, 4),
        "top_score_time": round(alarm.began + event.peak_time, 3),
    }
