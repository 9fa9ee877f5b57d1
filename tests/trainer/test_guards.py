"""What is not a number and what takes too long: neither spoils an adapter (test_watching.py has the rest)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainerCallback

from store.errors import BadValue
from tests.trainer.conftest import pair_rows, rating_rows, write_snapshot
from tests.trainer.killing import events, read_lines, tensors, write_plan
from tests.trainer.stepping import Control, State, another_says
from trainer.guarded import begin_guarded
from trainer.guards import Clock, say_nothing
from trainer.limits import GateSettings, GuardSettings
from trainer.progress import ProgressLog
from trainer.round import reach_verdict
from trainer.saving import EndInTime, restore_guards, save_guards
from trainer.settings import BaseModel, RoundPlan, TrainerSettings
from trainer.stopping import Stopping

NAN = float("nan")
TRAINER = TrainerSettings(
    learning_rate=1e-3, kto_learning_rate=1e-3, beta=0.5, max_length=256, rank=4, alpha=8, batch_size=4
)
GUARDS = GuardSettings(save_minutes=0, min_holdout_pairs=10)
NUM_STEPS = {"dpo": 6, "kto": 5}


@pytest.fixture
def plan(base_folder: Path) -> RoundPlan:
    gate = GateSettings(num_prompts=1, max_tokens=4)
    return RoundPlan("r1", "v1", "v0", BaseModel(str(base_folder)), trainer=TRAINER, gate=gate, guards=GUARDS)


@pytest.fixture
def folder(tmp_path: Path, plan: RoundPlan) -> Path:
    write_snapshot(tmp_path / "snapshot", pair_rows(24), rating_rows(20, 20), holdout=pair_rows(12, seed=1))
    write_plan(tmp_path, plan)
    return tmp_path


class Inject(TrainerCallback):  # type: ignore[misc]
    """Spoils a training of one stage at one step."""

    def __init__(self, stage: str, step: int, what: str) -> None:
        self.stage, self.step, self.what = stage, step, what
        self.has_struck = False

    def _is_now(self, args: Any, state: Any) -> bool:
        return Path(args.output_dir).name == self.stage and state.global_step == self.step

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:  # noqa: ARG002
        if self._is_now(args, state) and self.what == "weights":
            next(p for p in model.parameters() if p.requires_grad).data.view(-1)[0] = NAN
            self.has_struck = True

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **rest: Any) -> None:  # noqa: ARG002
        if not self._is_now(args, state):
            return
        if self.what == "gradients":
            next(p for p in model.parameters() if p.grad is not None).grad.view(-1)[0] = NAN
            self.has_struck = True
        elif self.what == "optimizer":
            self._spoil(rest["optimizer"])

    def _spoil(self, optimizer: Any) -> None:
        kept = next(iter(optimizer.state.values()), None)
        if kept is not None:  # none before the first step
            kept["exp_avg"].view(-1)[0] = NAN
            self.has_struck = True


@pytest.fixture
def inject(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int, str], Inject]:
    def strike(stage: str, step: int, what: str) -> Inject:
        injected = Inject(stage, step, what)
        train, training_step = Trainer.train, Trainer.training_step

        def with_injection(trainer: Any, *args: Any, **kwargs: Any) -> Any:
            trainer.callback_handler.callbacks.insert(0, injected)  # before every guard
            return train(trainer, *args, **kwargs)

        def spoilt_loss(trainer: Any, *args: Any, **kwargs: Any) -> Any:
            if what == "loss" and injected._is_now(trainer.args, trainer.state):
                injected.has_struck = True
                hook = trainer.model.register_forward_hook(_spoil_output)
                try:
                    return training_step(trainer, *args, **kwargs)
                finally:
                    hook.remove()
            return training_step(trainer, *args, **kwargs)

        monkeypatch.setattr(Trainer, "train", with_injection)
        monkeypatch.setattr(Trainer, "training_step", spoilt_loss)
        return injected

    return strike


def _spoil_output(_module: Any, _inputs: Any, outputs: Any) -> None:
    for name in ("logits", "log_probs"):  # DPO reads one, KTO and the evaluations the other
        if getattr(outputs, name, None) is not None:
            setattr(outputs, name, getattr(outputs, name) * NAN)


MOMENTS = [
    ("dpo", 0, "gradients"),
    pytest.param("dpo", 3, "loss", marks=pytest.mark.slow),
    pytest.param("dpo", 5, "gradients", marks=pytest.mark.slow),
    ("kto", 4, "loss"),
    pytest.param("kto", 0, "gradients", marks=pytest.mark.slow),
]
BREAKING = [
    pytest.param("dpo", 0, "weights", marks=pytest.mark.slow),
    ("dpo", 5, "weights"),
    pytest.param("dpo", 2, "optimizer", marks=pytest.mark.slow),
    ("kto", 4, "optimizer"),
]


@pytest.mark.parametrize(("stage", "step", "what"), MOMENTS)
def test_one_nan_step_is_skipped_and_the_round_recovers(
    folder: Path, inject: Callable[[str, int, str], Inject], stage: str, step: int, what: str
) -> None:
    injected = inject(stage, step, what)
    assert reach_verdict(folder) == 0
    assert injected.has_struck
    assert [line["at_step"] for line in events(folder, "step_skipped")] == [step + 1]
    assert (
        max(int(str(line.get("step", 0))) for line in read_lines(folder) if line["stage"] == stage)
        == (NUM_STEPS[stage])
    )
    weights = tensors(folder)
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    assert any(tensor.any() for name, tensor in weights.items() if "lora_B" in name)


@pytest.mark.parametrize(("stage", "step", "what"), BREAKING)
def test_what_no_later_step_mends_aborts_and_nothing_is_published(
    folder: Path,
    inject: Callable[[str, int, str], Inject],
    caplog: pytest.LogCaptureFixture,
    stage: str,
    step: int,
    what: str,
) -> None:
    injected = inject(stage, step, what)
    assert reach_verdict(folder) == 1
    assert injected.has_struck
    assert f"training diverged: step {step + 1} left base_model" in caplog.records[-1].getMessage()
    assert not list(folder.glob("candidate*"))
    assert not (folder / "gate.json").exists()


def test_too_many_nan_steps_abort_with_the_number(
    folder: Path, plan: RoundPlan, inject: Callable[[str, int, str], Inject], caplog: pytest.LogCaptureFixture
) -> None:
    write_plan(folder, replace(plan, guards=replace(GUARDS, max_bad_steps=1)))
    inject("dpo", 1, "gradients")
    assert reach_verdict(folder) == 1
    assert "training diverged: 1 steps with a non-finite gradient" in caplog.records[-1].getMessage()
    assert not list(folder.glob("candidate*"))


@pytest.mark.slow
def test_a_round_with_few_held_out_pairs_says_that_nothing_stops_early(folder: Path, plan: RoundPlan) -> None:
    write_plan(folder, replace(plan, guards=replace(GUARDS, min_holdout_pairs=13)))
    assert reach_verdict(folder) == 0
    [in_kto, _in_dpo] = events(folder, "no_early_stop")
    assert in_kto["says"] == "nothing stops early: 12 held-out pairs of 13 needed"
    assert events(folder, "evaluation")


def test_a_round_that_stops_early_says_so_and_hands_over_its_best_weights(
    folder: Path, plan: RoundPlan
) -> None:
    trainer = replace(TRAINER, learning_rate=0.5, epochs=4, warmup=0.0, schedule="constant")
    guards = replace(GUARDS, patience=1, eval_steps=1, max_collapse=0, max_drift=0)
    write_plan(folder, replace(plan, trainer=trainer, guards=guards))
    assert reach_verdict(folder) == 0
    stopped = next(line for line in events(folder, "stopped_early") if line["stage"] == "dpo")
    assert int(str(stopped["at_step"])) < 24
    [restored] = [line for line in events(folder, "best_restored") if line["stage"] == "dpo"]
    evaluations = [line for line in events(folder, "evaluation") if line["stage"] == "dpo"]
    best = min(evaluations, key=lambda line: float(str(line["loss"])))
    assert restored["at_step"] == best["at_step"]
    assert "stopped early at step" in (folder / "candidate" / "README.md").read_text()


def test_a_round_ends_at_its_time_limit_and_what_it_has_is_judged(folder: Path, plan: RoundPlan) -> None:
    write_plan(folder, replace(plan, guards=replace(GUARDS, max_minutes=1e-6)))
    assert reach_verdict(folder) == 0
    assert [line["at_step"] for line in events(folder, "time_is_up")] == [1]
    # Before the first evaluation was due: collapse and drift are looked at all the same.
    assert [line["at_step"] for line in events(folder, "evaluation")] == [1]
    card = (folder / "candidate" / "README.md").read_text()
    assert "stopped at step 1 of 5: max_minutes 1e-06 are over" in card
    assert "skipped: no time was left for it" in card


def test_a_clock_counts_what_an_earlier_process_spent() -> None:
    clock = Clock(limit_s=100.0)
    assert not clock.is_up
    clock.go_on_from(100.0)
    assert clock.is_up
    assert not Clock(limit_s=0.0, spent_s=1e9).is_up


def test_a_checkpoint_of_a_later_stage_does_not_count_the_earlier_ones_again(tmp_path: Path) -> None:
    """Stage 1 took 25 minutes and stage 2 was killed at 35 in all; it went on as if 60 were over."""
    save_guards(tmp_path, {}, Clock(3600.0, spent_s=2100.0))
    clock = Clock(3600.0)
    clock.go_on_from(1500.0)  # as the finished stage says
    restore_guards(tmp_path, {}, clock)
    assert not clock.is_up
    assert clock.spent_s >= 2100.0


@pytest.mark.parametrize("is_over_elsewhere", [True, False])
def test_a_process_whose_own_clock_is_not_up_ends_with_the_others(is_over_elsewhere: bool) -> None:
    state, control = State(9), Control()
    state.global_step = 4
    limit = EndInTime(Clock(60.0), 1.0, another_says([is_over_elsewhere]), say_nothing)
    limit.on_step_end(None, state, control)
    assert control.should_training_stop == is_over_elsewhere


def test_a_stage_is_skipped_by_all_processes_when_the_time_of_one_is_over(
    tmp_path: Path, plan: RoundPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One went on to KTO and waited there for a process that had left."""
    guarded = begin_guarded(
        tmp_path, plan, "", "", {}, ProgressLog(tmp_path / "progress.jsonl"), Stopping(), (), ()
    )
    assert guarded.has_time()
    monkeypatch.setattr("trainer.guarded.gather_between_stages", lambda _: another_says([True]))
    assert not guarded.has_time()


