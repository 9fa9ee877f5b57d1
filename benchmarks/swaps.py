"""Versions swapped under load: does an answer fail, mix two versions, or stall?

    python -m benchmarks.swaps [--swaps 20] [--streams 32] [--vllm-python PATH]

The real board, store and engine over the starter, with adapters that answer unlike each other. Every answer
is scored afterwards under each version: it must be as likely as it says under the version it names, and under
no other.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.mixing import Answer, Scores, compare
from benchmarks.models import STARTER, Model, add_proofs, write_adapter
from benchmarks.speed import NUM_TOKENS, PromptSource, quantile
from benchmarks.vllm_server import VllmServer

if TYPE_CHECKING:
    from serving.in_process import InProcessEngine
    from serving.policies import PolicyBoard
    from store.records import Message

NUM_VERSIONS = 5
ADAPTER_SIZE = 0.06  # far from the base, so that two versions cannot be taken for each other
STEADY_S = 2.0  # between two swaps; a swap's window is from the call to `AFTER_S` after the flip
AFTER_S = 1.0
WARM_S = 3.0
MOST_ROLLBACK_MS = 5000  # what a rollback may take to its first token


@dataclass(frozen=True, slots=True)
class Swap:
    """One promotion: when it was asked for and when it was done."""

    version: str
    asked_at: float
    done_at: float


@dataclass(slots=True)
class Load:
    """What the streams saw together."""

    answers: list[Answer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)


def run_swaps(
    folder: Path, vllm_python: Path | None = None, num_swaps: int = 20, num_streams: int = 32
) -> dict[str, Any]:
    """Swap under load, print a table, and return the figures for the last line."""
    adapters = {
        f"v{number}": write_adapter(folder / "made" / f"v{number}", STARTER, number, ADAPTER_SIZE)
        for number in range(1, NUM_VERSIONS + 1)
    }
    add_proofs(adapters.values(), STARTER)
    with open_board(folder, adapters) as (board, engine):
        load = Load()
        with streams(board, load, adapters, num_streams):
            time.sleep(WARM_S)
            swaps = promote_in_turn(board, list(adapters), num_swaps)
            back = {"before": roll_back(board, None), "base": roll_back(board, "v0")}
        figures = judge(load, swaps, engine, adapters)
        for name, swap in back.items():
            first_s = first_token_after(swap, load.answers) - swap.asked_at
            figures[f"first_token_after_rollback_to_{name}_ms"] = round(1000 * first_s, 1)
        figures["load_alone_ms"] = _median_ms(time_loads(engine, adapters))
    if vllm_python is not None:
        figures["vllm_load_ms"] = _median_ms(time_vllm_loads(vllm_python, adapters, folder))
    print(format_swaps(figures, num_swaps, num_streams), flush=True)
    names = ("failed_requests", "mixed_answers")
    return {name: figures.pop(name) for name in names} | {"swaps": figures}


@contextmanager
def open_board(folder: Path, adapters: dict[str, Path]) -> Iterator[tuple[PolicyBoard, InProcessEngine]]:
    """A store that knows the adapters, the engine, and the board over both, as app.py builds them."""
    from serving.adapters import publish
    from serving.in_process import InProcessEngine
    from serving.policies import PolicyBoard
    from serving.settings import BaseSettings
    from store.database import Store
    from store.policies import add_policy

    store = Store.open(folder / "data")
    threads = max(1, (os.cpu_count() or 2) // 2)
    engine = InProcessEngine(
        BaseSettings(str(STARTER), quantization="none", dtype="float32", threads=threads)
    )
    for version, adapter in adapters.items():
        add_policy(store, version, "v0", None, publish(adapter, folder / "policies", version))
    board = PolicyBoard(store, engine, folder / "policies")
    board.start()
    try:
        yield board, engine
    finally:
        engine.close()
        store.close()


@contextmanager
def streams(board: PolicyBoard, load: Load, adapters: dict[str, Path], many: int) -> Iterator[None]:
    """So many people who ask the live version again and again until this ends."""
    source = PromptSource(Model("starter", STARTER, adapters["v1"]))
    prompts = itertools.cycle([prompt["messages"] for prompt in source.draw(8 * many)])
    drawing = threading.Lock()

    def talk() -> None:
        while not load.is_over.is_set():
            with drawing:
                messages = next(prompts)
            try:
                load.answers.append(ask(board, messages))
            except Exception as error:  # whatever a swap breaks is to be counted, and told
                load.failures.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=talk, name=f"stream-{number}") for number in range(many)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        load.is_over.set()
        for thread in threads:
            thread.join()


def ask(board: PolicyBoard, messages: Sequence[Message]) -> Answer:
    from store.records import Sampling

    pieces_at, versions, last = [], set(), None
    for last in board.sample("live", messages, Sampling(temperature=0.0, max_tokens=NUM_TOKENS)):
        versions.add(last.version)
        if last.text:
            pieces_at.append(time.monotonic())
    if last is None or last.finish_reason not in ("stop", "length"):
        raise RuntimeError(f"an answer ended with {last.finish_reason if last else 'nothing'}")
    return Answer(messages, frozenset(versions), last.token_ids, last.logprob_sum, tuple(pieces_at))


def promote_in_turn(board: PolicyBoard, versions: Sequence[str], many: int) -> list[Swap]:
    swaps = []
    for version in itertools.islice(itertools.cycle(versions), many):
        asked_at = time.monotonic()
        board.promote(version, "benchmark", "a swap under load")
        swaps.append(Swap(version, asked_at, time.monotonic()))
        time.sleep(AFTER_S + STEADY_S)
    return swaps


def roll_back(board: PolicyBoard, version: str | None) -> Swap:
    """As an admin does when a version turns out bad; None is the version before."""
    asked_at = time.monotonic()
    flipped = board.roll_back("benchmark", version, "a rollback under load")
    swap = Swap(flipped.version, asked_at, time.monotonic())
    time.sleep(AFTER_S + STEADY_S)
    return swap


def judge(
    load: Load, swaps: Sequence[Swap], engine: InProcessEngine, adapters: dict[str, Path]
) -> dict[str, Any]:
    """Failures, mixed answers, pauses in and between the swaps, and how soon a new version speaks."""
    for version, adapter in adapters.items():
        if version not in engine.versions():
            engine.load(version, adapter)
    scores = Scores(engine, load.answers)
    judged = [compare(answer, scores) for answer in load.answers]
    own = [scores.error(version, answer) for answer in load.answers for version in answer.versions]
    inside, after, between = sort_pauses(load.answers, swaps)
    first_s = [first_token_after(swap, load.answers) - swap.asked_at for swap in swaps]
    return {
        "failed_requests": len(load.failures),
        "failures": sorted(set(load.failures))[:3],
        "mixed_answers": judged.count("mixed"),
        "answers_alike_under_two": judged.count("alike"),
        "largest_error_nats_a_token": max(own),
        "answers": len(load.answers),
        "tokens": sum(len(answer.token_ids) for answer in load.answers),
        "pause_p99_inside_ms": round(1000 * quantile(inside, 0.99), 1),
        "pause_max_inside_ms": round(1000 * max(inside), 1),
        "pauses_inside": len(inside),
        "pause_p99_swap_ms": round(1000 * quantile([*inside, *after], 0.99), 1),
        "pause_p99_steady_ms": round(1000 * quantile(between, 0.99), 1),
        "promote_ms": _median_ms([swap.done_at - swap.asked_at for swap in swaps]),
        "first_token_after_promote_ms": _median_ms(first_s),
        "first_token_after_promote_max_ms": round(1000 * max(first_s), 1),
    }


def sort_pauses(
    answers: Sequence[Answer], swaps: Sequence[Swap]
) -> tuple[list[float], list[float], list[float]]:
    """Seconds between two pieces of an answer: those that overlap a swap's call, those that ended up to
    `AFTER_S` later, and all others. Together the first two would hide a stall among a second of calm."""
    inside: list[float] = []
    later: list[float] = []
    between: list[float] = []
    for answer in answers:
        for before, after in itertools.pairwise(answer.pieces_at):
            if any(before <= swap.done_at and after >= swap.asked_at for swap in swaps):
                inside.append(after - before)
            elif any(swap.asked_at <= after <= swap.done_at + AFTER_S for swap in swaps):
                later.append(after - before)
            else:
                between.append(after - before)
    return inside, later, between


def first_token_after(swap: Swap, answers: Sequence[Answer]) -> float:
    """When the first piece of the first answer by this version came after the promotion was asked for."""
    return min(
        answer.pieces_at[0]
        for answer in answers
        if swap.version in answer.versions and answer.pieces_at and answer.pieces_at[0] >= swap.asked_at
    )


def time_loads(engine: InProcessEngine, adapters: dict[str, Path]) -> list[float]:
    """Seconds of the engine's own `load` with nothing else to do, files checked."""
    taken = []
    for version, adapter in adapters.items():
        engine.unload(version)
        began = time.perf_counter()
        engine.load(version, adapter)
        taken.append(time.perf_counter() - began)
    return taken


