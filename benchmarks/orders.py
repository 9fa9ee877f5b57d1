"""The loop twice a seed, pairs judged in the order of uncertainty and at random, at equal labels.

Run `python -m benchmarks.orders --seeds 5`. Every run has a service of its own in an empty folder. A finished
run is one JSON line of the file at `--out`; started again, the program goes on with the runs that are missing
there, so it can be stopped at any time. At the end it prints both orders side by side and the paired
difference: within a seed both orders get the same prompts and the same held-out questions.

Before each round a stock of twice its labels gathers, so that there is something to choose from: people who
click at once take every pair as it comes, whatever its priority. There a prompt is tried once, because there
are plenty, and that makes pairs 1.6 times as fast.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.loop import Outcome, run_loop
from benchmarks.progress import say
from benchmarks.service import run_service
from benchmarks.settings import ORDERS, LoopSettings, add_flags, read_settings
from benchmarks.yardstick import Yardstick

Run = dict[str, Any]  # a line of the file: what `Outcome.as_json` gives
OpenService = Callable[[Path, dict[str, str]], AbstractContextManager[tuple[str, str]]]
TOLD = {
    "HEED_ROLLOUT__MAX_TRIES": "1",
    "HEED_ROLLOUT__POLL_S": "0.5",
    "HEED_QUEUE__GOLD_SHARE": "0",  # neither gold nor a repeat teaches, and both orders get equal labels
    "HEED_QUEUE__REPEAT_SHARE": "0",
}
SHOWN = ("win_rate", "decided_win_rate", "fact_accuracy", "entropy")


def list_runs(settings: LoopSettings, num_seeds: int) -> list[LoopSettings]:
    """Every run there is to do. Which order goes first alternates, should the machine drift."""
    return [
        replace(settings, seed=seed, order=order)
        for seed in range(settings.seed, settings.seed + num_seeds)
        for order in (ORDERS if seed % 2 else ORDERS[::-1])
    ]


def read_runs(out: Path, wanted: Sequence[LoopSettings]) -> list[Run]:
    """The finished runs among those that are wanted; other lines of the file are left alone, aloud."""
    if not out.exists():
        return []
    asked = {_key(asdict(settings)) for settings in wanted}
    found: dict[str, Run] = {}
    num_others = 0
    for number, line in enumerate(out.read_text("utf-8").splitlines(), start=1):
        try:
            run: Run = json.loads(line)
            key = _key(run["settings"])
        except (ValueError, KeyError, TypeError):
            say(f"line {number} of {out} is no finished run; it was cut off")
            continue
        if key in asked:
            found[key] = run
        else:
            num_others += 1
    if num_others:
        say(f"{num_others} runs in {out} have other settings and are not counted")
    return list(found.values())


def run_missing(
    wanted: Sequence[LoopSettings], out: Path, open_service: OpenService = run_service
) -> list[LoopSettings]:
    """Do the runs that the file lacks, appending each as it ends; returns those that failed."""
    done = {_key(run["settings"]) for run in read_runs(out, wanted)}
    missing = [settings for settings in wanted if _key(asdict(settings)) not in done]
    say(f"{len(wanted) - len(missing)} of {len(wanted)} runs are in {out}")
    failed = []
    yardsticks: dict[int, Yardstick] = {}
    for place, settings in enumerate(missing, start=1):
        say(f"run {place} of {len(missing)}: seed {settings.seed}, order {settings.order}")
        began = time.monotonic()
        try:
            outcome = run_once(settings, open_service, yardsticks.get(settings.seed))
        except Exception:
            # One run that breaks (a service that ends, a disk that fills) must not cost the others.
            traceback.print_exc()
            say(f"seed {settings.seed}, order {settings.order} failed; start again to repeat it")
            failed.append(settings)
            continue
        yardsticks[settings.seed] = outcome.yardstick
        _append(out, outcome.as_json() | {"total_seconds": round(time.monotonic() - began, 1)})
        say(f"seed {settings.seed}, order {settings.order} took {time.monotonic() - began:.0f} s")
    return failed


def run_once(settings: LoopSettings, open_service: OpenService, yardstick: Yardstick | None) -> Outcome:
    """One run in a service of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="heed-orders-") as folder,
        open_service(Path(folder), settings.environment() | TOLD) as (url, token),
    ):
        return run_loop(settings, url, token, yardstick)


