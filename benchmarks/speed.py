"""How fast each way answers, in turns on the same machine: naive, one static batch, our engine, vLLM.

Each way is a process of its own that stands still while another is measured. All are asked the same prompts
and write the same number of tokens; each turn has prompts of its own.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.memory import memory_mib
from benchmarks.models import STARTER, Model
from benchmarks.service import ROOT
from benchmarks.vllm_server import VllmServer, tail

WAYS = ("naive", "static", "ours", "vllm")
PROMPT_TOKENS = 32
NUM_TOKENS = 48
SLOW_STREAMS = 8  # more at once than this the naive way answers in one turn only: it takes minutes


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured: which ways, how many at once, how many turns, with how many threads."""

    ways: tuple[str, ...]
    concurrency: tuple[int, ...]
    repeats: int
    threads: int
    vllm_python: Path | None


@dataclass(slots=True)
class Measured:
    """One way at one concurrency; a turn each in `speeds` (tokens/s), seconds over all turns in the others.

    A pause is the time between two pieces of text of one answer; a piece can hold several tokens.
    """

    speeds: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    pauses_s: list[float] = field(default_factory=list)

    def add(self, came: Sequence[Sequence[float]], num_tokens: int) -> None:
        """One turn: for each answer when its text came."""
        self.speeds.append(len(came) * num_tokens / max(times[-1] for times in came))
        self.first_s += [times[0] for times in came]
        self.pauses_s += [after - before for times in came for before, after in zip(times, times[1:])]  # noqa: B905, RUF007

    def as_json(self) -> dict[str, float]:
        return {
            "tokens_per_s": round(statistics.median(self.speeds), 1),
            "first_p50_ms": round(1000 * quantile(self.first_s, 0.5), 1),
            "first_p95_ms": round(1000 * quantile(self.first_s, 0.95), 1),
            "pause_p95_ms": round(1000 * quantile(self.pauses_s, 0.95), 1),
        }


class Worker:
    """A process of `benchmarks.answering`."""

    def __init__(self, way: str, model: Model, dtype: str, threads: int, log: Path) -> None:
        self._log = log
        command = [sys.executable, "-m", "benchmarks.answering", way, str(model.folder), str(model.adapter)]
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [*command, dtype, str(threads)],
                cwd=ROOT,
                env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"},  # as app.py sets them
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        if self._read() != "ready":
            raise RuntimeError(f"the way {way} did not start")

    @property
    def pid(self) -> int:
        return self._process.pid

    def answer(self, prompts: Sequence[dict[str, Any]], num_tokens: int) -> list[list[float]]:
        """All prompts at once; for each the seconds from the start at which text came."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"prompts": prompts, "tokens": num_tokens}) + "\n")
        self._process.stdin.flush()
        came: list[list[float]] = json.loads(self._read())
        return came

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.resume()
        self._process.kill()
        self._process.wait()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a way ended with code {self._process.wait()}:\n{tail(self._log)}")
        return line.strip()


def measure_speed(model: Model, dtype: str, setting: Setting, folder: Path) -> dict[str, Any]:
    """Each way's figures by concurrency, and its memory in MiB after the last turn."""
    with open_ways(model, dtype, setting, folder) as ways:
        measured = take_turns(ways, model, setting)
        return {
            way: {str(many): measured[way, many].as_json() for many in setting.concurrency}
            | {"memory_mib": round(memory_mib(worker.pid))}
            for way, worker in ways.items()
        }


@contextmanager
def open_ways(
    model: Model, dtype: str, setting: Setting, folder: Path
) -> Iterator[dict[str, Worker | VllmServer]]:
    """Start every way, each standing still."""
    with ExitStack() as stack:
        ways: dict[str, Worker | VllmServer] = {}
        for way in setting.ways:
            log = folder / f"{way}-{model.name}-{dtype}.log"
            if way == "vllm":
                assert setting.vllm_python is not None
                ways[way] = VllmServer(setting.vllm_python, model.folder, model.adapter, dtype, log)
            else:
                ways[way] = Worker(way, model, dtype, setting.threads, log)
            stack.callback(ways[way].close)
            ways[way].pause()
        yield ways


def take_turns(
    ways: dict[str, Worker | VllmServer], model: Model, setting: Setting
) -> dict[tuple[str, int], Measured]:
    """Every way in turn, `repeats` times each concurrency; a turn nobody counts goes before."""
    most = max(setting.concurrency)
    source = PromptSource(model)
    measured = {(way, many): Measured() for way in ways for many in setting.concurrency}
    for way in ways:
        warm = 1 if way == "naive" else most
        with awake(ways[way]) as worker:
            worker.answer(source.draw(warm), NUM_TOKENS)
    for turn in range(setting.repeats):
        for many in setting.concurrency:
            prompts = source.draw(many)
            for way in ways:
                if way == "naive" and many > SLOW_STREAMS and turn > 0:
                    continue
                with awake(ways[way]) as worker:
                    measured[way, many].add(worker.answer(prompts, NUM_TOKENS), NUM_TOKENS)
    return measured


@contextmanager
def awake(worker: Worker | VllmServer) -> Iterator[Worker | VllmServer]:
    worker.resume()
    try:
        yield worker
    finally:
        worker.pause()


class PromptSource:
    """Prompts of about `PROMPT_TOKENS` tokens, template included, made of the starter's questions."""

    def __init__(self, model: Model) -> None:
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(model.folder)
        lines = (STARTER / "prompts.jsonl").read_text("utf-8").splitlines()
        self._questions = [json.loads(line)["messages"][-1]["content"] for line in lines]
        self._draw = random.Random(0)

    def draw(self, many: int) -> list[dict[str, Any]]:
        """So many new prompts, as messages and as token ids."""
        return [self._make() for _ in range(many)]

    def _make(self) -> dict[str, Any]:
        words: list[str] = []
        while True:
            words += self._draw.choice(self._questions).split()
            for number in range(1, len(words) + 1):
                messages = [{"role": "user", "content": " ".join(words[:number])}]
                ids = self._tokenize(messages)
                if len(ids) >= PROMPT_TOKENS:
                    return {"messages": messages, "ids": ids}

    def _tokenize(self, messages: list[dict[str, str]]) -> list[int]:
        text = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of the values do not exceed; NaN without values."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
