"""Tasks and judgements: what an annotator's own client or script calls instead of the page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Response
from pydantic import Field

from annotate.acts import ShownChoice
from annotate.api.given import Annotator, Body, Given, MessageAnswer, ShortText, Text, show_messages
from annotate.blinding import Side
from annotate.guidelines import require_accepted
from annotate.session import Earlier, TaskView, judge, next_task, read_earlier, renew, undo
from store.records import TaskKind

routes = APIRouter(prefix="/v1", tags=["labels"])


class NextTask(Body):
    """What kind of task is wanted."""

    kind: TaskKind = "pair"


class JudgementBody(Body):
    """What was decided. A correction edits the preferred answer of a pair, or the single one.

    `strength` is up to 1, 2 or 3 on a scale of 3, 5 or 7 points. `unsafe` names sides; a single one is left.
    """

    choice: ShownChoice
    strength: Literal[1, 2, 3] = 1
    reasons: list[ShortText] = Field(default=[], max_length=12)
    comment: Text = ""
    correction: Text | None = None
    unsafe: list[Side] = Field(default=[], max_length=2)
    active_ms: Annotated[int, Field(ge=0, le=86_400_000)] | None = None


class UndoBody(Body):
    """Which judgement is taken back; the newest one when none is named."""

    judgement_id: ShortText | None = None


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
class UndoAnswer(TaskAnswer):
    """The task that is yours again, with what you had said of it."""

    earlier: Earlier | None


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
    """The task you hold, or the next one; sides are drawn at random and stay as drawn.

    409 while the guidelines that an admin set last are not accepted.
    """
    require_accepted(services.store, person)
    view = next_task(services, person, (body or NextTask()).kind)
    return Response(status_code=204) if view is None else TaskAnswer(**_show(view))


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
        unsafe=body.unsafe,
    )
    return JudgementAnswer(saved.judgement_id, task_id, body.choice, saved.created_at)


@routes.post("/judgements/undo", responses={204: {"description": "none to undo"}}, response_model=UndoAnswer)
def undo_judgement(services: Given, person: Annotator, body: UndoBody | None = None) -> UndoAnswer | Response:
    """Take your newest judgement or skip back: its task, same sides, is yours. Again goes further back."""
    view = undo(services, person, (body or UndoBody()).judgement_id)
    if view is None:
        return Response(status_code=204)
    return UndoAnswer(**_show(view), earlier=read_earlier(services, person, view.task_id))


def _show(view: TaskView) -> dict[str, Any]:
    shown = {name: getattr(view, name) for name in ("task_id", "kind", "lease_expires_at", "left", "right")}
    return shown | {"messages": show_messages(view.messages)}
