"""A round's training as one that may be stopped: runs each stage under its guards, from where it was left.

A stage that is over leaves its weights, so that a kill in a later one, or in the gate, loses nothing of it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from peft import get_peft_model
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file

from store.fingerprint import file_sha256
from store.records import BASE_VERSION
from trainer.agreeing import Gather, any_claims, gather_between_stages, gather_over
from trainer.checkpoints import (
    FINISHED,
    WORK,
    draft_folder,
    find_checkpoint,
    find_fault,
    hash_origin,
    seal,
    step_of,
    sweep,
)
from trainer.guards import Clock, SkipNonFiniteSteps, Tell, WatchStanding
from trainer.library import place_tensorboard
from trainer.preferences import TrainingPair
from trainer.progress import ProgressLog
from trainer.qlora import PolicyStart, Weights, read_weights, settle_weights
from trainer.recorded import Referred, compare_with_recorded
from trainer.saving import EndInTime, Guard, SaveState, restore_guards
from trainer.settings import RoundPlan
from trainer.stopping import Stopped, Stopping
from trainer.watching import Watched, choose_watched, watched_loss

logger = logging.getLogger(__name__)

_WEIGHTS = "weights.safetensors"
_REPORT = "stage.json"
TENSORBOARD = "tensorboard"  # beside `work`, which is removed when the round is over


@dataclass(slots=True)
class Guarded:
    """What the stages of one round share: where their state lies, what they watch, and their time.

    `notes` says of a stage why it ended before its last step, where it did, and `skipped` why it never began.
    """

    folder: Path
    plan: RoundPlan
    origin: str
    progress: ProgressLog
    clock: Clock
    stopping: Stopping
    holdout: Sequence[TrainingPair]
    pairs: Sequence[TrainingPair]
    notes: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def train(self, trainer: Any, stage: str, pad_id: int) -> Any:
        """Run a library trainer to its end under the guards; from its newest checkpoint when there is one."""
        folder = self.folder / WORK / stage
        trainer.args.output_dir = str(folder)
        place_tensorboard(trainer, self.folder / TENSORBOARD / stage)
        tell = partial(self.progress.event, stage)
        if trainer.args.should_save:
            sweep(folder, self.origin)
        trainer.accelerator.wait_for_everyone()
        checkpoint = find_checkpoint(folder, self.origin)
        gather = gather_over(trainer)
        guards = self._build_guards(stage, pad_id, gather, tell)
        in_time = EndInTime(self.clock, self.plan.guards.max_minutes, gather, tell)
        saver = SaveState(
            trainer, folder, self.origin, self.plan.guards, guards, self.clock, self.stopping, tell
        )
        if checkpoint is not None:
            restore_guards(checkpoint, guards, self.clock)
            logger.info("%s goes on after step %d", stage, step_of(checkpoint))
            tell("resumed", at_step=step_of(checkpoint))
        trainer.pop_callback(SkipNonFiniteSteps)
        for callback in (in_time, *guards.values(), saver):
            trainer.add_callback(callback)
        with self.stopping.waiting():
            result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            notes = [in_time.note, *(getattr(guard, "note", None) for guard in guards.values())]
            self._finish(stage, trainer, "; ".join(note for note in notes if note))
        return result

    def compare_with_recorded(self, stage: str, answers: Iterable[Referred]) -> None:
        """Tell how far the reference's log-probs are from those recorded when the answers were given."""
        found = compare_with_recorded(answers)
        reference = self.plan.parent if self.plan.trainer.reference == "previous" else BASE_VERSION
        own = {"apart": found[reference].apart} if reference in found else {}
        versions = {version: asdict(comparison) for version, comparison in found.items()}
        self.progress.event(stage, "recorded", at_step=0, reference=reference, versions=versions, **own)

    def _build_guards(self, stage: str, pad_id: int, gather: Gather, tell: Tell) -> dict[str, Guard]:
        settings = self.plan.guards
        guards: dict[str, Guard] = {"finite": SkipNonFiniteSteps(settings.max_bad_steps, tell)}
        chosen, is_held_out = choose_watched(
            self.holdout, self.pairs, settings.min_holdout_pairs, settings.max_holdout_pairs
        )
        if not is_held_out:
            needed = settings.min_holdout_pairs
            says = f"nothing stops early: {len(self.holdout)} held-out pairs of {needed} needed"
            logger.info("%s; %d training pairs are watched instead", says, len(chosen))
            tell("no_early_stop", says=says)
        if chosen:
            watched = Watched(chosen, pad_id, watched_loss(stage, self.plan.trainer))
            guards["standing"] = WatchStanding(watched, is_held_out, settings, tell, gather)
        return guards

    def _finish(self, stage: str, trainer: Any, note: str) -> None:
        """Leave the stage's weights; then, if a stop was asked for meanwhile, stop."""
        if note:
            self.notes[stage] = note
        if trainer.args.should_save:
            draft = draft_folder(self.folder / WORK / stage, FINISHED)
            save_file(
                {name: t.contiguous() for name, t in read_weights(trainer.model).items()}, draft / _WEIGHTS
            )
            report = {"spent_s": self.clock.spent_s, "note": note}
            (draft / _REPORT).write_text(json.dumps(report) + "\n", "utf-8")
            seal(draft, self.origin)
        if self.stopping.is_asked:
            raise Stopped(f"stopped by SIGTERM at the end of {stage}; the round can go on from there")

    def read_finished(self, stage: str) -> Weights | None:
        """The weights a stage ended with in an earlier process; None when it has still to run."""
        folder = self.folder / WORK / stage / FINISHED
        if find_fault(folder, self.origin) is not None:
            return None
        report = json.loads((folder / _REPORT).read_text("utf-8"))
        self.clock.go_on_from(report["spent_s"])
        if report["note"]:
            self.notes[stage] = report["note"]
        self.progress.event(stage, "finished_before")
        return load_file(folder / _WEIGHTS)

    def has_time(self) -> bool:
        """Whether another stage may begin: of several processes none finds the time over."""
        (is_up,) = any_claims([self.clock.is_up], gather_between_stages(self.plan.trainer.processes))
        return not is_up

    def say(self, stage: str, trained_on: str) -> str:
        """What a stage trained on, and why it ended early if it did; or why it was skipped."""
        if stage in self.skipped:
            return f"skipped: {self.skipped[stage]}"
        return "; ".join(part for part in (trained_on, self.notes.get(stage)) if part)


def begin_guarded(
    folder: Path,
    plan: RoundPlan,
    fingerprint: str,
    data_sha256: str,
    packages: dict[str, str],
    progress: ProgressLog,
    stopping: Stopping,
    holdout: Sequence[TrainingPair],
    pairs: Sequence[TrainingPair],
    live: Path | None = None,
) -> Guarded:
    """The guarded training of a round, as new or as a killed process left it; `live` is its parent's folder.

    Nothing of an earlier process is believed that had another plan, base, data, parent or packages.
    """
    asked = json.dumps(asdict(replace(plan, packages={})), sort_keys=True)
    parent = file_sha256(live / SAFETENSORS_WEIGHTS_NAME) if live is not None else ""
    origin = hash_origin(asked, fingerprint, data_sha256, json.dumps(packages, sort_keys=True), parent)
    clock = Clock(plan.guards.max_minutes * 60)
    return Guarded(folder, plan, origin, progress, clock, stopping, holdout, pairs)


def settle_policy(start: PolicyStart) -> Any:
    """The policy of a start whose training is over: its weights laid over a new adapter."""
    model = start.model if start.peft_config is None else get_peft_model(start.model, start.peft_config)
    settle_weights(model, start.weights)
    return model
