"""``vad score STORE``: stored features in, scores out in a form that ``vad eval`` reads.

One score per frame where the store knows the place of each row, which it does of videos that were extracted; else one
per row.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer

from trainers.lists import in_store, read_names
from vad import store
from vad.config import Document
from vad.evaluation.scores import PROVENANCE
from vad.files import replacing, writable_folder
from vad.metrics.audit import Provenance
from vad.model import Model, ModelError, load
from vad.store import Store, StoreError
from vad.types import Array
from vad.weak import WeakHead, WeakHeadSettings, WeakOutput, score_rows


def is_store(path: Path) -> bool:
    """Whether a path is a feature store."""
    return (path / store.MANIFEST).is_file() and (path / store.FEATURES).is_dir()


def run(
    folder: Path, *, only: Path | None, model: Path, out: Path, overrides: list[str], quiet: bool, as_json: bool
) -> int:
    """Score the videos of a store, all of them or those of a list; the exit code."""
    features, loaded = Store.open(folder), load(model)
    head = _head(loaded, features, overrides)
    names = features.names() if only is None else list(in_store(features, read_names(only)).values())
    if not names:
        raise StoreError(f"{folder}: holds no features; extract some first")
    records = {name: record for name in names if (record := features.record(name)) is not None}
    grids = {name: grid for name in names if (grid := features.grid(name)) is not None}
    hops = {1 if name in grids else record.hop_frames for name, record in records.items()}
    if len(hops) > 1:
        raise StoreError(f"{folder}: its videos have several hops ({sorted(map(str, hops))}); score them apart")
    (hop,) = hops
    writable_folder(out)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    head.to(device)

    def scores(name: str) -> Array:
        rows = torch.from_numpy(features.read(name).values.astype(np.float32))
        rows_TKD = rows if rows.ndim == 3 else rows[:, None]
        return np.asarray(score_rows(head, rows_TKD.to(device)).cpu().numpy())

    if hop is None:
        _write_shares(out / "scores.npz", {name: scores(name) for name in names})
    else:
        for name in names:
            with replacing(out / f"{name}.npy") as temporary, open(temporary, "wb") as file:
                np.save(file, grids[name].hold(scores(name)) if name in grids else scores(name))
    said = _provenance(loaded, head, hop).model_dump_json(indent=1, exclude_none=True)
    with replacing(out / ("scores.provenance.json" if hop is None else PROVENANCE)) as temporary:
        temporary.write_text(said + "\n", encoding="utf-8")
    if as_json:
        typer.echo(json.dumps({"videos": len(names), "hop_frames": hop, "out": str(out)}))
    elif not quiet:
        target = out / "scores.npz" if hop is None else out
        typer.echo(
            f"{len(names)} videos scored: {target}\n"
            f"measure them: vad eval {target} --dataset NAME --annotations FILE --out REPORT"
        )
    return 0


def _head(loaded: Model, features: Store, overrides: list[str]) -> WeakHead[WeakOutput]:
    if loaded.features is None:
        raise ModelError(f"{loaded.folder}: was fitted on videos of one camera; give videos, not a store")
    if difference := loaded.features.difference(features.manifest):
        raise ModelError(f"{features.folder}: has other features than {loaded.folder} was trained on: {difference}")
    document = Document(str(loaded.folder), loaded.config, {}).override(overrides)
    settings: Any = document.component("vad.heads", "head")
    before = loaded.config["head"]
    now = settings.model_dump(mode="json")
    if changed := [key for key in now if key != "past" and now[key] != before.get(key)]:
        raise ModelError(f"{loaded.folder}: was trained with head.{changed[0]} = {before.get(changed[0])!r}")
    assert isinstance(settings, WeakHeadSettings)
    head = settings.build()
    loaded.restore(head)
    return head.eval()


def _provenance(loaded: Model, head: WeakHead[WeakOutput], hop: int | None) -> Provenance:
    return Provenance(
        system=f"{head.settings.kind}, {head.settings.variant}",
        checkpoint=loaded.fitted["checkpoint"],
        settings="test" if loaded.fitted["checkpoint"] == "test" else None,
        lookahead_s="whole video" if head.lookahead is None else float(head.lookahead),
        per_video_normalisation=False,
        state_across_videos=False,
        position_prior=False,
        trained_on=(loaded.fitted["trained_on"],),
        hop_frames=hop,
    )


def _write_shares(path: Path, scores: dict[str, Array]) -> None:
    """Equal shares of each video, which have no place in time without its length."""
    if len({len(values) for values in scores.values()}) > 1:
        raise StoreError("the videos are cut into shares, but not all into equally many")
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, names=np.array(list(scores)), scores=np.stack(list(scores.values())))
