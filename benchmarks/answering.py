"""A process that answers in one way: naively, in static batches, or as our engine does. Run by the benchmark.

    python -m benchmarks.answering WAY MODEL ADAPTER DTYPE THREADS

Reads a JSON line a turn ({"prompts": [{"messages", "ids"}], "tokens": n}), answers all prompts at once with n
tokens each, and writes one line: for each prompt the seconds from the start of the turn at which text came. A
process of its own, so that each way's memory is its own.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
from transformers.generation.streamers import BaseStreamer

import serving.in_process as in_process
from benchmarks.models import name_base
from serving.in_process import InProcessEngine
from serving.settings import BaseSettings
from serving.threads import choose_threads
from store.records import Sampling

Prompt = dict[str, Any]
Times = list[float]
Way = Callable[[Sequence[Prompt], int], list[Times]]


class Clock(BaseStreamer):  # type: ignore[misc]
    """Notes when each token came out of `generate`; the first thing it is handed is the prompt."""

    def __init__(self) -> None:
        self.times: Times = []
        self._has_prompt = False

    def put(self, value: torch.Tensor) -> None:  # noqa: ARG002
        if self._has_prompt:
            self.times.append(time.perf_counter())
        self._has_prompt = True

    def end(self) -> None:
        pass


def load_with_peft(folder: str, adapter: str, dtype: str) -> Any:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    return PeftModel.from_pretrained(model, adapter).eval()


@torch.inference_mode()
def generate(model: Any, prompts: Sequence[Prompt], num_tokens: int) -> Times:
    """One call of the library for all rows; when each step of it ended."""
    rows = [prompt["ids"] for prompt in prompts]
    width = max(map(len, rows))
    clock = Clock()
    written = model.generate(
        input_ids=torch.tensor([[0] * (width - len(row)) + row for row in rows]),
        attention_mask=torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows]),
        do_sample=False,
        min_new_tokens=num_tokens,
        max_new_tokens=num_tokens,
        pad_token_id=0,
        streamer=clock,
    )
    assert written.shape[1] == width + num_tokens == width + len(clock.times), "somebody stopped early"
    return clock.times


def answer_naively(model: Any) -> Way:
    """What a page does that calls `generate` in its handler: the requests wait for one lock."""
    lock = threading.Lock()

    def one(prompt: Prompt, num_tokens: int) -> Times:
        with lock:
            return generate(model, [prompt], num_tokens)

    return lambda prompts, num_tokens: in_threads(prompts, lambda prompt: one(prompt, num_tokens))


def answer_in_one_batch(model: Any) -> Way:
    """As many rows as there are requests, all there from the start."""
    return lambda prompts, num_tokens: [generate(model, prompts, num_tokens)] * len(prompts)


def load_endless_engine(folder: str, adapter: str, dtype: str, threads: int) -> InProcessEngine:
    """Our engine with one adapter, v1. Nobody may stop early, or the ways would not write the same amount."""
    settings = BaseSettings(folder, quantization="none", dtype=dtype, threads=threads)  # type: ignore[arg-type]
    load_base = in_process.load_base
    in_process.load_base = lambda settings: dataclasses.replace(load_base(settings), end_ids=frozenset())
    try:
        engine = InProcessEngine(settings)
    finally:
        in_process.load_base = load_base
    name_base(Path(adapter), Path(folder), dtype)
    engine.load("v1", Path(adapter))
    return engine


def answer_with_our_engine(engine: InProcessEngine) -> Way:
    """Every request its own stream, from messages to text."""

    def read(stream: Iterable[Any], num_tokens: int) -> Times:
        times, last = [], None
        for last in stream:
            if last.text:
                times.append(time.perf_counter())
        assert last is not None
        assert len(last.token_ids) == num_tokens, "somebody stopped early"
        return times

    def way(prompts: Sequence[Prompt], num_tokens: int) -> list[Times]:
        sampling = Sampling(temperature=0.0, max_tokens=num_tokens)
        streams = [engine.generate("v1", prompt["messages"], sampling) for prompt in prompts]
        return in_threads(streams, lambda stream: read(stream, num_tokens))

    return way


def in_threads(things: Sequence[Any], act: Callable[[Any], Times]) -> list[Times]:
    with ThreadPoolExecutor(len(things)) as pool:
        return list(pool.map(act, things))


def build_way(name: str, folder: str, adapter: str, dtype: str, threads: int) -> Way:
    if name == "ours":
        return answer_with_our_engine(load_endless_engine(folder, adapter, dtype, threads))
    model = load_with_peft(folder, adapter, dtype)
    if not threads:
        choose_threads(model)  # as our engine does, or the ways would differ in more than their way
    return answer_naively(model) if name == "naive" else answer_in_one_batch(model)


def main() -> None:
    name, folder, adapter, dtype, threads = sys.argv[1:]
    logging.disable(logging.WARNING)
    if int(threads):
        torch.set_num_threads(int(threads))
    way = build_way(name, folder, adapter, dtype, int(threads))
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.perf_counter()
        came = way(asked["prompts"], asked["tokens"])
        print(json.dumps([[moment - began for moment in times] for times in came]), flush=True)


if __name__ == "__main__":
    main()
