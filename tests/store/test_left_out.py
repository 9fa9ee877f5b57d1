"""What did not fit the model's context was never read, and is not trained on as if it had been."""

from __future__ import annotations

from store.completions import messages_read, save_completion
from store.database import Store
from store.labels import build_rows
from store.ratings import save_rating
from store.records import Message
from store.tasks import add_task
from store.training_rows import TrainingRows
from tests.store import samples

SYSTEM = Message(role="system", content="Be brief.")
TALK = (
    *samples.ask("What is the capital of France?"),
    Message(role="assistant", content="Paris."),
    *samples.ask("And of Spain?"),
    Message(role="assistant", content="Madrid."),
    *samples.ask("And of Peru?"),
)


def rows_of(store: Store) -> TrainingRows:
    with store.read() as cursor:
        return build_rows(cursor)


def test_system_messages_are_always_read_and_the_oldest_others_left_out() -> None:
    answer = samples.answer(messages=(SYSTEM, *TALK), num_left_out=2)
    assert messages_read(answer) == (SYSTEM, *TALK[2:])
    middle = samples.answer(messages=(TALK[0], SYSTEM, *TALK[1:]), num_left_out=2)
    assert messages_read(middle) == (SYSTEM, *TALK[2:])
    assert messages_read(samples.answer(messages=TALK)) == TALK
    assert messages_read(answer, 4) == (SYSTEM, TALK[4]), "a count for answers that are compared"


def test_a_rating_and_an_edit_teach_only_on_what_was_read(store: Store) -> None:
    tester = samples.person(store, "tester").person_id
    answer = samples.answer("Lima.", messages=(SYSTEM, *TALK), num_left_out=4, conversation_id="cv_1")
    saved = save_completion(store, answer)
    save_rating(store, saved.completion_id, tester, -1, correction="It is Lima, of course.")
    rows = rows_of(store)
    assert [row.messages for row in (*rows.ratings, *rows.pairs)] == [(SYSTEM, TALK[4])] * 2


def test_a_pair_teaches_only_on_what_both_answers_read(store: Store) -> None:
    prompt_id = samples.prompt(store, "And of Peru?")
    longer = samples.answer("Lima.", messages=TALK, num_left_out=2)
    shorter = samples.answer("It is Lima.", messages=TALK, num_left_out=4)
    add_task(store, "pair", prompt_id, [longer, shorter], wanted=1)
    samples.prefer_first(store, samples.lease(store, samples.person(store).person_id))
    (row,) = rows_of(store).pairs
    assert row.messages == TALK[4:]


def test_chats_of_which_the_same_was_read_share_a_prompt(store: Store) -> None:
    tester = samples.person(store, "tester").person_id
    for messages, num_left_out in ((TALK, 4), (TALK[4:], 0)):
        saved = save_completion(
            store,
            samples.answer("Lima.", messages=messages, num_left_out=num_left_out, conversation_id="cv_1"),
        )
        save_rating(store, saved.completion_id, tester, 1)
    one, other = rows_of(store).ratings
    assert one.prompt_id == other.prompt_id
