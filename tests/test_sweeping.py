"""The sweep command's halves: its points are told what a round of serve with the same flags is told."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from settings import ServeSettings
from store.database import Store
from sweeping import run_sweep
from trainer.settings import BaseModel, RoundPlan
from trainer.sweep import Result, Sweep, make_grid


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[RoundPlan]:
    """What each sweep would have told its points; none is trained."""
    plans: list[RoundPlan] = []

    def run(self: Sweep) -> list[Result]:
        plans.append(self._plan)
        return []

    monkeypatch.setattr(Sweep, "run", run)
    return plans


def sweep(data: Path, *flags: str) -> tuple[ServeSettings, dict[str, object]]:
    """The settings of a sweep over beta, and the recipe of the snapshot that it took."""
    with contextlib.closing(Store.open(data)):
        pass
    settings = ServeSettings.read(["--data", str(data), *flags], "sweep")
    done, _ = run_sweep(settings, {"beta": "0.1,0.2"}, None, None)
    report = json.loads((done.folder / "snapshot" / "report.json").read_text("utf-8"))
    return settings, report["recipe"]


def test_a_point_that_was_killed_says_by_which_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It once said exit code 1 whatever had happened, and a kill for want of memory could not be told."""
    monkeypatch.setattr("trainer.sweep.round_command", lambda _folder, _launch: ["sh", "-c", "kill -9 $$"])
    plan = RoundPlan("", "v1", "v0", BaseModel("nowhere"))
    done = Sweep(tmp_path, plan, make_grid(plan.trainer, {"beta": "0.1"}), tell=lambda _: None)
    (result,) = done.run()
    assert result.decision == "failed"
    assert result.reason.startswith("the round process was killed by signal 9 (SIGKILL)")


def test_a_sweep_on_the_starter_is_as_patient_as_its_rounds(tmp_path: Path, planned: list[RoundPlan]) -> None:
    """Its points once trained with a patience of 3, where a round of the starter has 0."""
    settings, _ = sweep(tmp_path / "data")
    assert planned[0].guards == settings.plan().guards
    assert planned[0].guards.patience == 0


def test_a_sweep_takes_every_group_of_settings_that_a_round_takes(
    tmp_path: Path, planned: list[RoundPlan]
) -> None:
    flags = ["--guards.max-drift", "1.25", "--gate.max-drift", "0.5", "--trainer.rank", "4"]
    settings, _ = sweep(tmp_path / "data", *flags)
    plan, told = settings.plan(), planned[0]
    assert (told.guards, told.gate, told.trainer) == (plan.guards, plan.gate, plan.trainer)
    assert (told.guards.max_drift, told.threads, told.base) == (1.25, plan.rounds.threads, plan.base)


@pytest.mark.parametrize(
    ("flags", "mode", "share"),
    [
        ((), "all", 1.0),
        (("--trainer.start", "previous"), "equal", 1.0),
        (("--trainer.start", "previous", "--replay.share", "2"), "equal", 2.0),
        (("--replay.mode", "none"), "none", 1.0),
    ],
)
def test_a_sweeps_snapshot_replays_as_a_rounds_would(
    tmp_path: Path, planned: list[RoundPlan], flags: tuple[str, ...], mode: str, share: float
) -> None:
    _, recipe = sweep(tmp_path / "data", *flags)
    assert recipe["replay"] == {"mode": mode, "share": share}
    assert len(planned) == 1
