"""The loop benchmark's command line and what it decides."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.taste import TASTES
from trainer.settings import starter_settings

ORDERS = ("uncertain", "random")
DESCRIPTION = (
    "The whole loop with simulated people: they judge, the service learns, and what is live is measured."
)


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """One run: who labels, how much, how it is measured. `seed` fixes the prompts and the draws.

    The service draws its pairs and their sides by itself, so two runs with one seed agree within noise only.
    `order` is the service's own where it is None. With a `stock` the service keeps that many open pairs, and
    people begin a round only when they are there: an order among pairs that are judged as fast as they come
    is no order.
    """

    rounds: int
    labels: int
    noise: float
    taste: str
    feedback: str
    annotators: int
    eval_prompts: int
    max_tokens: int
    guide_variant: str
    guide_lr: float
    base_model: str
    seed: int
    order: str | None = None
    stock: int | None = None

    def environment(self) -> dict[str, str]:
        """What a service that is started for this run is told beside its defaults."""
        told = {"HEED_ROLLOUT__ORDER": self.order, "HEED_ROLLOUT__READY_PAIRS": self.stock}
        return {name: str(value) for name, value in told.items() if value is not None}

    def __post_init__(self) -> None:
        for name in ("rounds", "labels", "annotators", "eval_prompts", "max_tokens", "stock"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)} must be at least 1")
        if not 0.0 <= self.noise < 0.5:
            raise ValueError(f"--noise {self.noise} is outside 0..0.5 (at 0.5 a label says nothing)")


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loop", description=DESCRIPTION)
    add_flags(parser)
    add = parser.add_argument
    add("--seed", type=int, default=0, help="seed of the prompts and of every answer asked for (default: 0)")
    add("--order", choices=ORDERS, help="which pairs are judged first (default: the service's)")
    add("--url", help="use this running service instead of starting one, e.g. http://127.0.0.1:7860")
    add("--token", help="an admin's bearer token for --url")
    add("--data", type=Path, help="keep the started service's data in this folder (default: a temporary one)")
    add("--out", type=Path, help="also write the JSON to this file")
    add("--strict", action="store_true", help="end with code 1 when a promise was not kept")
    arguments = parser.parse_args(argv)
    if bool(arguments.url) != bool(arguments.token):
        parser.error("--url and --token belong together")
    if arguments.url and (arguments.order or arguments.stock):
        parser.error("--order and --stock are settings of a service started here, not of the one at --url")
    return arguments


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What decides a run, except its seed and its order."""
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="training rounds (default: 5)")
    add("--labels", type=int, default=100, help="labels collected before each round (default: 100)")
    add("--noise", type=float, default=0.1, help="share of labels that say the opposite (default: 0.1)")
    add(
        "--taste",
        choices=sorted(TASTES),
        default="direct",
        help="what the annotators prefer (default: direct)",
    )
    add(
        "--feedback",
        choices=("pairs", "thumbs"),
        default="pairs",
        help="judge pairs side by side, or chat with the live policy and give thumbs (default: pairs)",
    )
    add("--annotators", type=int, default=4, help="people who label at the same time (default: 4)")
    add("--eval-prompts", type=int, default=300, help="held-out prompts to measure on (default: 300)")
    add("--max-tokens", type=int, default=128, help="longest measured answer, in tokens (default: 128)")
    add(
        "--guide-variant",
        choices=("ours", "own", "both", "none"),
        default="ours",
        help="the guide's recipe with our learning rate, its own (5e-5), both, or not at all (default: ours)",
    )
    add(
        "--guide-lr",
        type=float,
        default=starter_settings().learning_rate,
        help="first learning rate of the guide's recipe in the variant 'ours' (default: that of our rounds)",
    )
    add(
        "--base-model",
        default="serving/starter",
        help="base of the guide's recipe (default: the starter policy)",
    )
    add(
        "--stock",
        type=int,
        help="open pairs to wait for before a round's first judgement (default: none, and the service keeps"
        " its own number)",
    )


def read_settings(arguments: argparse.Namespace) -> LoopSettings:
    """The part of the command line that decides what is measured. Raises ValueError for a bad value."""
    return LoopSettings(**{name: getattr(arguments, name) for name in LoopSettings.__dataclass_fields__})
