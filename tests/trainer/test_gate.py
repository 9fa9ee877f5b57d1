"""The gate: what each check lets through, and a small zoo of bad adapters."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from safetensors.torch import load_file, save_file

from tests.trainer.conftest import pair_rows
from trainer.dpo import train_dpo
from trainer.gate import Check, check_accuracy, check_behaviour, check_drift, decide, run_gate
from trainer.limits import GateSettings
from trainer.preferences import prepare_pairs
from trainer.probes import Behaviour, choose_prompts, distinct_trigrams, is_repetitive
from trainer.progress import ProgressLog
from trainer.qlora import load_base, start_policy
from trainer.settings import BaseModel, TrainerSettings

SETTINGS = GateSettings(num_prompts=16, max_tokens=24)
ORDINARY = Behaviour(
    num_answers=40,
    empty=0.0,
    unended=0.05,
    repetitive=0.05,
    distinct=0.9,
    length=20.0,
    entropy=1.5,
    drift=0.2,
)


@pytest.fixture(scope="module")
def base(base_folder):
    return load_base(BaseModel(str(base_folder), quantization="none", dtype="float32"))


@pytest.fixture(scope="module")
def good(base, tmp_path_factory):
    """A candidate that learned from 64 pairs."""
    folder = tmp_path_factory.mktemp("good")
    settings = TrainerSettings(learning_rate=1e-3, beta=0.5)
    rows = prepare_pairs(pair_rows(64), base.tokenizer, 256).rows
    progress = ProgressLog(folder / "progress.jsonl")
    policy = train_dpo(
        start_policy(base.model, settings, None), base.tokenizer, rows, settings, folder, progress
    )
    policy.save_pretrained(folder / "good", selected_adapters=["default"])
    policy.unload()
    return folder / "good"


@pytest.fixture
def altered(good, tmp_path):
    """Makes a copy of the good candidate with its weights changed."""

    def alter(change):
        weights = {
            name: change(name, tensor)
            for name, tensor in load_file(good / "adapter_model.safetensors").items()
        }
        save_file(weights, tmp_path / "adapter_model.safetensors")
        (tmp_path / "adapter_config.json").write_text((good / "adapter_config.json").read_text())
        return tmp_path

    return alter


def gate(base, candidate, live=None, pairs=40):
    holdout = prepare_pairs(pair_rows(pairs, seed=1), base.tokenizer, 256).rows
    prompts = choose_prompts([row.messages for row in pair_rows(16, seed=1)], base.tokenizer, SETTINGS, 256)
    return run_gate(base, candidate, live, holdout, prompts, SETTINGS, lambda _done, _of: None)


def failed(verdict):
    return [check.name for check in verdict.checks if not check.passed]


def test_a_good_candidate_is_promoted(base, good):
    verdict = gate(base, good)
    assert failed(verdict) == []
    assert verdict.decision == "promote"
    accuracy = next(check for check in verdict.checks if check.name == "holdout_accuracy")
    assert accuracy.value > 0.9
    assert accuracy.live == 0.5
    assert len(accuracy.details) == 40
    json.dumps(verdict.as_json(), allow_nan=False)


def test_the_same_candidate_gets_the_same_verdict_twice(base, good):
    assert gate(base, good) == gate(base, good)


def test_a_candidate_equal_to_live_is_within_noise_of_it(base, good):
    verdict = gate(base, good, live=good)
    assert verdict.decision == "promote"
    assert "within noise of live's" in verdict.reason


def test_nan_weights_are_rejected_before_anything_runs(base, altered):
    verdict = gate(base, altered(lambda _name, tensor: tensor.clone().fill_(float("nan"))))
    assert verdict.decision == "reject"
    assert failed(verdict) == ["finite_weights"]
    assert "not finite" in verdict.reason


def test_a_zero_adapter_is_rejected(base, altered):
    verdict = gate(base, altered(lambda name, tensor: tensor * 0 if "lora_B" in name else tensor))
    assert failed(verdict) == ["nonzero_delta"]
    assert verdict.reason == "the adapter changes nothing"


def test_a_blown_up_adapter_is_rejected(base, altered):
    verdict = gate(base, altered(lambda _name, tensor: tensor * 50))
    assert verdict.decision == "reject"
    assert "own_drift" in failed(verdict) or "finite_outputs" in failed(verdict)


def test_an_adapter_that_learned_the_opposite_is_rejected(base, altered):
    verdict = gate(base, altered(lambda name, tensor: -tensor if "lora_B" in name else tensor))
    assert "holdout_accuracy" in failed(verdict)


def test_a_worse_candidate_does_not_replace_a_good_one(base, good, altered):
    worse = altered(lambda name, tensor: -0.1 * tensor if "lora_B" in name else tensor)
    assert "holdout_accuracy" in failed(gate(base, worse, live=good))


def test_few_held_out_pairs_decide_nothing_and_say_so(base, good):
    verdict = gate(base, good, pairs=9)
    assert verdict.decision == "promote"
    assert "accuracy is not decided: not enough held-out pairs (9 of 10)" in verdict.reason


def test_no_held_out_pairs_at_all_still_leave_the_candidates_own_drift_measured(base, good):
    verdict = gate(base, good, pairs=0)
    assert "own_drift" in [check.name for check in verdict.checks if check.value is not None]


def test_without_prompts_nothing_is_promoted(base, good):
    verdict = run_gate(base, good, None, (), [], SETTINGS, lambda _done, _of: None)
    assert verdict.decision == "reject"
    assert "could not be measured: no prompt is short enough" in verdict.reason


def test_no_checks_are_no_reason_to_promote():
    assert decide([]).decision == "reject"


@pytest.mark.parametrize(
    ("right", "live_right", "passes"),
    [(10, 10, True), (8, 9, True), (2, 8, False), (3, 5, True), (1, 5, False), (10, 5, True)],
)
def test_with_ten_pairs_only_a_clear_loss_rejects(right, live_right, passes):
    candidate = [1.0] * right + [0.0] * (10 - right)
    live = [1.0] * live_right + [0.0] * (10 - live_right)
    check = check_accuracy(candidate, live, GateSettings())
    assert check.passed is passes
    assert check.noise_floor >= 0.05


def test_with_many_pairs_a_small_loss_rejects():
    live = [1.0] * 800 + [0.0] * 200
    candidate = [1.0] * 700 + [0.0] * 300
    check = check_accuracy(candidate, live, GateSettings())
    assert not check.passed
    assert check.threshold == pytest.approx(0.75, abs=0.01)


def test_drift_has_a_budget_in_both_directions():
    assert check_drift(-0.4, GateSettings()).passed
    assert not check_drift(-9.0, GateSettings()).passed
    assert not check_drift(9.0, GateSettings()).passed


@pytest.mark.parametrize(
    ("change", "fails"),
    [
        ({}, []),
        ({"empty": 0.5}, ["empty_share"]),
        ({"unended": 0.9}, ["unended_share"]),
        ({"repetitive": 0.6}, ["repetitive_share"]),
        ({"distinct": 0.2}, ["distinct_3"]),
        ({"length": 90.0}, ["length_ratio"]),
        ({"length": 1.0}, ["length_ratio"]),
        ({"entropy": 4.0}, ["entropy_ratio"]),
        ({"entropy": 0.1}, ["entropy_ratio"]),
        ({"drift": 99.0}, ["own_drift"]),
        ({"drift": float("nan")}, ["own_drift"]),
    ],
)
def test_each_way_to_degenerate_has_a_check(change, fails):
    checks = check_behaviour(replace(ORDINARY, **change), ORDINARY, ORDINARY, GateSettings())
    assert [check.name for check in checks if not check.passed] == fails


def test_the_reason_names_every_failed_check():
    checks = [Check(name, None, None, None, None, name == "a", f"{name} says so") for name in "abc"]
    assert decide(checks).reason == "b says so; c says so"


def test_repetition_is_a_sentence_said_twice_or_a_loop_of_words():
    assert is_repetitive("The sea is wide. Fish live there. The sea is wide.")
    assert is_repetitive("go on " * 8)
    assert not is_repetitive("Yes. Yes. The sea is wide and fish live in it.")
    assert not is_repetitive("")


def test_distinct_trigrams_counts_over_all_answers():
    assert distinct_trigrams(["a b c d", "a b c e"]) == pytest.approx(3 / 4)
    assert distinct_trigrams(["a", ""]) == 1.0
