"""Each way to train, alone on the starter policy: does it move it the right way?

Run `python -m benchmarks.directions` (a few minutes on two cores; no service, no GPU). The starter answers
train prompts twice, a simulated person with a taste prefers one answer of each pair, and every method learns
from the same pairs for the same number of visits: SFT on the chosen answers, each pair loss, KTO and
apo_zero_unpaired on the two answers as a desirable and an undesirable rating. Betas and the like are set per
method, since a beta means something else in each; no other setting differs, and no method gets the likelihood
term unless its name says so (ORPO has it by definition).

The table holds, on pairs of held-out prompts, how often the chosen answer gained more over the base than the
rejected one and by how many nats, and how the two changed; then how often bad habits show in answers sampled
to held-out prompts, with the seeds the base answered them with. A method moves the right way when both differ
by more than two standard errors: accuracy above one half, and the share of answers with any habit below the
base's, prompt by prompt. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import Any, Literal, cast

import torch

from benchmarks.metrics import gain_error, score_error
from benchmarks.progress import say
from benchmarks.taste import TASTES, choose_side, read_answer
from settings import STARTER
from store.records import Message, PairRow, RatingRow
from trainer.probes import Exchange, Policies, Sample
from trainer.qlora import LoadedBase, load_base, lora_config, start_policy
from trainer.settings import BaseModel, TrainerSettings, starter_settings
from trainer.starter.habits import HABITS, detect_habits
from trainer.starter.world import WorldPrompt, heldout_prompts, train_prompts

TASTE = "direct"
NUM_ERRORS = 2.0
BATCH = 4
SCORE_BATCH = 64
MAX_TOKENS = 96


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
    # Their gap is in nats a token, some twenty times smaller than an answer's.
    Method("ipo", "pairs", {"loss": "ipo", "beta": 1.0}),
    Method("sigmoid_norm", "pairs", {"loss": "sigmoid_norm", "beta": 3.0}),
    Method("simpo", "pairs", {"loss": "simpo", "beta": 3.0, "simpo_gamma": 1.0}),
    Method("orpo", "pairs", {"loss": "orpo", "orpo_weight": 1.0, "sft_weight": 1.0}),
    Method("cdpo, wpo", "pairs", {"loss": "cdpo", "wpo": True}),
    Method("cdpo, likelihood 12", "pairs", {"loss": "cdpo", "sft_weight": 12.0}),
    Method("kto", "ratings", {"rating_loss": "kto"}),
    Method("apo_zero_unpaired", "ratings", {"rating_loss": "apo_zero_unpaired"}),
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


@dataclass(frozen=True, slots=True)
class Movement:
    """What a method did. Accuracy counts a tie as half; margin and changes are nats an answer."""

    first_loss: float | None
    last_loss: float | None
    accuracy: float
    accuracy_error: float
    margin: float
    chosen_change: float
    rejected_change: float
    habits: dict[str, float]
    any_habit: float
    is_right_way: bool


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
                say(f"{method.name}: {describe(found[method.name])}")
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
    names = ", ".join(method.name for method in METHODS)
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
    train = judge(policies, base, learned, settings, settings.noise)[: settings.pairs]
    heldout = judge(policies, base, tested, settings, 0.0)[: settings.heldout_pairs]
    if len(train) < settings.pairs or len(heldout) < settings.heldout_pairs:
        raise RuntimeError(f"only {len(train)} train and {len(heldout)} held-out pairs differ; ask for fewer")
    answers = sample(policies, "base", base, prompts, settings.seed + 2)
    policies.unload()
    return Data(train, heldout, prompts, answers)


def save_untrained(base: LoadedBase, folder: Path) -> Path:
    """An adapter that changes nothing, which is how the base is sampled by what samples adapters."""
    from peft import get_peft_model

    model = get_peft_model(base.model, lora_config(starter_settings()))
    model.save_pretrained(str(folder), save_embedding_layers=False)
    model.unload()
    return folder


def sample(
    policies: Policies, name: str, base: LoadedBase, prompts: Sequence[WorldPrompt], seed: int
) -> list[Sample]:
    from trainer.preferences import prompt_ids

    ids = [prompt_ids(_messages(prompt), base.tokenizer) for prompt in prompts]
    return policies.sample(name, ids, MAX_TOKENS, seed)


def _messages(prompt: WorldPrompt) -> tuple[Message, ...]:
    return tuple(cast(Message, message) for message in prompt.messages)


def judge(
    policies: Policies,
    base: LoadedBase,
    prompts: Sequence[WorldPrompt],
    settings: DirectionSettings,
    noise: float,
) -> list[PairRow]:
    """Two answers to each prompt, and which the taste prefers; ties are left out."""
    draws = [sample(policies, "base", base, prompts, settings.seed * 1000 + 7 * draw) for draw in (1, 2)]
    rng = random.Random(settings.seed)
    rows = []
    for place, (prompt, left, right) in enumerate(zip(prompts, *draws, strict=True)):
        messages = _messages(prompt)
        readings = [read_answer(messages, answer.text) for answer in (left, right)]
        verdict = choose_side(TASTES[TASTE], *readings, noise, rng)
        if verdict.choice != "tie":
            pair = (left, right) if verdict.choice == "left" else (right, left)
            rows.append(_pair_row(place, messages, *pair))
    return rows


def _pair_row(place: int, messages: tuple[Message, ...], chosen: Sample, rejected: Sample) -> PairRow:
    return PairRow(
        row_id=f"p{place:05}",
        prompt_id=f"q{place}",
        messages=messages,
        chosen=chosen.text,
        rejected=rejected.text,
        chosen_ids=chosen.sequence.completion_ids,
        rejected_ids=rejected.sequence.completion_ids,
        chosen_version="v0",
        rejected_version="v0",
        strength=1,
        weight=1.0,
        person_ids=("simulated",),
        label_ids=(f"j{place}",),
        source="human",
        probability=1.0,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def as_ratings(pairs: Sequence[PairRow]) -> list[RatingRow]:
    """The same labels for methods that learn from single answers: chosen is desirable, rejected is not."""
    return [
        RatingRow(
            row_id=f"{pair.row_id}-{'up' if desirable else 'down'}",
            prompt_id=pair.prompt_id,
            messages=pair.messages,
            completion=pair.chosen if desirable else pair.rejected,
            completion_ids=pair.chosen_ids if desirable else pair.rejected_ids,
            version="v0",
            desirable=desirable,
            weight=1.0,
            person_ids=pair.person_ids,
            label_ids=pair.label_ids,
            source="human",
            created_at=pair.created_at,
        )
        for pair in pairs
        for desirable in (True, False)
    ]


def run_method(method: Method, data: Data, settings: DirectionSettings, scratch: Path) -> Movement:
    """Train a fresh adapter on a freshly loaded starter and measure the files it leaves."""
    base = load_starter()
    folder = scratch / method.name.replace(" ", "-")
    folder.mkdir()
    policy, losses = train(method, base, data.train, settings, folder)
    policy.save_pretrained(str(folder), selected_adapters=["default"], save_embedding_layers=False)
    policy.unload()
    policies = Policies(base, {"trained": folder}, SCORE_BATCH)
    changes = [score_change(policies, base, data.heldout, side) for side in ("chosen_ids", "rejected_ids")]
    answers = sample(policies, "trained", base, data.prompts, settings.seed + 2)
    return judge_movement(losses, *changes, answers, data.base_answers)


def train(
    method: Method, base: LoadedBase, rows: Sequence[PairRow], settings: DirectionSettings, folder: Path
) -> tuple[Any, list[float]]:
    """The trained PEFT model and the loss of each step."""
    told = trainer_settings(method, settings)
    if method.stage == "sft":
        return train_chosen(base, rows, told, folder), []
    if method.stage == "pairs":
        from trainer.dpo import build_pair_trainer
        from trainer.preferences import prepare_pairs

        prepared = prepare_pairs(rows, base.tokenizer, told.max_length).rows
        trainer: Any = build_pair_trainer(
            start_policy(base.model, told, None), base.tokenizer, prepared, told, folder
        )
    else:
        from trainer.kto import build_rating_trainer
        from trainer.preferences import prepare_ratings

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
    from peft import get_peft_model

    from trainer.sft import SftExample, SftSettings, train_sft

    model = get_peft_model(base.model, lora_config(told))
    examples = [
        SftExample([{"role": m["role"], "content": m["content"]} for m in row.messages], row.chosen)
        for row in rows
    ]
    told_sft = SftSettings(
        batch_size=BATCH, epochs=told.epochs, learning_rate=told.learning_rate, seed=told.seed, log_every=1
    )
    train_sft(model, base.tokenizer, examples, told_sft, folder / "work")
    return model


def score_change(policies: Policies, base: LoadedBase, rows: Sequence[PairRow], side: str) -> list[float]:
    """How much likelier each held-out answer became: nats an answer."""
    from trainer.preferences import prompt_ids

    exchanges = [Exchange(prompt_ids(row.messages, base.tokenizer), getattr(row, side)) for row in rows]
    scores = zip(policies.score("trained", exchanges), policies.score("base", exchanges), strict=True)
    return [after.logp - before.logp for after, before in scores]


def habit_shares(answers: Sequence[Sample]) -> dict[str, float]:
    """The share of answers with each habit, and under "any" with at least one."""
    shown = [detect_habits(answer.text) for answer in answers]
    shares = {habit: mean(habit in found for found in shown) for habit in HABITS}
    return shares | {"any": mean(has_habit(answers))}


def has_habit(answers: Sequence[Sample]) -> list[float]:
    """1 for each answer that shows a bad habit, else 0."""
    return [float(bool(detect_habits(answer.text))) for answer in answers]


def judge_movement(
    losses: Sequence[float],
    chosen: Sequence[float],
    rejected: Sequence[float],
    answers: Sequence[Sample],
    base_answers: Sequence[Sample],
) -> Movement:
    """From the changes of held-out answers' log-probs, and from answers to the same prompts as the base's."""
    gaps = [c - r for c, r in zip(chosen, rejected, strict=True)]
    hits = [0.5 if gap == 0 else float(gap > 0) for gap in gaps]
    error = score_error(hits)
    after, before = has_habit(answers), has_habit(base_answers)
    fall, fall_error = mean(before) - mean(after), gain_error(after, before)
    shares = habit_shares(answers)
    return Movement(
        first_loss=losses[0] if losses else None,
        last_loss=mean(losses[-5:]) if losses else None,
        accuracy=mean(hits),
        accuracy_error=error,
        margin=mean(gaps),
        chosen_change=mean(chosen),
        rejected_change=mean(rejected),
        habits={habit: shares[habit] for habit in HABITS},
        any_habit=shares["any"],
        is_right_way=mean(hits) - 0.5 > NUM_ERRORS * error and fall > NUM_ERRORS * fall_error,
    )


def describe(movement: Movement) -> str:
    return (
        f"accuracy {movement.accuracy:.3f}, margin {movement.margin:+.2f}, any habit {movement.any_habit:.3f}"
    )


def format_table(base: Mapping[str, float], found: Mapping[str, Movement]) -> str:
    """One row a method, in Markdown, the base first."""
    head = ("", "loss", "accuracy", "margin", "chosen", "rejected", *HABITS, "any habit", "right way")
    blank = ("base", *[""] * 5, *(f"{base[habit]:.3f}" for habit in HABITS), f"{base['any']:.3f}", "")
    lines = [head, ["---"] * len(head), blank]
    lines += [(name, *_cells(movement)) for name, movement in found.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


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
