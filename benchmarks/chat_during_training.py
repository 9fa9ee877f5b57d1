"""Chat while a round trains on the same cores: what is left of the tokens/s that an idle service gives.

    python -m benchmarks.chat_during_training [--labels 600]

A real service with planted labels; eight testers chat over HTTP, each asking again as soon as the answer has
come. First alone, then while a round runs, from its first training step to its verdict.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.client import HeedClient
from benchmarks.models import STARTER
from benchmarks.service import run_service
from benchmarks.speed import quantile
from store.database import Store
from store.outside import add_outside_labels
from store.records import RUNNING_STATES, Message, OutsideLabel

NUM_STREAMS = 8
MAX_TOKENS = 48
WARM_S = 5.0
IDLE_S = 20.0
LOOK_AGAIN_S = 0.2
TRAINS = ("training", "evaluating")
# The planted labels are all alike: at the usual rate the policy runs away and the drift guard ends the round.
CALM = {"HEED_TRAINER__LEARNING_RATE": "1e-6"}


@dataclass(slots=True)
class Chat:
    """What the testers got, each piece with its moment by the monotonic clock."""

    tokens: list[tuple[float, int]] = field(default_factory=list)  # of whole answers, when they ended
    first_s: list[tuple[float, float]] = field(default_factory=list)
    refused: int = 0

    def tokens_per_s(self, since: float, until: float) -> float:
        return sum(many for at, many in self.tokens if since <= at < until) / (until - since)

    def first_token_ms(self, share: float, since: float, until: float) -> float:
        return 1000 * quantile([taken for at, taken in self.first_s if since <= at < until], share)


def run_training(data: Path, num_labels: int = 600, told: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Measure, print a table, and return the figures for the last line; `told` are `HEED_` variables."""
    questions = read_questions()
    plant_labels(data, questions, num_labels)
    with run_service(data, CALM | dict(told or {})) as (url, token), HeedClient(url, token) as admin:
        tokens = [admin.add_person(f"tester {number}", "tester") for number in range(NUM_STREAMS)]
        chat, is_over = Chat(), threading.Event()
        port = int(url.rpartition(":")[2])
        with ThreadPoolExecutor(1) as pool:
            talking = pool.submit(asyncio.run, talk_all(port, tokens, questions, chat, is_over))
            try:
                windows = watch(admin)
            finally:
                is_over.set()
            talking.result()
    figures = tell(chat, windows)
    print(format_training(figures, num_labels), flush=True)
    return {"chat_during_training": figures.pop("share"), "training": figures}


def read_questions() -> list[list[Message]]:
    lines = (STARTER / "prompts.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["messages"] for line in lines]


def plant_labels(data: Path, questions: list[list[Message]], many: int) -> None:
    """Pairs as an import leaves them, so that a round has something to train on."""
    now = datetime.now(UTC)
    labels = [
        OutsideLabel(
            "", "pair", "import:planted", tuple(messages), f"Here is what I know: {number} is a number.", now,
            rejected="What a wonderful question! I would love to help you with that, I think, perhaps.",
        )
        for number, messages in enumerate(questions[:many])
    ]  # fmt: skip
    data.mkdir(parents=True, exist_ok=True)
    store = Store.open(data)
    try:
        add_outside_labels(store, labels)
    finally:
        store.close()


def watch(admin: HeedClient) -> dict[str, tuple[float, float]]:
    """Let chat go alone, then start a round and see it to its end; from when to when each lasted."""
    time.sleep(WARM_S)
    idle_from = time.monotonic()
    time.sleep(IDLE_S)
    windows = {"idle": (idle_from, time.monotonic())}
    seen = admin.start_round()
    began: dict[str, float] = {}
    while seen.state in RUNNING_STATES:
        began.setdefault(seen.state, time.monotonic())
        time.sleep(LOOK_AGAIN_S)
        seen = admin.read_round(seen.round_id)
    if seen.state not in ("promoted", "rejected"):
        raise RuntimeError(f"the round {seen.state}: {seen.reason}")
    ends = [*list(began.values())[1:], time.monotonic()]
    windows |= {state: (since, until) for (state, since), until in zip(began.items(), ends, strict=True)}
    return windows | {"round": (min(began[state] for state in TRAINS if state in began), ends[-1])}


async def talk_all(
    port: int, tokens: list[str], questions: list[list[Message]], chat: Chat, is_over: threading.Event
) -> None:
    await asyncio.gather(
        *(talk(port, token, questions, chat, is_over, seed) for seed, token in enumerate(tokens))
    )


async def talk(
    port: int, token: str, questions: list[list[Message]], chat: Chat, is_over: threading.Event, seed: int
) -> None:
    """One tester: ask, read to the end, ask the next thing."""
    draw = random.Random(seed)
    while not is_over.is_set():
        body = {
            "model": "live", "messages": draw.choice(questions), "max_tokens": MAX_TOKENS, "stream": True,
            "temperature": 1.0, "stream_options": {"include_usage": True},
        }  # fmt: skip
        began = time.monotonic()
        many, first_at = await ask(port, token, json.dumps(body))
        if not many:
            chat.refused += 1
            await asyncio.sleep(LOOK_AGAIN_S)
            continue
        chat.tokens.append((time.monotonic(), many))
        chat.first_s.append((began, first_at - began))


async def ask(port: int, token: str, content: str) -> tuple[int, float]:
    """How many tokens came, 0 when it was refused, and when the first event did."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    raw = content.encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
        f"Connection: close\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
    )
    writer.write(head.encode() + raw)
    first_at, usage = 0.0, b""
    while line := await reader.readline():
        if line.startswith(b"data: {"):
            first_at = first_at or time.monotonic()
            if b'"usage"' in line:
                usage = line
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    if not usage:
        return 0, first_at
    return json.loads(usage.removeprefix(b"data: "))["usage"]["completion_tokens"], first_at


def tell(chat: Chat, windows: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    """Tokens/s and first-token times of each window, and the round's share of the idle speed."""
    phases = {
        name: {
            "seconds": round(until - since, 1),
            "tokens_per_s": round(chat.tokens_per_s(since, until), 1),
            "first_p50_ms": round(chat.first_token_ms(0.5, since, until), 1),
            "first_p95_ms": round(chat.first_token_ms(0.95, since, until), 1),
        }
        for name, (since, until) in windows.items()
    }
    share = phases["round"]["tokens_per_s"] / phases["idle"]["tokens_per_s"]
    return {"share": round(share, 3), "refused": chat.refused, "phases": phases}


def format_training(figures: Mapping[str, Any], num_labels: int) -> str:
    """The figures as a Markdown table."""
    lines = [
        f"\n**{NUM_STREAMS} testers chat while a round trains on {num_labels} pairs**, the starter, fp32:\n",
        "| | seconds | tokens/s | of idle | first token p50 / p95 ms |",
        "| --- | --- | --- | --- | --- |",
    ]
    idle = figures["phases"]["idle"]["tokens_per_s"]
    for name, found in figures["phases"].items():
        speed = found["tokens_per_s"]
        lines.append(
            f"| {name} | {found['seconds']:.0f} | {speed:,.0f} | {speed / idle:.2f} |"
            f" {found['first_p50_ms']:,.0f} / {found['first_p95_ms']:,.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chat_during_training", description="Chat while a round trains."
    )
    parser.add_argument("--labels", type=int, default=600, help="pairs the round trains on (default: 600)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="heed-training-") as folder:
        print(json.dumps(run_training(Path(folder) / "data", arguments.labels)))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ended from outside, it stops what it started
    main()
