"""The stages of a round, one after another on one adapter: which run, on what, and why the others do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from store.errors import BadValue
from trainer.dpo import train_dpo
from trainer.guarded import Guarded, settle_policy
from trainer.kto import train_kto, why_not_kto
from trainer.preferences import PairSet, RatingSet
from trainer.qlora import LoadedBase, read_weights, start_policy
from trainer.settings import RoundPlan


def train(
    plan: RoundPlan, base: LoadedBase, live: Path | None, pairs: PairSet, ratings: RatingSet, guarded: Guarded
) -> tuple[Any, dict[str, str]]:
    """DPO on the pairs, then KTO on the ratings, on one adapter; with what each trained on, or why it did
    not. A stage that an earlier process finished is not run again."""
    settings, folder, progress = plan.trainer, guarded.folder, guarded.progress
    policy, weights = None, None
    up = ratings.num_desirable
    no_dpo = (
        None
        if len(pairs.rows) >= settings.min_pairs
        else f"{len(pairs.rows)} pairs of {settings.min_pairs} needed"
    )
    no_kto = why_not_kto(up, len(ratings.rows) - up, settings)
    if no_dpo and no_kto:
        raise BadValue(f"nothing to train on: {no_dpo}; {no_kto}")
    if not no_dpo:
        weights = guarded.read_finished("dpo")
        if weights is None:
            progress.start("dpo")
            start = start_policy(base.model, settings, live)
            policy = train_dpo(start, base.tokenizer, pairs.rows, settings, folder, progress, guarded)
    if not no_kto:
        after_kto = guarded.read_finished("kto")
        if after_kto is not None:
            weights = after_kto
        elif guarded.clock.is_up and not no_dpo:
            no_kto = "no time was left for it"
        else:
            progress.start("kto")
            if policy is not None:
                weights = read_weights(policy)
                policy.unload()
            start = start_policy(base.model, settings, live, weights)
            policy = train_kto(start, base.tokenizer, ratings, settings, folder, progress, guarded)
    if policy is None:
        policy = settle_policy(start_policy(base.model, settings, live, weights))
    on_pairs, on_ratings = f"{len(pairs.rows)} pairs", f"{len(ratings.rows)} ratings, {up} of them desirable"
    return policy, {
        "dpo": f"skipped: {no_dpo}" if no_dpo else guarded.say("dpo", on_pairs),
        "kto": f"skipped: {no_kto}" if no_kto else guarded.say("kto", on_ratings),
    }
