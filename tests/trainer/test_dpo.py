"""The shared-prompt DPO trainer: equal to the library's, weights that mean what they say, and learning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import pair_rows
from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from trainer.dpo import SharedPromptCollator, build_pair_trainer, cdpo_losses, train_dpo
from trainer.library import shared_arguments
from trainer.preferences import TrainingPair, prepare_pairs
from trainer.qlora import read_weights, start_policy
from trainer.settings import TrainerSettings


def prepared(base, count, seed=0):
    return prepare_pairs(pair_rows(count, seed), base.tokenizer, 256).rows


def test_losses_equal_the_librarys_sigmoid_loss_to_five_decimals(base, settings, tmp_path):
    settings = replace(settings, label_smoothing=0.0)
    rows = prepared(base, 8)
    stock_rows = [{"prompt_ids": list(r.prompt_ids), "chosen_ids": list(r.chosen_ids), "rejected_ids": list(r.rejected_ids)} for r in rows]

    class StockTrainer(DPOTrainer):
        def _prepare_dataset(self, dataset, *args, **kwargs):
            return dataset

    arguments = shared_arguments(settings, tmp_path, 1e-2, 6) | {"precompute_ref_log_probs": False}
    start = start_policy(base.model, settings, None)
    stock = StockTrainer(
        model=start.model,
        args=DPOConfig(**arguments),
        train_dataset=Dataset.from_list(stock_rows),
        processing_class=base.tokenizer,
        peft_config=start.peft_config,
    )
    stock.train()
    ours = build_pair_trainer(start_policy(stock.model.unload(), settings, None), base.tokenizer, rows, replace(settings, learning_rate=1e-2, epochs=6), tmp_path)
    ours.train()
    for one, other in zip(stock.state.log_history, ours.state.log_history, strict=True):
        print(one, other)
