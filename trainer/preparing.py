"""A round's directory before its process begins: the frozen snapshot and the plan."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from store.database import Store
from store.policies import next_version
from store.records import Round
from store.rounds import advance_round
from store.snapshots import write_snapshot
from trainer.round_settings import Plan


def prepare(
    store: Store, plan: Plan, started: Round, directory: Path, live_adapter: Path | None, is_fresh: bool
) -> None:
    """Write the directory and record what the snapshot holds. `is_fresh` trains a new adapter on all labels,
    whatever the settings say; a `live_adapter` of None means that the base is live."""
    advance_round(store, started.round_id, "preparing")
    directory.mkdir(parents=True)
    trainer, replay = plan.trainer, plan.replay
    if is_fresh:
        trainer = replace(trainer, start="fresh", reference="base")
        replay = replace(replay, mode="all")
    snapshot = write_snapshot(
        store,
        directory / "snapshot",
        holdout_share=plan.rounds.holdout_share,
        quality=plan.quality,
        without=started.without,
        replay=replay.resolve(trainer.start),
    )
    version = next_version(store)
    advance_round(
        store,
        started.round_id,
        "preparing",
        version=version,
        num_pairs=snapshot.num_pairs,
        num_ratings=snapshot.num_ratings,
        snapshot_seq=snapshot.seq,
    )
    told = {
        "round_id": started.round_id,
        "version": version,
        "parent": started.parent,
        "live_adapter": str(live_adapter.absolute()) if live_adapter else None,
        "threads": plan.rounds.threads,
        "base": asdict(plan.base),
        "trainer": asdict(trainer),
        "gate": asdict(plan.gate),
        "guards": asdict(plan.guards),
    }
    # Whole or not at all: a round with a plan is one that can be resumed.
    draft = directory / "round.tmp"
    draft.write_text(json.dumps(told, indent=2) + "\n", "utf-8")
    draft.rename(directory / "round.json")
