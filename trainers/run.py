"""A training run as a folder: settings, surroundings, history, checkpoints, and the model that came out.

The same command starts a run, goes on with one that was stopped, and shows the outcome of one that is finished.
"""

from __future__ import annotations

import contextlib
import csv
import datetime
import importlib.util
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from trainers import data, record
from trainers.bags import Bags
from trainers.record import HISTORY, MODEL, Column, Outcome
from trainers.settings import Settings
from trainers.weak import Feed, LossError, WeakTraining, judge, video_scores
from vad import model
from vad.files import replacing, writable_folder
from vad.weak import WeakHead, WeakOutput, score_rows

LAST, BEST, BEST_ON_TEST = "last", "best", "best-on-test"


def train(settings: Settings, *, progress: bool) -> Outcome:
    """Train, or go on, or read the outcome of a run that is finished.

    Raises ValueError about input, RunError when the folder holds a run with other settings, LossError, and OSError.
    """
    out = settings.out
    record.check(settings)
    if (outcome := record.finished(out)) is not None:
        return outcome
    writable_folder(out)
    lightning.seed_everything(settings.sections.seed, verbose=False)
    head: WeakHead[WeakOutput] = settings.head.build()
    found = data.read(settings)
    if found.block.index.dim != settings.head.dim:
        raise ValueError(
            f"{settings.store}: features are {found.block.index.dim} wide, not {settings.head.dim}; set head.dim"
        )
    _check_classes(settings, found)
    bags = _bags(settings, found)
    first = getattr(rank_zero_only, "rank", 0) == 0
    if first:
        record.begin(
            settings,
            digests={"features": found.block.digest, "bags": bags.digest},
            facts={
                "videos": {
                    "train": len(found.train.labels),
                    "held_out": sorted(found.held_out.labels),
                    "test": None if found.test is None else len(found.test.labels),
                },
                "parameters": sum(parameter.numel() for parameter in head.parameters()),
            },
        )
    head.prepare(found.block.tensor(found.block.at(name)) for name in found.train.labels)
    training = WeakTraining(head, settings, found)
    last = out / "checkpoints" / f"{LAST}.ckpt"
    try:
        with _quiet():
            trainer = _trainer(settings, found, progress=progress)
            trainer.fit(
                training,
                datamodule=Feed(bags, found, settings.sections.check_every),
                ckpt_path=last if last.is_file() else None,
                weights_only=True,
            )
    except SystemExit as cause:
        if trainer.interrupted:  # Lightning ends the process where it was interrupted
            raise KeyboardInterrupt from cause
        raise
    except LossError:
        if first and (out / "checkpoints" / f"{_chosen(settings)}.ckpt").is_file():
            _export(settings, found, head, _chosen(settings))
        raise
    if not first:
        sys.exit(0)  # the first process measures and exports
    return _finish(settings, found, head, training)


def _check_classes(settings: Settings, found: data.Data) -> None:
    """A head with classes of its own needs the category of every abnormal video."""
    classes = getattr(settings.head, "classes", ())
    if len(classes) <= 2:
        return
    if not found.categories:
        raise ValueError(f"head.classes has {len(classes)} classes, but no video's is known: set listing.categories")
    if unknown := sorted(set(found.categories.values()) - set(classes[1:])):
        raise ValueError(f"categories that head.classes lacks: {', '.join(unknown)}; it has {', '.join(classes)}")


def _bags(settings: Settings, found: data.Data) -> Bags:
    chosen = settings.sections.bags
    folder = Path(settings.sections.blocks) if settings.sections.blocks else settings.out
    return Bags(
        data.training_block(found, folder, segments=chosen.segments, sampling=chosen.sampling),
        found.train.labels,
        segments=chosen.segments,
        sampling=chosen.sampling,
        crops=chosen.crops,
        batch_pairs=chosen.pairs,
        seed=settings.sections.seed,
        ahead=True,
    )


def _trainer(settings: Settings, found: data.Data, *, progress: bool) -> lightning.Trainer:
    sections = settings.sections
    checkpoints = settings.out / "checkpoints"

    def keep(name: str, monitor: str | None) -> ModelCheckpoint:
        return ModelCheckpoint(
            checkpoints,
            filename=name,
            monitor=monitor,
            mode="max",
            save_top_k=1,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )

    monitor = "test" if sections.select == "test" else "held_out_auc"
    callbacks: list[Callback] = [keep(BEST, "held_out_auc"), _History(settings.out)]
    if found.test is not None:
        callbacks.append(keep(BEST_ON_TEST, "test"))
    if sections.patience is not None:
        callbacks.append(EarlyStopping(monitor, mode="max", patience=sections.patience, check_on_train_epoch_end=True))
    if progress:
        callbacks.append(RichProgressBar(leave=False, console_kwargs={"stderr": True}))
    callbacks.append(keep(LAST, None))  # after the others, whose state it keeps
    return lightning.Trainer(
        **sections.lightning.model_dump(),
        max_epochs=-1,
        max_steps=sections.steps,
        callbacks=callbacks,
        logger=loggers(settings),
        default_root_dir=settings.out,
        num_sanity_val_steps=0,
        log_every_n_steps=min(sections.check_every, 50),
        enable_model_summary=False,
        enable_progress_bar=progress,
        use_distributed_sampler=False,
    )


