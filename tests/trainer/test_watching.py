"""What stops a training by what it does to the watched answers, and by which loss those are watched."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.trainer.conftest import pair_rows
from tests.trainer.stepping import Control, State, another_says
from trainer.guards import WatchStanding, say_nothing
from trainer.limits import GuardSettings
from trainer.losses import PairLogps, cdpo_losses
from trainer.preferences import prepare_pairs
from trainer.settings import TrainerSettings
from trainer.watching import Standing, Watched, choose_watched, watched_loss

NAN = float("nan")


class Policy(torch.nn.Module):
    """One weight, so that a test can say what it is at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))


class Scripted(Watched):
    """Stands as the test wrote it down."""

    def __init__(self, standings: list[Standing]) -> None:
        super().__init__((), 0, lambda pairs: pairs.chosen)
        self.standings = iter(standings)

    def remember_start(self, model: Any) -> None:
        pass

    def measure(self, model: Any) -> Standing:  # noqa: ARG002
        return next(self.standings)


def run(standings: list[Standing], settings: GuardSettings, is_held_out: bool = True) -> tuple[Any, Policy]:
    """Train as long as the guard lets it; the weight is the number of the step."""
    policy, state, control = Policy(), State(len(standings)), Control()
    guard = WatchStanding(Scripted(standings), is_held_out, settings, lambda _event, **_facts: None)
    for step in range(1, len(standings) + 1):
        policy.weight.data.fill_(step)
        state.global_step = step
        guard.on_step_end(None, state, control, policy)
        if control.should_training_stop:
            break
    guard.on_train_end(None, state, control, policy)
    return guard, policy


def losses(*values: float) -> list[Standing]:
    return [Standing(value, 0.5, 0.0, 0.0) for value in values]


EACH_STEP = GuardSettings(eval_steps=1, patience=2)


def test_it_stops_when_held_out_loss_only_gets_worse_and_keeps_the_best_weights() -> None:
    guard, policy = run(losses(0.69, 0.60, 0.61, 0.62, 0.5), EACH_STEP)
    assert policy.weight.item() == 2
    assert guard.note == "stopped early at step 4: held-out loss was best at step 2 (0.6000, now 0.6200)"


def test_a_better_evaluation_makes_it_patient_again() -> None:
    guard, policy = run(losses(0.69, 0.60, 0.61, 0.59, 0.60), EACH_STEP)
    assert (guard.note, policy.weight.item()) == (None, 4)


def test_training_pairs_stop_nothing_early() -> None:
    guard, policy = run(losses(0.5, 0.6, 0.7, 0.8), EACH_STEP, is_held_out=False)
    assert (guard.note, policy.weight.item()) == (None, 4)


def test_a_collapse_of_the_chosen_answers_aborts_with_the_number() -> None:
    with pytest.raises(RuntimeError, match=r"at step 2 chosen answers are 3\.50 nats a token less likely"):
        run([Standing(0.6, 0.9, -0.5, 0.5), Standing(0.5, 0.9, -3.5, 2.0)], EACH_STEP)


def test_a_policy_that_leaves_the_drift_budget_is_taken_back_to_the_best_within_it() -> None:
    drifting = [Standing(0.6 - n / 10, 0.9, 1.0 + n, 1.0 + n) for n in range(4)]
    guard, policy = run(drifting, replace(EACH_STEP, max_drift=2.5))
    assert policy.weight.item() == 2
    assert "chosen answers lie 3.00 nats a token from the base (budget 2.5)" in guard.note


def test_a_policy_that_was_never_within_the_budget_is_given_up() -> None:
    with pytest.raises(RuntimeError, match="no earlier evaluation was within it"):
        run([Standing(0.6, 0.9, 4.0, 4.0)] * 2, EACH_STEP)


def test_watched_answers_that_are_no_numbers_abort() -> None:
    with pytest.raises(RuntimeError, match="the watched answers' log-probs are no numbers"):
        run([Standing(NAN, 0.5, NAN, NAN)], EACH_STEP)


