"""Each way to train, alone on the starter policy: does it move it the right way?

Run `python -m benchmarks.directions` (no service, no GPU; about a minute of one core for each method). The
starter answers train prompts twice, a simulated person with a taste prefers one of the two, and every method
learns from the same pairs for the same number of visits: SFT on the chosen answers, each pair loss, KTO and
apo_zero_unpaired on the two answers as a desirable and an undesirable rating. Betas and the like are set per
method, since a beta means something else in each; no other setting differs, and no method gets the likelihood
term unless its name says so (ORPO has it by definition).

The table holds, on pairs of held-out prompts, how often the chosen answer gained more over the base than the
rejected one and by how many nats, and how the two changed; then how often bad habits show in answers sampled
to held-out prompts, with the seeds the base answered them with. A method moves the right way when both differ
by more than two standard errors (accuracy above one half, and the share of answers with any habit below the
base's, prompt by prompt) and the chosen answers are not unlearned: a policy that says nothing sensible has no
bad habits either. The last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any, Literal

import torch
from peft import get_peft_model

from benchmarks.judged_pairs import as_ratings, judge, sample, save_untrained
from benchmarks.movement import Movement, habit_shares, judge_movement, score_change
from benchmarks.progress import say
from settings import STARTER
from store.records import PairRow
from trainer.dpo import build_pair_trainer
from trainer.kto import build_rating_trainer
from trainer.preferences import prepare_pairs, prepare_ratings
from trainer.probes import Policies, Sample
from trainer.qlora import LoadedBase, load_base, lora_config, start_policy
from trainer.settings import BaseModel, TrainerSettings, starter_settings
from trainer.sft import SftExample, SftSettings, train_sft
from trainer.starter.habits import HABITS
from trainer.starter.world import WorldPrompt, heldout_prompts, train_prompts

BATCH = 4
SCORE_BATCH = 64


@dataclass(frozen=True, slots=True)
class Method:
    """One way to train: on what, and what it changes in the shared settings."""

    name: str
    stage: Literal["sft", "pairs", "ratings"]
    changes: Mapping[str, Any]


METHODS = (
    Method("SFT on chosen", "sft", {}),
    *(
        Method(name, "pairs", {"loss": name})
        for name in ("sigmoid", "cdpo", "hinge", "robust", "exo", "apo_zero", "apo_down", "aot")
    ),
    # It has no lower bound: at the others' rate it runs away, so it is shown at a quarter of it too.
    Method("robust, rate / 4", "pairs", {"loss": "robust", "learning_rate": 5e-4}),
    # Their gap is in nats a token, some twenty times smaller than an answer's.
    Method("ipo", "pairs", {"loss": "ipo", "beta": 1.0}),
    Method("sigmoid_norm", "pairs", {"loss": "sigmoid_norm", "beta": 3.0}),
    Method("simpo", "pairs", {"loss": "simpo", "beta": 3.0, "simpo_gamma": 1.0}),
    Method("orpo", "pairs", {"loss": "orpo", "orpo_weight": 1.0, "sft_weight": 1.0}),
    Method("cdpo, wpo", "pairs", {"loss": "cdpo", "wpo": True}),
    Method("cdpo, likelihood 12", "pairs", {"loss": "cdpo", "sft_weight": 12.0}),
    Method("kto", "ratings", {"rating_loss": "kto"}),
    Method("apo_zero_unpaired", "ratings", {"rating_loss": "apo_zero_unpaired"}),
    Method("kto, likelihood 4", "ratings", {"rating_loss": "kto", "kto_sft_weight": 4.0}),
)


@dataclass(frozen=True, slots=True)
class DirectionSettings:
    """How much of everything. `visits` counts pairs seen in training; a rating is half a pair."""

    pairs: int = 240
    heldout_pairs: int = 120
    answers: int = 300
    visits: int = 720
    learning_rate: float = 2e-3
    noise: float = 0.1
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Data:
    """Judged pairs to learn from and to be tested on, the prompts to answer and the base's answers."""

    train: list[PairRow]
    heldout: list[PairRow]
    prompts: list[WorldPrompt]
    base_answers: list[Sample]


