"""Tasks and judgements: what an annotator's own client or script calls instead of the page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Response
from pydantic import Field

from annotate.api.given import Annotator, Body, Given, MessageAnswer, ShortText, Text, show_messages
from annotate.session import ShownChoice, TaskView, judge, next_task, renew, undo
from store.records import TaskKind

routes = APIRouter(prefix="/v1", tags=["labels"])


class NextTask(Body):
    """What kind of task is wanted."""

    kind: TaskKind = "pair"


class JudgementBody(Body):
    """What was decided. A correction edits the preferred answer of a pair, or the single one."""

    choice: ShownChoice
    strength: Literal[1, 2] = 1
    reasons: list[ShortText] = Field(default=[], max_length=12)
    comment: Text = ""
    correction: Text | None = None
    active_ms: Annotated[int, Field(ge=0, le=86_400_000)] | None = None


@dataclass(frozen=True)
class TaskAnswer:
    """A task to judge; `right` is null for a single answer. Nothing tells which policy wrote what."""

    task_id: str
    kind: TaskKind
    lease_expires_at: datetime
    messages: list[MessageAnswer]
    left: str
    right: str | None


@dataclass(frozen=True)
class LeaseAnswer:
    """Until when the task is held."""

    task_id: str
    lease_expires_at: datetime


@dataclass(frozen=True)
class JudgementAnswer:
    """The judgement as it was saved."""

    judgement_id: str
    task_id: str
    choice: ShownChoice
    created_at: datetime


@routes.post("/tasks/next", responses={204: {"description": "none left for you"}}, response_model=TaskAnswer)
def lease_next(services: Given, person: Annotator, body: NextTask | None = None) -> TaskAnswer | Response:
    """The task you hold, or the next one; sides are drawn at random and stay as drawn."""
    return _show(next_task(services, person, (body or NextTask()).kind))


@routes.post("/tasks/{task_id}/heartbeat")
def keep_lease(task_id: str, services: Given, person: Annotator) -> LeaseAnswer:
    """Hold the task for another lease time."""
    return LeaseAnswer(task_id, renew(services, person, task_id))


@routes.post("/tasks/{task_id}/judgement")
def save_choice(task_id: str, body: JudgementBody, services: Given, person: Annotator) -> JudgementAnswer:
    """Decide. The same decision sent again gives the same answer; 409 when the task is no longer yours."""
    saved = judge(
        services,
        person,
        task_id,
        body.choice,
        strength=body.strength,
        reasons=body.reasons,
        comment=body.comment,
        correction=body.correction,
        active_ms=body.active_ms,
    )
    return JudgementAnswer(saved.judgement_id, task_id, body.choice, saved.created_at)


@routes.post("/judgements/undo", responses={204: {"description": "none to undo"}}, response_model=TaskAnswer)
def undo_judgement(services: Given, person: Annotator) -> TaskAnswer | Response:
    """Take your newest judgement or skip back; the task is yours again, sides unchanged."""
    return _show(undo(services, person))


def _show(view: TaskView | None) -> TaskAnswer | Response:
    if view is None:
        return Response(status_code=204)
    messages = show_messages(view.messages)
    return TaskAnswer(view.task_id, view.kind, view.lease_expires_at, messages, view.left, view.right)
