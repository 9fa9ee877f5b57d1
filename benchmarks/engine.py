"""How fast the engine answers 8 people at once: our scheduler against the ways the library offers.

    python -m benchmarks.engine [--model DIR] [--threads N] [--repeats N]

All ways write the same number of greedy tokens for the same prompts, in one process and in turns, so that a
busy machine slows all of them; the ratios matter, the tokens/s are this machine's.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig

from serving.in_process import InProcessEngine, share_base
from serving.settings import BaseSettings
from store.records import Message, Sampling

STARTER = Path(__file__).parent.parent / "serving" / "starter"
NUM_TOKENS = 48
QUESTIONS = (
    "Hello, how are you?",
    "What is 10 minus 6?",
    "Can you find out where my keys are?",
    "What is the capital of France?",
    "How do I cook rice for four people without burning it?",
    "Why is the sky blue?",
    "Thank you for your help today.",
    "What should I do when I cannot sleep at night?",
)

Way = Callable[[], int]


def main() -> None:
    arguments = read_arguments()
    logging.disable(logging.WARNING)
    engine = InProcessEngine(BaseSettings(arguments.model, quantization="none", threads=arguments.threads))
    # Nobody may stop early, or the ways would not write the same amount.
    engine.base = dataclasses.replace(engine.base, end_ids=frozenset())
    engine.load("v0", None)
    ways = build_ways(engine)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for warm_up in ways.values():
        warm_up()
    for _ in range(arguments.repeats):
        for name, way in ways.items():
            began = time.perf_counter()
            written = way()
            seconds[name].append(time.perf_counter() - began)
            assert written == len(QUESTIONS) * NUM_TOKENS, f"{name} wrote {written} tokens"
    print_table(
        {name: len(QUESTIONS) * NUM_TOKENS / statistics.median(took) for name, took in seconds.items()}
    )
    engine.close()


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument(
        "--model", default=str(STARTER), help="model folder or hub name (default: the starter)"
    )
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1)")
    parser.add_argument("--repeats", type=int, default=5, help="turns; the median counts (default 5)")
    return parser.parse_args()


def build_ways(engine: InProcessEngine) -> dict[str, Way]:
    """Each way answers all questions and returns the number of tokens it wrote."""
    model, tokenizer = engine.base.model, engine.base.tokenizer
    paged = share_base(model)  # the library's batching changes the attention of the model it is given
    prompts = [tokenize(tokenizer, ask(question)) for question in QUESTIONS]
    return {
        "generate, one at a time": lambda: sum(generate(model, [prompt]) for prompt in prompts),
        "continuous batching of transformers": lambda: generate_continuously(paged, prompts),
        "generate, one static batch": lambda: generate(model, prompts),
        "our engine, 8 streams": lambda: stream_all(engine),
    }


def ask(question: str) -> tuple[Message, ...]:
    return ({"role": "user", "content": question},)


def tokenize(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    text = tokenizer.apply_chat_template([*messages], add_generation_prompt=True, tokenize=False)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


@torch.inference_mode()
def generate(model: Any, prompts: Sequence[Sequence[int]]) -> int:
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + [*prompt] for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    written = model.generate(
        ids.to(model.device),
        attention_mask=mask.to(model.device),
        do_sample=False,
        min_new_tokens=NUM_TOKENS,
        max_new_tokens=NUM_TOKENS,
        pad_token_id=0,
    )
    return int(written[:, width:].numel())


def generate_continuously(model: Any, prompts: Sequence[Sequence[int]]) -> int:
    # The default sizes its cache to the whole device and is slower still.
    answers = model.generate_batch(
        [list(prompt) for prompt in prompts],
        generation_config=GenerationConfig(
            max_new_tokens=NUM_TOKENS, do_sample=False, eos_token_id=-1, pad_token_id=0
        ),
        continuous_batching_config=ContinuousBatchingConfig(num_blocks=16, max_batch_tokens=256),
        persistent_manager=True,
        warmup=False,
    )
    return sum(len(answer.generated_tokens) for answer in answers.values())


def stream_all(engine: InProcessEngine) -> int:
    sampling = Sampling(temperature=0.0, max_tokens=NUM_TOKENS)
    streams = [engine.generate("v0", ask(question), sampling) for question in QUESTIONS]
    return sum(len(chunk.token_ids) for stream in streams for chunk in stream)


def print_table(speeds: dict[str, float]) -> None:
    slowest = speeds["generate, one at a time"]
    what = f"{len(QUESTIONS)} requests of {NUM_TOKENS} tokens, torch threads: {torch.get_num_threads()}"
    print(f"| {what} | tokens/s | ratio |")
    print("| --- | --- | --- |")
    for name, speed in speeds.items():
        print(f"| {name} | {speed:,.0f} | {speed / slowest:.2f} |")


if __name__ == "__main__":
    main()
