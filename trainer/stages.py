"""The stages of a round, one after another on one adapter: which run, on what, and why the others do not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.errors import BadValue
from trainer.answers import AnswerSet, train_answers
from trainer.dpo import train_dpo
from trainer.guarded import Guarded, settle_policy
from trainer.kto import train_kto, why_not_kto
from trainer.preferences import PairSet, RatingSet
from trainer.qlora import LoadedBase, PolicyStart, Weights, read_weights, start_policy
from trainer.settings import RoundPlan, TrainerSettings
from trainer.tally import StageTally, tally

NO_ANSWERS = AnswerSet()


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage as planned: `says` what it trains on, or `why_not` says why it is left out.

    `run` takes what training starts from and the round's guarded training.
    """

    name: str
    says: str
    why_not: str | None
    account: StageTally
    run: Callable[[PolicyStart, Guarded], Any]

    def describe(self) -> str:
        """For the model card: what the stage trained on and what became of the other rows."""
        if self.why_not is not None:
            return f"skipped: {self.why_not}"
        notes = [f"{len(row_ids)} left out: {why}" for why, row_ids in self.account.left_out.items()]
        if self.account.num_rows_cut:
            cut = f"{self.account.num_messages_cut} oldest messages of {self.account.num_rows_cut} rows cut"
            notes.append(cut)
        if self.account.not_reached:
            notes.append(f"max_steps leaves {self.account.not_reached} unseen")
        return "; ".join((self.says, *notes))


def plan_stages(
    settings: TrainerSettings,
    tokenizer: Any,
    pairs: PairSet,
    ratings: RatingSet,
    answers: AnswerSet = NO_ANSWERS,
) -> list[Stage]:
    """Every stage in the order in which it would run: SFT first where it is on, then as `order` says.

    BadValue when none of them has enough to train on.
    """
    known = {"dpo": _plan_dpo(settings, tokenizer, pairs), "kto": _plan_kto(settings, tokenizer, ratings)}
    stages = [known[name] for name in settings.order.split(",")]
    if settings.sft_epochs:
        stages.insert(0, _plan_sft(settings, tokenizer, answers))
    if all(stage.why_not is not None for stage in stages):
        raise BadValue("nothing to train on: " + "; ".join(stage.why_not or "" for stage in stages))
    return stages


def _plan_sft(settings: TrainerSettings, tokenizer: Any, answers: AnswerSet) -> Stage:
    def run(start: PolicyStart, guarded: Guarded) -> Any:
        return train_answers(
            start, tokenizer, answers.rows, settings, guarded.folder, guarded.progress, guarded
        )

    why_not = None if answers.rows else "nobody wrote an answer to learn"
    account = tally([row.row_id for row in answers.rows], answers.notices, why_not)
    return Stage("sft", f"{len(answers.rows)} answers", why_not, account, run)


def _plan_dpo(settings: TrainerSettings, tokenizer: Any, pairs: PairSet) -> Stage:
    def run(start: PolicyStart, guarded: Guarded) -> Any:
        return train_dpo(start, tokenizer, pairs.rows, settings, guarded.folder, guarded.progress, guarded)

    num, needed = len(pairs.rows), settings.min_pairs
    why_not = None if num >= needed else f"{num} pairs of {needed} needed"
    a_step = settings.batch_size * settings.accumulation * settings.processes
    max_rows = settings.max_steps * a_step if settings.max_steps else None
    account = tally([row.row_id for row in pairs.rows], pairs.notices, why_not, max_rows)
    return Stage("dpo", f"{num} pairs", why_not, account, run)


def _plan_kto(settings: TrainerSettings, tokenizer: Any, ratings: RatingSet) -> Stage:
    def run(start: PolicyStart, guarded: Guarded) -> Any:
        return train_kto(start, tokenizer, ratings, settings, guarded.folder, guarded.progress, guarded)

    num, up = len(ratings.rows), ratings.num_desirable
    why_not = why_not_kto(up, num - up, settings)
    account = tally([row.row_id for row in ratings.rows], ratings.notices, why_not)
    return Stage("kto", f"{num} ratings, {up} of them desirable", why_not, account, run)


def train(
    plan: RoundPlan, base: LoadedBase, live: Path | None, stages: Sequence[Stage], guarded: Guarded
) -> Any:
    """Run the planned stages, each from where the one before ended; returns the trained policy.

    A stage that an earlier process finished is not run again. The reference stays what the settings say
    throughout: the second stage is compared with the base, not with what the first left behind.
    """
    policy: Any = None
    weights: Weights | None = None
    for stage in stages:
        if stage.why_not is not None:
            continue
        finished = guarded.read_finished(stage.name)
        if finished is not None:
            weights = finished
            continue
        if policy is not None:
            weights = read_weights(policy)
        if weights is not None and not guarded.has_time():
            guarded.skipped[stage.name] = "no time was left for it"
            continue
        if policy is not None:
            policy.unload()
        guarded.progress.start(stage.name)
        policy = stage.run(start_policy(base.model, plan.trainer, live, weights), guarded)
    return policy or settle_policy(start_policy(base.model, plan.trainer, live, weights))
