"""Progress files read as curves, whole or while they grow, and said in a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.trainer.watched import standing, train_watched
from trainer.curves import ProgressReader, Series, read_lines, read_stages, say_progress
from trainer.progress import ProgressLog


def write(path: Path, *lines: dict[str, object]) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def test_each_stage_that_trained_has_its_own_curves() -> None:
    stages = read_stages(
        [
            {"stage": "prepare", "event": "start"},
            {"stage": "dpo", "step": 1, "max_steps": 4, "loss": 0.6},
            {"stage": "dpo", "step": 2, "max_steps": 4, "loss": 0.5, "kl": 1},
            {"stage": "kto", "step": 1, "max_steps": 9, "loss": 0.4},
            {"stage": "evaluate", "step": 1, "max_steps": 2},
        ]
    )
    assert [(stage.name, stage.last_step, stage.max_steps) for stage in stages] == [
        ("dpo", 2, 4),
        ("kto", 1, 9),
    ]
    assert stages[0]["loss"] == Series((1, 2), (0.6, 0.5))
    assert stages[0]["kl"] == Series((2,), (1.0,))
    assert not stages[0]["rewards/margins"]
    assert stages[0].progress == 0.5


def test_a_step_that_a_resumed_training_repeats_counts_as_it_was_logged_last() -> None:
    lines = [{"stage": "dpo", "step": step, "max_steps": 3, "loss": loss} for step, loss in
             ((1, 0.6), (2, 0.5), (2, 0.55), (3, 0.4))]  # fmt: skip
    assert read_stages(lines)[0]["loss"] == Series((1, 2, 3), (0.6, 0.55, 0.4))


def test_a_number_that_was_not_finite_is_remembered_as_a_broken_step() -> None:
    lines = [{"stage": "dpo", "step": step, "max_steps": 3, "loss": loss} for step, loss in
             ((1, 0.6), (2, None), (3, 0.4))]  # fmt: skip
    assert read_stages(lines)[0]["loss"] == Series((1, 3), (0.6, 0.4), broken=(2,))


def test_held_out_numbers_of_a_step_join_its_curves() -> None:
    lines: list[dict[str, object]] = [
        {"stage": "dpo", "step": 1, "max_steps": 1, "loss": 0.6},
        {"stage": "dpo", "step": 1, "max_steps": 1, "eval_loss": 0.7},
    ]
    assert read_stages(lines)[0]["eval_loss"].last == 0.7


def test_what_the_guards_measure_is_the_held_out_curve(progress: ProgressLog, tmp_path: Path) -> None:
    """The rounds logged it as events, and every curve of held-out pairs was empty."""
    train_watched(progress, "dpo", [standing(0.7, 0.5), standing(0.6, 0.75), standing(0.65, 0.7)])
    (stage,) = read_stages(read_lines(tmp_path / "progress.jsonl"))
    assert stage["eval_loss"] == Series((1, 2, 3), (0.7, 0.6, 0.65))
    assert stage["eval_rewards/accuracies"] == Series((1, 2, 3), (0.5, 0.75, 0.7))
    assert stage["loss"] == Series((1, 2, 3), (2.0, 1.0, 2 / 3))
    assert (stage.last_step, stage.max_steps) == (3, 3)


def test_an_evaluation_ahead_of_its_step_moves_no_stage_on(progress: ProgressLog, tmp_path: Path) -> None:
    progress.step("dpo", 1, 9, loss=0.6)
    progress.event("dpo", "evaluation", at_step=2, loss=0.5, accuracy=0.5, chosen_gain=0.0, drift=0.0)
    (stage,) = read_stages(read_lines(tmp_path / "progress.jsonl"))
    assert (stage.last_step, stage.max_steps) == (1, 9)
    assert stage["eval_loss"] == Series((2,), (0.5,))


def test_training_pairs_that_are_watched_are_not_called_held_out(
    progress: ProgressLog, tmp_path: Path
) -> None:
    progress.event("dpo", "no_early_stop", says="nothing stops early: 3 held-out pairs of 20 needed")
    train_watched(progress, "dpo", [standing(0.7, 0.5)], is_held_out=False)
    train_watched(progress, "kto", [standing(0.6, 0.5)])
    dpo, kto = read_stages(read_lines(tmp_path / "progress.jsonl"))
    assert not dpo["eval_loss"]
    assert kto["eval_loss"].last == 0.6


def test_a_growing_file_is_read_from_where_the_last_reading_ended(tmp_path: Path) -> None:
    path, reader = tmp_path / "progress.jsonl", ProgressReader()
    assert reader.read(path) == []
    write(path, {"step": 1})
    with path.open("a") as file:
        file.write('{"step": ')
    assert reader.read(path) == [{"step": 1}]
    with path.open("a") as file:
        file.write("2}\n")
    assert reader.read(path) == [{"step": 1}, {"step": 2}]


def test_a_new_file_under_an_old_name_is_read_from_its_start(tmp_path: Path) -> None:
    path, reader = tmp_path / "progress.jsonl", ProgressReader()
    write(path, {"step": 1}, {"step": 2})
    assert len(reader.read(path)) == 2
    path.unlink()
    write(path, {"step": 5})
    assert reader.read(path) == [{"step": 5}]
    path.write_text('{"step": 8}\n{"step": 9}\n{"step": 10}\n')  # longer than what was read of the other
    assert [line["step"] for line in reader.read(path)] == [8, 9, 10]


@pytest.mark.parametrize(("start", "end", "steps"), [(0, 0.25, (1,)), (0.75, 1, (4,)), (0, 1, (1, 2, 3, 4))])
def test_a_part_of_a_series_is_taken_by_share(start: float, end: float, steps: tuple[int, ...]) -> None:
    assert Series((1, 2, 3, 4), (1.0, 2.0, 3.0, 4.0)).between(start, end).steps == steps


def test_a_trend_is_no_noise_and_scatter_is() -> None:
    rising = Series(tuple(range(100)), tuple(float(i) for i in range(100)))
    jumping = Series(tuple(range(100)), tuple(50.0 * (-1) ** i for i in range(100)))
    assert rising.noise() < 0.1 < 5.0 < jumping.noise()


def test_a_line_is_said_in_a_sentence() -> None:
    line = {"stage": "dpo", "step": 40, "max_steps": 440, "loss": 0.51234, "rewards/accuracies": 0.75}
    assert say_progress(line | {"eta_s": 200, "tokens_per_s": 312.4}) == (
        "dpo step 40/440, loss 0.5123, accuracy 0.75, 312 tokens/s, about 3 min left"
    )
