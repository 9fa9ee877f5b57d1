"""DPO then KTO, KTO then DPO, or one of them alone: which order teaches most from as many labels?

Run `python -m benchmarks.stage_order`. The starter answers, a simulated person judges pairs and rates single
answers, a tenth of them wrongly. Each arm trains on as many labels: the orders on half pairs and half
ratings, either alone on twice as many of its own; and the same half of the pairs without any ratings says
what those add. The last line is JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.lab import (
    Lab,
    Ruler,
    draw_pairs,
    load_policy,
    make_ruler,
    settle_process,
    train_on,
    world_prompts,
)
from benchmarks.progress import say
from benchmarks.taste import TASTES
from store.database import Store
from store.records import BASE_VERSION
from store.snapshots import write_snapshot
from trainer.settings import TrainerSettings, starter_settings

NOISE = 0.1
# Which shares of the labels are pairs and ratings, and the order of the stages.
ARMS: dict[str, tuple[float, float, Literal["dpo,kto", "kto,dpo"]]] = {
    "dpo alone": (1.0, 0.0, "kto,dpo"),
    "kto alone": (0.0, 1.0, "kto,dpo"),
    "dpo on half of the labels": (0.5, 0.0, "kto,dpo"),
    "dpo, then kto": (0.5, 0.5, "dpo,kto"),
    "kto, then dpo": (0.5, 0.5, "kto,dpo"),
}
FIGURES = ("win_rate", "decided_win_rate", "fact_accuracy", "entropy", "drift")


@dataclass(frozen=True, slots=True)
class ArmRun:
    """One arm with one seed; `stages` says what each stage trained on."""

    arm: str
    seed: int
    win_rate: float
    decided_win_rate: float
    fact_accuracy: float
    entropy: float
    drift: float
    stages: dict[str, str]


def run_seed(
    seed: int, num_labels: int, num_prompts: int, max_tokens: int, settings: TrainerSettings
) -> list[ArmRun]:
    """Every arm on labels of one seed, measured on the same held-out prompts."""
    taste = TASTES["direct"]
    from benchmarks.batch_answers import sample_in_batches

    ruler = make_ruler(taste, num_prompts, max_tokens, seed)
    policy, tokenizer = load_policy(None)
    # Some prompts give four equal answers, hence more of them than labels.
    prompts = world_prompts(2 * num_labels, seed)
    pairs = draw_pairs(policy, tokenizer, prompts, max_tokens, seed)[:num_labels]
    # Thumbs are given in a chat, where the policy speaks at temperature 1.
    chat = sample_in_batches(policy, tokenizer, prompts[-num_labels:], max_tokens, seed)
    runs = []
    for arm, (share_of_pairs, share_of_ratings, order) in ARMS.items():
        say(f"seed {seed}: {arm}")
        store = Store.in_memory()
        lab = Lab(store, taste, seed)
        lab.add_people(["ann"])
        for pair in pairs[: round(share_of_pairs * num_labels)]:
            lab.judge(pair, {"ann": NOISE}, BASE_VERSION)
        for answer in chat[num_labels - round(share_of_ratings * num_labels) :]:
            lab.rate(answer, "ann", NOISE, BASE_VERSION)
        lab.save()
        runs.append(_train_arm(arm, store, dataclasses.replace(settings, order=order, seed=seed), ruler))
        store.close()
    return runs


def _train_arm(arm: str, store: Store, settings: TrainerSettings, ruler: Ruler) -> ArmRun:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_snapshot(store, folder / "snapshot", holdout_share=0.0)
        stages = train_on(folder / "snapshot", settings, folder)
        metrics, drift = ruler.measure(folder / "adapter")
    return ArmRun(
        arm,
        settings.seed,
        metrics.win_rate,
        metrics.decided_win_rate,
        metrics.fact_accuracy,
        metrics.entropy,
        drift,
        stages,
    )


def describe(runs: Sequence[ArmRun]) -> str:
    """A row of the table: means over seeds with the standard deviation between them."""
    cells = [runs[0].arm]
    for name in FIGURES:
        values = [getattr(run, name) for run in runs]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        cells.append(f"{statistics.fmean(values):.3f} ±{spread:.3f}")
    return f"| {' | '.join(cells)} |"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table, then everything as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--labels", type=int, default=200, help="labels of each arm (default: 200)")
    add("--seeds", type=int, default=3, help="seeds, counted from 0 (default: 3)")
    add("--eval-prompts", type=int, default=300, help="held-out prompts to measure on (default: 300)")
    add("--max-tokens", type=int, default=96, help="longest answer, in tokens (default: 96)")
    add("--max-steps", type=int, default=starter_settings().max_steps, help="limit on DPO's steps")
    args = parser.parse_args(argv)
    settle_process()
    settings = dataclasses.replace(starter_settings(), max_steps=args.max_steps)
    runs = [
        run
        for seed in range(args.seeds)
        for run in run_seed(seed, args.labels, args.eval_prompts, args.max_tokens, settings)
    ]
    print("| arm | win rate | of decided | facts | entropy | drift |")
    print("| --- | --- | --- | --- | --- | --- |")
    by_arm = {arm: [run for run in runs if run.arm == arm] for arm in ARMS}
    for arm_runs in by_arm.values():
        print(describe(arm_runs), flush=True)
    means = {arm: statistics.fmean(run.win_rate for run in found) for arm, found in by_arm.items()}
    print(
        json.dumps(
            {
                "stage_order": means,
                "labels": args.labels,
                "seeds": args.seeds,
                "runs": [dataclasses.asdict(run) for run in runs],
            }
        )
    )


if __name__ == "__main__":
    main()