def main(arguments: Sequence[str] | None = None) -> int:
    """Train every method, print the table and the JSON line."""
    settings, only = read_arguments(arguments)
    torch.set_num_threads(1)  # the same sums in the same order on any number of cores
    base = load_starter()
    with tempfile.TemporaryDirectory() as scratch:
        data = collect(base, settings, Path(scratch))
        shares = habit_shares(data.base_answers)
        say(f"the base shows any habit in {shares['any']:.3f} of its answers")
        found = {}
        for method in METHODS:
            if not only or method.name in only:
                found[method.name] = run_method(method, data, settings, Path(scratch))
                say(format_row(method.name, found[method.name]))  # a run that is ended leaves what it found
    print(format_table(shares, found))
    print(json.dumps(as_json(shares, found, settings)))
    return 0


def read_arguments(arguments: Sequence[str] | None) -> tuple[DirectionSettings, set[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.directions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, value in asdict(DirectionSettings()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    names = "; ".join(method.name for method in METHODS)
    parser.add_argument("--only", default="", help=f"methods separated by semicolons, of: {names}")
    given = vars(parser.parse_args(arguments))
    only = {name.strip() for name in given.pop("only").split(";") if name.strip()}
    if unknown := only - {method.name for method in METHODS}:
        parser.error(f"unknown methods {sorted(unknown)}; known: {names}")
    return DirectionSettings(**given), only


def load_starter() -> LoadedBase:
    return load_base(BaseModel(str(STARTER), quantization="none", dtype="float32"))


def collect(base: LoadedBase, settings: DirectionSettings, scratch: Path) -> Data:
    """Sample the base and let the simulated person judge. Pairs are of prompts nobody is tested on."""
    say("sampling the base")
    folder = save_untrained(base, scratch / "untrained")
    policies = Policies(base, {"untrained": folder}, SCORE_BATCH)
    asked = heldout_prompts(settings.heldout_pairs * 3 // 2 + settings.answers, settings.seed)
    prompts, tested = asked[: settings.answers], asked[settings.answers :]
    learned = train_prompts(settings.pairs * 3 // 2, settings.seed)
    train = judge(policies, base, learned, settings.seed, settings.noise)[: settings.pairs]
    heldout = judge(policies, base, tested, settings.seed, 0.0)[: settings.heldout_pairs]
    if len(train) < settings.pairs or len(heldout) < settings.heldout_pairs:
        raise RuntimeError(f"only {len(train)} train and {len(heldout)} held-out pairs differ; ask for fewer")
    answers = sample(policies, "base", base, prompts, settings.seed + 2)
    policies.unload()
    return Data(train, heldout, prompts, answers)


def run_method(method: Method, data: Data, settings: DirectionSettings, scratch: Path) -> Movement:
    """Train a fresh adapter on a freshly loaded starter and measure the files it leaves."""
    base = load_starter()
    folder = scratch / f"method-{METHODS.index(method)}"
    folder.mkdir()
    policy, losses = train(method, base, data.train, settings, folder)
    policy.save_pretrained(str(folder), selected_adapters=["default"], save_embedding_layers=False)
    policy.unload()
    policies = Policies(base, {"trained": folder}, SCORE_BATCH)
    changes = [score_change(policies, base, data.heldout, side) for side in ("chosen_ids", "rejected_ids")]
    answers = sample(policies, "trained", base, data.prompts, settings.seed + 2)
    chosen_tokens = mean(len(row.chosen_ids) for row in data.heldout)
    return judge_movement(losses, *changes, answers, data.base_answers, chosen_tokens)


def train(
    method: Method, base: LoadedBase, rows: Sequence[PairRow], settings: DirectionSettings, folder: Path
) -> tuple[Any, list[float]]:
    """The trained PEFT model and the loss of each step."""
    told = trainer_settings(method, settings)
    if method.stage == "sft":
        return train_chosen(base, rows, told, folder), []
    if method.stage == "pairs":
        prepared = prepare_pairs(rows, base.tokenizer, told.max_length).rows
        trainer: Any = build_pair_trainer(
            start_policy(base.model, told, None), base.tokenizer, prepared, told, folder
        )
    else:
        ratings = prepare_ratings(
            as_ratings(rows), base.tokenizer, told.max_length, told.kto_batch_size, told.seed
        )
        trainer = build_rating_trainer(
            start_policy(base.model, told, None), base.tokenizer, ratings, told, folder
        )
    trainer.train()
    return trainer.model, [line["loss"] for line in trainer.state.log_history if "loss" in line]


def trainer_settings(method: Method, settings: DirectionSettings) -> TrainerSettings:
    """What all methods share, with the method's own changes."""
    epochs = max(1, settings.visits // settings.pairs)
    shared = replace(
        starter_settings(),
        sft_weight=0.0,
        kto_sft_weight=0.0,
        learning_rate=settings.learning_rate,
        kto_learning_rate=settings.learning_rate,
        epochs=epochs,
        kto_epochs=epochs,
        max_steps=0,
        batch_size=BATCH,
        kto_batch_size=2 * BATCH,
        seed=settings.seed,
    )
    return replace(shared, **method.changes)


def train_chosen(base: LoadedBase, rows: Sequence[PairRow], told: TrainerSettings, folder: Path) -> Any:
    """A LoRA adapter taught the chosen answers and nothing of the rejected ones."""
    model = get_peft_model(base.model, lora_config(told))
    examples = [
        SftExample([{"role": m["role"], "content": m["content"]} for m in row.messages], row.chosen)
        for row in rows
    ]
    told_sft = SftSettings(
        batch_size=BATCH, epochs=told.epochs, learning_rate=told.learning_rate, seed=told.seed, log_every=1
    )
    with contextlib.redirect_stdout(sys.stderr):  # the library prints each step
        train_sft(model, base.tokenizer, examples, told_sft, folder / "work")
    return model


def format_table(base: Mapping[str, float], found: Mapping[str, Movement]) -> str:
    """One row a method, in Markdown, the base first."""
    head = ("", "loss", "accuracy", "margin", "chosen", "rejected", *HABITS, "any habit", "right way")
    blank = ("base", *[""] * 5, *(f"{base[habit]:.3f}" for habit in HABITS), f"{base['any']:.3f}", "")
    lines = [_join(line) for line in (head, ["---"] * len(head), blank)]
    return "\n".join([*lines, *(format_row(name, movement) for name, movement in found.items())])


def format_row(name: str, movement: Movement) -> str:
    return _join([name, *_cells(movement)])


def _join(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(m: Movement) -> list[str]:
    return [
        "" if m.first_loss is None else f"{m.first_loss:.3f} to {m.last_loss:.3f}",
        f"{m.accuracy:.3f} ±{m.accuracy_error:.3f}",
        *(f"{value:+.2f}" for value in (m.margin, m.chosen_change, m.rejected_change)),
        *(f"{m.habits[habit]:.3f}" for habit in HABITS),
        f"{m.any_habit:.3f}",
        "yes" if m.is_right_way else "no",
    ]


def as_json(
    base: Mapping[str, float], found: Mapping[str, Movement], settings: DirectionSettings
) -> dict[str, object]:
    return {
        "base": dict(base),
        "methods": {name: asdict(movement) for name, movement in found.items()},
        "all_right_way": all(movement.is_right_way for movement in found.values()),
        "settings": asdict(settings),
    }


if __name__ == "__main__":
    raise SystemExit(main())
