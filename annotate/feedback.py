"""What a tester says of their answers: thumbs, reasons, edits, which of two is better. No Gradio, no HTTP.

A thumb, its reasons and an edit are one row a person and answer, and the newest row counts: whoever changes
one of them carries the others over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from annotate.services import Services
from annotate.text import MOST_COMMENT, MOST_CORRECTION, limit, limit_reasons
from store.comparisons import save_comparison
from store.completions import read_completion
from store.errors import BadValue, NotFound
from store.ratings import read_rating, save_rating
from store.records import Completion, Judgement, Person, Rating

ComparedAs = Literal["first", "second", "tie", "both_bad"]


def rate(
    services: Services,
    person: Person,
    completion_id: str,
    value: int,
    reasons: Sequence[str] = (),
    comment: str = "",
    correction: str | None = None,
) -> Rating:
    """Save this person's thumb on an answer to them: 1, -1, or 0 to take it back; the newest counts.

    Raises BadValue while the answer is unfinished (or was broken off), NotFound for somebody else's.
    """
    thumb = _check_value(value)
    completion = _read_finished(services, person, completion_id)
    edited = limit(correction, MOST_CORRECTION, "the correction") if correction else None
    saved = save_rating(
        services.store,
        completion_id,
        person.person_id,
        thumb,
        reasons=limit_reasons(tuple(reasons)),
        comment=limit(comment, MOST_COMMENT, "the comment"),
        correction=None if edited == completion.text else edited,
    )
    services.rated()
    return saved


def set_thumb(services: Services, person: Person, completion_id: str, value: int) -> Rating:
    """Save a thumb alone: what was said about an earlier thumb falls away, an edit stays."""
    standing = read_rating(services.store, completion_id, person.person_id)
    if standing is not None and standing.value == value:
        return standing
    return rate(services, person, completion_id, value, correction=standing.correction if standing else None)


def explain_thumb(
    services: Services, person: Person, completion_id: str, reasons: Sequence[str], comment: str
) -> Rating:
    """Say why the thumb that stands was given; BadValue when none does."""
    standing = read_rating(services.store, completion_id, person.person_id)
    if standing is None or not standing.value:
        raise BadValue("there is no rating to explain any more; rate the answer first")
    return rate(
        services, person, completion_id, standing.value, reasons, comment, correction=standing.correction
    )


def edit_answer(services: Services, person: Person, completion_id: str, text: str) -> Rating | None:
    """Save the text that should have been said, which beats the answer; its own text takes an edit back.

    The thumb stays what it was: without one the row holds 0. None when there is nothing to save.
    """
    if not text.strip():
        raise BadValue("the edited answer is empty; write what the model should have said")
    standing = read_rating(services.store, completion_id, person.person_id)
    completion = _read_finished(services, person, completion_id)
    if standing is None and text == completion.text:
        return None
    if standing is None:
        return rate(services, person, completion_id, 0, correction=text)
    return rate(services, person, completion_id, standing.value, standing.reasons, standing.comment, text)


def compare(
    services: Services,
    person: Person,
    first_id: str,
    second_id: str,
    choice: ComparedAs,
    *,
    strength: int = 1,
    left_id: str | None = None,
    reasons: Sequence[str] = (),
    comment: str = "",
    active_ms: int | None = None,
) -> Judgement:
    """Save which of two answers to this person is better; `strength` is 1 (slightly) or 2 (much better).

    Raises BadValue for answers to different messages or unfinished ones, NotFound for somebody else's.
    """
    chosen_id = {"first": first_id, "second": second_id}.get(choice)
    if chosen_id and strength not in (1, 2):
        raise BadValue(f"strength {strength} is not 1 (slightly) or 2 (much better)")
    return save_comparison(
        services.store,
        person.person_id,
        first_id,
        second_id,
        choice="prefer" if choice == "first" or choice == "second" else choice,
        chosen_id=chosen_id,
        strength=strength if chosen_id else 0,
        left_id=left_id,
        reasons=limit_reasons(tuple(reasons)),
        comment=limit(comment, MOST_COMMENT, "the comment"),
        active_ms=active_ms,
    )


def _read_finished(services: Services, person: Person, completion_id: str) -> Completion:
    if services.slots.is_writing(completion_id):
        raise BadValue(f"answer {completion_id} is still being written; rate it when it is finished")
    completion = read_completion(services.store, completion_id)
    if completion.person_id != person.person_id:
        raise NotFound(f"there is no answer {completion_id!r} to you")
    if completion.finish_reason == "cancelled":
        raise BadValue(f"answer {completion_id} was stopped before its end, so it cannot be rated")
    return completion


def _check_value(value: int) -> Literal[-1, 0, 1]:
    if value is True or value is False or value not in (-1, 0, 1):
        raise BadValue(f"rating {value!r} is not 1, -1 or 0")
    return 1 if value == 1 else -1 if value == -1 else 0
