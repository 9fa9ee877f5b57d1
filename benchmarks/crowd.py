"""A simulated crowd, good and bad: does the store name the bad ones, and are its labels right more often?

Run `python -m benchmarks.crowd`. Seven people err in a tenth of their choices, two guess, one always takes
the left answer, one means the opposite. Their judgements are written as events into a real store; what is
printed comes from `read_quality` and `build_rows`, as a page and a round would get it. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from store.database import Store
from store.effective import FIRST, SECOND
from store.events import Event, new_event
from store.labels import build_rows
from store.quality import read_quality
from store.writer import Decision

AT = datetime(2026, 1, 1, tzinfo=UTC)
NOISE = 0.1
CROWD = {
    **{f"good {n}": "good" for n in range(1, 8)},
    "random 1": "random",
    "random 2": "random",
    "always left": "left",
    "adversary": "adversary",
}
# The word that must be in a flag for a person of that kind to count as named.
NAMED_BY = {"random": "like guessing", "left": "one side", "adversary": "adversarial"}


@dataclass(frozen=True, slots=True)
class CrowdRun:
    """One crowd's figures.

    `majority` and `effective` are shares of tasks whose label is right, an undecided one counting half;
    `by_weight` are shares of the training weight on right rows, the majority's rows all weighing the same.
    `named` counts the bad ones with a fitting flag, `blamed` the good ones with any.
    """

    per_task: int
    num_gold: int
    seed: int
    majority: float
    effective: float
    majority_by_weight: float
    effective_by_weight: float
    named: int
    blamed: int
    left_within: int | None


def run_crowd(num_tasks: int, per_task: int, num_gold: int, seed: int) -> CrowdRun:
    """Fill a store with one crowd's judgements and read what it makes of them."""
    rng = random.Random(f"{seed} {per_task} {num_gold}")
    store = Store.in_memory()
    truth = {f"t{n}": rng.choice((FIRST, SECOND)) for n in range(num_tasks)}
    golden = {f"g{n}": rng.choice((FIRST, SECOND)) for n in range(num_gold)}
    events = [_person(name) for name in CROWD]
    for task_id, better in golden.items():
        events += [*_task(task_id), _gold(task_id, better)]
        events += [_judge(task_id, name, better, rng)[0] for name in CROWD]
    votes: dict[str, list[int]] = {}
    for task_id, better in truth.items():
        events += _task(task_id)
        chosen = [_judge(task_id, name, better, rng) for name in rng.sample(sorted(CROWD), per_task)]
        events += [event for event, _ in chosen]
        votes[task_id] = [verdict for _, verdict in chosen]
    store.write(lambda _: Decision(None, events))
    run = _measure(store, truth, votes, per_task, num_gold, seed, _left_within(events))
    store.close()
    return run


def _measure(
    store: Store,
    truth: dict[str, int],
    votes: dict[str, list[int]],
    per_task: int,
    num_gold: int,
    seed: int,
    left_within: int | None,
) -> CrowdRun:
    with store.read() as cursor:
        rows = build_rows(cursor)
    found = {row.chosen.partition(" ")[0]: row for row in rows.pairs}
    right = {task_id: found[task_id].chosen.endswith(_name(truth[task_id])) for task_id in found}
    majority = {task_id: _majority(said, truth[task_id]) for task_id, said in votes.items()}
    decided = [task_id for task_id in majority if majority[task_id] != 0.5]
    weight = {task_id: found[task_id].weight for task_id in found}
    flags = {person.name: " ".join(person.flags) for person in read_quality(store).people}
    return CrowdRun(
        per_task=per_task,
        num_gold=num_gold,
        seed=seed,
        majority=statistics.fmean(majority.values()),
        effective=statistics.fmean(float(right.get(task_id, 0.5)) for task_id in truth),
        majority_by_weight=statistics.fmean(majority[task_id] for task_id in decided),
        effective_by_weight=sum(weight[t] for t in found if right[t]) / sum(weight.values()),
        named=sum(NAMED_BY.get(kind, "-") in flags[name] for name, kind in CROWD.items()),
        blamed=sum(bool(flags[name]) for name, kind in CROWD.items() if kind == "good"),
        left_within=left_within,
    )


def _majority(said: Sequence[int], better: int) -> float:
    right = sum(verdict == better for verdict in said)
    return 0.5 if 2 * right == len(said) else float(2 * right > len(said))


