"""30 % of labels say the opposite: what weights and flip probabilities are worth against a plain majority.

Run `python -m benchmarks.label_noise`. Three simulated people of unequal reliability judge every pair, as
many in both arms. The weighted arm trains on the store's effective labels (who is believed how much is found
from the labels themselves) with cDPO; the plain arm on the raw majority, all rows alike, with the sigmoid
loss. The last line is JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.lab import (
    Lab,
    Pair,
    Ruler,
    draw_pairs,
    load_policy,
    make_ruler,
    settle_process,
    train_on,
    world_prompts,
)
from benchmarks.progress import say
from benchmarks.taste import TASTES, Taste, read_answer
from store.database import Store
from store.records import BASE_VERSION
from store.snapshots import write_snapshot
from trainer.settings import TrainerSettings, starter_settings

# Each is wrong with this probability, 0.30 on average.
PEOPLE = {"careful": 0.12, "hurried": 0.30, "careless": 0.48}
FIGURES = ("label_accuracy", "weighted_accuracy", "win_rate", "decided_win_rate", "fact_accuracy", "drift")


@dataclass(frozen=True, slots=True)
class NoiseRun:
    """One arm with one seed. `label_accuracy` is the share of rows whose chosen answer is the better one,
    `weighted_accuracy` the same by the rows' weights; `noise` the share of single judgements that were wrong.
    """

    arm: str
    seed: int
    noise: float
    num_rows: int
    label_accuracy: float
    weighted_accuracy: float
    win_rate: float
    decided_win_rate: float
    fact_accuracy: float
    drift: float


def run_seed(
    seed: int, num_pairs: int, num_prompts: int, max_tokens: int, settings: TrainerSettings
) -> list[NoiseRun]:
    """Both arms on the same judgements."""
    taste = TASTES["direct"]
    ruler = make_ruler(taste, num_prompts, max_tokens, seed)
    policy, tokenizer = load_policy(None)
    drawn = draw_pairs(policy, tokenizer, world_prompts(2 * num_pairs, seed), max_tokens, seed)
    # Nobody can err about two answers that are equally good.
    pairs = [pair for pair in drawn if taste.compare(*_read(pair)) != 0][:num_pairs]
    store = Store.in_memory()
    lab = Lab(store, taste, seed)
    lab.add_people(list(PEOPLE))
    votes = [[verdict.choice for verdict in lab.judge(pair, PEOPLE, BASE_VERSION)] for pair in pairs]
    lab.save()
    right = ["left" if taste.compare(*_read(pair)) > 0 else "right" for pair in pairs]
    wrong = [said != truth for given, truth in zip(votes, right, strict=True) for said in given]
    noise = sum(wrong) / len(wrong)
    with tempfile.TemporaryDirectory() as scratch:
        weighted, plain = Path(scratch) / "weighted", Path(scratch) / "plain"
        write_snapshot(store, weighted / "snapshot", holdout_share=0.0)
        store.close()
        write_majority(weighted / "snapshot", plain / "snapshot", pairs, votes)
        arms = {
            "weighted cDPO": (weighted, dataclasses.replace(settings, seed=seed)),
            "plain sigmoid": (
                plain,
                dataclasses.replace(settings, seed=seed, loss="sigmoid", label_smoothing=0.0),
            ),
        }
        return [_run_arm(arm, folder, told, ruler, noise) for arm, (folder, told) in arms.items()]


def _read(pair: Pair) -> tuple[object, object]:
    return tuple(read_answer(answer.messages, answer.text) for answer in pair)  # type: ignore[return-value]


def write_majority(
    weighted: Path, plain: Path, pairs: Sequence[Pair], votes: Sequence[Sequence[str]]
) -> None:
    """The same snapshot with a row for every pair: the side most people chose, weight 1, no doubt."""
    shutil.copytree(weighted, plain)
    rows = pq.read_table(weighted / "pairs.parquet")
    by_prompt = {row["prompt_id"]: row for row in rows.to_pylist()}
    template = next(iter(by_prompt.values()))
    written = []
    for number, (pair, said) in enumerate(zip(pairs, votes, strict=True), start=1):
        ordered = pair if 2 * said.count("left") > len(said) else pair[::-1]
        sides = {
            key: value
            for name, answer in zip(("chosen", "rejected"), ordered, strict=True)
            for key, value in ((name, answer.text), (f"{name}_ids", list(answer.token_ids)))
        }
        about = {"row_id": f"plain {number:05}", "prompt_id": f"t{number:05}"}
        messages = {"messages_json": json.dumps(list(pair[0].messages))}
        written.append(template | sides | about | messages | {"weight": 1.0, "probability": 1.0})
    pq.write_table(pa.Table.from_pylist(written, schema=rows.schema), plain / "pairs.parquet")


def _run_arm(arm: str, folder: Path, settings: TrainerSettings, ruler: Ruler, noise: float) -> NoiseRun:
    say(f"seed {settings.seed}: {arm}")
    rows = pq.read_table(folder / "snapshot" / "pairs.parquet").to_pylist()
    right = [_is_right(row, ruler.taste) for row in rows]
    train_on(folder / "snapshot", settings, folder)
    metrics, drift = ruler.measure(folder / "adapter")
    total = sum(row["weight"] for row in rows)
    return NoiseRun(
        arm,
        settings.seed,
        noise,
        len(rows),
        sum(right) / len(rows),
        sum(row["weight"] for row, is_right in zip(rows, right, strict=True) if is_right) / total,
        metrics.win_rate,
        metrics.decided_win_rate,
        metrics.fact_accuracy,
        drift,
    )


def _is_right(row: dict[str, str], taste: Taste) -> bool:
    messages = json.loads(row["messages_json"])
    chosen, rejected = (read_answer(messages, row[name]) for name in ("chosen", "rejected"))
    return taste.compare(chosen, rejected) > 0


def describe(runs: Sequence[NoiseRun]) -> str:
    """A row of the table: means over seeds with the standard deviation between them."""
    cells = [runs[0].arm, str(round(statistics.fmean(run.num_rows for run in runs)))]
    for name in FIGURES:
        values = [getattr(run, name) for run in runs]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        cells.append(f"{statistics.fmean(values):.3f} ±{spread:.3f}")
    return f"| {' | '.join(cells)} |"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table and the difference within seeds, then everything as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--pairs", type=int, default=200, help="pairs, each judged by three people (default: 200)")
    add("--seeds", type=int, default=5, help="seeds, counted from 0 (default: 5)")
    add("--eval-prompts", type=int, default=300, help="held-out prompts to measure on (default: 300)")
    add("--max-tokens", type=int, default=96, help="longest answer, in tokens (default: 96)")
    add("--max-steps", type=int, default=starter_settings().max_steps, help="limit on DPO's steps")
    args = parser.parse_args(argv)
    settle_process()
    settings = dataclasses.replace(starter_settings(), max_steps=args.max_steps)
    runs = [
        run
        for seed in range(args.seeds)
        for run in run_seed(seed, args.pairs, args.eval_prompts, args.max_tokens, settings)
    ]
    print("| arm | rows | right | right by weight | win rate | of decided | facts | drift |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    weighted, plain = ([run for run in runs if run.arm == arm] for arm in ("weighted cDPO", "plain sigmoid"))
    print(f"{describe(weighted)}\n{describe(plain)}")
    gains = [ours.win_rate - theirs.win_rate for ours, theirs in zip(weighted, plain, strict=True)]
    spread = statistics.stdev(gains) if len(gains) > 1 else 0.0
    print(f"weighted - plain, win rate within a seed: {statistics.fmean(gains):+.3f} ±{spread:.3f}")
    figures = {"gain": statistics.fmean(gains), "gain_spread": spread, "gains": gains}
    print(json.dumps({"label_noise": figures, "runs": [dataclasses.asdict(run) for run in runs]}))


if __name__ == "__main__":
    main()
