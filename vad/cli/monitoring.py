"""``vad monitor``: watch cameras, print events as they come."""

from __future__ import annotations

import functools
import signal
import threading
from pathlib import Path

import typer

from streaming.config import Settings
from streaming.messages import Model
from streaming.supervisor import Camera, Supervisor
from vad import __version__, model
from vad.cli.composition import Composition, Scorer, scorer
from vad.cli.console import say
from vad.config import ConfigError, Document
from vad.files import writable_folder
from vad.model import ModelError
from vad.sampling import Sampling

SINK = "stdout"


def run(config: Path, *, overrides: list[str], runtime: str | None, quiet: bool) -> int:
    """Watch until a signal comes; one JSON line per message of an event on stdout. The exit code."""
    settings = Settings.read(config, overrides=overrides)
    cameras = {name: camera(name, settings) for name in settings.cameras}
    builds = {each.model: functools.partial(tool, Path(each.model), runtime) for each in cameras.values()}
    writable_folder(Path(settings.data))
    try:
        from streaming.journal import Journal, deliver
        from streaming.store import Store
    except ModuleNotFoundError as cause:
        if cause.name != "sqlalchemy":
            raise
        raise ValueError("sqlalchemy is not installed; run: pip install 'vadwatch[live]'") from cause
    stop = threading.Event()
    for which in (signal.SIGINT, signal.SIGTERM):
        signal.signal(which, lambda *_: stop.set())
    store = Store.open(settings.database_url, sinks=[SINK])
    try:
        journal = Journal(store, {name: (each, scores_with(each)) for name, each in cameras.items()})
        supervisor = Supervisor(
            list(cameras.values()), builds, tell=journal.tell, hear=journal.hear, batching=settings.batching
        )
        shown: dict[str, tuple[str, str]] = {}

        def stopped() -> bool:
            for payload in deliver(store, SINK):
                typer.echo(payload)
            journal.look()
            for name, status in supervisor.status().items():
                if not quiet and shown.get(name) != (status["state"], status["reason"]):
                    shown[name] = (status["state"], status["reason"])
                    say(f"vad: {name}: {status['state']} ({status['reason']})")
            return stop.is_set()

        supervisor.run(stopped)
        store.write(lambda _: None).result()  # the last messages are written
        for payload in deliver(store, SINK):
            typer.echo(payload)
    finally:
        store.close()
    return 0


def scores_with(camera: Camera) -> Model:
    """What the messages of a camera's events say about their model."""
    loaded = model.load(Path(camera.model))
    config = loaded.config
    return Model(
        extractor=config["extractor"]["kind"],
        head=config["head"]["kind"],
        digest=f"sha256:{loaded.digest}",
        version=__version__,
    )


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
