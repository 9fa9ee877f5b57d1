"""Talking to a policy and rating what it said: an OpenAI-compatible door, feedback, own conversations."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Annotated, Literal

from anyio import CancelScope, CapacityLimiter, to_thread
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import Field
from starlette.types import Receive, Scope, Send

from annotate.api.completions import (
    ChatRequest,
    StreamOptions,
    read_messages,
    read_sampling,
    write_break,
    write_completion,
    write_delta,
    write_end,
)
from annotate.api.given import Body, Given, MessageAnswer, ShortText, Tester, Text, show_messages
from annotate.chat import Answer, answer
from annotate.feedback import ComparedAs, compare, rate
from store.completions import ConversationSummary, read_conversation, read_conversations
from store.errors import Busy, HeedError
from store.policies import read_policies
from store.records import Choice, FinishReason, Turn

log = logging.getLogger(__name__)
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
    """One exchange: the last question, the answer, who wrote it, and your thumb on it."""

    completion_id: str
    question: MessageAnswer
    text: str
    version: str
    finish_reason: FinishReason
    rating: Literal[1, -1, 0]
    created_at: datetime


@dataclass(frozen=True)
class ConversationAnswer:
    """A conversation of yours, oldest turn first."""

    conversation_id: str
    turns: list[TurnAnswer]


class AnswerStream(StreamingResponse):
    """Server-sent events of an answer; whatever ends the response also ends the writing of the answer."""

    def __init__(
        self, answers: Generator[Answer, None, None], events: AsyncIterator[str], headers: dict[str, str]
    ):
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with CancelScope(shield=True):  # a client that went away must not keep the engine busy
                await to_thread.run_sync(self._answers.close)


@routes.get("/models")
def list_models(services: Given, _person: Tester) -> dict[str, object]:
    """`live`, `base`, and each loaded version."""
    made = {policy.version: int(policy.created_at.timestamp()) for policy in read_policies(services.store)}
    names = dict.fromkeys(("live", "base", *services.loaded_versions()))
    models = [
        {"id": name, "object": "model", "created": made.get(name, 0), "owned_by": "heed"} for name in names
    ]
    return {"object": "list", "data": models}


@routes.post("/chat/completions")
async def complete_chat(body: ChatRequest, request: Request, services: Given, person: Tester) -> Response:
    """Ask a policy, streaming or not; the answer's id is what feedback refers to."""
    sampling = read_sampling(body, services.settings)
    threads: CapacityLimiter = request.app.state.chat_threads
    ask = partial(answer, services, person, body.model, read_messages(body), sampling, body.conversation_id)
    answers = await to_thread.run_sync(ask, limiter=threads)
    first = await _next_answer(answers, threads)
    if first is None:
        raise Busy("the engine gave no answer; try again shortly")
    headers = {"x-policy-version": first.version, "cache-control": "no-store"}
    created = int(time.time())
    if body.stream:
        events = _write_events(first, answers, threads, created, body.stream_options)
        return AnswerStream(answers, events, headers)
    last = await _finish(first, answers, threads, request)
    return JSONResponse(write_completion(last, created), headers=headers)


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
        created_at=completion.created_at,
    )


async def _next_answer(answers: Generator[Answer, None, None], threads: CapacityLimiter) -> Answer | None:
    return await to_thread.run_sync(partial(next, answers, None), limiter=threads)


async def _finish(
    first: Answer, answers: Generator[Answer, None, None], threads: CapacityLimiter, request: Request
) -> Answer:
    last = first
    try:
        while (grown := await _next_answer(answers, threads)) is not None:
            last = grown
            if await request.is_disconnected():
                break
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(answers.close)
    return last


async def _write_events(
    first: Answer,
    answers: Generator[Answer, None, None],
    threads: CapacityLimiter,
    created: int,
    options: StreamOptions | None,
) -> AsyncIterator[str]:
    shown = ""
    grown: Answer | None = first
    try:
        while grown is not None:
            if grown.text != shown or grown is first:
                yield write_delta(grown, created, grown.text[len(shown) :], is_first=grown is first)
                shown = grown.text
            if grown.finish_reason is not None:
                yield write_end(grown, created, options)
            grown = await _next_answer(answers, threads)
    except HeedError as error:
        yield write_break(error.kind, str(error))
    except Exception:
        # The status line is long gone: the stream itself has to say that there will be no more.
        log.exception("answer %s broke off", first.completion_id)
        yield write_break("internal", "the answer broke off; the server's log says why")
