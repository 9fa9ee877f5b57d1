"""What stops a training, or a step of it, before it spoils the adapter."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, astuple
from typing import Any

import torch
from transformers import TrainerCallback

from trainer.agreeing import Gather, alone, mean_values
from trainer.limits import GuardSettings
from trainer.watching import Standing, Watched

logger = logging.getLogger(__name__)

Tell = Callable[..., None]  # (event, **facts): one line of progress


def say_nothing(_event: str, **_facts: object) -> None:
    """For a training that nobody watches."""


class SkipNonFiniteSteps(TrainerCallback):  # type: ignore[misc]
    """One NaN step would leave a wholly NaN adapter; drop such a gradient, and give up after a few."""

    def __init__(self, most: int = GuardSettings().max_bad_steps, tell: Tell = say_nothing) -> None:
        self.num_skipped = 0
        self._most, self._tell = most, tell

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Clipping does not help: it divides every gradient by the NaN norm."""
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        if all(torch.isfinite(gradient).all() for gradient in gradients):
            return
        for gradient in gradients:
            gradient.zero_()
        self.num_skipped += 1
        step = state.global_step + 1
        logger.warning("step %d has a non-finite gradient and was skipped", step)
        self._tell("step_skipped", at_step=step, skipped=self.num_skipped)
        if self.num_skipped >= self._most:
            raise RuntimeError(
                f"training diverged: {self.num_skipped} steps with a non-finite gradient, the last at step"
                f" {step}; try a smaller learning_rate"
            )

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """A spoilt optimizer state turns finite gradients into broken weights, which no later step mends."""
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and not torch.isfinite(parameter).all():
                raise RuntimeError(
                    f"training diverged: step {state.global_step + 1} left {name} non-finite; try a smaller"
                    " learning_rate"
                )

    def read_state(self) -> dict[str, Any]:
        """What a resumed training must know."""
        return {"num_skipped": self.num_skipped}

    def restore_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `read_state`."""
        self.num_skipped = state["num_skipped"]


class Clock:
    """Seconds this round has trained, those before a resume included."""

    def __init__(self, limit_s: float, spent_s: float = 0.0) -> None:
        self._limit_s, self._before_s, self._began = limit_s, spent_s, time.monotonic()

    @property
    def spent_s(self) -> float:
        """So far."""
        return self._before_s + time.monotonic() - self._began

    @property
    def is_up(self) -> bool:
        """Whether the limit is reached; without one, never."""
        return 0.0 < self._limit_s <= self.spent_s

    def go_on_from(self, spent_s: float) -> None:
        """Count what an earlier process had spent when it wrote this down: all of the round's stages until
        then, so that of several such figures the largest holds every other."""
        self._before_s = max(self._before_s, spent_s)


class WatchStanding(TrainerCallback):  # type: ignore[misc]
    """Measures the policy every so often; ends the training when it collapses, drifts or stops improving.

    The weights of the best evaluation within the drift budget are what the training leaves behind. `note`
    says afterwards why it ended before its last step; None when it did not.
    """

    def __init__(
        self, watched: Watched, is_held_out: bool, settings: GuardSettings, tell: Tell, gather: Gather = alone
    ) -> None:
        self.note: str | None = None
        self.best_weights: dict[str, torch.Tensor] = {}
        self._watched, self._settings, self._tell, self._gather = watched, settings, tell, gather
        self._stops_early = is_held_out and settings.patience > 0
        self._best: tuple[int, float] | None = None  # (step, loss)
        self._num_worse = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Score base and reference, unless a resumed training knows them."""
        self._watched.remember_start(model)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Measure where one is due, and always at the end."""
        if state.global_step % self._interval(state) and not _ends(state, control):
            return
        ours = self._watched.measure(model)
        # From the same figures all processes draw the same conclusion, and stop after the same step.
        standing = Standing(*mean_values(astuple(ours), self._gather))
        self._tell("evaluation", at_step=state.global_step, **asdict(standing))
        self._judge(standing, state, control, model)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Go back to the best weights, where later ones were not better."""
        if self._best is None or self._best[0] == state.global_step:
            return
        with torch.no_grad():
            for name, parameter in _trained(model).items():
                parameter.copy_(self.best_weights[name])
        logger.info("the weights of step %d are kept, of %d", self._best[0], state.global_step)
        self._tell("best_restored", at_step=self._best[0], of_steps=state.global_step)

    def _interval(self, state: Any) -> int:
        if self._settings.eval_steps:
            return self._settings.eval_steps
        if not self._settings.evals_per_epoch:
            return int(state.max_steps)
        steps: float = state.max_steps / max(state.num_train_epochs, 1)
        return max(1, round(steps / self._settings.evals_per_epoch))

    def _judge(self, now: Standing, state: Any, control: Any, model: Any) -> None:
        step, settings = state.global_step, self._settings
        if not now.is_finite:
            raise RuntimeError(
                f"training diverged: at step {step} the watched answers' log-probs are no numbers"
            )
        if settings.max_collapse and now.chosen_gain < -settings.max_collapse:
            raise RuntimeError(
                f"training collapsed: at step {step} chosen answers are {-now.chosen_gain:.2f} nats a token"
                f" less likely than under the reference (limit {settings.max_collapse:g}); try a smaller"
                " learning_rate or a larger sft_weight (those of KTO begin with kto_)"
            )
        if settings.max_drift and now.drift > settings.max_drift:
            self._end_for_drift(now, step, control)
        elif self._stops_early or settings.max_drift:
            self._compare(now, step, control, model)

    def _end_for_drift(self, now: Standing, step: int, control: Any) -> None:
        says = (
            f"at step {step} chosen answers lie {now.drift:.2f} nats a token from the base"
            f" (budget {self._settings.max_drift:g})"
        )
        if self._best is None:
            raise RuntimeError(
                f"training drifted: {says}, and no earlier evaluation was within it; try a smaller"
                " learning_rate"
            )
        self._end(
            f"stopped at step {step}: {says}; the weights of step {self._best[0]} are kept", control, step
        )

    def _compare(self, now: Standing, step: int, control: Any, model: Any) -> None:
        # Where nothing stops early the newest weights within the budget are the ones to go back to.
        if self._best is None or not self._stops_early or now.loss < self._best[1]:
            self._best, self._num_worse = (step, now.loss), 0
            self.best_weights = {name: p.detach().cpu().clone() for name, p in _trained(model).items()}
            return
        self._num_worse += 1
        if self._num_worse >= self._settings.patience:
            at, loss = self._best
            says = f"held-out loss was best at step {at} ({loss:.4f}, now {now.loss:.4f})"
            self._end(f"stopped early at step {step}: {says}", control, step)

    def _end(self, note: str, control: Any, step: int) -> None:
        control.should_training_stop = True
        self.note = note
        logger.info("%s", note)
        self._tell("stopped_early", at_step=step, says=note)

    def read_state(self) -> dict[str, Any]:
        """What a resumed training must know; the best weights are kept beside it."""
        return {
            "best": self._best,
            "num_worse": self._num_worse,
            "note": self.note,
            "base": self._watched.base,
            "reference": self._watched.reference,
        }

    def restore_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `read_state`."""
        best = state["best"]
        self._best = (best[0], best[1]) if best else None
        self._num_worse, self.note = state["num_worse"], state["note"]
        self._watched.base, self._watched.reference = state["base"], state["reference"]


def _ends(state: Any, control: Any) -> bool:
    return bool(control.should_training_stop or state.global_step >= state.max_steps)


def _trained(model: Any) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