def _left_within(events: Sequence[Event]) -> int | None:
    """After how many of their judgements the always-left annotator is flagged."""
    theirs = [e for e in events if e["type"] == "judgement_saved" and e["person_id"] == "always left"]
    tasks = {e["task_id"]: e for e in events if e["type"] == "task_added"}
    store = Store.in_memory()
    store.write(lambda _: Decision(None, [_person("always left")]))
    for number, judged in enumerate(theirs, start=1):
        store.write(lambda _, judged=judged: Decision(None, [tasks[judged["task_id"]], judged]))  # type: ignore[misc]
        if any("one side" in flag for flag in read_quality(store).people[0].flags):
            store.close()
            return number
    store.close()
    return None


def _judge(task_id: str, name: str, better: int, rng: random.Random) -> tuple[Event, int]:
    left = rng.choice((FIRST, SECOND))
    worse = SECOND if better == FIRST else FIRST
    choose: dict[str, Callable[[], int]] = {
        "good": lambda: better if rng.random() >= NOISE else worse,
        "random": lambda: rng.choice((FIRST, SECOND)),
        "left": lambda: left,
        "adversary": lambda: worse if rng.random() >= NOISE else better,
    }
    verdict = choose[CROWD[name]]()
    ids = [f"{task_id}-{_name(side)}" for side in (FIRST, SECOND)]
    event = new_event(
        "judgement_saved",
        AT,
        judgement_id=f"j {task_id} {name}",
        task_id=task_id,
        person_id=name,
        choice="prefer",
        chosen_id=ids[verdict],
        rejected_id=ids[1 - verdict],
        left_id=ids[left],
        strength=2,
        reasons=[],
        comment="",
        correction=None,
        active_ms=rng.randint(4000, 20000),
    )
    return event, verdict


def _name(side: int) -> str:
    return ("first", "second")[side]


def _person(name: str) -> Event:
    secrets = {"password_hash": "scrypt$1$1$1$00$00", "token_sha256": name}
    return new_event(
        "person_added", AT, person_id=name, name=name, name_key=name, role="annotator", **secrets
    )


def _task(task_id: str) -> list[Event]:
    drawn = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 9, "seed": 0, "logprob_sum": -1.0}
    empty = {"prompt_id": task_id, "conversation_id": None, "person_id": None}
    answers = [
        new_event(
            "completion_saved",
            AT,
            completion_id=f"{task_id}-{_name(side)}",
            messages=[{"role": "user", "content": task_id}],
            text=f"{task_id} {_name(side)}",
            version="v0",
            token_ids=[1],
            finish_reason="stop",
            num_prompt_tokens=1,
            **drawn,
            **empty,
        )
        for side in (FIRST, SECOND)
    ]
    pair = {"first_id": f"{task_id}-first", "second_id": f"{task_id}-second"}
    added = new_event(
        "task_added", AT, task_id=task_id, kind="pair", prompt_id=task_id, **pair, version="v0", wanted=1
    )
    return [*answers, added]


def _gold(task_id: str, better: int) -> Event:
    chosen_id = f"{task_id}-{_name(better)}"
    return new_event(
        "gold_set", AT, task_id=task_id, choice="prefer", chosen_id=chosen_id, source="simulated"
    )


def describe(runs: Sequence[CrowdRun]) -> str:
    """One line of figures for runs that differ in the seed alone: means with the spread between seeds."""

    def spread(values: Sequence[float]) -> str:
        return f"{statistics.fmean(values):.3f} ±{statistics.stdev(values) if len(values) > 1 else 0:.3f}"

    names = ("majority", "effective", "majority_by_weight", "effective_by_weight")
    figures = [spread([getattr(run, name) for run in runs]) for name in names]
    better = sum(run.effective > run.majority for run in runs)
    named = f"{min(run.named for run in runs)}..{max(run.named for run in runs)} of 4"
    blamed = f"{sum(run.blamed for run in runs)} of {7 * len(runs)}"
    left = [run.left_within for run in runs]
    within = str(max(n for n in left if n is not None)) if None not in left else "not always"
    cells = [
        str(runs[0].per_task), str(runs[0].num_gold), *figures, f"{better} of {len(runs)}", named, blamed,
        within
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print a table of all sizes of crowd, then everything as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", type=int, default=400, help="tasks a crowd judges (default: 400)")
    parser.add_argument("--seeds", type=int, default=10, help="crowds of each size (default: 10)")
    args = parser.parse_args()
    print(
        "| K | gold each | majority | effective | majority, by weight | effective, by weight | better |"
        " bad ones named | good ones blamed | always-left flagged by |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    everything = []
    for per_task, num_gold in ((1, 0), (1, 20), (2, 0), (3, 0), (3, 20), (5, 0)):
        runs = [run_crowd(args.tasks, per_task, num_gold, seed) for seed in range(args.seeds)]
        print(describe(runs), flush=True)
        everything += [asdict(run) for run in runs]
    print(json.dumps(everything))


if __name__ == "__main__":
    main()
