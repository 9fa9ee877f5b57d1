"""The shared-prompt DPO trainer: equal to the library's, weights that mean what they say, and learning."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import Gemma2Config, LlamaConfig, MistralConfig, MistralForCausalLM, Qwen2Config
from trl import DPOConfig, DPOTrainer

from store.errors import BadValue
from tests.trainer.conftest import accuracy, pair_rows
from trainer.dpo import build_pair_trainer, flip_of, pair_dataset, train_dpo
from trainer.library import shared_arguments
from trainer.losses import cdpo_losses
from trainer.pair_layout import SharedPromptCollator, refuse_window
from trainer.pair_trainer import PairTrainer
from trainer.preferences import prepare_pairs
from trainer.qlora import LoadedBase, read_weights, start_policy
from trainer.settings import TrainerSettings


class StockTrainer(DPOTrainer):
    """The library's trainer, given ids; only the tokenising step is left out."""

    def _prepare_dataset(self, dataset, *_args, **_kwargs):
        return dataset


def prepared(base, count, seed=0):
    return prepare_pairs(pair_rows(count, seed), base.tokenizer, 256).rows


def train(base, rows, settings, folder):
    """The trained weights; the base is left as it was."""
    trainer = build_pair_trainer(
        start_policy(base.model, settings, None), base.tokenizer, rows, settings, folder
    )
    trainer.train()
    weights = read_weights(trainer.model)
    trainer.model.unload()
    return weights, trainer.state.log_history


def largest_difference(one, other):
    return max((one[name] - other[name]).abs().max().item() for name in one)


def test_losses_and_metrics_equal_the_librarys_to_five_decimals(base, settings, tmp_path):
    settings = replace(settings, label_smoothing=0.0, learning_rate=1e-2, epochs=6)
    rows = prepared(base, 8)
    columns = ("prompt_ids", "chosen_ids", "rejected_ids")
    arguments = shared_arguments(settings, tmp_path, 1e-2, 6, 8) | {"precompute_ref_log_probs": False}
    start = start_policy(base.model, settings, None)
    stock = StockTrainer(
        model=start.model,
        args=DPOConfig(**arguments),
        train_dataset=Dataset.from_list([{name: list(getattr(r, name)) for name in columns} for r in rows]),
        processing_class=base.tokenizer,
        peft_config=start.peft_config,
    )
    stock.train()
    stock.model.unload()
    _, ours = train(base, rows, settings, tmp_path)

    # Sharing the prompt saves tokens and time; everything else is the same number.
    differs = {
        "num_tokens",
        "train_runtime",
        "train_samples_per_second",
        "train_steps_per_second",
        "total_flos",
    }
    added = {"lengths/chosen", "lengths/rejected", "loss/preference"}
    for theirs, mine in zip(stock.state.log_history, ours, strict=True):
        assert set(theirs) == set(mine) - added
        same = sorted(set(theirs) - differs)
        assert [mine[name] for name in same] == pytest.approx(
            [theirs[name] for name in same], abs=2e-4, rel=1e-4
        )
        assert mine.get("loss", 0.0) == pytest.approx(theirs.get("loss", 0.0), abs=1e-5)


def test_smoothed_loss_is_smallest_at_a_finite_margin():
    margins = torch.linspace(-6, 6, 2401)
    losses = cdpo_losses(margins, torch.full_like(margins, 0.1))
    assert margins[losses.argmin()].item() == pytest.approx(log(0.9 / 0.1), abs=0.01)


def test_rejected_answer_does_not_see_the_chosen_one():
    rows = [{"prompt_ids": [5, 6, 7], "chosen_ids": [8, 9], "rejected_ids": [10, 11, 12]}]
    batch = SharedPromptCollator(pad_id=0)(rows)
    assert batch["input_ids"][0].tolist() == [5, 6, 7, 8, 9, 7, 10, 11, 12]
    assert batch["position_ids"][0].tolist() == [0, 1, 2, 3, 4, 2, 3, 4, 5]
    assert batch["labels"][0].tolist() == [-100, -100, -100, 8, 9, -100, 10, 11, 12]
    seen_by_last = batch["attention_mask"][0, 0, 8].tolist()
    assert seen_by_last == [True, True, False, False, False, True, True, True, True]


def test_a_pair_of_weight_zero_trains_like_no_pair(base):
    rows = [*pair_rows(7), *pair_rows(1, seed=9, weight=0.0)]
    with_it = prepare_pairs(rows, base.tokenizer, 256)
    without = prepare_pairs(rows[:7], base.tokenizer, 256)
    assert [notice.what for notice in with_it.notices] == ["left out: its weight is 0"]
    assert with_it.rows == without.rows


def test_a_pair_of_weight_two_trains_like_two_pairs(base, settings, tmp_path):
    settings = replace(settings, batch_size=16, optimizer="sgd", learning_rate=0.5)
    rows = pair_rows(7)
    heavy = prepare_pairs([replace(rows[0], weight=2.0), *rows[1:]], base.tokenizer, 256).rows
    twice = prepare_pairs([replace(rows[0], row_id="again"), *rows], base.tokenizer, 256).rows
    assert (
        largest_difference(
            train(base, heavy, settings, tmp_path)[0], train(base, twice, settings, tmp_path)[0]
        )
        < 1e-5
    )
    light = prepare_pairs(rows, base.tokenizer, 256).rows
    assert (
        largest_difference(
            train(base, heavy, settings, tmp_path)[0], train(base, light, settings, tmp_path)[0]
        )
        > 1e-4
    )


