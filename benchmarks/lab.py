"""The loop without a service: the real store, snapshot and trainer in one process, and simulated people.

Labels are written as the events a service would write, a round's snapshot is the store's own, and training is
`trainer.stages`. Only the engine is another: answers are sampled in batches. No gate stands in between, so
what a recipe does to a policy shows.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, cast

from benchmarks.metrics import Metrics, measure
from benchmarks.taste import Reading, Taste, Verdict, choose_side, choose_thumb, read_answer
from store.clock import utc
from store.database import Store
from store.events import Event, new_event
from store.records import BASE_VERSION, Message
from store.writer import Decision
from trainer.settings import BaseModel, RoundPlan, TrainerSettings
from trainer.starter.world import heldout_prompts, train_prompts

if TYPE_CHECKING:
    from benchmarks.batch_answers import Answer

STARTER = "serving/starter"
CANDIDATES = 4  # as the service draws them: the two least alike become a pair
TEMPERATURE = 0.5
Pair = tuple["Answer", "Answer"]


def settle_process() -> None:
    """Before torch is imported: one thread, no hub, no report of a start."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def world_prompts(count: int, seed: int, held_out: bool = False) -> list[tuple[Message, ...]]:
    """Distinct prompts of the starter's world, of its training split or of its held-out one."""
    drawn = (heldout_prompts if held_out else train_prompts)(count, seed)
    return [tuple(cast(Message, message) for message in prompt.messages) for prompt in drawn]


def load_policy(adapter: Path | None) -> tuple[Any, Any]:
    """The starter, with an adapter on it where one is given, and its tokenizer."""
    import torch
    from peft import PeftModel

    from trainer.qlora import load_base

    torch.set_num_threads(1)
    base = load_base(BaseModel(STARTER, quantization="none", dtype="float32"))
    return (PeftModel.from_pretrained(base.model, str(adapter)) if adapter else base.model), base.tokenizer


def draw_pairs(
    policy: Any, tokenizer: Any, prompts: Sequence[tuple[Message, ...]], max_tokens: int, seed: int
) -> list[Pair]:
    """Two unlike answers to each prompt; a prompt whose answers are all the same gives none."""
    from benchmarks.batch_answers import sample_in_batches

    draws = [
        sample_in_batches(policy, tokenizer, prompts, max_tokens, seed * 1000 + draw, TEMPERATURE)
        for draw in range(CANDIDATES)
    ]
    return least_alike(zip(*draws, strict=True))


def least_alike(drawn: Any) -> list[Pair]:
    """Of each prompt's answers the two that differ most, unless all are the same."""
    from difflib import SequenceMatcher
    from itertools import combinations

    def alike(pair: Pair) -> float:
        return SequenceMatcher(None, pair[0].text.lower(), pair[1].text.lower(), autojunk=False).ratio()

    pairs = [min(combinations(answers, 2), key=alike) for answers in drawn]
    return [pair for pair in pairs if pair[0].text != pair[1].text]


@dataclass(slots=True)
class Lab:
    """One store and who labels into it. Ids are numbered, so a run with the same seed writes the same."""

    store: Store
    taste: Taste
    seed: int
    num_events: int = 0
    _unsaved: list[Event] = field(default_factory=list)

    def save(self) -> None:
        """Write everything said since the last time, all of it or nothing."""
        given, self._unsaved = self._unsaved, []
        self.store.write(lambda _: Decision(None, given))

    def add_people(self, names: Sequence[str]) -> None:
        """People without a password, known by their names."""
        secrets = {"password_hash": "scrypt$1$1$1$00$00"}
        self._write(
            new_event(
                "person_added", utc(), person_id=name, name=name, name_key=name, role="annotator",
                token_sha256=name, **secrets,
            )
            for name in names
        )  # fmt: skip

    def judge(self, pair: Pair, noise: dict[str, float], version: str) -> list[Verdict]:
        """Everybody's verdict on a pair, each wrong with their own probability; returns them in order."""
        self.num_events += 1
        task_id, draw = f"t{self.num_events:05}", Random(f"{self.seed} {self.num_events}")
        readings = [read_answer(answer.messages, answer.text) for answer in pair]
        ids = [f"{task_id}-{side}" for side in "ab"]
        events = [
            self._completion(name, answer, version, task_id) for name, answer in zip(ids, pair, strict=True)
        ]
        about = {"kind": "pair", "prompt_id": task_id, "first_id": ids[0], "second_id": ids[1]}
        events.append(
            new_event("task_added", utc(), task_id=task_id, **about, version=version, wanted=len(noise))
        )
        verdicts = [choose_side(self.taste, *readings, share, draw) for share in noise.values()]
        events += [
            _judgement(task_id, person, verdict, ids) for person, verdict in zip(noise, verdicts, strict=True)
        ]
        self._write(events)
        return verdicts

    def rate(self, answer: Answer, person: str, noise: float, version: str) -> None:
        """One thumb on one answer."""
        self.num_events += 1
        completion_id = f"c{self.num_events:05}"
        draw = Random(f"{self.seed} {self.num_events}")
        value = choose_thumb(self.taste, read_answer(answer.messages, answer.text), noise, draw)
        given = {"rating_id": f"r{self.num_events:05}", "completion_id": completion_id, "person_id": person}
        rating = new_event(
            "rating_saved", utc(), **given, value=value, reasons=[], comment="", correction=None
        )
        self._write([self._completion(completion_id, answer, version, None), rating])

    def _completion(self, name: str, answer: Answer, version: str, prompt_id: str | None) -> Event:
        return new_event(
            "completion_saved",
            utc(),
            completion_id=name,
            messages=list(answer.messages),
            text=answer.text,
            version=version,
            token_ids=list(answer.token_ids),
            finish_reason="stop" if answer.has_ended else "length",
            num_prompt_tokens=len(answer.prompt_ids),
            temperature=TEMPERATURE,
            top_p=1.0,
            max_tokens=128,
            seed=self.seed,
            logprob_sum=answer.logprob_sum,
            prompt_id=prompt_id,
            conversation_id=None if prompt_id else name,
            person_id=None,
        )

    def _write(self, events: Iterable[Event]) -> None:
        self._unsaved += events


