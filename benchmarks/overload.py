"""Too many at once: 200 chat clients ask while annotators judge, on the real service with the starter policy.

Run `python -m benchmarks.overload`. Open queue: it holds everybody, so all wait their turn. Short queue: most
are told to wait (503 with Retry-After) and come back when they were told to. In both, every client must be
answered in the end, nothing may fail otherwise, and a judgement submitted meanwhile should take under 500 ms
at the 99th percentile. Prints both parts; the last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.overload_clients import Room, Talk, run_room
from benchmarks.queue_clients import Crowd, Work, annotate
from benchmarks.queue_store import add_people, add_tasks
from benchmarks.service import run_service
from store.database import Store

NUM_TASKS = 3000
LIMIT_S = 600.0
HEAD_START_S = 3.0  # the annotators are at work when the chat clients come, all in one moment


def run_part(arguments: argparse.Namespace, folder: Path, most_waiting: int | None) -> dict[str, object]:
    """One room of chat clients beside one crowd of annotators; `most_waiting` bounds the queue."""
    store = Store.open(folder)
    annotators = add_people(store, arguments.annotators)
    testers = add_people(store, arguments.clients, "tester", first=arguments.annotators)
    add_tasks(store, NUM_TASKS, wanted=3)
    store.close()
    talk = Talk(arguments.questions, arguments.max_tokens, arguments.patience_s)
    told = {} if most_waiting is None else {"HEED_BATCH__MAX_WAITING": str(most_waiting)}
    with run_service(folder, told) as (url, _):
        port = int(url.rpartition(":")[2])
        room, crowd, took_s = asyncio.run(run_both(port, testers, annotators, talk, arguments.think_s))
    return summarise(room, crowd, took_s, len(testers), talk)


async def run_both(
    port: int, testers: list[str], annotators: list[str], talk: Talk, think_s: float
) -> tuple[Room, Crowd, float]:
    """The annotators judge for as long as the chats last."""
    crowd, work = Crowd(), Work(None, LIMIT_S, think_s)
    deadline = time.monotonic() + LIMIT_S
    judging = [
        asyncio.create_task(annotate(port, token, crowd, work, deadline, vanish_after=-1))
        for token in annotators
    ]
    await asyncio.sleep(HEAD_START_S)
    room, took_s = await run_room(port, testers, talk)
    for task in judging:
        if task.done() and task.exception() is not None:
            room.failures.append(f"an annotator: {task.exception()!r}")
        task.cancel()
    await asyncio.gather(*judging, return_exceptions=True)
    return room, crowd, took_s


def summarise(room: Room, crowd: Crowd, took_s: float, num_clients: int, talk: Talk) -> dict[str, object]:
    """The figures of a part; times in milliseconds."""
    return {
        "chat_clients": num_clients,
        "asked": num_clients * talk.questions,
        "answered": room.answered,
        "told_to_wait": len(room.told_to_wait),
        "refusals": room.refusals,
        "retry_after_s_max": max(room.retry_after_s, default=0),
        "saw_their_place": room.saw_place,
        "failed": len(room.failures) + crowd.lost,
        "failures": room.failures[:5],
        **percentiles("first_word", room.first_word_s),
        **percentiles("answer", room.answer_s),
        "labels": len(crowd.judge_s),
        **percentiles("label", crowd.judge_s),
        **percentiles("next_task", crowd.next_s),
        "seconds": round(took_s, 1),
    }


def percentiles(name: str, seconds: Sequence[float]) -> dict[str, object]:
    """p50, p95 and p99 in milliseconds; None without enough to say so."""
    if len(seconds) < 2:
        return {f"{name}_p{percent}_ms": None for percent in (50, 95, 99)}
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {f"{name}_p{percent}_ms": round(cuts[percent - 1] * 1000, 1) for percent in (50, 95, 99)}


def combine(parts: dict[str, dict[str, object]]) -> dict[str, object]:
    """One line of figures: sums over the parts, and the slowest label."""
    slowest = [part["label_p99_ms"] for part in parts.values() if isinstance(part["label_p99_ms"], float)]
    sums = {
        name: sum(value for part in parts.values() if isinstance(value := part[name], int))
        for name in ("answered", "told_to_wait", "failed")
    }
    clients = next(iter(parts.values()))["chat_clients"]
    return {"chat_clients": clients, **sums, "label_p99_ms": max(slowest, default=None), **parts}


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overload", description=__doc__.splitlines()[0]
    )
    add = parser.add_argument
    add("--part", choices=("open", "short"), help="one part only (default: both)")
    add("--clients", type=int, default=200, help="chat clients at once (default: 200)")
    add("--questions", type=int, default=3, help="questions a client asks, one after the other (default: 3)")
    add("--max-tokens", type=int, default=64, help="the longest answer (default: 64)")
    add("--annotators", type=int, default=20, help="people who judge meanwhile (default: 20)")
    add("--think-s", type=float, default=1.0, help="mean time over a task (default: 1)")
    add("--most-waiting", type=int, default=32, help="how many may wait in the short queue (default: 32)")
    add("--patience-s", type=float, default=300.0, help="how long a client tries (default: 300)")
    add("--folder", type=Path, help="where to write (default: a temporary folder)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit code is 0 when every client was answered."""
    arguments = parse_arguments(argv)
    bounds = {"open": None, "short": arguments.most_waiting}
    parts: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory(prefix="heed-overload-", dir=arguments.folder) as folder:
        for name, most_waiting in bounds.items():
            if arguments.part in (None, name):
                parts[name] = run_part(arguments, Path(folder) / name, most_waiting)
                print(f"\n{name} queue")
                for key, value in parts[name].items():
                    print(f"  {key:<20} {value}", flush=True)
    print(json.dumps(combine(parts)))
    return 0 if all(not p["failed"] and p["answered"] == p["asked"] for p in parts.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
