"""Hyper-parameter search: many training runs, compared on the same held-out videos, as one folder.

A grid is a YAML mapping from the dotted name of a setting to a list of values or to a range::

    optimiser.lr: {low: 1e-4, high: 1e-2, log: true}
    bags.segments: {low: 16, high: 64, int: true}
    head.kind: [mil, rtfm]

Of lists alone every combination is trained. With a range in it, Optuna's TPE proposes so many trials as are asked for;
lists are categories then.

Nothing is written about a trial before it has ended: what comes next follows from the seed and the trials that have.
So after a kill the same values come up again, and with them the same run folder, which goes on by itself.

Optuna rather than Ray Tune: its memory is one plain file, which is all that a search needs to go on; it asks for no
cluster and no daemon; and it is a small dependency. A machine with several GPUs runs several sweeps side by side, each
with its own CUDA_VISIBLE_DEVICES and its own folder.

TPE: Bergstra et al. "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import hashlib
import importlib.util
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, model_validator

from trainers import record
from trainers.record import Outcome, RunError
from trainers.settings import Settings
from vad.config import Config, ConfigError, Document, to_yaml
from vad.files import replacing, writable_folder

if TYPE_CHECKING:
    import optuna

SWEEP, JOURNAL, TABLE, BEST, TRIALS = "sweep.yaml", "study.journal", "trials.csv", "best.yaml", "trials"
_MOST = 10_000  # combinations: checking them takes seconds, training them years
_PATIENCE = 100  # proposals in a row that have been tried already
_LAST = (math.inf, 0, 0)  # of a ranking

_SAME_VIDEOS = "all trials must be measured on the same videos"
_FIXED = {
    "data": _SAME_VIDEOS,
    "features": _SAME_VIDEOS,
    "videos": _SAME_VIDEOS,
    "listing": _SAME_VIDEOS,
    "test": _SAME_VIDEOS,
    "seed": "it also chooses the held-out videos, and results on different ones cannot be compared",
    "extractor": "all trials share the features, which are extracted once",
    "select": "trials are compared on held-out videos only",
    "out": "each trial has its folder below out",
    "blocks": "all trials share the packed features",
    "loggers": "it changes no result",
}


class Range(Config):
    """Numbers from ``low`` to ``high``, both included."""

    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)
    log: bool = Field(False, description="spread evenly over powers of ten")
    int: bool = Field(False, description="whole numbers only")

    @model_validator(mode="after")
    def _some_numbers(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low must be below high, got {self.low:g} and {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"with log, low must be positive, got {self.low:g}")
        if self.int and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError(f"with int, low and high must be whole, got {self.low:g} and {self.high:g}")
        return self

    def probes(self) -> tuple[float, float, float]:
        """Both ends, and a number between them that is not round, for a check of the settings they go to."""
        if self.int:
            return round(self.low), round(self.low) + 1, round(self.high)
        return self.low, self.low + (self.high - self.low) / math.pi, self.high

    def distribution(self) -> optuna.distributions.BaseDistribution:
        """The same for Optuna."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.int:
            return IntDistribution(round(self.low), round(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)


Values = Mapping[str, Any]
Grid = Mapping[str, tuple[Any, ...] | Range]


def read_grid(document: Document) -> Grid:
    """What is to be varied, sorted by name. Raises ConfigError."""
    grid: dict[str, tuple[Any, ...] | Range] = {}
    for key, given in sorted(document.data.items()):
        where = document.place((key,))
        if (reason := _FIXED.get(key.split(".")[0])) is not None:
            raise ConfigError(f"{where}: a sweep cannot vary it: {reason}")
        if outer := next((other for other in grid if _overlap(other, key)), None):
            raise ConfigError(f"{where}: is set twice, by {outer} as well")
        if isinstance(given, dict) and given.keys() & {"low", "high"}:
            grid[key] = document.validate(Range, given, under=(key,))
        elif isinstance(given, list) and given:
            try:
                texts = [json.dumps(value) for value in given]
            except TypeError as cause:
                raise ConfigError(f"{where}: a value is neither number, word, list nor mapping: {given}") from cause
            if twice := [text for i, text in enumerate(texts) if text in texts[:i]]:
                raise ConfigError(f"{where}: the value {twice[0]} is listed twice")
            grid[key] = tuple(given)
        else:
            raise ConfigError(f"{where}: give a list of values, or low and high, got {given!r}")
    if not grid:
        raise ConfigError(f"{document.name}: names no setting to vary")
    return grid


@dataclass(frozen=True, slots=True)
class Plan:
    """A search, checked: what is varied, in which config, and where the runs go."""

    base: Settings
    document: Document  # the base, as it was given
    name: str  # of the grid's file
    grid: Grid
    trials: int | None  # None: every combination

    @classmethod
    def read(cls, config: Path, grid: Path, assignments: list[str], *, trials: int | None) -> Plan:
        """Both YAML files, ``key=value`` on top of the first; checks all combinations. Raises ConfigError."""
        base = Settings.read(config, assignments)
        if base.sections.select == "test":
            raise ConfigError(
                f"{config}: select=test is not for a sweep: the best of many trials on the test set is a number about "
                "that test set; leave select at held-out"
            )
        varied = read_grid(Document.read(grid))
        for assignment in assignments:
            if key := next((key for key in varied if _overlap(key, assignment.partition("=")[0].strip())), None):
                raise ConfigError(f"{grid}: {key} is set twice, by the command as well: {assignment}")
        plan = cls(base, Document.read(config).override(assignments), str(grid), varied, trials)
        plan._check()
        return plan

    @property
    def out(self) -> Path:
        """The folder of the sweep, absolute, because the best config names folders in it."""
        return self.base.out.resolve()

    @property
    def total(self) -> int:
        """Trials there will be."""
        return self.trials or self._lists()

    def combinations(self, probe: int = 0) -> Iterator[Values]:
        """Of all lists, the last key varying fastest; of each range only one probe."""
        axes = [axis if isinstance(axis, tuple) else (axis.probes()[probe],) for axis in self.grid.values()]
        return (dict(zip(self.grid, values, strict=True)) for values in itertools.product(*axes))

    def folder(self, values: Values) -> Path:
        """The run folder of one trial, named by a digest of its values."""
        return self.out / TRIALS / _digest(values)

    def settings(self, values: Values) -> Settings:
        """Those of one trial. Raises ConfigError that names the grid and the values."""
        shared: dict[str, Any] = {
            "data": str(self.base.data.resolve()),
            "out": str(self.folder(values)),
            "blocks": str(self.out / "blocks"),
        }
        if self.base.videos is not None and self.base.sections.features is None:
            shared["features"] = str(self.out / "features")
        if self.base.sections.lightning.devices == "auto":
            shared["lightning.devices"] = 1
        document = Document(f"{self.name} ({show(values)})", self.document.data, {})
        settings = Settings.of(document.override(f"{k}={_yaml(v)}" for k, v in {**shared, **values}.items()))
        lightning = settings.sections.lightning
        count = len(lightning.devices) if isinstance(lightning.devices, tuple) else lightning.devices
        if lightning.num_nodes > 1 or count not in (1, "1"):
            raise ConfigError(
                f"{document.name}: a trial is trained on one device, got lightning.devices={lightning.devices}, "
                f"num_nodes={lightning.num_nodes}; use several by several sweeps, with CUDA_VISIBLE_DEVICES"
            )
        return settings

    def resolved(self) -> dict[str, Any]:
        """Base config and grid, as plain data."""
        grid = {
            key: list(axis) if isinstance(axis, tuple) else axis.model_dump(mode="json")
            for key, axis in self.grid.items()
        }
        plain: dict[str, Any] = json.loads(json.dumps({"config": self.base.resolved(), "grid": grid}))
        return plain

    def _lists(self) -> int:
        return math.prod(len(axis) for axis in self.grid.values() if isinstance(axis, tuple))

    def _check(self) -> None:
        ranges = any(isinstance(axis, Range) for axis in self.grid.values())
        if ranges and self.trials is None:
            raise ConfigError(f"{self.name}: has a range, so say how many trials there shall be: --trials N")
        if not ranges and self.trials is not None:
            raise ConfigError(
                f"{self.name}: has lists only, of which all {self._lists()} combinations are tried; "
                "leave --trials out, or give a range"
            )
        if (many := self._lists()) > _MOST:
            raise ConfigError(f"{self.name}: has {many} combinations, more than {_MOST}; give ranges instead")
        for probe in range(3 if ranges else 1):
            for values in self.combinations(probe):
                self.settings(values)


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of a sweep, at its end. A failed one has a reason and no numbers."""

    number: int  # from 1, in the order of their ends
    values: Values
    folder: str  # below the sweep's
    held_out_auc: float | None = None
    held_out_loss: float | None = None
    step: int | None = None
    test: float | None = None  # for information: it decides nothing
    test_metric: str | None = None
    failure: str | None = None


def sweep(plan: Plan, train: Callable[[Settings], Outcome], *, ended: Callable[[Trial], None]) -> list[Trial]:
    """Train what has not been trained yet; all trials, the best first.

    ``train`` makes one run, or goes on with it; ``ended`` hears of each trial that this call finished.
    Raises RunError when the folder holds something else or is in use, ValueError about input, and OSError.
    """
    check(plan)
    if importlib.util.find_spec("optuna") is None:
        raise ValueError("optuna is not installed; run: pip install 'vadwatch[train]'")
    with _locked(plan.out):
        _begin(plan)
        study = _study(plan.out)
        while (values := _next(plan, study)) is not None:
            trial = _run(plan, study, values, train)
            _publish(plan, study)
            ended(trial)
        _publish(plan, study)  # also what a kill left unwritten
        return ranking(_trials(plan, study))


def check(plan: Plan) -> None:
    """Refuse a folder that holds something else. Raises RunError."""
    out = plan.out
    strange = out.is_file() or (out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir()))
    if strange and not (out / SWEEP).is_file():
        raise RunError(f"{out}: holds something that is not a sweep; give another out=FOLDER")


def ranking(trials: Sequence[Trial]) -> list[Trial]:
    """The best first: by the held-out AUC, of equals the lower held-out loss; failed ones last."""
    return sorted(trials, key=lambda t: (-(t.held_out_auc or 0), t.held_out_loss or 0, t.number) if _fine(t) else _LAST)


def show(values: Values) -> str:
    """For a person.

    >>> show({"optimiser.lr": 0.0012345678, "head.kind": "mil"})
    'optimiser.lr=0.001235, head.kind=mil'
    """
    return ", ".join(f"{key}={short(value)}" for key, value in values.items())


def short(value: Any) -> str:
    """Four digits of a number."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keep a second process out; the system releases it with the process, however that ends."""
    writable_folder(out)
    with open(out / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as cause:
            raise RunError(
                f"{out}: another process is at work on this sweep; wait for it, or give another out=FOLDER"
            ) from cause
        yield


def _begin(plan: Plan) -> None:
    """Put down what is searched; of a sweep that goes on, that it is the same."""
    path, now = plan.out / SWEEP, plan.resolved()
    if path.is_file():
        old, new = _comparable(Document.read(path).data), _comparable(now)
        changed = [
            f"{key} was {old.get(key)!r}, is {new.get(key)!r}"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)
        ]
        if changed:
            raise RunError(f"{plan.out}: holds another sweep: {'; '.join(changed)}; give the same, or another out")
        return
    with replacing(path) as temporary:
        temporary.write_text(to_yaml(now), encoding="utf-8")


def _comparable(sweep: Mapping[str, Any]) -> dict[str, Any]:
    config = {key: value for key, value in sweep["config"].items() if key not in record.FREE}
    return record.flat(config) | {f"grid {key}": axis for key, axis in sweep["grid"].items()}


def _study(out: Path) -> optuna.Study:
    """The memory of the sweep, cleaned of what a kill may have left; to be called by the holder of the lock."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = out / JOURNAL
    path.with_name(f"{JOURNAL}.lock").unlink(missing_ok=True)  # Optuna would wait 30 s for a dead process
    if path.is_file() and not (lines := path.read_bytes()).endswith(b"\n"):
        with open(path, "r+b") as file:
            file.truncate(lines.rfind(b"\n") + 1)  # a line that was cut short would spoil the next one
    storage = JournalStorage(JournalFileBackend(str(path)))  # lines of JSON; snapshots, pickled, are only Redis's
    return optuna.create_study(study_name="sweep", storage=storage, direction="maximize", load_if_exists=True)


def _next(plan: Plan, study: optuna.Study) -> Values | None:
    """The values of the next trial, a function of the seed and of the trials so far; None at the end.

    Combinations are counted here and not by Optuna's GridSampler, which counts trials that were begun.
    """
    import optuna

    before = study.get_trials(deepcopy=False)
    tried = {_digest(_values(plan, trial.params)) for trial in before}
    if plan.trials is None:
        return next((values for values in plan.combinations() if _digest(values) not in tried), None)
    if len(before) >= plan.trials:
        return None
    seed = np.random.SeedSequence((plan.base.sections.seed, len(before))).generate_state(1)[0].item()
    copy = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    copy.add_trials(before)
    for _ in range(_PATIENCE):
        values = _values(plan, copy.ask(_distributions(plan)).params)
        if _digest(values) not in tried:
            return values
    return None  # the grid is a small one, and exhausted


def _run(plan: Plan, study: optuna.Study, values: Values, train: Callable[[Settings], Outcome]) -> Trial:
    """Train one, or go on with it, and remember how it ended."""
    import optuna

    from trainers.weak import LossError

    settings = plan.settings(values)
    auc: float | None = None
    facts: dict[str, Any]
    try:
        record.check(settings)
        outcome = record.finished(settings.out) or train(settings)
    except LossError as error:
        state, facts = optuna.trial.TrialState.FAIL, {"failure": str(error)}
    else:
        _same_videos(plan, study, settings.out)
        column = outcome.held_out
        state, auc = optuna.trial.TrialState.COMPLETE, column.held_out_auc
        facts = {
            "held_out_loss": column.held_out_loss,
            "step": column.step,
            "test": column.test,
            "test_metric": outcome.test_metric,
        }
    study.add_trial(
        optuna.trial.create_trial(
            state=state, value=auc, params=_params(plan, values), distributions=_distributions(plan), user_attrs=facts
        )
    )
    return _trials(plan, study)[-1]


def _same_videos(plan: Plan, study: optuna.Study, folder: Path) -> None:
    """Refuse to compare a run with others if it was made from other features or held out other videos."""
    run = json.loads((folder / record.RUN).read_text(encoding="utf-8"))
    now = {"features": run["digests"]["features"], "held_out": run["videos"]["held_out"]}
    before = study.user_attrs.get("made_from")
    if before is None:
        study.set_user_attr("made_from", now)
    elif before != now:
        raise RunError(
            f"{plan.out}: the features or the lists have changed since this sweep began; bring them back and remove "
            f"{folder}, or give another out=FOLDER"
        )


def _distributions(plan: Plan) -> dict[str, optuna.distributions.BaseDistribution]:
    """Values of lists are known to Optuna by their JSON, so that lists and mappings may be among them."""
    from optuna.distributions import CategoricalDistribution

    return {
        key: axis.distribution()
        if isinstance(axis, Range)
        else CategoricalDistribution([json.dumps(value) for value in axis])
        for key, axis in plan.grid.items()
    }


def _params(plan: Plan, values: Values) -> dict[str, Any]:
    return {k: value if isinstance(plan.grid[k], Range) else json.dumps(value) for k, value in values.items()}


def _values(plan: Plan, params: Mapping[str, Any]) -> Values:
    return {k: params[k] if isinstance(axis, Range) else json.loads(params[k]) for k, axis in plan.grid.items()}


def _trials(plan: Plan, study: optuna.Study) -> list[Trial]:
    found = []
    for trial in study.get_trials(deepcopy=False):
        values = _values(plan, trial.params)
        folder = str(plan.folder(values).relative_to(plan.out))
        found.append(Trial(trial.number + 1, values, folder, trial.value, **trial.user_attrs))
    return found


def _publish(plan: Plan, study: optuna.Study) -> None:
    """All trials as a table, and the config of the best so far."""
    trials = _trials(plan, study)
    facts = ("held_out_auc", "held_out_loss", "step", "failure")
    with replacing(plan.out / TABLE) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["trial", *plan.grid, *facts, "test (did not decide)", "folder"])
        for trial in trials:
            row = [getattr(trial, name) for name in facts]
            writer.writerow([trial.number, *trial.values.values(), *row, trial.test, trial.folder])
    if (best := next(filter(_fine, ranking(trials)), None)) is not None:
        with replacing(plan.out / BEST) as temporary:
            temporary.write_text(to_yaml({**plan.settings(best.values).resolved(), "out": None}), encoding="utf-8")


def _fine(trial: Trial) -> bool:
    return trial.failure is None


def _yaml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)  # JSON is YAML, but for pairs of \u escapes


def _digest(values: Values) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _overlap(one: str, other: str) -> bool:
    """Whether two dotted names are the same, or one is within the other.

    >>> _overlap("head", "head.dim"), _overlap("head.di", "head.dim")
    (True, False)
    """
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")
