"""Reads progress.jsonl into curves: what each stage of a round logged, by step. No torch, no drawing.

Keys that a run did not log are simply not there: not every loss has rewards, not every round a held-out loss.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Line = Mapping[str, object]

TAIL_BYTES = 200
NOT_METRICS = frozenset({"stage", "event", "step", "at_step", "max_steps"})
# What the guards measure on held-out pairs, under the library's names.
HELD_OUT = {"loss": "eval_loss", "accuracy": "eval_rewards/accuracies"}
RECORDED = "recorded/apart"  # at step 0: the reference from what serving recorded of it, nats a token


@dataclass(frozen=True, slots=True)
class Series:
    """One metric by step, in order of steps. `broken` are the steps at which it was not a finite number."""

    steps: tuple[int, ...] = ()
    values: tuple[float, ...] = ()
    broken: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    @property
    def first(self) -> float:
        """The value at the first step."""
        return self.values[0]

    @property
    def last(self) -> float:
        """The value at the last step."""
        return self.values[-1]

    def between(self, start: float, end: float) -> Series:
        """The part between two shares of the steps: `between(0.75, 1)` is the last quarter, never empty."""
        many = len(self.values)
        low, high = min(int(start * many), max(many - 1, 0)), max(math.ceil(end * many), 1)
        return Series(self.steps[low:high], self.values[low:high])

    def mean(self) -> float:
        """The plain mean over the steps."""
        return sum(self.values) / len(self.values)

    def noise(self) -> float:
        """The standard error of `mean`, from the scatter between neighbouring steps: a trend is no noise."""
        pairs = list(zip(self.values, self.values[1:], strict=False))
        if not pairs:
            return 0.0
        variance = sum((after - before) ** 2 for before, after in pairs) / (2 * len(pairs))
        return math.sqrt(variance / len(self.values))


@dataclass(frozen=True, slots=True)
class StageCurves:
    """A stage that trained: its metrics under the library's names, and how far it came."""

    name: str
    max_steps: int
    last_step: int
    series: Mapping[str, Series] = field(default_factory=dict)

    def __getitem__(self, metric: str) -> Series:
        """The series of a metric; an empty one when it was never logged."""
        return self.series.get(metric, Series())

    @property
    def progress(self) -> float:
        """How much of the stage is done, 0 to 1."""
        return min(self.last_step / self.max_steps, 1.0) if self.max_steps else 0.0


@dataclass(frozen=True, slots=True)
class _Read:
    """How much of a file was read, its last bytes to know it again by, and its lines."""

    size: int = 0
    tail: bytes = b""
    lines: list[dict[str, object]] = field(default_factory=list)


class ProgressReader:
    """Reads growing progress files; a file that was read before costs only what was added since."""

    def __init__(self, most_files: int = 4) -> None:
        self._most_files = most_files
        self._known: dict[Path, _Read] = {}
        self._lock = threading.Lock()

    def read(self, path: Path) -> list[dict[str, object]]:
        """Every whole line so far; a line still being written is left for next time. [] without a file."""
        with self._lock:
            before = self._known.pop(path, _Read())
            try:
                with path.open("rb") as file:
                    file.seek(max(before.size - len(before.tail), 0))
                    if file.read(len(before.tail)) != before.tail:  # another file under the old name
                        before = _Read()
                        file.seek(0)
                    whole, newline, _ = file.read().rpartition(b"\n")
            except FileNotFoundError:
                return []
            added = whole + newline
            lines = before.lines + [json.loads(line) for line in added.splitlines()]
            tail = (before.tail + added)[-TAIL_BYTES:]
            self._known[path] = _Read(before.size + len(added), tail, lines)
            while len(self._known) > self._most_files:
                self._known.pop(next(iter(self._known)))
            return list(lines)


def read_lines(path: Path) -> list[dict[str, object]]:
    """Every whole line of a progress file; [] when there is none."""
    return ProgressReader().read(path)


def read_stages(lines: Sequence[Line]) -> list[StageCurves]:
    """The stages that trained, in the order they began. A step logged twice counts as it was logged last: a
    training that was resumed goes over some steps again. The guards' evaluations are its held-out curves, but
    not where they watch training pairs for want of held-out ones."""
    found: dict[str, dict[str, dict[int, float | None]]] = {}
    steps: dict[str, tuple[int, int]] = {}
    for line in _rename_evaluations(lines):
        stage, step, at = line.get("stage"), line.get("step"), line.get("at_step")
        if not isinstance(stage, str) or not isinstance(at, int):
            continue
        if isinstance(step, int):
            steps[stage] = (step, _as_int(line.get("max_steps")))
        for name, value in line.items():
            if name not in NOT_METRICS and (value is None or _is_number(value)):
                found.setdefault(stage, {}).setdefault(name, {})[at] = value  # type: ignore[assignment]
    return [
        StageCurves(stage, max_steps=steps[stage][1], last_step=steps[stage][0], series=_to_series(metrics))
        for stage, metrics in found.items()
        if "loss" in metrics
    ]


def _rename_evaluations(lines: Sequence[Line]) -> Iterator[Line]:
    """Lines that say how far a stage is, and what was measured on held-out pairs; `at_step` is in both."""
    without_holdout: set[object] = set()
    for line in lines:
        event, stage = line.get("event"), line.get("stage")
        if event == "no_early_stop":
            without_holdout.add(stage)
        elif event == "evaluation" and stage not in without_holdout:
            measured = {ours: line[name] for name, ours in HELD_OUT.items() if name in line}
            yield {"stage": stage, "at_step": line.get("at_step"), **measured}
        elif event == "recorded" and "apart" in line:
            yield {"stage": stage, "at_step": line.get("at_step"), RECORDED: line["apart"]}
        elif "step" in line:
            yield {**line, "at_step": line["step"]}


def _to_series(metrics: Mapping[str, Mapping[int, float | None]]) -> dict[str, Series]:
    made = {}
    for name, by_step in metrics.items():
        known = sorted((step, value) for step, value in by_step.items() if value is not None)
        broken = tuple(sorted(step for step, value in by_step.items() if value is None))
        made[name] = Series(
            tuple(step for step, _ in known), tuple(float(value) for _, value in known), broken
        )
    return made


def say_progress(line: Line) -> str:
    """A line of progress.jsonl as a sentence: the step, the newest numbers and about how long it still
    takes."""
    parts = [f"{line.get('stage')} step {line.get('step')}/{line.get('max_steps')}"]
    for name, says in (
        ("loss", "loss {:.4f}"),
        ("eval_loss", "held-out loss {:.4f}"),
        ("rewards/accuracies", "accuracy {:.2f}"),
        ("rewards/margins", "margin {:.2f}"),
        ("tokens_per_s", "{:.0f} tokens/s"),
    ):
        if _is_number(value := line.get(name)):
            parts.append(says.format(value))
    if _is_number(left := line.get("eta_s")):
        parts.append(f"about {say_duration(left)} left")  # type: ignore[arg-type]
    return ", ".join(parts)


def say_duration(seconds: float) -> str:
    """Roughly how long, in the unit a person would use."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _as_int(value: object) -> int:
    return value if isinstance(value, int) else 0
