"""Rating what a policy said: feedback by completion id, comparisons, own conversations."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field

from annotate.api.given import Body, Given, MessageAnswer, ShortText, Tester, Text, show_messages
from annotate.feedback import ComparedAs, compare, rate
from store.completions import ConversationSummary, read_conversation, read_conversations
from store.records import Choice, FinishReason, Turn

routes = APIRouter(prefix="/v1", tags=["chat"])


class FeedbackBody(Body):
    """A thumb: 1, -1, or 0 to take it back. The newest one counts."""

    completion_id: Annotated[str, Field(max_length=100)]
    rating: Literal[1, -1, 0]
    reasons: list[ShortText] = Field(default=[], max_length=12)
    comment: Text = ""
    correction: Text | None = None


@dataclass(frozen=True)
class FeedbackAnswer:
    """The thumb as it was saved."""

    rating_id: str
    completion_id: str
    rating: Literal[1, -1, 0]
    created_at: datetime


class ComparisonBody(Body):
    """Which of two answers to the same messages is better; `strength` 2 is much better, 1 slightly."""

    first_id: Annotated[str, Field(max_length=100)]
    second_id: Annotated[str, Field(max_length=100)]
    choice: ComparedAs
    strength: Literal[1, 2] = 1
    reasons: list[ShortText] = Field(default=[], max_length=12)
    comment: Text = ""


@dataclass(frozen=True)
class ComparisonAnswer:
    """The comparison as it was saved; a later one of the same two answers takes its place."""

    judgement_id: str
    first_id: str
    second_id: str
    choice: Choice
    chosen_id: str | None
    strength: int
    created_at: datetime


@dataclass(frozen=True)
class TurnAnswer:
    """One exchange: the last question, the answer, who wrote it, and your thumb on it.

    `num_left_out` of the oldest messages did not fit the model's context and were not read.
    """

    completion_id: str
    question: MessageAnswer
    text: str
    version: str
    finish_reason: FinishReason
    rating: Literal[1, -1, 0]
    num_left_out: int
    created_at: datetime


@dataclass(frozen=True)
class ConversationAnswer:
    """A conversation of yours, oldest turn first."""

    conversation_id: str
    turns: list[TurnAnswer]


@routes.post("/feedback", status_code=201)
def save_feedback(body: FeedbackBody, services: Given, person: Tester) -> FeedbackAnswer:
    """Rate an answer of yours by its id."""
    saved = rate(
        services, person, body.completion_id, body.rating, body.reasons, body.comment, body.correction
    )
    return FeedbackAnswer(saved.rating_id, saved.completion_id, saved.value, saved.created_at)


@routes.post("/comparisons", status_code=201)
def save_comparison(body: ComparisonBody, services: Given, person: Tester) -> ComparisonAnswer:
    """Say which of two answers to you is better; both must answer the same messages."""
    given = (body.first_id, body.second_id, body.choice)
    saved = compare(
        services, person, *given, strength=body.strength, reasons=body.reasons, comment=body.comment
    )
    return ComparisonAnswer(
        judgement_id=saved.judgement_id,
        first_id=body.first_id,
        second_id=body.second_id,
        choice=saved.choice,
        chosen_id=saved.chosen_id,
        strength=saved.strength,
        created_at=saved.created_at,
    )


@routes.get("/conversations")
def list_conversations(services: Given, person: Tester) -> list[ConversationSummary]:
    """Your conversations, the one used last first."""
    return read_conversations(services.store, person.person_id)


@routes.get("/conversations/{conversation_id}")
def show_conversation(conversation_id: str, services: Given, person: Tester) -> ConversationAnswer:
    """One conversation of yours with your thumbs."""
    turns = read_conversation(services.store, conversation_id, person.person_id)
    return ConversationAnswer(conversation_id, [_show_turn(turn) for turn in turns])


def _show_turn(turn: Turn) -> TurnAnswer:
    completion = turn.completion
    return TurnAnswer(
        completion_id=completion.completion_id,
        question=show_messages(completion.messages)[-1],
        text=completion.text,
        version=completion.version,
        finish_reason=completion.finish_reason,
        rating=turn.rating,
        num_left_out=completion.num_left_out,
        created_at=completion.created_at,
    )