def _judgement(task_id: str, person: str, verdict: Verdict, ids: list[str]) -> Event:
    is_tie = verdict.choice == "tie"
    chosen = None if is_tie else ids[verdict.choice == "right"]
    rejected = None if is_tie else ids[verdict.choice == "left"]
    return new_event(
        "judgement_saved",
        utc(),
        judgement_id=f"j {task_id} {person}",
        task_id=task_id,
        person_id=person,
        choice="tie" if is_tie else "prefer",
        chosen_id=chosen,
        rejected_id=rejected,
        left_id=ids[0],
        strength=verdict.strength,
        reasons=[],
        comment="",
        correction=None,
        active_ms=None,
    )


def train_on(
    snapshot: Path, settings: TrainerSettings, folder: Path, live: Path | None = None
) -> dict[str, str]:
    """A round's training on a snapshot; the adapter lies in `folder/adapter`. Returns what each stage did."""
    from trainer.answers import prepare_answers
    from trainer.guarded import begin_guarded
    from trainer.limits import GuardSettings
    from trainer.preferences import prepare_pairs, prepare_ratings, read_pairs, read_ratings
    from trainer.progress import ProgressLog
    from trainer.publish import save_adapter
    from trainer.qlora import load_base
    from trainer.stages import plan_stages, train
    from trainer.stopping import Stopping

    folder.mkdir(parents=True, exist_ok=True)
    described = BaseModel(STARTER, quantization="none", dtype="float32")
    base = load_base(described)
    plan = RoundPlan("lab", "v1", BASE_VERSION, described, str(live) if live else None, trainer=settings)
    pairs, ratings = read_pairs(snapshot / "pairs.parquet"), read_ratings(snapshot / "ratings.parquet")
    stages = plan_stages(
        settings,
        base.tokenizer,
        prepare_pairs(pairs, base.tokenizer, settings.max_length),
        prepare_ratings(ratings, base.tokenizer, settings.max_length, settings.kto_batch_size, settings.seed),
        prepare_answers(pairs, ratings, base.tokenizer, settings),
    )
    # Nothing is watched or saved: every way is to run to its last step.
    plan = replace(plan, guards=GuardSettings(max_collapse=0, max_drift=0, patience=0, save_minutes=0))
    progress = ProgressLog(folder / "progress.jsonl")
    guarded = begin_guarded(folder, plan, base.fingerprint, "", {}, progress, Stopping(), (), ())
    policy = train(plan, base, live, stages, guarded)
    save_adapter(policy, folder / "adapter")
    return {stage.name: stage.describe() for stage in stages}


@dataclass(frozen=True, slots=True)
class Ruler:
    """What every policy is held against: held-out prompts, and the base's answers to them as opponents."""

    prompts: list[tuple[Message, ...]]
    opponents: list[Reading]
    base: Metrics
    taste: Taste
    max_tokens: int
    seed: int

    def measure(self, adapter: Path) -> tuple[Metrics, float]:
        """The policy's metrics over one answer a prompt, and its drift from the base in nats a token."""
        from benchmarks.batch_answers import measure_drift, sample_in_batches

        policy, tokenizer = load_policy(adapter)
        answers = sample_in_batches(policy, tokenizer, self.prompts, self.max_tokens, self.seed)
        return self.read(answers), measure_drift(policy, answers)

    def read(self, answers: Sequence[Answer]) -> Metrics:
        """The metrics of answers to the ruler's prompts."""
        return measure([answer.row() for answer in answers], self.opponents, self.taste)


def make_ruler(taste: Taste, num_prompts: int, max_tokens: int, seed: int) -> Ruler:
    """Sample the base twice: once as everybody's opponent, once to be measured like the others."""
    from benchmarks.batch_answers import sample_in_batches

    prompts = world_prompts(num_prompts, seed, held_out=True)
    policy, tokenizer = load_policy(None)
    opponents, own = (
        sample_in_batches(policy, tokenizer, prompts, max_tokens, draw) for draw in (seed + 7919, seed)
    )
    readings = [read_answer(answer.messages, answer.text) for answer in opponents]
    base = measure([answer.row() for answer in own], readings, taste)
    return Ruler(prompts, readings, base, taste, max_tokens, seed)
