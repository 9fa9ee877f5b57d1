"""Saves a training between two steps, so that it goes on from there bit for bit, and stops it when asked to.

The model of a resumed training is rebuilt from the parent adapter; only weights, optimizer, schedule, random
state and what the guards know come from the checkpoint. The library does the loading.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from trainer.agreeing import Gather, any_claims, gather_over
from trainer.checkpoints import draft_folder, keep_newest, seal, step_name
from trainer.guards import Clock, Tell
from trainer.limits import GuardSettings
from trainer.stopping import Stopped, Stopping

_GUARDS = "guards.json"
_BEST = "best.safetensors"


class Guard(Protocol):
    """What a guard must hand over so that a resumed training guards on."""

    def read_state(self) -> dict[str, Any]:
        """As JSON can hold it."""

    def restore_state(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""


class EndInTime(TrainerCallback):  # type: ignore[misc]
    """Ends a training at the round's time limit. It comes before the guards, so that they measure the step
    that turned out to be the last. `note` says afterwards that it ended it; None when it did not."""

    def __init__(self, clock: Clock, max_minutes: float, gather: Gather, tell: Tell) -> None:
        self.note: str | None = None
        self._clock, self._max_minutes, self._gather, self._tell = clock, max_minutes, gather, tell

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """All processes after the same step: each reads a clock of its own."""
        (is_up,) = any_claims([self._clock.is_up], self._gather)
        if not is_up or control.should_training_stop or state.global_step >= state.max_steps:
            return
        control.should_training_stop = True
        self.note = (
            f"stopped at step {state.global_step} of {state.max_steps}: max_minutes {self._max_minutes:g}"
            " are over"
        )
        self._tell("time_is_up", at_step=state.global_step, says=self.note)


class SaveState(TrainerCallback):  # type: ignore[misc]
    """Saves every few steps or minutes and when a stop is asked for.

    It acts when a step begins: the one before is then complete, with its log lines and its evaluation.
    """

    def __init__(
        self,
        trainer: Any,
        stage: Path,
        origin: str,
        settings: GuardSettings,
        guards: Mapping[str, Guard],
        clock: Clock,
        stopping: Stopping,
        tell: Tell,
    ) -> None:
        self._trainer, self._stage, self._origin = trainer, stage, origin
        self._settings, self._guards, self._clock = settings, guards, clock
        self._stopping, self._tell = stopping, tell
        self._gather = gather_over(trainer)
        self._saved_at = time.monotonic()
        self._saved_step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """A resumed training draws the orders of the epochs behind it, so that the next gets its own."""
        self._saved_step = state.global_step
        for _ in range(int(state.epoch or 0)):
            for _batch in kwargs["train_dataloader"].batch_sampler:
                pass

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Save what is due."""
        step = state.global_step
        if step == self._saved_step:
            is_new, is_due = False, False
        else:
            is_new, is_due = True, self._is_due(step)
        stops, saves = any_claims([self._stopping.is_asked, is_due], self._gather)
        if is_new and (stops or saves):
            self._save(step)
        if stops:
            self._tell("stopped", at_step=step)
            raise Stopped(
                f"stopped by SIGTERM at step {step} of {self._stage.name}; the round can go on from there"
            )

    def _is_due(self, step: int) -> bool:
        every, minutes = self._settings.save_steps, self._settings.save_minutes
        waited = time.monotonic() - self._saved_at
        return bool((every and step % every == 0) or (minutes and waited >= minutes * 60))

    def _save(self, step: int) -> None:
        trainer, name = self._trainer, step_name(step)
        is_writer, wait = trainer.args.should_save, trainer.accelerator.wait_for_everyone
        draft = draft_folder(self._stage, name) if is_writer else self._stage / f"{name}.tmp"
        wait()
        trainer._save_rng_state(str(draft))
        trainer._save_optimizer_and_scheduler(str(draft))
        trainer._save_scaler(str(draft))
        if is_writer:
            trainer.accelerator.unwrap_model(trainer.model).save_pretrained(draft)
            save_guards(draft, self._guards, self._clock)
            trainer.state.save_to_json(str(draft / "trainer_state.json"))
        wait()
        if is_writer:
            seal(draft, self._origin)
            keep_newest(self._stage)
        self._saved_at, self._saved_step = time.monotonic(), step


def save_guards(folder: Path, guards: Mapping[str, Guard], clock: Clock) -> None:
    """What the guards know, and the best weights so far."""
    known = {name: guard.read_state() for name, guard in guards.items()}
    (folder / _GUARDS).write_text(json.dumps({"spent_s": clock.spent_s, "guards": known}) + "\n", "utf-8")
    for guard in guards.values():
        best = getattr(guard, "best_weights", None)
        if best:
            save_file(best, folder / _BEST)


def restore_guards(folder: Path, guards: Mapping[str, Guard], clock: Clock) -> None:
    """Go on from `save_guards`."""
    saved = json.loads((folder / _GUARDS).read_text("utf-8"))
    clock.go_on_from(saved["spent_s"])
    for name, guard in guards.items():
        guard.restore_state(saved["guards"][name])
        if hasattr(guard, "best_weights") and (folder / _BEST).exists():
            guard.best_weights = load_file(folder / _BEST)
