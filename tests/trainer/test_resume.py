"""kill -9 and SIGTERM over the whole life of a round: it goes on and ends with the very same tensors."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.trainer.conftest import pair_rows, rating_rows, write_snapshot
from tests.trainer.killing import (
    Moment,
    after,
    are_equal,
    events,
    exists,
    fork_round,
    reached,
    read_lines,
    signal_at,
    start_round,
    tensors,
    wait,
    write_plan,
)
from trainer.limits import GateSettings, GuardSettings
from trainer.settings import BaseModel, RoundPlan, TrainerSettings
from trainer.stopping import CANCELLED, STOPPED

# Trains for minutes in all, in processes of its own.
pytestmark = pytest.mark.slow


TRAINER = TrainerSettings(
    learning_rate=1e-3,
    kto_learning_rate=1e-3,
    beta=0.5,
    max_length=256,
    rank=8,
    alpha=16,
    epochs=3,
    batch_size=4,
)
GUARDS = GuardSettings(save_steps=2, save_minutes=0, min_holdout_pairs=10, patience=50)
Start = Callable[[Path], int]


@pytest.fixture(scope="module")
def plan(base_folder: Path) -> RoundPlan:
    gate = GateSettings(num_prompts=2, max_tokens=8)
    return RoundPlan("r1", "v1", "v0", BaseModel(str(base_folder)), trainer=TRAINER, gate=gate, guards=GUARDS)


def make_folder(folder: Path, plan: RoundPlan) -> Path:
    write_snapshot(folder / "snapshot", pair_rows(24), rating_rows(20, 20), holdout=pair_rows(12, seed=1))
    write_plan(folder, plan)
    return folder


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory: pytest.TempPathFactory, plan: RoundPlan) -> Path:
    folder = make_folder(tmp_path_factory.mktemp("unkilled"), plan)
    assert wait(fork_round(folder)) == 0, (folder / "log.txt").read_text()
    return folder


def check_same(folder: Path, unkilled: Path) -> None:
    assert are_equal(tensors(folder), tensors(unkilled))
    assert json.loads((folder / "gate.json").read_text()) == json.loads((unkilled / "gate.json").read_text())
    assert not (folder / "work").exists()


def kill_and_resume(folder: Path, start: Start, moments: list[Moment]) -> list[int]:
    """Kill at each moment in turn, then run to the end; the exit codes."""
    codes = [signal_at(start(folder), folder, moment) for moment in moments]
    return [*codes, wait(start(folder))]


def test_a_round_killed_four_times_goes_on_to_the_same_tensors(
    tmp_path: Path, plan: RoundPlan, unkilled: Path
) -> None:
    """In KTO, in DPO, while a checkpoint is written and in the gate; each time from where it was."""
    folder = make_folder(tmp_path, plan)
    moments = [
        reached("kto", 3),
        reached("dpo", 9),
        exists("work/dpo/step-1[2-8].tmp"),
        reached("evaluate", 0),
    ]
    codes = kill_and_resume(folder, fork_round, moments)
    assert codes == [-signal.SIGKILL] * 4 + [0], (folder / "log.txt").read_text()
    resumed = [(line["stage"], line["at_step"]) for line in events(folder, "resumed")]
    assert [stage for stage, _ in resumed] == ["kto", "dpo", "dpo"]
    assert resumed[0][1] == 2
    assert resumed[1][1] in (8, 10)
    assert [line["stage"] for line in events(folder, "finished_before")] == ["kto", "kto", "kto", "dpo"]
    check_same(folder, unkilled)


def test_sigterm_saves_after_the_step_and_the_round_goes_on_from_it(
    tmp_path: Path, plan: RoundPlan, unkilled: Path
) -> None:
    folder = make_folder(tmp_path, replace(plan, guards=replace(GUARDS, save_steps=0)))
    code = signal_at(fork_round(folder), folder, reached("dpo", 5), signal.SIGTERM)
    assert code == STOPPED
    [stopped] = events(folder, "stopped")
    last = read_lines(folder)[-2]
    assert stopped["at_step"] == last["step"]
    assert "the round can go on from there" in (folder / "log.txt").read_text().splitlines()[-1]
    assert wait(fork_round(folder)) == 0
    assert events(folder, "resumed")[0]["at_step"] == stopped["at_step"]
    check_same(folder, unkilled)


def test_a_cancel_leaves_at_once_and_saves_nothing(tmp_path: Path, plan: RoundPlan) -> None:
    folder = make_folder(tmp_path, replace(plan, guards=replace(GUARDS, save_steps=0)))
    assert signal_at(fork_round(folder), folder, reached("dpo", 3), signal.SIGINT) == CANCELLED
    assert (folder / "log.txt").read_text().splitlines()[-1] == "cancelled by SIGINT"
    assert not list(folder.glob("work/dpo/*"))


def test_a_torn_checkpoint_is_recognised_and_the_one_before_it_is_used(
    tmp_path: Path, plan: RoundPlan, unkilled: Path
) -> None:
    folder = make_folder(tmp_path, plan)
    signal_at(fork_round(folder), folder, reached("dpo", 9))
    kept = sorted((folder / "work" / "dpo").glob("step-*[0-9]"), key=lambda path: int(path.name[5:]))
    assert len(kept) == 2
    torn = kept[-1] / "optimizer.pt"
    torn.write_bytes(torn.read_bytes()[:-1000])
    assert wait(fork_round(folder)) == 0
    assert events(folder, "resumed")[0]["at_step"] == int(kept[0].name[5:])
    assert f"{kept[-1].name}: optimizer.pt is not what was written" in (folder / "log.txt").read_text()
    check_same(folder, unkilled)


@pytest.mark.slow
def test_another_plan_does_not_go_on_from_what_this_one_left(
    tmp_path: Path, plan: RoundPlan, unkilled: Path
) -> None:
    folder = make_folder(tmp_path, plan)
    signal_at(fork_round(folder), folder, reached("dpo", 5))
    write_plan(folder, replace(plan, trainer=replace(TRAINER, beta=0.1)))
    assert wait(fork_round(folder)) == 0
    assert not events(folder, "resumed")
    assert "made by another plan" in (folder / "log.txt").read_text()
    assert not are_equal(tensors(folder), tensors(unkilled))


def test_the_same_plan_gives_the_same_tensors(tmp_path: Path, plan: RoundPlan, unkilled: Path) -> None:
    again = make_folder(tmp_path / "again", plan)
    assert wait(fork_round(again)) == 0
    check_same(again, unkilled)


@pytest.mark.slow
def test_another_seed_gives_other_tensors(tmp_path: Path, plan: RoundPlan, unkilled: Path) -> None:
    other = make_folder(tmp_path / "other", replace(plan, trainer=replace(TRAINER, seed=1)))
    assert wait(fork_round(other)) == 0
    assert not are_equal(tensors(other), tensors(unkilled))


SWEEP_SEED = 20260101
STAGES: dict[str, Moment] = {
    "prepare": reached("prepare", 0),
    "reference pass of kto": reached("kto", 0),
    "first step": reached("kto", 1),
    "kto": reached("kto", 3),
    "saving in kto": exists("work/kto/step-*.tmp"),
    "between the stages": exists("work/kto/finished"),
    "start of dpo": reached("dpo", 0),
    "dpo": reached("dpo", 10),
    "saving in dpo": exists("work/dpo/step-*.tmp/optimizer.pt"),
    "last step of dpo": reached("dpo", 18),
    "finishing dpo": exists("work/dpo/finished.tmp"),
    "trained": exists("work/dpo/finished"),
    "gate": reached("evaluate", 0),
    "publishing": exists("candidate.tmp/MANIFEST.json"),
    "published": exists("candidate"),
}


@pytest.mark.slow
def test_twenty_kills_over_the_whole_life_of_a_round(tmp_path: Path, plan: RoundPlan, unkilled: Path) -> None:
    """Fifteen at stages as they are seen; five at any time, the loading of the libraries included."""
    rng = random.Random(SWEEP_SEED)
    print(f"seed {SWEEP_SEED}")  # noqa: T201
    whole = make_folder(tmp_path / "timed", plan)
    began = time.monotonic()
    assert wait(start_round(whole)) == 0
    lasts_s = time.monotonic() - began
    num_killed = 0
    moments = {**STAGES, **{f"random {n}": None for n in range(5)}}
    for n, (when, moment) in enumerate(moments.items()):
        folder = make_folder(tmp_path / str(n), plan)
        seconds = rng.uniform(0.0, lasts_s)
        start = fork_round if moment else start_round
        codes = kill_and_resume(folder, start, [moment or after(seconds)])
        stands = [f"{e['stage']} {e['at_step']}" for e in events(folder, "resumed")]
        at = when if moment else f"{when}, after {seconds:.1f} of {lasts_s:.1f} s"
        print(f"{n + 1:2} {at}: exit codes {codes}, resumed at {stands}", flush=True)  # noqa: T201
        assert codes[-1] == 0, (folder / "log.txt").read_text()
        check_same(folder, unkilled)
        shutil.rmtree(folder)
        num_killed += codes[0] == -signal.SIGKILL
    assert num_killed >= 18, "a moment may be too short to be seen, but not many of them"
