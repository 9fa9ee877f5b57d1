"""Our trainer on the same texts, with the same measure as `benchmarks.plain_trl`.

python -m benchmarks.training_ours --model serving/starter --pairs pairs.jsonl
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import SequentialSampler

from benchmarks.plain_trl import add_flags
from benchmarks.training_measure import (
    Clock,
    Stopwatch,
    draw_adapter,
    held_out_accuracy,
    peak_mib,
    report,
)
from benchmarks.training_pairs import Pair, read_pairs
from trainer.dpo import build_pair_trainer
from trainer.pair_trainer import PairTrainer
from trainer.preferences import TrainingPair
from trainer.qlora import load_base, start_policy
from trainer.settings import BaseModel, TrainerSettings


def read_rows(path: Path, tokenizer: Any) -> list[TrainingPair]:
    """The pairs as token ids, as TRL tokenises them: an answer begins where its prompt ends."""
    return [_tokenize(f"p{place:05}", pair, tokenizer) for place, pair in enumerate(read_pairs(path))]


def _tokenize(row_id: str, pair: Pair, tokenizer: Any) -> TrainingPair:
    prompt = tokenizer(pair["prompt"])["input_ids"]
    answers = []
    for side in ("chosen", "rejected"):
        whole = tokenizer(pair["prompt"] + pair[side] + tokenizer.eos_token)["input_ids"]
        assert whole[: len(prompt)] == prompt, f"{row_id}: a token spans prompt and answer"
        answers.append(tuple(whole[len(prompt) :]))
    return TrainingPair(row_id, tuple(prompt), *answers)


def train(arguments: argparse.Namespace) -> Any:
    """One training; returns what was measured."""
    torch.set_num_threads(1)
    clock, reference = Clock(), Stopwatch()
    settings = TrainerSettings(
        beta=0.1,
        label_smoothing=0.0,
        sft_weight=0.0,
        learning_rate=arguments.learning_rate,
        epochs=arguments.epochs,
        max_steps=arguments.steps,
        batch_size=arguments.batch_size,
        rank=arguments.rank,
        alpha=2 * arguments.rank,
        warmup=0.0,
    )
    PairTrainer._precompute_ref_logps = reference.around(PairTrainer._precompute_ref_logps)
    if arguments.in_order:
        PairTrainer._get_train_sampler = lambda self, *_: SequentialSampler(self.train_dataset)
    quantization = "nf4" if arguments.nf4 else "none"
    base = load_base(BaseModel(arguments.model, quantization=quantization, dtype=arguments.dtype))
    rows = read_rows(arguments.pairs, base.tokenizer)
    torch.manual_seed(0)  # the adapter's first weights
    start = start_policy(base.model, settings, None)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_pair_trainer(start, base.tokenizer, rows, settings, Path(folder))
        if arguments.in_order:
            draw_adapter(trainer.model)
        trainer.add_callback(clock)
        trainer.train()
    peak, accuracy = peak_mib(), None
    if arguments.held_out is not None:
        held_out = read_rows(arguments.held_out, base.tokenizer)
        accuracy = held_out_accuracy(
            trainer.model, [(r.prompt_ids, r.chosen_ids, r.rejected_ids) for r in held_out]
        )
    return report("ours", clock, reference.seconds, len(rows), accuracy, peak)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_ours", description=__doc__)
    add_flags(parser)
    print(json.dumps(train(parser.parse_args())))


if __name__ == "__main__":
    main()
