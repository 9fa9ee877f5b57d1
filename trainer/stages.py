"""The stages of a round, one after another on one adapter: which run, on what, and why the others do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.errors import BadValue
from trainer.answers import AnswerSet, train_answers
from trainer.dpo import train_dpo
from trainer.kto import train_kto, why_not_kto
from trainer.preferences import PairSet, RatingSet
from trainer.progress import ProgressLog
from trainer.qlora import LoadedBase, PolicyStart, read_weights, start_policy
from trainer.settings import RoundPlan, TrainerSettings
from trainer.tally import StageTally, tally

NO_ANSWERS = AnswerSet()


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage as planned: `says` what it trains on, or `why_not` says why it is left out.

    `run` takes what training starts from, the settings, the round's folder and its progress log.
    """

    name: str
    says: str
    why_not: str | None
    account: StageTally
    run: Callable[[PolicyStart, TrainerSettings, Path, ProgressLog], Any]

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
        stages.insert(0, _plan_sft(tokenizer, answers))
    if all(stage.why_not is not None for stage in stages):
        raise BadValue("nothing to train on: " + "; ".join(stage.why_not or "" for stage in stages))
    return stages


def _plan_sft(tokenizer: Any, answers: AnswerSet) -> Stage:
    def run(start: PolicyStart, settings: TrainerSettings, folder: Path, progress: ProgressLog) -> Any:
        return train_answers(start, tokenizer, answers.rows, settings, folder, progress)

    why_not = None if answers.rows else "nobody wrote an answer to learn"
    account = tally([row.row_id for row in answers.rows], answers.notices, why_not)
    return Stage("sft", f"{len(answers.rows)} answers", why_not, account, run)


def _plan_dpo(settings: TrainerSettings, tokenizer: Any, pairs: PairSet) -> Stage:
    def run(start: PolicyStart, settings: TrainerSettings, folder: Path, progress: ProgressLog) -> Any:
        return train_dpo(start, tokenizer, pairs.rows, settings, folder, progress)

    num, needed = len(pairs.rows), settings.min_pairs
    why_not = None if num >= needed else f"{num} pairs of {needed} needed"
    a_step = settings.batch_size * settings.accumulation * settings.processes
    max_rows = settings.max_steps * a_step if settings.max_steps else None
    account = tally([row.row_id for row in pairs.rows], pairs.notices, why_not, max_rows)
    return Stage("dpo", f"{num} pairs", why_not, account, run)


def _plan_kto(settings: TrainerSettings, tokenizer: Any, ratings: RatingSet) -> Stage:
    def run(start: PolicyStart, settings: TrainerSettings, folder: Path, progress: ProgressLog) -> Any:
        return train_kto(start, tokenizer, ratings, settings, folder, progress)

    num, up = len(ratings.rows), ratings.num_desirable
    why_not = why_not_kto(up, num - up, settings)
    account = tally([row.row_id for row in ratings.rows], ratings.notices, why_not)
    return Stage("kto", f"{num} ratings, {up} of them desirable", why_not, account, run)


def train(
    folder: Path,
    plan: RoundPlan,
    base: LoadedBase,
    live: Path | None,
    stages: list[Stage],
    progress: ProgressLog,
) -> Any:
    """Run the planned stages, each from where the one before ended; returns the trained policy.

    The reference stays what the settings say throughout: KTO after DPO is compared with the base, not with
    what DPO left behind.
    """
    policy: Any = None
    for stage in stages:
        if stage.why_not is not None:
            continue
        progress.start(stage.name)
        weights = None
        if policy is not None:
            weights = read_weights(policy)
            policy.unload()
        start = start_policy(base.model, plan.trainer, live, weights)
        policy = stage.run(start, plan.trainer, folder, progress)
    return policy
