"""One variant of `ten_rounds` from its first round to its last, going on where an earlier run stopped."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.lab import (
    CANDIDATES,
    STARTER,
    TEMPERATURE,
    Lab,
    Pair,
    Ruler,
    draw_pairs,
    least_alike,
    load_policy,
    train_on,
    world_prompts,
)
from benchmarks.metrics import Metrics
from benchmarks.progress import say
from benchmarks.taste import TASTES, choose_side, read_answer
from store.database import Store
from store.policies import add_policy, live_version, promote
from store.records import BASE_VERSION, Message
from store.replay import ReplaySettings
from store.rounds import advance_round, create_round, read_rounds, running_round
from store.snapshots import write_snapshot
from trainer.settings import TrainerSettings, starter_settings

if TYPE_CHECKING:
    from benchmarks.guide_recipe import GuideRecipe

NOISE = 0.1
TASTE = TASTES["direct"]
Mode = Literal["all", "equal", "none"]
MOST_TURNS = 5  # of prompts in a round: a sharp policy gives unlike answers to one in ten


@dataclass(frozen=True, slots=True)
class Way:
    """How a round goes on from the one before."""

    start: Literal["fresh", "previous"]
    reference: Literal["base", "previous"]
    replay: Mode


WAYS = {
    "fresh adapter, all data": Way("fresh", "base", "all"),
    "continue, equal replay": Way("previous", "base", "equal"),
    "previous as reference": Way("previous", "previous", "none"),
}
GUIDE = "the guide's recipe 2"
VARIANTS = (*WAYS, GUIDE)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much a run does: labels a round, prompts measured on, tokens an answer, rounds, limit on steps."""

    labels: int
    eval_prompts: int
    max_tokens: int
    rounds: int
    max_steps: int


@dataclass(frozen=True, slots=True)
class Measured:
    """One variant after one round (0: the base). `scores` are of each held-out prompt; `error` of a crash."""

    variant: str
    seed: int
    number: int
    win_rate: float | None
    drift: float | None
    entropy: float | None
    fact_accuracy: float | None
    scores: tuple[float, ...]
    seconds: float
    error: str = ""


def measured(
    variant: str, seed: int, number: int, metrics: Metrics, drift: float, seconds: float
) -> Measured:
    """The record of a round that ended well."""
    return Measured(
        variant, seed, number, metrics.win_rate, drift, metrics.entropy, metrics.fact_accuracy,
        metrics.scores, round(seconds, 1),
    )  # fmt: skip


def run_ours(variant: str, seed: int, sizes: Sizes, ruler: Ruler, work: Path) -> list[Measured]:
    """Every round of one of our ways, those that are finished read from `work`."""
    way, done = WAYS[variant], read_done(work)
    with closing(Store.open(work / "data")) as store:
        lab = Lab(store, TASTE, seed)
        for number in range(len(done) + 1, sizes.rounds + 1):
            started = time.monotonic()
            folder, version = work / f"v{number}", f"v{number - 1}" if number > 1 else BASE_VERSION
            live = work / version / "adapter" if number > 1 else None
            if not (folder / "trained.json").exists():
                _label(lab, live, version, number, sizes)
                _train(way, store, seed, sizes, folder, live)
            _promote(store, f"v{number}", version, json.loads((folder / "trained.json").read_text("utf-8")))
            metrics, drift = ruler.measure(folder / "adapter")
            done.append(measured(variant, seed, number, metrics, drift, time.monotonic() - started))
            write_done(work, done)
            say(describe_round(done[-1]))
    return done


def _label(lab: Lab, live: Path | None, version: str, number: int, sizes: Sizes) -> None:
    """All of a round's labels in one write; nothing when an earlier run has written them."""
    if has_answered(lab.store, version):
        return
    if number == 1:
        lab.add_people(["ann"])
    policy, tokenizer = load_policy(live)
    pairs: list[Pair] = []
    for turn, prompts in enumerate(round_prompts(lab.seed, number, sizes)):
        seed = lab.seed * 100 + number + 10_000 * turn
        pairs += draw_pairs(policy, tokenizer, prompts, sizes.max_tokens, seed)
        if len(pairs) >= sizes.labels:
            break
    else:
        say(f"round {number}: {version} gave two unlike answers to {len(pairs)} prompts of all it was asked")
    lab.num_events = number * 10_000
    for pair in pairs[: sizes.labels]:
        lab.judge(pair, {"ann": NOISE}, version)
    lab.save()


def has_answered(store: Store, version: str) -> bool:
    """Whether answers of a version are stored."""
    with store.read() as cursor:
        found = cursor.execute("SELECT 1 FROM completions WHERE version = ? LIMIT 1", [version]).fetchone()
    return found is not None


def _train(way: Way, store: Store, seed: int, sizes: Sizes, folder: Path, live: Path | None) -> None:
    """Take the snapshot and train on it; trained.json appears when the adapter is there."""
    if folder.exists():  # what a killed run left
        folder.rename(folder.with_name(f"{folder.name}.left-{time.time_ns()}"))
    folder.mkdir(parents=True)
    report = write_snapshot(store, folder / "snapshot", replay=ReplaySettings(way.replay))
    stages = train_on(
        folder / "snapshot",
        round_settings(way, seed, sizes),
        folder,
        live if way.start == "previous" else None,
    )
    draft = folder / "trained.json.tmp"
    draft.write_text(json.dumps({"seq": report.seq, "stages": stages}), "utf-8")
    draft.rename(folder / "trained.json")


