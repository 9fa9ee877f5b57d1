"""The queue under load: many annotators at once over HTTP, and a store with very many tasks.

Run `python -m benchmarks.queue`. Part 1: 200 annotators, K = 3, 500 tasks, a fifth of them vanish; every task
must end with exactly three judgements, and throughput is compared with a bare DuckDB insert loop on the same
disk. Part 2: the time of `tasks/next` at 100,000 tasks and 300,000 judgements against that at 1,000 tasks,
memory, start-up, and the queries behind the admin page. Prints tables; the last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from benchmarks.queue_clients import Crowd, Work, run_crowd
from benchmarks.queue_store import add_people, add_tasks
from store.database import Store

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 600.0
EARLIER_PEOPLE = 60  # who gave the judgements that are there already; the clients are among them


@dataclass(frozen=True, slots=True)
class Running:
    """A service under measurement."""

    port: int
    process: subprocess.Popen[str]
    open_s: float
    ready_s: float

    def rss_mib(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@contextmanager
def run_service(data: Path, lease_s: float) -> Iterator[Running]:
    """The API over that store in a process of its own, ended by SIGTERM."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "benchmarks.queue_service", str(data), str(port), str(lease_s)]
    begun = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        open_s = float(process.stdout.readline())
        while not _is_ready(port):
            assert process.poll() is None, "the service ended at its start"
            time.sleep(0.02)
        yield Running(port, process, open_s, time.perf_counter() - begun)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()


def measure_inserts(folder: Path, number: int = 300) -> float:
    """Rows a second of a bare loop: one INSERT and its commit at a time, on the same disk."""
    with duckdb.connect(str(folder / "bare.duckdb")) as db:
        db.execute(
            "CREATE TABLE judgements (id VARCHAR PRIMARY KEY, task VARCHAR, person VARCHAR, choice VARCHAR)"
        )
        begun = time.perf_counter()
        for n in range(number):
            db.execute("INSERT INTO judgements VALUES (?, ?, ?, ?)", [f"j{n}", f"t{n}", "someone", "prefer"])
        return number / (time.perf_counter() - begun)


