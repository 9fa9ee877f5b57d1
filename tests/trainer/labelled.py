"""A store with people, completions and judgements in it, for tests of when a round starts and how it ends."""

from __future__ import annotations

from store.clock import utc
from store.completions import new_completion_id
from store.database import Store
from store.judgements import save_judgement
from store.people import add_person
from store.prompts import NewPrompt, add_prompts
from store.records import Completion, Message, Sampling
from store.tasks import add_task, lease_task


def answer_to(messages: tuple[Message, ...], prompt_id: str, text: str) -> Completion:
    return Completion(
        completion_id=new_completion_id(),
        messages=messages,
        text=text,
        version="v0",
        sampling=Sampling(),
        token_ids=(5, 6, 3),
        logprob_sum=-2.0,
        finish_reason="stop",
        num_prompt_tokens=4,
        created_at=utc(None),
        prompt_id=prompt_id,
    )


def judge_pairs(store: Store, count: int, name: str = "ann") -> None:
    """`count` new prompts, each with a pair of which this person prefers the first sampled answer."""
    person = add_person(store, name, "annotator", "a-password-for-tests").person
    for number in range(count):
        messages: tuple[Message, ...] = ({"role": "user", "content": f"what is thing{number} to {name} ?"},)
        prompt_id = add_prompts(store, [NewPrompt(messages, ())], "test").prompt_ids[0]
        pair = [answer_to(messages, prompt_id, text) for text in ("short .", "a longer answer .")]
        task = add_task(store, "pair", prompt_id, pair)
        assert lease_task(store, person.person_id, "pair", lambda task, _: task.completion_ids[0]) is not None
        chosen, rejected = task.completion_ids
        save_judgement(
            store,
            task.task_id,
            person.person_id,
            choice="prefer",
            chosen_id=chosen,
            rejected_id=rejected,
            strength=1,
        )
