"""A weakly supervised head in training, as Lightning sees it.

Training goes in rounds of ``check_every`` steps. A round draws numbered batches, then looks at the held-out videos, and
ends with a checkpoint; each step seeds its own random numbers. So the number of rounds done is all that a resumed run
needs to know, and it ends with the weights of an unbroken one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from trainers.bags import Bags, Batch
from trainers.block import Block
from trainers.data import Data, Part
from trainers.losses import Parts
from trainers.settings import Schedule, Settings, decay_of, loss_of
from vad.heads.dual_branch import Settings as DualBranchSettings
from vad.types import Array
from vad.weak import WeakHead, WeakOutput, existing, score_rows, top_mean


class LossError(ValueError):
    """A loss or weights that are no numbers any more; training cannot go on from here."""


class WeakTraining(lightning.LightningModule):
    """One head, its loss, and what is looked at between rounds."""

    def __init__(self, head: WeakHead[WeakOutput], settings: Settings, data: Data) -> None:
        super().__init__()
        self.head, self.run, self.data = head, settings, data
        self.loss = loss_of(settings.head.kind)
        self.weights = dict(settings.sections.loss)
        self.history: list[dict[str, float]] = []
        self._parts: list[Tensor] = []  # of each step of the round
        self._scores: list[dict[str, Array]] = [{}, {}]  # held-out, test

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """The sum of the loss's parts. Raises LossError that names the part which is no number."""
        crops = batch.features_BKSD.shape[1]
        output = self.head(batch.features_BKSD.flatten(0, 1))
        with torch.autocast(self.device.type, enabled=False):
            parts = self.parts(_full(output), batch, crops)
        values = torch.stack([part.detach() for part in parts.values()])
        if not values.isfinite().all():
            named = ", ".join(f"{name} = {value:g}" for name, value in zip(parts, values.tolist(), strict=True))
            self._stop("its loss", f"parts: {named}")
        self._parts.append(values)
        self.log_dict({f"loss/{name}": part.detach() for name, part in parts.items()}, prog_bar=True)
        return torch.stack(list(parts.values())).sum()

    def parts(self, output: WeakOutput, batch: Batch, crops: int) -> Parts:
        """The head's loss on one batch."""
        settings = {name: value for name, value in self.weights.items() if name != "decay"}
        known = {"classes_V": self.classes(batch)} if isinstance(self.run.head, DualBranchSettings) else {}
        parts = self.loss(output, batch.labels_B, crops=crops, variant=self.run.head.variant, **known, **settings)
        if (decay := decay_of(self.run.head.kind)) is None:
            return parts
        weight = {"weight": self.weights["decay"]} if "decay" in self.weights else {}
        return {**parts, "decay": decay(self.head, **weight)}

    def classes(self, batch: Batch) -> Tensor:
        """Place of each video's category among the head's classes; with two of them, its label."""
        assert isinstance(self.run.head, DualBranchSettings)
        classes = self.run.head.classes
        if len(classes) == 2:
            return batch.labels_B.long()
        chosen = [
            classes.index(self.data.categories[name]) if name in self.data.categories else 0 for name in batch.names
        ]
        return torch.tensor(chosen, device=self.device)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Dropout is a function of the seed, the step and the device."""
        number = self.global_step * self.trainer.world_size + self.global_rank
        torch.manual_seed(
            np.random.SeedSequence((self.run.sections.seed, number)).generate_state(1, np.uint64)[0].item()
        )

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Batches are our own types."""
        if isinstance(batch, Batch):
            return dataclasses.replace(
                batch, features_BKSD=batch.features_BKSD.to(device), labels_B=batch.labels_B.to(device)
            )
        return batch

    def validation_step(self, batch: tuple[str, Tensor], _: int, dataloader_idx: int = 0) -> None:
        """Score one whole video."""
        name, rows_TKD = batch
        scores_T = score_rows(self.head, rows_TKD.to(self.device), approximate=True)
        self._scores[dataloader_idx][name] = scores_T.float().cpu().numpy()

    def on_validation_epoch_end(self) -> None:
        """Measure, note, and refuse to go on with weights that are no numbers."""
        if not all(parameter.isfinite().all() for parameter in self.head.parameters()):
            self._stop("its weights", "the loss itself was finite")
        held_out, test = self._scores
        self._scores = [{}, {}]
        found = judge(held_out, self.data.held_out)
        if self.data.test is not None and test:
            found["test"] = self.data.test.measure(test, video_scores(test))
        self.log_dict(found)
        parts = torch.stack(self._parts).mean(0).sum().item() if self._parts else math.nan
        self._parts = []
        self.history.append({"step": self.global_step, "loss": parts, **found})

    def _stop(self, what: str, detail: str) -> None:
        good = f"that of step {int(self.history[-1]['step'])}" if self.history else "none"
        raise LossError(
            f"training stopped at step {self.global_step}: {what} became no number ({detail}); the last good "
            f"checkpoint is {good}; lower optimiser.lr, or set lightning.gradient_clip_val"
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """History is part of the state."""
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """History is part of the state."""
        self.history = checkpoint["history"]

    def configure_optimizers(self) -> Any:
        """Optimiser and schedule of the settings, in steps."""
        chosen, schedule = self.run.sections.optimiser, self.run.sections.schedule
        kinds = {"adagrad": torch.optim.Adagrad, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
        eps = {} if chosen.eps is None else {"eps": chosen.eps}
        optimiser = kinds[chosen.kind](self.head.parameters(), lr=chosen.lr, weight_decay=chosen.weight_decay, **eps)
        rate = LambdaLR(optimiser, lambda step: factor(schedule, step, self.run.sections.steps))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": rate, "interval": "step"}}


class Feed(lightning.LightningDataModule):
    """Batches of bags for each device, and whole videos to look at."""

    def __init__(self, bags: Bags, data: Data, check_every: int) -> None:
        super().__init__()
        self.bags, self.data, self.check_every = bags, data, check_every

    def train_dataloader(self) -> Round:
        """The batches of one round."""
        return Round(self)

    def val_dataloader(self) -> list[Whole]:
        """The held-out videos, and the test videos where there are any."""
        test = [] if self.data.test is None else [Whole(self.data.block, self.data.test.labels)]
        return [Whole(self.data.block, self.data.held_out.labels), *test]


class Round:
    """The batches of the round that Lightning calls an epoch, of those the share of this device."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed

    def __len__(self) -> int:
        return self.feed.check_every

    def __iter__(self) -> Iterator[Batch]:
        trainer = self.feed.trainer
        assert trainer is not None
        steps = range(trainer.global_step, trainer.global_step + len(self))
        return self.feed.bags.batches([step * trainer.world_size + trainer.global_rank for step in steps])


class Whole:
    """Name and rows (T, K, D) of each video."""

    def __init__(self, block: Block, names: Mapping[str, bool]) -> None:
        self.block, self.names = block, list(names)

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, self.block.tensor(self.block.at(name))) for name in self.names)


def video_scores(scores: Mapping[str, Array]) -> dict[str, float]:
    """One score per video: the mean of its highest sixteenth of snippets and one more."""
    return {name: float(_top(torch.from_numpy(values))) for name, values in scores.items()}


def judge(scores: Mapping[str, Array], part: Part) -> dict[str, float]:
    """Area under the ROC of whole videos, and their cross-entropy."""
    videos = video_scores(scores)
    values = torch.tensor(list(videos.values()))
    labels = torch.tensor([part.labels[name] for name in videos], dtype=torch.float32)
    return {"held_out_auc": part.auc(videos), "held_out_loss": float(F.binary_cross_entropy(values, labels))}


def factor(schedule: Schedule, step: int, steps: int) -> float:
    """What the learning rate is multiplied with at a step.

    >>> [round(factor(Schedule(kind="cosine"), step, 100), 3) for step in (0, 50, 100)]
    [1.0, 0.5, 0.0]
    """
    rising = min((step + 1) / (schedule.warm_up + 1), 1.0)
    if schedule.kind == "cosine":
        done = min(step / (schedule.length or steps), 1.0)
        return rising * (1 + math.cos(math.pi * done)) / 2
    drops = sum(step >= at for at in schedule.at) if schedule.kind == "drops" else 0
    return rising * schedule.factor**drops


def _top(scores_T: Tensor) -> Tensor:
    scores_1T = scores_T[None]
    return top_mean(scores_1T, existing(None, scores_1T), torch.tensor([len(scores_T) // 16 + 1]))[0]


def _full(output: WeakOutput) -> WeakOutput:
    """The same in float32: a loss of bf16 scores has three digits."""
    fields = {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    tensors = {name: value for name, value in fields.items() if isinstance(value, Tensor)}
    wide = {name: value.float() for name, value in tensors.items() if value.dtype in (torch.bfloat16, torch.float16)}
    return dataclasses.replace(output, **wide)