def time_vllm_loads(python: Path, adapters: dict[str, Path], folder: Path) -> list[float]:
    """Seconds of vLLM's `/v1/load_lora_adapter` with nothing else to do, each under a name of its own."""
    first = next(iter(adapters.values()))
    server = VllmServer(python, STARTER, first, "float32", folder / "vllm-loads.log")
    try:
        return [server.load_adapter(version, adapter) for version, adapter in adapters.items()]
    finally:
        server.close()


def format_swaps(figures: dict[str, Any], num_swaps: int, num_streams: int) -> str:
    """The figures as a Markdown table."""
    rows = {
        "answers, tokens": f"{figures['answers']:,}, {figures['tokens']:,}",
        "failed": figures["failed_requests"],
        "mixed-version answers": figures["mixed_answers"],
        "as likely under two versions (short, sure answers)": figures["answers_alike_under_two"],
        "largest error of a told log-prob, nats a token": f"{figures['largest_error_nats_a_token']:.1e}",
        "pause p99 / most while promote runs, ms": f"{figures['pause_p99_inside_ms']:.0f} /"
        f" {figures['pause_max_inside_ms']:.0f}",
        "pause p99 until a second after a swap / between swaps, ms": f"{figures['pause_p99_swap_ms']:.0f} /"
        f" {figures['pause_p99_steady_ms']:.0f}",
        "promote, median ms (check, load, prove, record, flip)": figures["promote_ms"],
        "promote to first token of the new version, median / most ms": " / ".join(
            str(figures[f"first_token_after_promote_{name}ms"]) for name in ("", "max_")
        ),
        f"rollback to first token, version before / base, ms (at most {MOST_ROLLBACK_MS:,})": " / ".join(
            str(figures[f"first_token_after_rollback_to_{name}_ms"]) for name in ("before", "base")
        ),
        "load alone, median ms (files checked)": figures["load_alone_ms"],
        "vLLM's load_lora_adapter alone, median ms": figures.get("vllm_load_ms", "–"),
    }
    head = f"\n**{num_swaps} swaps under {num_streams} streams**, the starter, fp32:\n\n| | |\n| --- | --- |"
    return "\n".join([head, *(f"| {name} | {value} |" for name, value in rows.items())])


def _median_ms(seconds: Sequence[float]) -> float:
    return round(1000 * statistics.median(seconds), 1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.swaps", description="Swaps under load.")
    parser.add_argument("--swaps", type=int, default=20, help="how many swaps (default: 20)")
    parser.add_argument("--streams", type=int, default=32, help="how many ask at once (default: 32)")
    parser.add_argument("--vllm-python", type=Path, help="also time vLLM's loads with this interpreter")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as app.py does
    with tempfile.TemporaryDirectory(prefix="heed-swaps-") as folder:
        found = run_swaps(Path(folder), arguments.vllm_python, arguments.swaps, arguments.streams)
    print(json.dumps(found))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ended from outside, it stops what it started
    main()