def describe(runs: Iterable[Run]) -> str:
    """Each number after each round: both orders, and their difference within a seed, with standard errors."""
    by_order: dict[str, dict[int, Run]] = {order: {} for order in ORDERS}
    for run in runs:
        by_order[run["settings"]["order"]][run["settings"]["seed"]] = run
    seeds = sorted(set.intersection(*(set(found) for found in by_order.values())))
    if not seeds:
        return "no seed has been run in both orders yet"
    num_rounds = min(len(found[seed]["rounds"]) for found in by_order.values() for seed in seeds)
    lines = [f"{len(seeds)} seeds in both orders: {', '.join(map(str, seeds))}; mean ± standard error"]
    lines += ["", "| round | number | uncertain | random | uncertain - random |", "| --- " * 5 + "|"]
    for place in range(num_rounds):
        for name in (*SHOWN, "ties", "stock_seconds", "collect_seconds"):
            columns = [[_number(by_order[order][seed], place, name) for seed in seeds] for order in ORDERS]
            differences = [one - other for one, other in zip(*columns, strict=True)]
            shown = " | ".join(describe_mean(values) for values in (*columns, differences))
            lines.append(f"| {place + 1} | {name} | {shown} |")
    return "\n".join(lines)


def describe_mean(values: Sequence[float]) -> str:
    """The mean with its standard error over the seeds; one seed has none."""
    if len(values) < 2:
        return f"{fmean(values):.3f} (one seed)"
    return f"{fmean(values):.3f} ± {stdev(values) / sqrt(len(values)):.3f}"


def _number(run: Run, place: int, name: str) -> float:
    record = run["rounds"][place]
    stage, is_time, _ = name.partition("_seconds")
    return float(record["seconds"].get(stage, 0.0) if is_time else record[name])


def _key(settings: dict[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)


def _append(out: Path, run: Run) -> None:
    """One line, on disk before the next run begins. A line that was cut off keeps to itself."""
    out.parent.mkdir(parents=True, exist_ok=True)
    is_whole = not out.exists() or out.read_bytes()[-1:] in (b"", b"\n")
    with out.open("a", encoding="utf-8") as file:
        file.write(("" if is_whole else "\n") + json.dumps(run) + "\n")
        file.flush()
        os.fsync(file.fileno())


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line: that of the loop, less what makes no sense here."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.orders", description=(__doc__ or "").splitlines()[0]
    )
    add_flags(parser)
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds (default: 5)")
    parser.add_argument("--first-seed", dest="seed", type=int, default=0, help="the first one (default: 0)")
    parser.add_argument(
        "--out", type=Path, default=Path("orders.jsonl"), help="finished runs (default: orders.jsonl)"
    )
    parser.set_defaults(rounds=3, guide_variant="none", order=None)
    arguments = parser.parse_args(argv)
    if arguments.stock is None:
        arguments.stock = 2 * arguments.labels
    if arguments.seeds < 1:
        parser.error(f"--seeds {arguments.seeds} must be at least 1")
    return arguments


def main(argv: Sequence[str] | None = None, open_service: OpenService = run_service) -> int:
    """Run what is missing and print the comparison; returns the exit code."""
    arguments = parse_arguments(argv)
    try:
        wanted = list_runs(read_settings(arguments), arguments.seeds)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    failed = run_missing(wanted, arguments.out, open_service)
    print(f"\n{describe(read_runs(arguments.out, wanted))}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    # Ended from outside, it still stops the service it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    raise SystemExit(main())