def test_what_was_trained_from_another_parent_is_not_gone_on_with(tmp_path: Path, plan: RoundPlan) -> None:
    log, weights = ProgressLog(tmp_path / "progress.jsonl"), tmp_path / "adapter_model.safetensors"

    def begin(live: Path | None) -> str:
        return begin_guarded(tmp_path, plan, "", "", {}, log, Stopping(), (), (), live=live).origin

    origins = [begin(None)]
    for content in ("one", "another"):
        weights.write_text(content)
        origins.append(begin(tmp_path))
    assert len(set(origins)) == 3
    weights.write_text("one")
    assert begin(tmp_path) == origins[1]


def test_the_files_of_tensorboard_survive_the_round(
    folder: Path, plan: RoundPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its package is played here: a writer that leaves a file. `work` goes when the round is over."""

    class SummaryWriter:
        def __init__(self, log_dir: str) -> None:
            Path(log_dir).mkdir(parents=True)
            (Path(log_dir) / "events").touch()
            self.add_text = self.add_scalar = lambda *_: None
            self.flush = self.close = lambda: None

    monkeypatch.setattr("trainer.settings.find_spec", lambda name: name)
    monkeypatch.setattr("transformers.integrations.integration_utils.is_tensorboard_available", lambda: True)
    played = SimpleNamespace(SummaryWriter=SummaryWriter)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", played)
    write_plan(folder, replace(plan, trainer=replace(TRAINER, report_to=("tensorboard",))))
    assert reach_verdict(folder) == 0
    assert not (folder / "work").exists()
    assert [(folder / "tensorboard" / stage / "events").exists() for stage in ("dpo", "kto")] == [True] * 2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"max_bad_steps": 0}, "max_bad_steps 0 must be at least 1"),
        ({"max_drift": -1.0}, "max_drift -1.0 cannot be negative"),
        ({"min_holdout_pairs": 1}, "min_holdout_pairs 1 must be at least 2"),
        ({"min_holdout_pairs": 200}, "at most max_holdout_pairs 128"),
    ],
)
def test_an_impossible_guard_is_refused_in_words(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BadValue, match=says):
        replace(GUARDS, **changes)
