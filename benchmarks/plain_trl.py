"""DPO the way tutorials write it: TRL's trainer on pairs of texts with LoRA, and nothing of ours.

    python -m benchmarks.plain_trl --model serving/starter --pairs pairs.jsonl

`guide` is the tutorial as it stands: one pair a step, whatever TRL does by itself (checkpointing, the
reference computed again in every step). `stock` lifts the two handicaps that are choices of the machine: the
batch is as large as ours, and activations are kept, since on a CPU recomputing them costs time and saves
memory nobody lacks. `tuned` is the best of TRL's own options: reference log-probs computed once, pairs of
like length in one batch, the fused optimizer.

One reading of a pair's file a line: {"prompt": text, "chosen": text, "rejected": text}.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.trainer_callback import PrinterCallback
from trl import DPOConfig, DPOTrainer

from benchmarks.training_measure import (
    Clock,
    Stopwatch,
    draw_adapter,
    held_out_accuracy,
    peak_mib,
    report,
)
from benchmarks.training_pairs import Pair, read_pairs

VARIANTS: dict[str, dict[str, Any]] = {
    "guide": {"per_device_train_batch_size": 1},
    "stock": {"activation_checkpointing": False},
    "tuned": {
        "activation_checkpointing": False,
        "precompute_ref_log_probs": True,
        "precompute_ref_batch_size": 16,
        "train_sampling_strategy": "group_by_length",
        "remove_unused_columns": False,  # else the column of lengths is gone before the sampler reads it
        "optim": "adamw_torch_fused",
    },
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What every way of training is told alike."""
    add = parser.add_argument
    add("--model", required=True, help="folder of the base model")
    add("--pairs", type=Path, required=True, help="pairs to train on, one JSON object a line")
    add("--held-out", type=Path, help="pairs to measure accuracy on afterwards")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="of weights (default: float32)")
    add("--nf4", action="store_true", help="4-bit weights that compute in --dtype")
    add("--epochs", type=int, default=3, help="(default: 3)")
    add("--batch-size", type=int, default=8, help="pairs a step (default: 8)")
    add("--learning-rate", type=float, default=5e-5, help="(default: 5e-5)")
    add("--rank", type=int, default=16, help="of LoRA on all linear layers (default: 16)")
    add("--steps", type=int, default=0, help="end after this many steps (default: 0, all epochs)")
    add(
        "--in-order", action="store_true", help="pairs in the order of the file, so that ways can be compared"
    )


def load_model(arguments: argparse.Namespace) -> Any:
    """The base model in the precision asked for."""
    dtype = getattr(torch, arguments.dtype)
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return AutoModelForCausalLM.from_pretrained(
        arguments.model, dtype=dtype, quantization_config=nf4 if arguments.nf4 else None
    )


def build_trainer(arguments: argparse.Namespace, pairs: Sequence[Pair], folder: str, clock: Clock) -> Any:
    """TRL's trainer on these pairs."""
    options: dict[str, Any] = {
        "per_device_train_batch_size": arguments.batch_size,
        "num_train_epochs": arguments.epochs,
        "learning_rate": arguments.learning_rate,
        "max_steps": arguments.steps or -1,
        "max_length": 256,
        "beta": 0.1,
        "loss_type": "sigmoid",
        "logging_steps": 1,
        "bf16": False,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
    } | VARIANTS[arguments.variant]
    if arguments.in_order:
        options["train_sampling_strategy"] = "sequential"
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    rows = Dataset.from_list([pair | {"length": _count_letters(pair)} for pair in pairs])
    model = load_model(arguments)
    torch.manual_seed(0)  # the adapter's first weights
    trainer = DPOTrainer(
        model=model,
        args=DPOConfig(output_dir=folder, **options),
        train_dataset=rows if arguments.variant == "tuned" else rows.remove_columns("length"),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=arguments.rank,
            lora_alpha=2 * arguments.rank,
            lora_dropout=0.0 if arguments.in_order else 0.05,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
        callbacks=[clock],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _count_letters(pair: Pair) -> int:
    return len(pair["prompt"]) + max(len(pair["chosen"]), len(pair["rejected"]))


def train(arguments: argparse.Namespace) -> Any:
    """One training; returns what was measured."""
    torch.set_num_threads(1)
    clock, reference = Clock(), Stopwatch()
    DPOTrainer._precompute_ref_logps = reference.around(DPOTrainer._precompute_ref_logps)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(arguments, read_pairs(arguments.pairs), folder, clock)
        if arguments.in_order:
            draw_adapter(trainer.model)
        trainer.train()
    peak = peak_mib()
    accuracy = _measure_accuracy(trainer, arguments)
    num_pairs = len(trainer.train_dataset)
    return report(arguments.variant, clock, reference.seconds, num_pairs, accuracy, peak)


def _measure_accuracy(trainer: Any, arguments: argparse.Namespace) -> float | None:
    if arguments.held_out is None:
        return None
    rows = Dataset.from_list(read_pairs(arguments.held_out))
    rows = trainer._prepare_dataset(rows, trainer.processing_class, trainer.args, "held-out")
    columns = (rows[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids"))
    return held_out_accuracy(trainer.model, list(zip(*columns, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plain_trl", description=__doc__)
    add_flags(parser)
    parser.add_argument(
        "--variant", choices=sorted(VARIANTS), default="guide", help="which options (default: guide)"
    )
    print(json.dumps(train(parser.parse_args())))


if __name__ == "__main__":
    main()
