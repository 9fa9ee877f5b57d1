"""Trains a grid of settings from one snapshot, each point as a round of its own, and compares their gates.

A point is a directory like a round's, run by the same process, so that what is compared is what a round would
make. A point that has a verdict is not trained again. Promotes nothing; the supervisor can adopt the best.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from store.errors import BadValue
from trainer.curves import ProgressReader, read_lines, read_stages, say_duration, say_progress
from trainer.round_process import explain_exit, round_command, round_environment, stop
from trainer.settings import RoundPlan, TrainerSettings

TELL_EVERY_S = 15.0
GRACE_S = 15.0
MOST_POINTS = 200
# What is kept of each check of a point's gate.
MEASURES = {
    "holdout_accuracy": "accuracy",
    "holdout_margin": "margin",
    "holdout_drift": "drift",
    "own_drift": "own_drift",
    "entropy_ratio": "entropy_ratio",
    "length_ratio": "length_ratio",
}


@dataclass(frozen=True, slots=True)
class Point:
    """One setting of the grid. `changes` are what it differs in, by setting."""

    name: str
    changes: Mapping[str, Any]
    trainer: TrainerSettings


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a point. Measures are on held-out pairs and fixed prompts, None where the gate has none;
    `decision` is the gate's, or "failed"."""

    name: str
    changes: Mapping[str, Any]
    decision: str
    reason: str
    seconds: float
    accuracy: float | None = None
    accuracy_noise: float | None = None
    margin: float | None = None
    drift: float | None = None
    own_drift: float | None = None
    entropy_ratio: float | None = None
    length_ratio: float | None = None
    first_loss: float | None = None
    last_loss: float | None = None


def read_values(name: str, text: str) -> tuple[Any, ...]:
    """The values of one axis, from a list with commas. BadValue for a setting that no trainer has."""
    hints = get_type_hints(TrainerSettings)
    field = name.replace("-", "_")
    if field not in hints:
        raise BadValue(f"there is no setting --trainer.{name} to sweep; known: {', '.join(sorted(hints))}")
    try:
        values = [TypeAdapter(hints[field]).validate_python(word.strip()) for word in text.split(",")]
    except ValidationError as error:
        raise BadValue(
            f"--trainer.{name}: {text!r} is no list of its values: {error.errors()[0]['msg']}"
        ) from error
    if len(set(values)) < len(values):
        raise BadValue(f"--trainer.{name}: {text!r} names a value twice")
    return tuple(values)


def make_grid(trainer: TrainerSettings, axes: Mapping[str, str]) -> list[Point]:
    """Every combination of the axes' values over `trainer`, in the order given. BadValue for none, too many,
    or settings that do not go together."""
    if not axes:
        raise BadValue("nothing to sweep: name an axis, such as --beta 0.05,0.1,0.2")
    fields = [name.replace("-", "_") for name in axes]
    columns = [read_values(name, text) for name, text in axes.items()]
    if math.prod(map(len, columns)) > MOST_POINTS:
        raise BadValue(f"the grid has {math.prod(map(len, columns))} points, more than {MOST_POINTS}")
    points = []
    for values in itertools.product(*columns):
        changes = dict(zip(fields, values, strict=True))
        name = ",".join(f"{field.replace('_', '-')}={value}" for field, value in changes.items())
        points.append(Point(name.replace("/", "-"), changes, dataclasses.replace(trainer, **changes)))
    return points


def name_sweep(plan: RoundPlan, axes: Mapping[str, str]) -> str:
    """The same question gets the same name, so that an interrupted sweep finds what it has done."""
    told = dataclasses.asdict(plan) | {"axes": dict(axes), "version": None, "round_id": None}
    return f"sweep-{hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:10]}"


