"""A whole conversation as its owner left it: answers, the newest rating, edits, standing comparisons."""

from __future__ import annotations

import pytest

from store.comparisons import save_comparison, undo_comparison
from store.completions import save_completion
from store.conversations import read_whole_conversation
from store.database import Store
from store.errors import NotFound
from store.ratings import save_rating
from tests.store import samples


def test_everything_that_was_said_of_a_conversation_comes_back(store: Store) -> None:
    tess = samples.person(store, "tester").person_id
    one, other = (
        save_completion(store, samples.answer(text, conversation_id="cv_1", person_id=tess))
        for text in ("Paris.", "Rome.")
    )
    save_completion(store, samples.answer(conversation_id="cv_2", person_id=tess))
    save_rating(store, one.completion_id, tess, -1, correction="In Paris.")
    save_rating(store, one.completion_id, tess, 1, correction="In Paris.")
    save_rating(store, one.completion_id, tess, 1, correction="In Paris, France.")
    verdict = save_comparison(store, tess, one.completion_id, other.completion_id, choice="tie")
    held = read_whole_conversation(store, "cv_1", tess)
    assert [answered.completion for answered in held.answers] == [one, other]
    first, second = held.answers
    assert first.rating is not None
    assert (first.rating.value, second.rating) == (1, None)
    assert [(edit.text, edit.stands) for edit in first.edits] == [
        ("In Paris.", False),
        ("In Paris, France.", True),
    ]
    assert [v.judgement for v in held.verdicts] == [verdict]
    assert held.verdicts[0].completion_ids == {one.completion_id, other.completion_id}
    undo_comparison(store, tess, one.completion_id, other.completion_id)
    assert read_whole_conversation(store, "cv_1", tess).verdicts == ()


def test_an_edit_taken_back_no_longer_stands(store: Store) -> None:
    tess = samples.person(store, "tester").person_id
    one = save_completion(store, samples.answer(conversation_id="cv_1", person_id=tess))
    save_rating(store, one.completion_id, tess, 0, correction="In Paris.")
    save_rating(store, one.completion_id, tess, 0)
    (answered,) = read_whole_conversation(store, "cv_1", tess).answers
    assert [edit.stands for edit in answered.edits] == [False]


def test_nobody_reads_the_conversation_of_somebody_else(store: Store) -> None:
    tess, bob = (samples.person(store, "tester").person_id for _ in range(2))
    save_completion(store, samples.answer(conversation_id="cv_1", person_id=tess))
    for person_id, conversation_id in ((bob, "cv_1"), (tess, "cv_none")):
        with pytest.raises(NotFound, match="no conversation of this person"):
            read_whole_conversation(store, conversation_id, person_id)