def run_part_1(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Everybody at once until every task has its K judgements, then the proof from the tables."""
    data, total = folder / "crowd", arguments.tasks * arguments.wanted
    store = Store.open(data)
    tokens = add_people(store, arguments.clients)
    add_tasks(store, arguments.tasks, arguments.wanted)
    store.close()
    bare = measure_inserts(folder)
    with run_service(data, arguments.lease_s) as service:
        work = Work(total, LIMIT_S, arguments.think_s)
        crowd, seconds = asyncio.run(run_crowd(service.port, tokens, work, arguments.vanish))
    bare = (bare + measure_inserts(_fresh(folder, "after"))) / 2
    rate = len(crowd.acknowledged) / seconds
    found = {
        "clients": arguments.clients,
        "vanished": crowd.vanished,
        "tasks": arguments.tasks,
        "wanted": arguments.wanted,
        "judgements": len(crowd.acknowledged),
        "lease_lost": crowd.lost,
        "seconds": round(seconds, 2),
        "judgements_a_second": round(rate, 1),
        "bare_inserts_a_second": round(bare, 1),
        "ratio": round(rate / bare, 3),
        **summarise(crowd),
    }
    return found | prove(data, crowd, arguments.wanted)


def prove(data: Path, crowd: Crowd, wanted: int) -> dict[str, object]:
    """What the tables say: each task `wanted` judgements of different people, none lost, none double."""
    sql = """
        SELECT count(*), count(DISTINCT j.person_id), any_value(t.num_accepted)
        FROM tasks AS t LEFT JOIN judgements AS j ON j.task_id = t.task_id AND NOT j.undone
        GROUP BY t.task_id"""
    store = Store.open(data)
    with store.read() as cursor:
        rows = cursor.execute(sql).fetchall()
        kept = {row[0] for row in cursor.execute("SELECT judgement_id FROM judgements").fetchall()}
    store.close()
    return {
        "exact_tasks": sum(row == (wanted, wanted, wanted) for row in rows),
        "lost": len(crowd.acknowledged.keys() - kept),
        "never_acknowledged": len(kept - crowd.acknowledged.keys()),
    }


def run_part_2(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """The same clients at a small and at a big store, in turns."""
    sizes = {"small": arguments.small, "big": arguments.big}
    tokens: list[str] = []
    found: dict[str, object] = {}
    for name, number in sizes.items():
        begun = time.perf_counter()
        store = Store.open(folder / name)
        tokens = add_people(store, EARLIER_PEOPLE)[: arguments.load_clients]
        # One more wanted than given, so every task is open and has people who may not have it again.
        add_tasks(store, number, wanted=4, judged_by=3, num_people=EARLIER_PEOPLE)
        store.close()
        found[f"{name}_build_s"] = round(time.perf_counter() - begun, 1)
    crowds: dict[str, list[Crowd]] = {name: [] for name in sizes}
    for _ in range(arguments.turns):
        for name in sizes:
            with run_service(folder / name, 600.0) as service:
                work = Work(None, arguments.load_s)
                crowds[name].append(asyncio.run(run_crowd(service.port, tokens, work))[0])
                found[f"{name}_rss_mib"] = round(service.rss_mib())
                found[f"{name}_open_s"] = round(service.open_s, 2)
                found[f"{name}_ready_s"] = round(service.ready_s, 2)
    for name in sizes:
        for key, value in summarise(*crowds[name]).items():
            found[f"{name}_{key}"] = value
    small, big = found["small_next_p95_ms"], found["big_next_p95_ms"]
    assert isinstance(small, float)
    assert isinstance(big, float)
    return found | {"next_p95_ratio": round(big / small, 2)} | time_queries(folder / "big")


def time_queries(data: Path) -> dict[str, object]:
    """Milliseconds of the questions the admin page and the scheduler's tick ask, median of five."""
    from benchmarks.queue_store import person_id
    from store.gold import propose_unanimous
    from store.judgements import count_judgements, read_judgements
    from store.people import read_people
    from store.prompts import choose_prompts, count_prompts
    from store.rounds import read_rounds
    from store.snapshots import count_labels, count_new_labels
    from store.tasks import count_off_policy, count_open_tasks

    store, someone = Store.open(data), person_id(1)
    asked: dict[str, Callable[[], object]] = {
        "count_open_tasks": lambda: count_open_tasks(store, "pair"),
        "count_labels": lambda: count_labels(store),
        "count_new_labels": lambda: count_new_labels(store),
        "read_people": lambda: read_people(store),
        "count_judgements_of_one": lambda: count_judgements(store, someone),
        "count_judgements_of_60": lambda: [count_judgements(store, person_id(n)) for n in range(60)],
        "read_judgements_newest_50": lambda: read_judgements(store, limit=50),
        "read_judgements_of_one": lambda: read_judgements(store, someone),
        "count_off_policy": lambda: count_off_policy(store),
        "propose_unanimous": lambda: propose_unanimous(store),
        "choose_prompts_8": lambda: choose_prompts(store, 8, seed=1),
        "count_prompts": lambda: count_prompts(store),
        "read_rounds": lambda: read_rounds(store),
    }
    times = {f"query_{name}_ms": _median_ms(ask) for name, ask in asked.items()}
    store.close()
    return dict(times)


def summarise(*crowds: Crowd) -> dict[str, object]:
    """Percentiles in milliseconds over all requests of these crowds."""
    times = {
        "next": [s for crowd in crowds for s in crowd.next_s],
        "judge": [s for crowd in crowds for s in crowd.judge_s],
    }
    return {
        f"{name}_p{percent}_ms": round(statistics.quantiles(values, n=100)[percent - 1] * 1000, 1)
        for name, values in times.items()
        for percent in (50, 95, 99)
    }


def _median_ms(ask: Callable[[], object]) -> float:
    taken = []
    for _ in range(5):
        begun = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - begun)
    return round(statistics.median(taken) * 1000, 1)


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def _fresh(folder: Path, name: str) -> Path:
    path = folder / name
    path.mkdir()
    return path


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queue", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--part", type=int, choices=(1, 2), help="one part only (default: both)")
    add("--clients", type=int, default=200, help="annotators of part 1 (default: 200)")
    add("--tasks", type=int, default=500, help="tasks of part 1 (default: 500)")
    add("--wanted", type=int, default=3, help="judgements a task wants in part 1 (default: 3)")
    add("--vanish", type=float, default=0.2, help="share who vanish in mid-task (default: 0.2)")
    add("--lease-s", type=float, default=5.0, help="how long a task is held in part 1 (default: 5)")
    add("--think-s", type=float, default=0.0, help="mean time over a task in part 1 (default: 0)")
    add("--small", type=int, default=1000, help="tasks of the small store of part 2 (default: 1000)")
    add("--big", type=int, default=100_000, help="tasks of the big store of part 2 (default: 100000)")
    add("--load-clients", type=int, default=20, help="clients of part 2 (default: 20)")
    add("--load-s", type=float, default=8.0, help="seconds of load a turn in part 2 (default: 8)")
    add("--turns", type=int, default=2, help="turns of small and big in part 2 (default: 2)")
    add("--folder", type=Path, help="where to write (default: a temporary folder)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    arguments = parse_arguments(argv)
    parts = {1: run_part_1, 2: run_part_2}
    found: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory(prefix="heed-queue-", dir=arguments.folder) as folder:
        for number, run in parts.items():
            if arguments.part in (None, number):
                found[f"part_{number}"] = run(arguments, Path(folder))
                print(f"\npart {number}")
                for name, value in found[f"part_{number}"].items():
                    print(f"  {name:<32} {value}", flush=True)
    print(json.dumps(found))
    crowd = found.get("part_1")
    return 0 if crowd is None or (crowd["exact_tasks"] == crowd["tasks"] and not crowd["lost"]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
