"""What a training adds to its metrics, and how it tells people who watch."""

from __future__ import annotations

import json
import logging
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest

from store.errors import BadValue
from tests.trainer.conftest import pair_rows, rating_rows
from trainer.curves import read_lines, read_stages
from trainer.diagnosis import diagnose
from trainer.dpo import train_dpo
from trainer.findings import Told
from trainer.kto import train_kto
from trainer.preferences import prepare_pairs, prepare_ratings
from trainer.progress import Pace, ProgressLog, ProgressTeller, measure_drift
from trainer.qlora import start_policy
from trainer.settings import TRACKERS, TrainerSettings


class Clock:
    """A time that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_pace_says_time_a_step_speed_and_what_is_left() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.begin(0)
    clock.now = 4.0
    assert pace.measure(2, 10, 800.0) == {
        "elapsed_s": 4.0, "step_s": 2.0, "tokens_per_s": 200.0, "eta_s": 16.0,
    }  # fmt: skip
    clock.now = 7.0
    assert pace.measure(3, 10, 1100.0)["tokens_per_s"] == 100.0


def test_a_resumed_training_counts_its_own_steps_only() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.begin(50)
    clock.now = 10.0
    assert pace.measure(60, 100, None) == {"elapsed_s": 10.0, "step_s": 1.0, "eta_s": 40.0}


def test_drift_is_the_log_ratio_a_token() -> None:
    logs = {"rewards/chosen": 0.6, "lengths/chosen": 20.0, "rewards/rejected": -1.0}
    assert measure_drift(logs, beta=0.1) == {"drift/chosen": pytest.approx(0.3)}


def test_pairs_log_lengths_drift_pace_and_start_exactly_at_ln_2(base, settings, progress, tmp_path) -> None:
    pairs = prepare_pairs(pair_rows(16), base.tokenizer, 256).rows
    train_dpo(start_policy(base.model, settings, None), base.tokenizer, pairs, settings, tmp_path, progress)
    (stage,) = read_stages(read_lines(tmp_path / "progress.jsonl"))
    assert stage["loss/preference"].first == pytest.approx(0.693147, abs=1e-5)
    mean = sum(len(pair.chosen_ids) for pair in pairs) / len(pairs)
    assert stage["lengths/chosen"].between(0, 0.5).mean() == pytest.approx(mean, abs=1e-4)  # one whole epoch
    for name in ("drift/chosen", "drift/rejected", "elapsed_s", "eta_s", "tokens_per_s"):
        assert stage[name], name
    assert all(before <= after for before, after in pairwise(stage["elapsed_s"].values))
    assert stage["eta_s"].last == 0.0
    assert diagnose(stage, Told(schedule="constant"))[0].rule == "too_short"


def test_ratings_log_lengths_of_both_classes(base, settings, progress, tmp_path) -> None:
    ratings = prepare_ratings(rating_rows(16, 16), base.tokenizer, 256, 8, seed=0)
    train_kto(start_policy(base.model, settings, None), base.tokenizer, ratings, settings, tmp_path, progress)
    (stage,) = read_stages(read_lines(tmp_path / "progress.jsonl"))
    wanted = [len(row.completion_ids) for row in ratings.rows[:8] if row.desirable]
    assert stage["lengths/chosen"].first == pytest.approx(sum(wanted) / len(wanted))
    assert stage["drift/rejected"]
    assert stage["kl"]


def test_a_log_gets_a_sentence_now_and_then_and_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    tell = ProgressTeller(is_terminal=False, clock=clock)
    with caplog.at_level(logging.INFO):
        for step in range(1, 101):
            clock.now = step * 1.0
            tell({"stage": "dpo", "step": step, "max_steps": 100, "loss": 0.5})
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"dpo step {step}/100, loss 0.5000" for step in (30, 60, 90, 100)]


def test_a_terminal_gets_a_bar_for_each_stage(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    log = ProgressLog(tmp_path / "progress.jsonl", ProgressTeller(is_terminal=True))
    log.start("dpo")
    log.step("dpo", 1, 2, loss=0.6)
    log.step("dpo", 2, 2, loss=0.5)
    log.note("trained", "stages", dpo="2 pairs")
    log.start("evaluate")
    shown = capsys.readouterr().err
    assert "dpo: 100%" in shown
    assert "loss=0.500" in shown
    assert len((tmp_path / "progress.jsonl").read_text().splitlines()) == 5


def test_a_number_that_is_not_finite_is_null_in_the_file(tmp_path: Path) -> None:
    ProgressLog(tmp_path / "progress.jsonl").step("dpo", 1, 2, loss=float("nan"))
    assert json.loads((tmp_path / "progress.jsonl").read_text())["loss"] is None


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(BadValue, match="report_to 'mlflow' is unknown; known: tensorboard, wandb, trackio"):
        TrainerSettings(report_to=("mlflow",))


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_that_is_not_installed_is_refused_with_its_package(name: str) -> None:
    if find_spec(name) is not None:
        assert TrainerSettings(report_to=(name,)).report_to == (name,)
        return
    with pytest.raises(BadValue, match=f"pip install {name}"):
        TrainerSettings(report_to=(name,))
