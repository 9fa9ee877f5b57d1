"""The least a pair can cost: its matrix products, at the rate this machine makes them.

python -m benchmarks.training_floor --model serving/starter --pairs pairs.jsonl
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import torch

from benchmarks.plain_trl import add_flags
from benchmarks.training_ours import read_rows
from trainer.qlora import load_base
from trainer.settings import BaseModel

TOKENS = 512  # rows of the product that is timed: about a batch
PRODUCTS = 20


def measure_rate(width: int, dtype: torch.dtype) -> float:
    """Floating-point operations a CPU second in products shaped like the model's; the median of some."""
    left, right = torch.randn(TOKENS, width).to(dtype), torch.randn(width, 3 * width).to(dtype)
    seconds = []
    for _ in range(PRODUCTS):
        began = time.process_time()
        left @ right
        seconds.append(time.process_time() - began)
    return 2 * TOKENS * width * 3 * width / statistics.median(seconds)


def find_floor(arguments: argparse.Namespace) -> dict[str, float]:
    """Milliseconds a pair. Two operations a weight and token; the backward multiplies once, since frozen
    weights get no gradient. Attention, LoRA and everything that is no product counts as nothing."""
    torch.set_num_threads(1)
    base = load_base(BaseModel(arguments.model, quantization="none", dtype=arguments.dtype))
    rows = read_rows(arguments.pairs, base.tokenizer)
    head = base.model.get_output_embeddings()
    linear = [m for m in base.model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    weights = sum(m.weight.numel() for m in linear)
    tokens = statistics.mean(row.num_tokens for row in rows)
    answers = statistics.mean(len(row.chosen_ids) + len(row.rejected_ids) for row in rows)
    passes = 2 + 1 / arguments.epochs  # forward, backward, and the reference once
    work = 2 * passes * (weights * tokens + head.weight.numel() * answers)
    # A CPU without bfloat16 multiplies faster in float32, and nothing keeps a training from doing so.
    types = {getattr(torch, arguments.dtype), torch.float32}
    rate = max(measure_rate(base.model.config.hidden_size, dtype) for dtype in types)
    return {
        "ms_per_pair": 1000 * work / rate,
        "gflops": rate / 1e9,
        "tokens": tokens,
        "answer_tokens": answers,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_floor", description=__doc__)
    add_flags(parser)
    told: Any = find_floor(parser.parse_args())
    print(json.dumps(told))


if __name__ == "__main__":
    main()
