"""Ten rounds of each way to go on from the last: does the win rate ever fall, and does the policy drift away?

Run `python -m benchmarks.ten_rounds`. Each variant labels what its own live policy says, as many pairs a
round, and is measured on held-out prompts after every round. No gate stands in between. Finished rounds are
kept in `--work`, so that an interrupted run goes on where it stopped. The last line is JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from benchmarks.charts import Band, draw_panels
from benchmarks.lab import make_ruler, settle_process
from benchmarks.metrics import gain_error
from benchmarks.ten_rounds_runs import (
    GUIDE,
    TASTE,
    VARIANTS,
    Measured,
    Sizes,
    describe_round,
    measured,
    run_guide,
    run_ours,
)
from trainer.settings import starter_settings


def falls(runs: Sequence[Measured]) -> list[str]:
    """Every round whose win rate is below the one before by more than two standard errors."""
    found = []
    for before, now in pairwise(runs):
        if now.win_rate is None or before.win_rate is None or before.seed != now.seed:
            continue
        if before.win_rate - now.win_rate > 2 * gain_error(now.scores, before.scores):
            found.append(f"seed {now.seed}, round {now.number}: {before.win_rate:.3f} to {now.win_rate:.3f}")
    return found


def summarise(variant: str, runs: Sequence[Measured]) -> dict[str, object]:
    """What the JSON line says of a variant: means over seeds at the end, and where it fell."""
    whole = [one for one in runs if one.win_rate is not None]
    numbers = sorted({one.number for one in whole})
    at = {number: [one for one in whole if one.number == number] for number in numbers}
    middle, last = at[numbers[len(numbers) // 2]], at[numbers[-1]]
    return {
        "variant": variant,
        "rounds_finished": numbers[-1],
        "win_rates": {n: round(statistics.fmean(one.win_rate or 0 for one in at[n]), 4) for n in numbers},
        "drifts": {n: round(statistics.fmean(one.drift or 0 for one in at[n]), 4) for n in numbers},
        "entropies": {n: round(statistics.fmean(one.entropy or 0 for one in at[n]), 4) for n in numbers},
        "facts": {n: round(statistics.fmean(one.fact_accuracy or 0 for one in at[n]), 4) for n in numbers},
        "drift_in_second_half": round(_mean_drift(last) - _mean_drift(middle), 4),
        "falls": falls(whole),
        "crashes": [describe_round(one) for one in runs if one.error],
        "seconds_a_round": round(statistics.fmean(one.seconds for one in whole if one.number), 1)
        if any(one.number for one in whole)
        else None,
    }


def _mean_drift(runs: Sequence[Measured]) -> float:
    return statistics.fmean(one.drift or 0.0 for one in runs)


def draw_chart(runs: dict[str, list[Measured]]) -> str:
    """Win rate, drift and entropy by round: the mean over seeds, the lowest and highest behind it."""
    panels = {}
    for name, title in (
        ("win_rate", "win rate against the base"),
        ("drift", "drift from the base, nats a token"),
        ("entropy", "entropy, nats a token"),
    ):
        panels[title] = {variant: _band(found, name) for variant, found in runs.items()}
    return draw_panels("Ten rounds, one label in ten wrong", panels, "round")


def _band(runs: Sequence[Measured], name: str) -> Band:
    numbers = sorted({one.number for one in runs if one.win_rate is not None})
    columns = [
        [getattr(one, name) for one in runs if one.number == number and one.win_rate is not None]
        for number in numbers
    ]
    return Band([statistics.fmean(c) for c in columns], [min(c) for c in columns], [max(c) for c in columns])


def show_table(runs: dict[str, list[Measured]]) -> str:
    """Win rate and drift of each variant after each round, means over seeds."""
    rounds = sorted({one.number for found in runs.values() for one in found})
    lines = [f"| variant | {' | '.join(map(str, rounds))} |", f"| --- {'| --- ' * len(rounds)}|"]
    for variant, found in runs.items():
        cells = []
        for number in rounds:
            at = [one for one in found if one.number == number and one.win_rate is not None]
            cells.append(
                f"{statistics.fmean(one.win_rate or 0 for one in at):.3f} / {_mean_drift(at):.2f}"
                if at
                else "crashed"
            )
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--work", type=Path, default=Path("ten-rounds"), help="where finished rounds are kept")
    add("--out", type=Path, default=Path("docs/ten_rounds.svg"), help="the chart to write")
    add("--rounds", type=int, default=10, help="rounds (default: 10)")
    add("--seeds", type=int, default=3, help="seeds, counted from 0 (default: 3)")
    add("--labels", type=int, default=100, help="pairs judged before each round (default: 100)")
    add("--eval-prompts", type=int, default=300, help="held-out prompts to measure on (default: 300)")
    add("--max-tokens", type=int, default=96, help="longest answer, in tokens (default: 96)")
    add("--max-steps", type=int, default=starter_settings().max_steps, help="limit on DPO's steps a round")
    add("--variant", action="append", choices=VARIANTS, help="only this one, may be repeated")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is not finished, print the table, draw the chart, end with JSON."""
    args = parse_arguments(argv)
    settle_process()
    sizes = Sizes(args.labels, args.eval_prompts, args.max_tokens, args.rounds, args.max_steps)
    check_sizes(args.work, sizes)
    wanted = args.variant or list(VARIANTS)
    runs: dict[str, list[Measured]] = {variant: [] for variant in wanted}
    for seed in range(args.seeds):
        ruler = make_ruler(TASTE, sizes.eval_prompts, sizes.max_tokens, seed)
        for variant in wanted:
            work = args.work / f"seed-{seed}" / variant.replace(" ", "-").replace("'", "").replace(",", "")
            done = (
                run_guide(seed, sizes, ruler, work)
                if variant == GUIDE
                else run_ours(variant, seed, sizes, ruler, work)
            )
            runs[variant] += [measured(variant, seed, 0, ruler.base, 0.0, 0.0), *done[: sizes.rounds]]
    print(f"win rate / drift after each round, means over {args.seeds} seeds\n{show_table(runs)}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(draw_chart(runs), "utf-8")
    summaries = [summarise(variant, found) for variant, found in runs.items()]
    print(json.dumps({"ten_rounds": summaries, "seeds": args.seeds, "sizes": dataclasses.asdict(sizes)}))


def check_sizes(work: Path, sizes: Sizes) -> None:
    """Rounds of another size are not comparable: stop rather than mix them."""
    work.mkdir(parents=True, exist_ok=True)
    path, told = work / "sizes.json", dataclasses.asdict(sizes) | {"rounds": 0}
    if path.exists() and json.loads(path.read_text("utf-8")) != told:
        raise SystemExit(f"{work} holds rounds of other sizes; take another --work or the same sizes")
    path.write_text(json.dumps(told), "utf-8")


if __name__ == "__main__":
    main()