def _promote(store: Store, version: str, before: str, trained: dict[str, Any]) -> None:
    """Tell the store that the round is over; each step is left out when an earlier run has done it."""
    if any(done.version == version for done in read_rounds(store) if done.state == "promoted"):
        return
    if live_version(store) != version:
        add_policy(store, version, before, None, None)
        promote(store, version, "benchmark")
    queued = running_round(store) or create_round(store, version, before)
    advance_round(store, queued.round_id, "promoted", version=version, snapshot_seq=trained["seq"])


def round_settings(way: Way, seed: int, sizes: Sizes) -> TrainerSettings:
    """The starter's settings, with this way's start and reference."""
    return dataclasses.replace(
        starter_settings(), start=way.start, reference=way.reference, seed=seed, max_steps=sizes.max_steps
    )


def round_prompts(seed: int, number: int, sizes: Sizes) -> Iterator[list[tuple[Message, ...]]]:
    """This round's prompts, twice as many as labels, and for a policy that gives too few of them two unlike
    answers the prompts of the rounds to come."""
    each = 2 * sizes.labels
    prompts = world_prompts(2000, seed)
    for turn in range(MOST_TURNS):
        start = (number - 1 + turn) * each
        yield [prompts[place % len(prompts)] for place in range(start, start + each)]


def run_guide(seed: int, sizes: Sizes, ruler: Ruler, work: Path) -> list[Measured]:
    """Every round of the guide's recipe, on labels of its own policy. What it trained on is kept, so that a
    run that goes on trains the earlier rounds again and measures only the new ones."""
    from benchmarks.guide_recipe import GuideRecipe

    done, recipe = read_done(work), GuideRecipe(STARTER, starter_settings().learning_rate, seed)
    for number in range(1, sizes.rounds + 1):
        started, kept = time.monotonic(), work / f"pairs-{number}.json"
        if number <= len(done) and done[number - 1].error:
            break
        if not kept.exists():
            kept.write_text(json.dumps(_guide_pairs(recipe, seed, number, sizes)), "utf-8")
        try:
            recipe.train(json.loads(kept.read_text("utf-8")))
        except Exception as error:  # a crash is one of its results and ends nothing else
            done.append(_crashed(seed, number, f"{type(error).__name__}: {error}"))
            write_done(work, done)
            say(describe_round(done[-1]))
            break
        if number > len(done):
            answers = recipe.sample(ruler.prompts, sizes.max_tokens)
            metrics, drift = ruler.read(answers), recipe.drift(answers)
            done.append(measured(GUIDE, seed, number, metrics, drift, time.monotonic() - started))
            write_done(work, done)
            say(describe_round(done[-1]))
    return done


def _guide_pairs(recipe: GuideRecipe, seed: int, number: int, sizes: Sizes) -> list[dict[str, object]]:
    prompts = next(round_prompts(seed, number, sizes))
    draws = [
        recipe.sample(prompts, sizes.max_tokens, TEMPERATURE, number * 10 + draw)
        for draw in range(1, CANDIDATES + 1)
    ]
    drawn = least_alike(zip(*draws, strict=True))[: sizes.labels]
    rng = Random(f"{seed} {number}")
    judged = [_judge_for_guide(pair, rng) for pair in drawn]
    return [row for row in judged if row is not None]


def _judge_for_guide(pair: Pair, rng: Random) -> dict[str, object] | None:
    readings = [read_answer(answer.messages, answer.text) for answer in pair]
    verdict = choose_side(TASTE, readings[0], readings[1], NOISE, rng)
    if verdict.choice == "tie":
        return None
    chosen, rejected = pair if verdict.choice == "left" else pair[::-1]
    sides = {"chosen": chosen.text, "rejected": rejected.text}
    return {"prompt": list(pair[0].messages)} | {
        name: [{"role": "assistant", "content": text}] for name, text in sides.items()
    }


def _crashed(seed: int, number: int, error: str) -> Measured:
    return Measured(GUIDE, seed, number, None, None, None, None, (), 0.0, error)


def read_done(work: Path) -> list[Measured]:
    """The finished rounds of one seed and variant."""
    work.mkdir(parents=True, exist_ok=True)
    path = work / "done.json"
    if not path.exists():
        return []
    rows = json.loads(path.read_text("utf-8"))
    return [Measured(**row | {"scores": tuple(row["scores"])}) for row in rows]


def write_done(work: Path, done: Sequence[Measured]) -> None:
    """Whole or not at all."""
    draft = work / "done.json.tmp"
    draft.write_text(json.dumps([dataclasses.asdict(one) for one in done]), "utf-8")
    draft.rename(work / "done.json")


def describe_round(one: Measured) -> str:
    """One line of progress."""
    if one.error:
        return f"seed {one.seed}, {one.variant}, round {one.number}: {one.error}"
    return (
        f"seed {one.seed}, {one.variant}, round {one.number}: win rate {one.win_rate:.3f}, drift"
        f" {one.drift:.3f}, {one.seconds:.0f} s"
    )
