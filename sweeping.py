"""The sweep command's two halves: a grid trained from one snapshot, and its best point as a candidate."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from store.errors import BadValue
from trainer.settings import RoundPlan
from trainer.sweep import Result, Sweep, choose_best, make_grid, name_sweep, say_result, show_flags

if TYPE_CHECKING:
    from settings import ServeSettings


def run_sweep(
    settings: ServeSettings, axes: Mapping[str, str], snapshot: Path | None, out: Path | None
) -> tuple[Sweep, Result | None]:
    """Train what is not trained yet and print how it goes; the sweep and its best point."""
    plan = settings.plan()
    points = make_grid(plan.trainer, axes)
    told = plan_points(settings, snapshot)
    # Under rounds/, where erasing a person also reaches the snapshot.
    folder = (out or settings.data / "rounds" / name_sweep(told, axes)).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    _settle_snapshot(settings, folder / "snapshot", snapshot)
    print(f"{len(points)} points in {folder}, compared with {told.parent}", flush=True)
    done = Sweep(folder, told, points, plan.rounds.launch, tell=lambda line: print(line, flush=True))
    best = choose_best(done.run())
    print(f"compared in {folder / 'sweep.html'}")
    if best is not None:
        print(f"best: {best.name} ({say_result(best)})")
        print(f"the same with a normal round: python app.py serve {show_flags(best)}")
    return done, best


def plan_points(settings: ServeSettings, snapshot: Path | None) -> RoundPlan:
    """What all points are told, but for what each of them varies: what a round of `serve` would be."""
    plan = settings.plan()
    parent, live, version = _find_live(settings, snapshot)
    return RoundPlan(
        round_id="",
        version=version,
        parent=parent,
        base=plan.base,
        live_adapter=live,
        trainer=plan.trainer,
        gate=plan.gate,
        guards=plan.guards,
        threads=plan.rounds.threads,
    )


def take_best(settings: ServeSettings, sweep: Sweep, best: Result) -> str:
    """Hand the best point over as a round's candidate would be: published, proved by the engine, promoted or
    put on trial. The service must be stopped: StateConflict names the process that holds the data folder."""
    from building import build_service

    service = build_service(settings)
    try:
        taken = service.parts.supervisor.adopt(
            sweep.directory(best.name), f"{sweep.folder.name}: {best.name}"
        )
    finally:
        service.close()
    return f"round {taken.round_id}: {taken.version} is {taken.state} ({taken.reason})"


def _find_live(settings: ServeSettings, snapshot: Path | None) -> tuple[str, str | None, str]:
    """The version to compare with, its adapter's folder, and the next version's name.

    With a round's own snapshot they are that round's, so that a sweep can run while the service does.
    """
    beside = snapshot.parent / "round.json" if snapshot else None
    if beside is not None and beside.exists():
        plan = json.loads(beside.read_text("utf-8"))
        return plan["parent"], plan["live_adapter"], plan["version"]
    from store.database import Store
    from store.policies import live_version, next_version
    from store.records import BASE_VERSION

    with contextlib.closing(Store.open(settings.data)) as store:
        live, version = live_version(store), next_version(store)
    return (
        live,
        None if live == BASE_VERSION else str((settings.data / "policies" / live).absolute()),
        version,
    )


def _settle_snapshot(settings: ServeSettings, folder: Path, given: Path | None) -> None:
    """One snapshot for the whole sweep: taken or copied once, and kept when the sweep goes on."""
    if folder.exists():
        return
    if given is not None:
        if not (given / "holdout.parquet").exists():
            raise BadValue(f"{given} is no snapshot: it has no holdout.parquet")
        unfinished = folder.with_name("snapshot.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(given, unfinished)
        unfinished.rename(folder)
        return
    from store.database import Store
    from store.snapshots import write_snapshot

    plan = settings.plan()
    with contextlib.closing(Store.open(settings.data)) as store:
        write_snapshot(
            store,
            folder,
            holdout_share=plan.rounds.holdout_share,
            quality=plan.quality,
            replay=plan.replay.resolve(plan.trainer.start),
        )
