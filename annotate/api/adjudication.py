"""Adjudication: the tasks people could not agree on, for an admin to decide; blind like any other task."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query

from annotate.api.given import Admin, Body, Given, MessageAnswer, ShortText, Text, show_messages
from store.adjudications import Disputed, read_disputed, read_task_to_decide, save_adjudication
from store.completions import read_completion
from store.database import Store
from store.errors import BadValue
from store.records import Choice, TaskKind

routes = APIRouter(prefix="/v1", tags=["quality"])


class VerdictBody(Body):
    """The verdict. `first` and `second` are the answers as listed; `skip` takes a verdict back."""

    choice: Literal["first", "second", "tie", "both_bad", "up", "down", "skip"]
    strength: Literal[1, 2, 3] = 2
    comment: Text = ""


@dataclass(frozen=True)
class DisputedAnswer:
    """A task that waits and what people said of it; no name, no version. `second` is null for a single."""

    task_id: str
    kind: TaskKind
    messages: list[MessageAnswer]
    first: str
    second: str | None
    votes: dict[str, int]
    num_skips: int
    agreement: float | None
    comments: list[str]


@dataclass(frozen=True)
class VerdictAnswer:
    """The verdict as it was saved."""

    adjudication_id: str
    task_id: str
    choice: str
    created_at: datetime


@routes.get("/adjudication")
def list_disputed(
    services: Given, _person: Admin, limit: Annotated[int, Query(ge=1, le=200)] = 20
) -> list[DisputedAnswer]:
    """Tasks that wait for a verdict, those with the least agreement first."""
    found = read_disputed(services.store, services.quality, limit)
    return [_show(services.store, disputed) for disputed in found]


@routes.post("/adjudication/{task_id}", status_code=201)
def decide(task_id: ShortText, body: VerdictBody, services: Given, person: Admin) -> VerdictAnswer:
    """Decide a task; the newest verdict holds and supersedes the votes."""
    both = read_task_to_decide(services.store, task_id).completion_ids
    choice, chosen_id, rejected_id = _read_choice(body, both)
    saved = save_adjudication(
        services.store,
        task_id,
        person.person_id,
        choice=choice,
        chosen_id=chosen_id,
        rejected_id=rejected_id,
        strength=body.strength,
        comment=body.comment,
    )
    return VerdictAnswer(saved.adjudication_id, task_id, body.choice, saved.created_at)


def _read_choice(body: VerdictBody, both: tuple[str, ...]) -> tuple[Choice, str | None, str | None]:
    if body.choice == "first" or body.choice == "second":
        if len(both) != 2:
            raise BadValue(f"this task has one answer, so the choice is up or down, not {body.choice}")
        chosen, rejected = both if body.choice == "first" else both[::-1]
        return "prefer", chosen, rejected
    return body.choice, None, None


def _show(store: Store, disputed: Disputed) -> DisputedAnswer:
    answers = [read_completion(store, completion_id) for completion_id in disputed.task.completion_ids]
    return DisputedAnswer(
        task_id=disputed.task.task_id,
        kind=disputed.task.kind,
        messages=show_messages(answers[0].messages),
        first=answers[0].text,
        second=answers[1].text if len(answers) > 1 else None,
        votes=disputed.votes,
        num_skips=disputed.num_skips,
        agreement=disputed.agreement,
        comments=list(disputed.comments),
    )
