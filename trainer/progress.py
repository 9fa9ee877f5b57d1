"""How a round tells what it is doing: one line of JSON a step, metrics under the library's names.

To the library's metrics it adds time, speed, time left, and how far each answer has moved from the reference,
in nats a token.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback

from trainer.curves import Line, say_progress

logger = logging.getLogger(__name__)

TELL_EVERY_S = 30.0


class ProgressLog:
    """progress.jsonl: one whole line a step, on disk at once, so that a reader never waits for a buffer.

    `tell` is handed each line too, for whoever watches the process itself.
    """

    def __init__(self, path: Path, tell: Callable[[Line], None] = lambda _: None) -> None:
        self._path, self._tell = path, tell

    def start(self, stage: str) -> None:
        """Say that a stage begins."""
        self._write({"stage": stage, "event": "start"})

    def note(self, stage: str, about: str, **facts: Any) -> None:
        """Say something that is known only now and belongs into the round's report."""
        self._write({"stage": stage, "note": about, **facts})

    def step(self, stage: str, step: int, max_steps: int, **metrics: Any) -> None:
        """Say how far a stage is. A number that is not finite becomes null: JSON has no NaN."""
        finite = {name: _or_null(value) for name, value in metrics.items()}
        self._write({"stage": stage, "step": step, "max_steps": max_steps, **finite})

    def event(self, stage: str, event: str, **facts: Any) -> None:
        """Say what happened in a stage. Its step is `at_step`: `step` is for lines that say how far it is."""
        finite = {name: _or_null(value) for name, value in facts.items()}
        self._write({"stage": stage, "event": event, **finite})

    def _write(self, line: dict[str, object]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        self._tell(line)


def _or_null(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Pace:
    """The time a training takes: since its start, a step, and until its end."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun = self._at = clock()
        self._first: int | None = None
        self._step = 0
        self._tokens = 0.0

    def begin(self, step: int) -> None:
        """The training goes on from `step`; 0 unless it was resumed."""
        self._begun = self._at = self._clock()
        self._first = self._step = step

    def measure(self, step: int, max_steps: int, tokens: float | None) -> dict[str, float]:
        """`elapsed_s`, `step_s`, `eta_s` and `tokens_per_s` since the last call; `tokens` are counted from
        the start of the training."""
        now, first = self._clock(), self._first or 0
        took, steps = now - self._at, step - self._step
        shown = {"elapsed_s": round(now - self._begun, 3)}
        if steps > 0 and took > 0:
            shown["step_s"] = round(took / steps, 4)
            if tokens is not None:
                shown["tokens_per_s"] = round((tokens - self._tokens) / took, 1)
        if step > first:
            shown["eta_s"] = round((now - self._begun) / (step - first) * (max_steps - step), 1)
        if steps > 0:
            self._at, self._step, self._tokens = now, step, tokens or self._tokens
        return shown


def measure_drift(logs: Mapping[str, Any], beta: float) -> dict[str, float]:
    """How far each side's answers moved from the reference, in nats a token: a reward is beta times the
    log-ratio of a whole answer. Empty where rewards or lengths are not logged."""
    found = {}
    for side in ("chosen", "rejected"):
        reward, length = logs.get(f"rewards/{side}"), logs.get(f"lengths/{side}")
        if isinstance(reward, float) and length:
            found[f"drift/{side}"] = reward / beta / length
    return found


class ReportProgress(TrainerCallback):  # type: ignore[misc]
    """Writes each logging step of a library trainer, metrics under the library's names, with pace and drift.

    `has_reference` is False for losses without one, whose rewards say nothing of drift.
    """

    def __init__(self, log: ProgressLog, stage: str, has_reference: bool = True) -> None:
        self._log, self._stage, self._has_reference = log, stage, has_reference
        self._pace = Pace()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Time runs from here: building the trainer and the reference's log-probs is not training."""
        self._pace.begin(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:  # noqa: ARG002
        """A step's metrics, or those of an evaluation; the closing summary has neither and is left out."""
        step, most = state.global_step, state.max_steps
        if "loss" in logs:
            pace = self._pace.measure(step, most, logs.get("num_tokens"))
            beta = getattr(args, "beta", None)
            drift = measure_drift(logs, beta) if beta and self._has_reference else {}
            self._log.step(self._stage, step, most, **logs, **drift, **pace)
        elif "eval_loss" in logs:
            self._log.step(self._stage, step, most, **logs)


class ProgressTeller:
    """For a person at a terminal a bar, for a log a sentence now and then and at a stage's end."""

    def __init__(self, is_terminal: bool | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._is_terminal = sys.stderr.isatty() if is_terminal is None else is_terminal
        self._clock = clock
        self._told = clock()
        self._stage: object = None
        self._bar: Any = None

    def __call__(self, line: Line) -> None:
        """Take in one line of progress.jsonl."""
        if "event" in line:
            self._close_bar()
        elif "step" not in line:
            return
        elif self._is_terminal:
            self._draw(line)
        elif self._is_due(line):
            self._told = self._clock()
            logger.info("%s", say_progress(line))

    def _is_due(self, line: Line) -> bool:
        is_last = line.get("step") == line.get("max_steps")
        return is_last or self._clock() - self._told >= TELL_EVERY_S

    def _draw(self, line: Line) -> None:
        stage, step, most = line.get("stage"), line.get("step"), line.get("max_steps")
        assert isinstance(step, int)
        if self._bar is None or stage != self._stage:
            self._close_bar()
            # Said outright, because the libraries' own bars are turned off by an environment variable.
            self._bar = tqdm(total=most, desc=str(stage), unit="step", disable=False, file=sys.stderr)
            self._stage = stage
        self._bar.update(step - self._bar.n)
        shown = {"loss": "loss", "rewards/accuracies": "accuracy", "rewards/margins": "margin"}
        self._bar.set_postfix(
            {name: f"{line[key]:.3f}" for key, name in shown.items() if isinstance(line.get(key), float)}
        )

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