def test_a_resumed_guard_knows_what_it_knew() -> None:
    settings, told = EACH_STEP, lambda _event, **_facts: None
    first = WatchStanding(Scripted(losses(0.5, 0.6)), True, settings, told)
    state, control, policy = State(9), Control(), Policy()
    for state.global_step in (1, 2):
        first.on_step_end(None, state, control, policy)
    second = WatchStanding(Scripted(losses(0.7)), True, settings, told)
    second.restore_state(json.loads(json.dumps(first.read_state())))
    second.best_weights = first.best_weights
    state.global_step = 3
    second.on_step_end(None, state, control, policy)
    assert control.should_training_stop
    assert "best at step 1 (0.5000, now 0.7000)" in str(second.note)


def test_processes_that_measure_apart_stop_after_the_same_step() -> None:
    """Alone this one would go on for ever; what counts is the mean over all."""
    policy, state, control = Policy(), State(9), Control()
    theirs = iter([0.6, 0.7, 0.8])

    def gather(ours: torch.Tensor) -> torch.Tensor:
        return another_says([next(theirs), 0.5, 0.0, 0.0])(ours)

    guard = WatchStanding(Scripted(losses(0.60, 0.59, 0.58)), True, EACH_STEP, say_nothing, gather)
    for state.global_step in (1, 2, 3):
        guard.on_step_end(None, state, control, policy)
    assert control.should_training_stop
    assert "best at step 1 (0.6000, now 0.6900)" in str(guard.note)


def test_the_standing_of_an_unchanged_policy_is_that_of_its_reference(base: Any, settings: Any) -> None:
    from trl.trainer.utils import add_fused_lm_head

    from trainer.guarded import settle_policy
    from trainer.qlora import start_policy

    pairs = prepare_pairs(pair_rows(6), base.tokenizer, 256).rows
    policy = settle_policy(start_policy(base.model, settings, None))
    add_fused_lm_head(policy.get_base_model(), outputs=("log_probs",))
    watched = Watched(pairs, base.tokenizer.pad_token_id, watched_loss("dpo", TrainerSettings()))
    watched.remember_start(policy)
    standing = watched.measure(policy)
    assert (standing.accuracy, standing.chosen_gain, standing.drift) == (0.5, 0.0, 0.0)
    assert standing.loss == pytest.approx(0.693147, abs=1e-6)


def at_gap(nats_a_token: float) -> PairLogps:
    """One pair of 40 and 80 tokens whose chosen answer gained so much more than the rejected one."""
    sums = (-80.0 + 40 * nats_a_token, -160.0, -80.0, -160.0)
    return PairLogps(*(torch.tensor([value], dtype=torch.float64) for value in (*sums, 40.0, 80.0)))


@pytest.mark.parametrize(
    ("loss", "beta", "near", "far"),
    [
        ("ipo", 0.1, 1.0, 3.0),
        ("simpo", 2.0, 0.2, 1.0),
        ("sigmoid_norm", 5.0, 0.1, 0.4),
        ("sigmoid", 0.1, 0.6, 2.0),
    ],
)
def test_a_policy_on_its_way_to_what_the_loss_aims_at_gets_better(
    loss: Any, beta: float, near: float, far: float
) -> None:
    """cDPO over the summed gap called these worse, and the round went back to its first weights."""
    settings = TrainerSettings(loss=loss, beta=beta)
    watch, old = watched_loss("dpo", settings), watched_loss("dpo", replace(settings, loss="cdpo"))
    assert watch(at_gap(far)) < watch(at_gap(near))
    assert old(at_gap(far)) > old(at_gap(near))


def test_each_stage_is_watched_by_a_loss_of_its_own_and_the_default_is_cdpo() -> None:
    pairs, settings = at_gap(1.5), TrainerSettings()
    eps = torch.tensor([settings.label_smoothing], dtype=torch.float64)
    cdpo = cdpo_losses(settings.beta * pairs.logratio_gap, eps)
    assert torch.equal(watched_loss("dpo", settings)(pairs), cdpo)
    assert torch.equal(watched_loss("kto", replace(settings, loss="ipo"))(pairs), cdpo)
    assert watched_loss("sft", settings)(pairs).item() == 0.5  # 20 nats over 40 tokens


def test_what_is_watched_is_held_out_when_there_is_enough_of_it(base: Any) -> None:
    pairs = prepare_pairs(pair_rows(6), base.tokenizer, 256).rows
    assert choose_watched(pairs[:4], pairs, 4, 3) == (pairs[:3], True)
    assert choose_watched(pairs[:4], pairs, 5, 9) == (pairs[:5], False)