def test_the_same_plan_gives_the_same_tensors(base, settings, tmp_path):
    rows = prepared(base, 24)
    one, other = (train(base, rows, settings, tmp_path)[0] for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_like_lengths_share_a_batch(base, settings, tmp_path):
    trainer = build_pair_trainer(
        start_policy(base.model, settings, None), base.tokenizer, prepared(base, 64), settings, tmp_path
    )
    order = list(trainer._get_train_sampler())
    lengths = [
        len(trainer.train_dataset[i]["chosen_ids"]) + len(trainer.train_dataset[i]["rejected_ids"])
        for i in order
    ]
    spread = [max(b) - min(b) for b in (lengths[i : i + 8] for i in range(0, 64, 8))]
    assert sorted(order) == list(range(64))
    assert max(spread) < max(lengths) - min(lengths)


def test_dpo_raises_held_out_accuracy(base, settings, tmp_path, progress):
    policy = train_dpo(
        start_policy(base.model, settings, None),
        base.tokenizer,
        prepared(base, 96),
        settings,
        tmp_path,
        progress,
    )
    assert accuracy(policy, prepared(base, 40, seed=1)) > 0.95
    lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 25))
    assert lines[0]["loss"] == pytest.approx(log(2), abs=1e-5)
    assert {"stage", "max_steps", "rewards/margins", "rewards/accuracies", "logps/chosen"} <= set(lines[0])


def test_training_in_the_wrong_number_of_processes_is_refused(base, settings, tmp_path):
    with pytest.raises(RuntimeError, match="1 processes instead of 2: check the launcher"):
        build_pair_trainer(
            start_policy(base.model, settings, None),
            base.tokenizer,
            prepared(base, 8),
            replace(settings, processes=2),
            tmp_path,
        )


def test_the_pair_trainer_is_still_the_librarys():
    assert issubclass(PairTrainer, DPOTrainer)


def test_the_likelihood_term_keeps_chosen_answers_likelier(base, settings, tmp_path):
    rows = prepared(base, 48)
    histories = [
        train(base, rows, replace(settings, sft_weight=weight), tmp_path)[1] for weight in (0.0, 3.0)
    ]
    without, with_it = (history[-2]["logps/chosen"] for history in histories)
    assert with_it > without + 1.0


@pytest.mark.parametrize(("max_steps", "steps"), [(0, 4), (3, 3), (100, 4)])
def test_a_cap_on_steps_only_ever_shortens_training(base, settings, tmp_path, max_steps, steps):
    settings = replace(settings, epochs=2, batch_size=4, max_steps=max_steps)
    _, log = train(base, prepared(base, 8), settings, tmp_path)
    assert max(entry["step"] for entry in log) == steps


@pytest.mark.parametrize(
    ("probability", "label_smoothing", "flip"),
    [(1.0, 0.1, 0.1), (0.95, 0.1, 0.1), (0.9, 0.1, 0.1), (0.7, 0.1, 0.3), (0.55, 0.0, 0.45), (1.0, 0.0, 0.0)],
)
def test_measured_doubt_replaces_the_smoothing_where_it_is_larger(probability, label_smoothing, flip):
    assert flip_of(probability, label_smoothing) == pytest.approx(flip)


def test_a_doubtful_pair_is_trained_with_its_own_flip(base):
    rows = [replace(row, probability=p) for row, p in zip(pair_rows(3), (1.0, 0.8, 0.6), strict=True)]
    prepared_rows = prepare_pairs(rows, base.tokenizer, 256).rows
    assert pair_dataset(prepared_rows, 0.1)["flip"] == pytest.approx([0.1, 0.2, 0.4])


def test_the_reference_is_what_the_base_says_of_each_row_in_the_rows_order(base, settings, tmp_path):
    trainer = build_pair_trainer(
        start_policy(base.model, settings, None), base.tokenizer, prepared(base, 70), settings, tmp_path
    )
    for row in list(trainer.train_dataset)[::10]:
        alone = trainer.compute_ref_log_probs(trainer.model, trainer.data_collator([row]))
        assert [row["ref_chosen_logps"], row["ref_rejected_logps"]] == pytest.approx(
            [values.item() for values in alone], abs=1e-4
        )


def mistral(**changes: Any) -> MistralForCausalLM:
    """A tiny one with random weights, whose attention reaches 16 tokens back."""
    shape = {"vocab_size": 128, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "sliding_window": 16}
    return MistralForCausalLM(MistralConfig(**shape, **heads, **changes))


def test_a_model_with_a_sliding_window_trains_on_no_pair_that_is_longer(
    base: LoadedBase, settings: TrainerSettings, tmp_path: Path
) -> None:
    """The library takes a mask of four dimensions as it is, so the window would silently be left out."""
    rows = prepare_pairs(pair_rows(8), base.tokenizer, 256).rows
    start = start_policy(mistral(), settings, None)
    says = "mistral model has layers that see 16 tokens back, and max_length is 256"
    with pytest.raises(BadValue, match=says):
        build_pair_trainer(start, base.tokenizer, rows, replace(settings, max_length=256), tmp_path)


@pytest.mark.parametrize(
    ("config", "is_refused"),
    [
        (MistralConfig(sliding_window=None), False),
        (MistralConfig(sliding_window=256), False),
        (MistralConfig(sliding_window=255), True),
        (Qwen2Config(use_sliding_window=False, sliding_window=16), False),
        (Gemma2Config(sliding_window=16), True),
        (Gemma2Config(sliding_window=16, layer_types=["full_attention"] * 26), False),
        (LlamaConfig(), False),
    ],
)
def test_a_window_counts_where_a_layer_uses_it(config: Any, is_refused: bool) -> None:
    with pytest.raises(BadValue, match="sliding window") if is_refused else nullcontext():
        refuse_window(config, 256)