class Sweep:
    """A sweep's folder: `snapshot/`, `points/<name>/`, `sweep.json` and `sweep.html`."""

    def __init__(
        self,
        folder: Path,
        plan: RoundPlan,
        points: Sequence[Point],
        launch: Sequence[str] = (),
        tell: Callable[[str], None] = print,
    ) -> None:
        """`plan` is what every point is told but for its trainer."""
        self.folder, self._plan, self._points = folder, plan, points
        self._launch, self._tell = launch, tell

    def run(self) -> list[Result]:
        """Train every point that has no verdict yet, one after another; all results, in the grid's order."""
        from trainer.sweep_report import leave_comparison

        known = {result.name: result for result in self.read_results()}
        results: list[Result] = []
        for number, point in enumerate(self._points, 1):
            label = f"{number}/{len(self._points)} {point.name}"
            if self._is_done(point):
                result = known.get(point.name) or self._measure(point, 0.0, 0)
                self._tell(f"{label}: done before, {say_result(result)}")
            else:
                result = self._measure(point, *self._train(point, label))
                self._tell(f"{label}: {say_result(result)}; {self._say_left([*results, result])}")
            results.append(result)
            leave_comparison(self.folder, results, choose_best(results))
        return results

    def read_results(self) -> list[Result]:
        """What sweep.json holds; [] before the first point is done."""
        path = self.folder / "sweep.json"
        if not path.exists():
            return []
        return [Result(**point) for point in json.loads(path.read_text("utf-8"))["points"]]

    def directory(self, name: str) -> Path:
        """The round-like directory of a point."""
        return self.folder / "points" / name

    def _is_done(self, point: Point) -> bool:
        directory = self.directory(point.name)
        if not (directory / "gate.json").exists() or not (directory / "candidate").exists():
            return False
        before = json.loads((directory / "round.json").read_text("utf-8"))
        told = self._told(point)
        if any(before[group] != told[group] for group in ("trainer", "guards")):
            raise BadValue(
                f"{directory} was trained with other settings than this sweep's; give the sweep another --out"
            )
        return True

    def _told(self, point: Point) -> dict[str, Any]:
        plan = dataclasses.replace(
            self._plan, round_id=f"{self.folder.name}/{point.name}", trainer=point.trainer
        )
        told: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(plan)))  # tuples as JSON has them
        return told

    def _train(self, point: Point, label: str) -> tuple[float, int]:
        """Run the point's process to its end; returns its seconds and its exit code (negative: killed by that
        signal). A round that fails is a result too."""
        directory, begun = self.directory(point.name), time.monotonic()
        directory.mkdir(parents=True, exist_ok=True)
        snapshot = directory / "snapshot"
        if not snapshot.is_symlink():
            snapshot.symlink_to(Path("..") / ".." / "snapshot")
        (directory / "round.json").write_text(json.dumps(self._told(point), indent=2) + "\n", "utf-8")
        with (directory / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                round_command(directory, self._launch),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=round_environment(self._plan.threads),
                start_new_session=True,
            )
        try:
            self._follow(process, directory / "progress.jsonl", label)
        finally:
            if process.poll() is None:  # Ctrl-C, or we failed: the point is trained again next time
                stop(process, signal.SIGINT, GRACE_S)
        return time.monotonic() - begun, process.returncode

    def _follow(self, process: subprocess.Popen[bytes], path: Path, label: str) -> None:
        reader, told = ProgressReader(), time.monotonic()
        while process.poll() is None:
            time.sleep(0.2)
            lines = reader.read(path)
            if lines and "step" in lines[-1] and time.monotonic() - told >= TELL_EVERY_S:
                told = time.monotonic()
                self._tell(f"{label}: {say_progress(lines[-1])}")

    def _measure(self, point: Point, seconds: float, code: int) -> Result:
        directory = self.directory(point.name)
        path = directory / "gate.json"
        if not path.exists():
            log = directory / "log.txt"
            last = log.read_text("utf-8", errors="replace").splitlines()[-50:] if log.exists() else []
            return Result(point.name, point.changes, "failed", explain_exit(code, last), round(seconds, 1))
        gate = json.loads(path.read_text("utf-8"))
        checks = {check["name"]: check for check in gate["checks"]}
        measures = {ours: checks[name]["value"] for name, ours in MEASURES.items() if name in checks}
        noise = checks.get("holdout_accuracy", {}).get("noise_floor")
        stages = read_stages(read_lines(directory / "progress.jsonl"))
        losses = [stage["loss"] for stage in stages[:1] if stage["loss"]]
        return Result(
            point.name,
            point.changes,
            gate["decision"],
            gate["reason"],
            round(seconds, 1),
            accuracy_noise=noise,
            first_loss=losses[0].first if losses else None,
            last_loss=losses[0].between(0.75, 1.0).mean() if losses else None,
            **measures,
        )

    def _say_left(self, results: Sequence[Result]) -> str:
        left = sum(not self._is_done(point) for point in self._points[len(results) :])
        times = [result.seconds for result in results if result.seconds]
        if not left or not times:
            return "nothing is left to train"
        return f"about {say_duration(left * sum(times) / len(times))} left for {left} more"


def say_result(result: Result) -> str:
    """One point in a line."""
    shown = {"accuracy": result.accuracy, "margin": result.margin, "drift": result.drift}
    parts = [f"{name} {value:.3g}" for name, value in shown.items() if value is not None]
    return ", ".join([result.decision, *parts, *([result.reason] if result.decision == "failed" else [])])


def choose_best(results: Sequence[Result]) -> Result | None:
    """Of the points that passed the gate, those whose held-out accuracy is within one standard error of the
    highest cannot be told apart by it: among them the one nearest to the base. None when none passed.

    Where accuracy was not decided for anybody, drift alone decides.
    """
    passed = [result for result in results if result.decision == "promote"]
    if not passed:
        return None
    top = max(passed, key=lambda result: result.accuracy or 0.0)
    needed = (top.accuracy or 0.0) - (top.accuracy_noise or 0.0)
    near = [result for result in passed if (result.accuracy or 0.0) >= needed]
    return min(near, key=lambda result: abs(result.drift) if result.drift is not None else math.inf)


def show_flags(result: Result) -> str:
    """The flags of a normal round with a point's settings."""
    return " ".join(f"--trainer.{name.replace('_', '-')} {value}" for name, value in result.changes.items())


def write_atomically(path: Path, text: str) -> None:
    """A file that is there whole or not at all."""
    draft = path.with_name(path.name + ".tmp")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
