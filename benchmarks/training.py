"""How long a pair takes to train, and what comes of it: plain TRL as tutorials write it, tuned, and ours.

    python -m benchmarks.training

Every way is a process of its own on the same pairs with the same adapter shape, one after another and all of
them `--repeats` times. Time is CPU time of one thread, since others use the cores; a pair's time is the
median epoch's share plus its share of the reference pass. The floor is the work that cannot be left out
divided by the rate of matrix products measured in the same turn: every token of prompt, chosen and rejected
once forward and once backward through the frozen weights, answer tokens through the head, and each pair once
through the reference in all epochs. A second run in the order of the file compares losses step by step.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.models import STARTER
from benchmarks.progress import say
from benchmarks.service import ROOT
from benchmarks.training_pairs import build_h256, make_starter_pairs, make_word_pairs, write_pairs

WAYS = ("guide", "stock", "tuned", "ours")
# NF4 computes in float32: without AVX512-BF16 that is the faster of the two by far.
CASES = {
    "starter_fp32": ("starter", "float32", False),
    "h256_fp32": ("h256", "float32", False),
    "h256_bf16": ("h256", "bfloat16", False),
    "h256_nf4": ("h256", "float32", True),
}
COLUMNS = (
    ("ms a pair", "ms_per_pair", ".1f"),
    ("reference once", "reference_ms_per_pair", ".1f"),
    ("peak MiB", "peak_mib", ".0f"),
    ("held-out accuracy", "accuracy", ".3f"),
    ("first loss", "first_loss", ".5f"),
    ("last loss", "last_loss", ".5f"),
)


@dataclass(frozen=True, slots=True)
class Case:
    """A model in one precision, with its pairs."""

    name: str
    flags: tuple[str, ...]
    pairs: Path
    held_out: Path
    equal_steps: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    pairs: int
    held_out: int
    epochs: int
    repeats: int
    equal_steps: int
    bf16_pairs: int


def prepare_cases(names: Sequence[str], sizes: Sizes, folder: Path) -> list[Case]:
    """Models and pairs on disk; the random model is built once for its three precisions."""
    models = {CASES[name][0] for name in names}
    folders = {"starter": STARTER, "h256": build_h256(folder / "h256") if "h256" in models else folder}
    cases = []
    for name in names:
        model, dtype, is_nf4 = CASES[name]
        num_pairs, num_held_out, equal_steps = sizes.pairs, sizes.held_out, sizes.equal_steps
        if dtype == "bfloat16" and sizes.bf16_pairs < num_pairs:
            num_pairs = num_held_out = sizes.bf16_pairs
            equal_steps = 2
        make = make_starter_pairs if model == "starter" else make_word_pairs
        pairs = make(num_pairs + num_held_out)
        flags = ("--model", str(folders[model]), "--dtype", dtype, *(["--nf4"] if is_nf4 else []))
        trained = write_pairs(folder / f"{name}.jsonl", pairs[:num_pairs])
        held_out = write_pairs(folder / f"{name}-held-out.jsonl", pairs[num_pairs:])
        cases.append(Case(name, flags, trained, held_out, equal_steps))
    return cases


def run_way(way: str, case: Case, *flags: str) -> dict[str, Any]:
    """One training in a process of its own; raises with its last words when it fails."""
    module = ["benchmarks.training_ours"] if way == "ours" else ["benchmarks.plain_trl", "--variant", way]
    if way == "floor":
        module = ["benchmarks.training_floor"]
    quiet = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *module, *case.flags, "--pairs", str(case.pairs), *flags],
        cwd=ROOT,
        env=os.environ | quiet | {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{way} on {case.name} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def measure(case: Case, ways: Sequence[str], sizes: Sizes) -> dict[str, Any]:
    """Every way in turns; of the repeats the median of each figure."""
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in (*ways, "floor")}
    for turn in range(sizes.repeats):
        for way in runs:
            flags = () if way == "floor" else ("--held-out", str(case.held_out))
            runs[way].append(run_way(way, case, "--epochs", str(sizes.epochs), *flags))
            took = runs[way][-1]["ms_per_pair"]
            say(f"{case.name}, turn {turn + 1}, {way}: {took:.1f} ms a pair")
    measured: dict[str, Any] = {way: _combine(found) for way, found in runs.items()}
    measured["loss_difference"] = compare_losses(case)
    return measured


def _combine(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    figures = [name for name, value in runs[0].items() if isinstance(value, float)]
    combined: dict[str, Any] = {name: statistics.median(run[name] for run in runs) for name in figures}
    times = [run["ms_per_pair"] for run in runs]
    return combined | {"ms_low": min(times), "ms_high": max(times)}


def compare_losses(case: Case) -> float:
    """The largest difference of a step's loss, TRL's against ours: same pairs and order, no dropout."""
    flags = ("--in-order", "--steps", str(case.equal_steps), "--learning-rate", "1e-3")
    theirs, ours = (run_way(way, case, *flags)["losses"] for way in ("stock", "ours"))
    say(f"{case.name}: losses {ours[0]:.6f} to {ours[-1]:.6f}")
    return max(abs(one - other) for one, other in zip(theirs, ours, strict=True))


def format_case(case: str, measured: dict[str, Any]) -> str:
    """One table in Markdown: a way a line, its time also as a multiple of stock's, tuned's and the floor."""
    names = [title for title, _, _ in COLUMNS]
    lines = [
        "| " + " | ".join([case, *names, "range", "of stock", "of tuned", "floors"]) + " |",
        "| " + " | ".join(["---"] * (len(names) + 5)) + " |",
    ]
    for way in (*(w for w in WAYS if w in measured), "floor"):
        run = measured[way]
        cells = [format(run[name], style) if name in run else "" for _, name, style in COLUMNS]
        cells.append(f"{run['ms_low']:.1f}-{run['ms_high']:.1f}")
        others = (measured[to]["ms_per_pair"] for to in ("stock", "tuned", "floor"))
        cells += [f"{run['ms_per_pair'] / other:.2f}" for other in others]
        lines.append("| " + " | ".join([way, *cells]) + " |")
    return "\n".join([*lines, "", f"Largest difference of a step's loss: {measured['loss_difference']:.1e}."])


def summarise(measured: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The figures of the last line. bfloat16 rounds sums by their shape, so its losses differ by rounding
    and are told apart."""

    def ratios(to: str) -> dict[str, float]:
        return {
            case: round(found["ours"]["ms_per_pair"] / found[to]["ms_per_pair"], 3)
            for case, found in measured.items()
        }

    differences = {case: found["loss_difference"] for case, found in measured.items()}
    exact = [difference for case, difference in differences.items() if CASES[case][1] == "float32"]
    return {
        "ratio_to_stock": ratios("stock"),
        "ratio_to_tuned": ratios("tuned"),
        "ratio_to_guide": ratios("guide"),
        "ratio_to_floor": ratios("floor"),
        "max_loss_difference": max(exact, default=None),
        "loss_differences": differences,
        "cases": measured,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    add = parser.add_argument
    add("--cases", nargs="+", choices=sorted(CASES), default=list(CASES), help="(default: all)")
    add("--pairs", type=int, default=64, help="pairs to train on (default: 64)")
    add("--epochs", type=int, default=3, help="(default: 3)")
    add("--repeats", type=int, default=3, help="turns of every way (default: 3)")
    add("--bf16-pairs", type=int, help="fewer for bfloat16, which a CPU without AVX512-BF16 emulates")
    add("--quick", action="store_true", help="16 pairs, two epochs, one turn: shows that it runs")
    told = parser.parse_args()
    bf16_pairs = told.bf16_pairs or told.pairs
    sizes = Sizes(told.pairs, 64, told.epochs, told.repeats, equal_steps=8, bf16_pairs=bf16_pairs)
    if told.quick:
        sizes = Sizes(pairs=16, held_out=16, epochs=2, repeats=1, equal_steps=3, bf16_pairs=16)
    measured = {}
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.processor() or platform.machine()}, {sizes}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for case in prepare_cases(told.cases, sizes, Path(folder)):
            measured[case.name] = measure(case, WAYS, sizes)
            print("\n" + format_case(case.name, measured[case.name]), flush=True)
    print(json.dumps(summarise(measured)))


if __name__ == "__main__":
    main()
