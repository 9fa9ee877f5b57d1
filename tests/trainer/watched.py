"""A stage as a round logs it, steps and evaluations, without a policy: the guard tells what a test says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch

from trainer.guards import WatchStanding
from trainer.limits import GuardSettings
from trainer.progress import ProgressLog
from trainer.watching import Standing, Watched

EACH_STEP = GuardSettings(eval_steps=1, patience=0)


def standing(loss: float, accuracy: float = 0.5) -> Standing:
    """Where a policy stands that has neither collapsed nor drifted."""
    return Standing(loss, accuracy, 0.0, 0.0)


class _Scripted(Watched):
    def __init__(self, standings: Sequence[Standing]) -> None:
        super().__init__((), 0, 0.1, 0.1)
        self._standings = iter(standings)

    def measure(self, model: Any) -> Standing:  # noqa: ARG002
        return next(self._standings)


def train_watched(
    log: ProgressLog,
    stage: str,
    standings: Sequence[Standing],
    is_held_out: bool = True,
    every: int = 1,
) -> None:
    """Log a stage whose evaluations, one every so many steps, are these; its losses are 2 / step."""
    steps = every * len(standings)
    settings = replace(EACH_STEP, eval_steps=every)
    guard = WatchStanding(_Scripted(standings), is_held_out, settings, partial(log.event, stage))
    policy, control = torch.nn.Linear(1, 1), SimpleNamespace(should_training_stop=False)
    for step in range(1, steps + 1):
        state = SimpleNamespace(global_step=step, max_steps=steps, num_train_epochs=1)
        guard.on_step_end(None, state, control, policy)
        log.step(stage, step, steps, **{"loss": 2.0 / step})
