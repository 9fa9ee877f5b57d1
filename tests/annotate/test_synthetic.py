"""Synthetic pairs: what is asked, what is kept and what is left out, over a policy that heeds its system."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from annotate.synthetic import SyntheticDesk, SyntheticOrder, SyntheticRun
from store.database import Store
from store.errors import BadValue, NotFound, StateConflict
from store.outside import read_outside_labels
from store.prompts import NewPrompt, add_prompts
from store.records import Chunk, Message, OutsideLabel, Sampling
from tests.serving.fakes import wait_until

ORDER = SyntheticOrder("polite", good="Be brief.", bad="Flatter.", num=10)


@dataclass
class HeedfulPolicy:
    """Answers "short" or "flattery" as its system prompt says; prompts can ask for an odd answer."""

    heeds: bool = True
    gate: threading.Event | None = None
    asked: list[tuple[str, list[Message], Sampling]] = field(default_factory=list)

    def __call__(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Iterator[Chunk]:
        if model not in ("live", "base"):
            raise NotFound(f"policy {model!r} is unknown")
        self.asked.append((model, list(messages), sampling))
        return self._answer(list(messages))

    def _answer(self, messages: list[Message]) -> Iterator[Chunk]:
        if self.gate is not None:
            assert self.gate.wait(20), "nobody opened the gate"
        asked = messages[-1]["content"]
        is_good = messages[0]["content"].startswith("Be brief.") or not self.heeds
        text = " " if "silence" in asked else "short." if is_good else f"What a question: {asked}"
        yield Chunk(text[:2], "v3")
        yield Chunk(text[2:], "v3", "length" if "long" in asked else "stop", (1, 2), -2.0, 5)


def add(store: Store, *asked: str, system: str | None = None) -> None:
    own = [Message(role="system", content=system)] if system else []
    messages = [(*own, Message(role="user", content=text)) for text in asked]
    add_prompts(store, [NewPrompt(one) for one in messages], source="test")


def make(store: Store, policy: HeedfulPolicy, order: SyntheticOrder = ORDER) -> SyntheticRun:
    """Make an order and wait for its end."""
    desk = SyntheticDesk(store, policy)
    desk.start(order)
    wait_until(lambda: not (desk.read_run() or pytest.fail("there is no run")).is_running)
    run = desk.read_run()
    assert run is not None
    return run


def read_labels(store: Store) -> list[OutsideLabel]:
    with store.read() as cursor:
        return read_outside_labels(cursor)


def test_the_good_answer_is_chosen_and_the_system_prompts_are_not_stored(store: Store) -> None:
    add(store, "Why?", "Who?")
    run = make(store, HeedfulPolicy())
    assert (run.source, run.prompts, run.done, run.added) == ("synthetic:polite", 2, 2, 2)
    assert run.ended == "all prompts are answered"
    labels = {label.messages[-1]["content"]: label for label in read_labels(store)}
    assert set(labels) == {"Why?", "Who?"}
    why = labels["Why?"]
    assert (why.source, why.chosen, why.rejected) == ("synthetic:polite", "short.", "What a question: Why?")
    assert why.messages == (Message(role="user", content="Why?"),)
    assert (why.extra["good"], why.extra["bad"], why.extra["version"]) == ("Be brief.", "Flatter.", "v3")


def test_a_prompts_own_system_message_is_kept_and_stands_below_ours(store: Store) -> None:
    add(store, "Why?", system="You are a pirate.")
    policy = HeedfulPolicy()
    make(store, policy)
    assert [messages[0]["content"] for _, messages, _ in policy.asked] == [
        "Be brief.\n\nYou are a pirate.",
        "Flatter.\n\nYou are a pirate.",
    ]
    assert [message["content"] for message in read_labels(store)[0].messages] == ["You are a pirate.", "Why?"]


def test_both_answers_have_one_seed_so_that_a_prompt_without_effect_gives_no_pair(store: Store) -> None:
    add(store, "Why?", "Who?")
    policy = HeedfulPolicy(heeds=False)
    run = make(store, policy)
    assert (run.identical, run.added, read_labels(store)) == (2, 0, [])
    assert "may leave system messages out" in run.ended
    seeds = [sampling.seed for _, _, sampling in policy.asked]
    assert sorted(seeds) == sorted([*set(seeds)] * 2)


def test_empty_and_unfinished_answers_are_left_out_and_counted(store: Store) -> None:
    add(store, "silence", "a long story", "Why?")
    run = make(store, HeedfulPolicy())
    assert (run.empty, run.unfinished, run.added, run.done) == (1, 1, 1, 3)


def test_the_same_pair_again_is_known(store: Store) -> None:
    add(store, "Why?")
    policy = HeedfulPolicy()
    make(store, policy)
    assert make(store, policy).known == 1
    assert len(read_labels(store)) == 1


def test_an_order_can_be_cancelled_and_one_is_made_at_a_time(store: Store) -> None:
    add(store, *(f"question {number}" for number in range(30)))
    policy = HeedfulPolicy(gate=threading.Event())
    desk = SyntheticDesk(store, policy)
    desk.start(SyntheticOrder("slow", "Be brief.", "Flatter.", num=30))
    with pytest.raises(StateConflict, match="synthetic:slow is being made"):
        desk.start(ORDER)
    desk.cancel()
    assert policy.gate is not None
    policy.gate.set()
    desk.close()
    run = desk.read_run()
    assert run is not None
    assert (run.is_running, run.ended) == (False, "cancelled")
    assert run.done <= 1
    with pytest.raises(StateConflict, match="no synthetic pairs"):
        desk.cancel()


def test_a_model_nobody_knows_ends_the_order_with_its_name(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    add(store, "Why?")
    run = make(store, HeedfulPolicy(), SyntheticOrder("x", "a", "b", num=1, model="v9"))
    assert run.ended == "it failed: policy 'v9' is unknown"
    assert "synthetic:x failed" in caplog.text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "Two Words"}, "name 'Two Words'"),
        ({"good": " "}, "good system prompt is empty"),
        ({"bad": "Be brief."}, "are the same"),
        ({"bad": "x" * 4001}, "4001 characters"),
        ({"num": 0}, "num 0"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(change: dict[str, object], says: str) -> None:
    given = {"name": "polite", "good": "Be brief.", "bad": "Flatter.", "num": 1} | change
    with pytest.raises(BadValue, match=says):
        SyntheticOrder(**given)  # type: ignore[arg-type]


def test_without_prompts_nothing_is_begun(store: Store) -> None:
    with pytest.raises(BadValue, match="no prompts"):
        SyntheticDesk(store, HeedfulPolicy()).start(ORDER)
