"""Serving, measured in one run: speed against other ways, swaps under load, chat while a round trains.

    python -m benchmarks.serving [--vllm-python PATH] [--parts speed,swaps,training] [--models …] [--dtypes …]

Prints Markdown tables and, last, one JSON line with every figure. With `--vllm-python`, the interpreter of an
environment that holds vLLM, vLLM is measured beside.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.models import MODELS, build_model
from benchmarks.speed import NUM_TOKENS, PROMPT_TOKENS, WAYS, Setting, measure_speed

DESCRIPTION = "Serving in one run: speed against other ways, swaps under load, chat while a round trains."
PARTS = ("speed", "swaps", "training")
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
NAMES = {
    "naive": "naive: one `generate` at a time",
    "static": "one static batch through `generate`",
    "ours": "ours",
    "vllm": "vLLM",
}
COMPARED_AT = 8  # streams at which ratios are given


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as app.py does
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")  # the libraries' own, of one another
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="heed-serving-") as folder:
        for part in arguments.parts:
            found |= run_part(part, arguments, Path(folder))
    print(json.dumps(found))


def run_part(part: str, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure one part and print its table; returns what it adds to the last line."""
    if part == "speed":
        return run_speed(arguments, folder)
    if part == "swaps":
        from benchmarks.swaps import run_swaps

        return run_swaps(folder, arguments.vllm_python, arguments.swaps)
    from benchmarks.chat_during_training import run_training

    return run_training(folder / "service", arguments.labels)


def run_speed(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    setting = Setting(
        ways=tuple(way for way in arguments.ways if way != "vllm" or arguments.vllm_python),
        concurrency=tuple(arguments.concurrency),
        repeats=arguments.repeats,
        threads=arguments.threads,
        vllm_python=arguments.vllm_python,
    )
    figures: dict[str, Any] = {}
    for name in arguments.models:
        model = build_model(name, folder)
        for dtype in arguments.dtypes:
            case = f"{name}_{dtype}"
            figures[case] = measure_speed(model, DTYPES[dtype], setting, folder)
            print(format_case(case, figures[case], setting.concurrency), flush=True)
    ratios = {f"ours_vs_{way}": compare(figures, way) for way in ("vllm", "naive", "static")}
    print(format_ratios(ratios), flush=True)
    return {**ratios, "speed": figures}


def compare(figures: Mapping[str, Any], way: str) -> dict[str, float]:
    """Our tokens/s over another way's, by case; without the cases that lack one of them."""
    at = str(COMPARED_AT)
    return {
        case: round(ways["ours"][at]["tokens_per_s"] / ways[way][at]["tokens_per_s"], 2)
        for case, ways in figures.items()
        if at in ways.get("ours", {}) and at in ways.get(way, {})
    }


def format_case(case: str, ways: Mapping[str, Any], concurrency: Sequence[int]) -> str:
    """One model in one dtype as a Markdown table."""
    lines = [
        f"\n**{case.replace('_', ', ')}**, answers of {NUM_TOKENS} tokens to prompts of {PROMPT_TOKENS}:\n",
        "| way | streams | tokens/s | first token p50 / p95 ms | pause p95 ms | memory MiB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for way, found in ways.items():
        for many in concurrency:
            each = found[str(many)]
            lines.append(
                f"| {NAMES[way]} | {many} | {each['tokens_per_s']:,.0f} | {each['first_p50_ms']:,.0f} /"
                f" {each['first_p95_ms']:,.0f} | {each['pause_p95_ms']:,.0f} | {found['memory_mib']:,} |"
            )
    return "\n".join(lines)


def format_ratios(ratios: Mapping[str, Mapping[str, float]]) -> str:
    """Ours over the others at `COMPARED_AT` streams, a row a case."""
    cases = dict.fromkeys(case for by_case in ratios.values() for case in by_case)
    heads = [f"ours / {NAMES[name.removeprefix('ours_vs_')]}" for name in ratios]
    rows = [
        f"| {case} | {' | '.join(str(by_case.get(case, '–')) for by_case in ratios.values())} |"
        for case in cases
    ]
    head = f"\n| tokens/s at {COMPARED_AT} streams | {' | '.join(heads)} |"
    return "\n".join([head, "| --- " * (len(heads) + 1) + "|", *rows])


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=DESCRIPTION)
    add = parser.add_argument
    add("--parts", type=_some_of(PARTS), default=PARTS, help=f"of {','.join(PARTS)} (default: all)")
    add("--models", type=_some_of(MODELS), default=MODELS, help=f"of {','.join(MODELS)} (default: all)")
    add("--dtypes", type=_some_of(tuple(DTYPES)), default=tuple(DTYPES), help="of fp32,bf16 (default: both)")
    add("--ways", type=_some_of(WAYS), default=WAYS, help=f"of {','.join(WAYS)} (default: all)")
    add("--concurrency", type=_numbers, default=(1, 8, 32), help="streams at once (default: 1,8,32)")
    add("--repeats", type=int, default=5, help="turns of each way (default: 5; tokens/s is their median)")
    add("--threads", type=int, default=0, help="torch threads of each way but vLLM (default: the fastest)")
    add("--vllm-python", type=Path, help="interpreter of the environment with vLLM (default: without vLLM)")
    add("--swaps", type=int, default=20, help="how many swaps (default: 20)")
    add("--labels", type=int, default=600, help="labels the measured round trains on (default: 600)")
    return parser.parse_args(argv)


def _some_of(known: Sequence[str]) -> Any:
    def read(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is not of {', '.join(known)}")
        return names

    return read


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


if __name__ == "__main__":
    # Ended from outside, it still stops what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
