"""Comparisons in a chat: one row a person and pair, whatever is clicked, and no work for anybody else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from store.comparisons import save_comparison, undo_comparison
from store.completions import save_completion
from store.database import Store
from store.errors import BadValue, NotFound
from store.judgements import read_judgements, undo_last
from store.labels import build_rows, prompt_id_of
from store.records import Completion, Judgement
from store.tasks import count_open_tasks, lease_task
from tests.store import samples


@pytest.fixture
def tess(store: Store) -> str:
    return samples.person(store, "tester").person_id


@pytest.fixture
def two(store: Store, tess: str) -> tuple[Completion, Completion]:
    """Two answers to the same question of this tester."""
    texts = ("Paris.", "It is Paris.")
    one, other = (save_completion(store, spoken(tess, text=text)) for text in texts)
    return one, other


def spoken(person_id: str, **fields: object) -> Completion:
    return samples.answer(conversation_id="cv_1", person_id=person_id, **fields)  # type: ignore[arg-type]


def prefer_first(store: Store, person_id: str, two: tuple[Completion, Completion], **more: Any) -> Judgement:
    one, other = (completion.completion_id for completion in two)
    given = {"choice": "prefer", "chosen_id": one, "strength": 2} | more
    return save_comparison(store, person_id, one, other, **given)


def test_a_comparison_is_a_pair_to_learn_from(
    store: Store, tess: str, two: tuple[Completion, Completion]
) -> None:
    saved = prefer_first(store, tess, two, left_id=two[1].completion_id, active_ms=900)
    with store.read() as cursor:
        (pair,) = build_rows(cursor).pairs
        task = cursor.execute("SELECT purpose, kind, wanted, num_accepted, prompt_id FROM tasks").fetchone()
    assert (pair.row_id, pair.chosen, pair.rejected, pair.strength) == (
        saved.judgement_id,
        "Paris.",
        "It is Paris.",
        2,
    )
    assert task == ("chat", "pair", 1, 1, prompt_id_of(two[0]))
    assert (saved.left_id, saved.rejected_id, saved.active_ms) == (
        two[1].completion_id,
        two[1].completion_id,
        900,
    )


def test_both_bad_is_two_bad_answers_and_a_tie_teaches_nothing(
    store: Store, tess: str, two: tuple[Completion, Completion]
) -> None:
    one, other = (completion.completion_id for completion in two)
    save_comparison(store, tess, one, other, choice="both_bad", chosen_id=one, strength=2)
    with store.read() as cursor:
        rows = build_rows(cursor)
    assert [row.desirable for row in rows.ratings] == [False, False]
    save_comparison(store, tess, one, other, choice="tie")
    with store.read() as cursor:
        rows = build_rows(cursor)
    assert (rows.pairs, rows.ratings, rows.reasons["tie"]) == ([], [], 1)


def test_a_hundred_clicks_of_one_vote_are_one_judgement(
    store: Store, tess: str, two: tuple[Completion, Completion]
) -> None:
    with ThreadPoolExecutor(10) as pool:
        saved = set(pool.map(lambda ms: prefer_first(store, tess, two, active_ms=ms), range(100)))
    assert len(saved) == 1
    assert prefer_first(store, tess, (two[0], two[1])) in saved
    one, other = (completion.completion_id for completion in two)
    turned = save_comparison(store, tess, other, one, choice="prefer", chosen_id=one, strength=2)
    assert {turned} == saved, "the two answers named the other way round are the same two answers"
    assert len(read_judgements(store)) == 1


def test_another_verdict_takes_the_place_of_the_first(
    store: Store, tess: str, two: tuple[Completion, Completion]
) -> None:
    first = prefer_first(store, tess, two)
    second = prefer_first(store, tess, two, chosen_id=two[1].completion_id, strength=1)
    newest, older = read_judgements(store)
    assert (newest, older.judgement_id, older.undone) == (second, first.judgement_id, True)
    assert second.task_id == first.task_id
    with store.read() as cursor:
        assert [pair.chosen for pair in build_rows(cursor).pairs] == ["It is Paris."]
        assert cursor.execute("SELECT num_accepted FROM tasks").fetchone() == (1,)


def test_a_verdict_taken_back_leaves_nothing_and_can_be_given_again(
    store: Store, tess: str, two: tuple[Completion, Completion]
) -> None:
    one, other = (completion.completion_id for completion in two)
    assert undo_comparison(store, tess, one, other) is None
    prefer_first(store, tess, two)
    undone = undo_comparison(store, tess, other, one)
    assert undone is not None
    assert undone.undone
    with store.read() as cursor:
        assert build_rows(cursor).pairs == []
    prefer_first(store, tess, two)
    with store.read() as cursor:
        assert len(build_rows(cursor).pairs) == 1


def test_nobody_is_ever_handed_a_comparison(
    store: Store, tess: str, two: tuple[Completion, Completion]
) -> None:
    ann = samples.person(store).person_id
    one, other = (completion.completion_id for completion in two)
    for act in (
        lambda: prefer_first(store, tess, two),
        lambda: prefer_first(store, tess, two, strength=1),
        lambda: undo_comparison(store, tess, one, other),
    ):
        act()
        assert count_open_tasks(store, "pair") == 0
        for person_id in (ann, tess):
            assert lease_task(store, person_id, "pair", samples.show_first) is None


def test_undo_on_the_annotate_page_leaves_chats_alone(
    store: Store, tess: str, two: tuple[Completion, Completion]
) -> None:
    task = samples.task(store)
    samples.prefer_first(store, samples.lease(store, tess))
    prefer_first(store, tess, two)
    lease = undo_last(store, tess)
    assert lease is not None
    assert lease.task == task
    assert undo_last(store, tess) is None


def test_two_answers_must_be_ones_to_this_person_and_to_the_same_question(
    store: Store, tess: str, two: tuple[Completion, Completion]
) -> None:
    bob = samples.person(store, "tester").person_id
    elsewhere = save_completion(store, spoken(tess, asked="Capital of Spain?", messages=samples.ask("Hm?")))
    stopped = save_completion(store, spoken(tess, finish_reason="cancelled"))
    one = two[0].completion_id
    wrong = (
        (bob, two[1].completion_id, NotFound, "there is no answer"),
        (tess, "c_none", NotFound, "there is no answer 'c_none'"),
        (tess, elsewhere.completion_id, BadValue, "different messages"),
        (tess, stopped.completion_id, BadValue, "stopped before its end"),
        (tess, one, BadValue, "cannot be compared with itself"),
    )
    for person_id, other, error, words in wrong:
        with pytest.raises(error, match=words):
            save_comparison(store, person_id, one, other, choice="tie")
    assert read_judgements(store) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"choice": "skip"}, "choice of a comparison 'skip' is not one of"),
        ({"chosen_id": "c_x"}, "the better answer 'c_x' is not one of"),
        ({"strength": 0}, "strength 0 is not one of 1, 2, 3"),
        ({"left_id": "c_x"}, "the answer on the left 'c_x'"),
        ({"unsafe_ids": ["c_x"]}, "unsafe answer 'c_x'"),
        ({"active_ms": -1}, "active_ms -1"),
        ({"comment": "a\0b"}, "NUL"),
    ],
)
def test_a_verdict_that_fits_nothing_is_refused(
    store: Store, tess: str, two: tuple[Completion, Completion], wrong: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadValue, match=words):
        prefer_first(store, tess, two, **wrong)
    assert read_judgements(store) == []