class _History(Callback):
    """Writes what was seen at the end of each round, so that a run can be followed and drawn."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """All rounds so far, also those before a restart."""
        assert isinstance(pl_module, WeakTraining)
        if not trainer.is_global_zero or not pl_module.history:
            return
        with replacing(self.out / HISTORY) as temporary, open(temporary, "w", newline="", encoding="ascii") as file:
            writer = csv.DictWriter(file, list(pl_module.history[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(pl_module.history)


def loggers(settings: Settings) -> list[Logger]:
    """The chosen ones. Raises ValueError for one that is not installed."""
    made: list[Logger] = []
    for name in settings.sections.loggers:
        if importlib.util.find_spec(name) is None:
            raise ValueError(
                f"logger {name}: {name} is not installed; run: pip install {name}, or leave it out of loggers"
            )
        if name == "tensorboard":
            made.append(TensorBoardLogger(settings.out, name="tensorboard", version=""))
        elif name == "wandb":
            made.append(WandbLogger(save_dir=settings.out, project="vadwatch", name=settings.out.name))
        else:
            where = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(settings.out / 'mlflow.db').resolve()}"
            made.append(MLFlowLogger("vadwatch", run_name=settings.out.name, tracking_uri=where))
    return made


def _finish(settings: Settings, found: data.Data, head: WeakHead[WeakOutput], training: WeakTraining) -> Outcome:
    """Measure both columns as the model will be used, export the chosen one, and say the run is done."""
    held_out = _column(settings, found, head, BEST)
    on_test = None if found.test is None else _column(settings, found, head, BEST_ON_TEST)
    _export(settings, found, head, _chosen(settings))
    outcome = Outcome(
        selected=settings.sections.select,
        held_out=held_out,
        on_test=on_test,
        test_metric=None if found.test is None else found.test.metric_name,
        steps=int(training.history[-1]["step"]),
        model=str(settings.out / MODEL),
    )
    record.finish(settings.out, outcome)
    return outcome


def _chosen(settings: Settings) -> str:
    """The checkpoint that is exported."""
    return BEST if settings.sections.select == "held-out" else BEST_ON_TEST


def _column(settings: Settings, found: data.Data, head: WeakHead[WeakOutput], name: str) -> Column:
    step = _load(settings.out, head, name)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    head.to(device)

    def scores(names: Mapping[str, bool]) -> dict[str, Any]:
        rows = {video: found.block.tensor(found.block.at(video)) for video in names}
        return {video: score_rows(head, each.to(device)).float().cpu().numpy() for video, each in rows.items()}

    judged = judge(scores(found.held_out.labels), found.held_out)
    test = None
    if found.test is not None:
        said = scores(found.test.labels)
        test = found.test.measure(said, video_scores(said))
    head.to("cpu")
    return Column(step, judged["held_out_auc"], judged["held_out_loss"], test)


def _load(out: Path, head: WeakHead[WeakOutput], name: str) -> int:
    """Give ``head`` the weights of a checkpoint; its step."""
    checkpoint = torch.load(out / "checkpoints" / f"{name}.ckpt", map_location="cpu", weights_only=True)
    prefix = "head."
    head.load_state_dict({key.removeprefix(prefix): value for key, value in checkpoint["state_dict"].items()})
    head.eval()
    return int(checkpoint["global_step"])


def _export(settings: Settings, found: data.Data, head: WeakHead[WeakOutput], name: str) -> None:
    step = _load(settings.out, head, name)
    test = settings.sections.select == "test"
    model.save(
        settings.out / MODEL,
        config={
            **({} if found.store.manifest.extractor is None else {"extractor": found.store.manifest.extractor}),
            "head": settings.head.model_dump(mode="json"),
        },
        extractor_digest=found.store.manifest.weights,
        head=head,
        calibration=None,
        fitted={
            "trained_on": found.name,
            "checkpoint": "test" if test else "held-out",
            "step": step,
            "videos": {"train": len(found.train.labels), "held_out": len(found.held_out.labels)},
            "features_sha256": found.block.index.sha256,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        },
        features=found.store.manifest,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's hints about itself are not the user's business; its errors are."""
    levels = {name: logging.getLogger(name).level for name in ("lightning.pytorch", "lightning.fabric")}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
