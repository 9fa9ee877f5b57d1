"""How a round tells what it is doing: one line of JSON a step, metrics under the library's names."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from transformers import TrainerCallback


class ProgressLog:
    """progress.jsonl: one whole line a step, on disk at once, so that a reader never waits for a buffer."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def start(self, stage: str) -> None:
        """Say that a stage begins."""
        self._write({"stage": stage, "event": "start"})

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


def _or_null(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


class ReportProgress(TrainerCallback):  # type: ignore[misc]
    """Writes each logging step of a library trainer, metrics under the library's names."""

    def __init__(self, log: ProgressLog, stage: str) -> None:
        self._log, self._stage = log, stage

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:  # noqa: ARG002
        """The closing summary has no loss of a step and is left out."""
        if "loss" in logs:
            self._log.step(self._stage, state.global_step, state.max_steps, **logs)
