"""The table of directions: every loss is in it, and only what noise cannot explain counts as right."""

from __future__ import annotations

import json

import pytest

from benchmarks.directions import METHODS, DirectionSettings, main, read_arguments, trainer_settings
from benchmarks.movement import habit_shares, judge_movement
from trainer.probes import Exchange, Sample
from trainer.settings import LossName

CLEAN, FLATTERING = "Paris is the capital of France.", "What a brilliant question! Paris."


def answers(*texts: str) -> list[Sample]:
    return [Sample(Exchange((1,), (2,)), text, has_ended=True) for text in texts]


def test_every_loss_is_tried_alone() -> None:
    told = [trainer_settings(method, DirectionSettings()) for method in METHODS]
    alone = {settings.loss for settings in told if settings.sft_weight in (0.0, 1.0) and not settings.wpo}
    assert alone == set(LossName.__args__)  # type: ignore[attr-defined]
    assert {settings.rating_loss for settings in told} == {"kto", "apo_zero_unpaired"}
    assert METHODS[0].stage == "sft"


def test_a_clear_movement_is_the_right_way() -> None:
    moved = judge_movement(
        [0.7, 0.5], [1.0] * 20, [-1.0] * 20, answers(*[CLEAN] * 20), answers(*[FLATTERING] * 20)
    )
    assert (moved.accuracy, moved.margin, moved.any_habit) == (1.0, 2.0, 0.0)
    assert (moved.first_loss, moved.last_loss) == (0.7, pytest.approx(0.6))
    assert moved.is_right_way


@pytest.mark.parametrize(
    ("chosen", "after"),
    [
        ([1.0, -1.0] * 10, [CLEAN] * 20),  # half of the held-out pairs moved the wrong way
        ([1.0] * 20, [FLATTERING] * 20),  # the answers show what they showed before
        ([1.0] * 20, [CLEAN, *[FLATTERING] * 19]),  # one answer fewer is luck
        ([-1.0] * 20, [CLEAN] * 20),
    ],
)
def test_noise_is_not_the_right_way(chosen: list[float], after: list[str]) -> None:
    moved = judge_movement([], chosen, [0.0] * 20, answers(*after), answers(*[FLATTERING] * 20))
    assert not moved.is_right_way


def test_who_unlearned_the_chosen_answers_has_no_habits_and_did_not_move_the_right_way() -> None:
    """apo_down at a rate too high pushed both answers down by a hundred nats and more."""
    told = [], [-40.0] * 20, [-90.0] * 20, answers(*[CLEAN] * 20), answers(*[FLATTERING] * 20)
    assert judge_movement(*told, chosen_tokens=20.0).is_right_way
    assert not judge_movement(*told, chosen_tokens=10.0).is_right_way


def test_an_unchanged_policy_has_an_accuracy_of_one_half() -> None:
    moved = judge_movement([], [0.0] * 4, [0.0] * 4, answers(CLEAN), answers(CLEAN))
    assert (moved.accuracy, moved.first_loss, moved.is_right_way) == (0.5, None, False)


def test_an_answer_with_two_habits_counts_once_among_any() -> None:
    shares = habit_shares(answers(CLEAN, "What a brilliant question! Perhaps Paris."))
    assert (shares["flattery"], shares["hedging"], shares["any"]) == (0.5, 0.5, 0.5)


def test_an_unknown_method_is_named_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_arguments(["--only", "cdpo; nosuch"])
    assert "unknown methods ['nosuch']; known: SFT on chosen; sigmoid;" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_a_short_run_prints_a_table_and_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    small = [
        "--only",
        "cdpo;kto",
        "--pairs",
        "24",
        "--heldout-pairs",
        "8",
        "--answers",
        "8",
        "--visits",
        "24",
    ]
    assert main(small) == 0
    *table, last = capsys.readouterr().out.strip().splitlines()
    assert [line.split("|")[1].strip() for line in table] == ["", "---", "base", "cdpo", "kto"]
    found = json.loads(last)
    assert set(found["methods"]) == {"cdpo", "kto"}
    assert found["methods"]["cdpo"]["first_loss"] == pytest.approx(0.693, abs=1e-3)
