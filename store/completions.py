"""Completions: every sampled answer with the version that wrote it, and the conversations of chat."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, get_args

import duckdb

from store.boundary import check_messages, check_one_of, check_text
from store.clock import from_column, utc
from store.database import Store
from store.errors import BadValue, NotFound, StateConflict
from store.events import Event, new_event
from store.ids import new_id
from store.records import Completion, FinishReason, Message, Sampling, Turn
from store.writer import Decision

TITLE_CHARS = 80
COLUMNS = """completion_id, messages_json, text, version, temperature, top_p, max_tokens, seed,
    token_ids_json, logprob_sum, finish_reason, num_prompt_tokens, created_at, prompt_id, conversation_id,
    person_id, stop_json, num_left_out"""


@dataclass(frozen=True, slots=True)
class ConversationSummary:
    """One line of a list of conversations; `title` is the beginning of what was asked first."""

    conversation_id: str
    title: str
    num_turns: int
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ShownText:
    """What a person reads of a completion: what was asked and what was answered."""

    messages: tuple[Message, ...]
    text: str


def new_completion_id() -> str:
    """An id for an answer that is about to be generated, so that it can be named before it is finished."""
    return new_id("c")


def new_conversation_id() -> str:
    """An id for a conversation; it exists once its first completion is saved."""
    return new_id("cv")


def save_completion(store: Store, completion: Completion) -> Completion:
    """Save one answer, filling in an empty id; StateConflict when another answer has that id already."""
    checked = check_completion(completion)

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[Completion]:
        return Decision(checked, completion_events(cursor, [checked]))

    return store.write(decide)


def read_completion(store: Store, completion_id: str) -> Completion:
    """The completion with that id; NotFound when there is none."""
    with store.read() as cursor:
        found = find_completion(cursor, completion_id)
    if found is None:
        raise NotFound(f"no completion has the id {completion_id!r}")
    return found


def read_texts(store: Store, completion_ids: Sequence[str]) -> dict[str, ShownText]:
    """The texts of these completions by id, in one look; NotFound when one is not there."""
    sql = "SELECT completion_id, messages_json, text FROM completions WHERE completion_id IN "
    with store.read() as cursor:
        places = ", ".join("?" * len(completion_ids))
        rows = cursor.execute(f"{sql} ({places})", list(completion_ids)).fetchall() if completion_ids else []
    found = {row[0]: ShownText(tuple(json.loads(row[1])), row[2]) for row in rows}
    for completion_id in completion_ids:
        if completion_id not in found:
            raise NotFound(f"no completion has the id {completion_id!r}")
    return found


def read_conversation(store: Store, conversation_id: str, person_id: str) -> list[Turn]:
    """This person's turns in the order they happened; NotFound when the conversation is not theirs."""
    columns = ", ".join(f"c.{name.strip()}" for name in COLUMNS.split(","))
    sql = f"""
        SELECT {columns}, coalesce(max_by(r.value, r.seq), 0) FROM completions AS c
        LEFT JOIN ratings AS r ON r.completion_id = c.completion_id AND r.person_id = c.person_id
        WHERE c.conversation_id = ? AND c.person_id = ? GROUP BY c.seq, {columns} ORDER BY c.seq"""
    with store.read() as cursor:
        rows = cursor.execute(sql, [conversation_id, person_id]).fetchall()
    if not rows:
        raise NotFound(f"no conversation of this person has the id {conversation_id!r}")
    return [Turn(to_completion(row[:-1]), row[-1]) for row in rows]


def read_conversations(store: Store, person_id: str) -> list[ConversationSummary]:
    """This person's conversations, the one used last first."""
    sql = """
        SELECT conversation_id, min_by(messages_json, seq), count(*), max(created_at) FROM completions
        WHERE person_id = ? AND conversation_id IS NOT NULL GROUP BY conversation_id ORDER BY max(seq) DESC"""
    with store.read() as cursor:
        rows = cursor.execute(sql, [person_id]).fetchall()
    return [ConversationSummary(row[0], _title(row[1]), row[2], from_column(row[3])) for row in rows]


def messages_read(completion: Completion, num_left_out: int | None = None) -> tuple[Message, ...]:
    """The messages the model read: all system messages, and the others but for the oldest left out.

    `num_left_out` takes the place of the completion's own count, for answers that are compared.
    """
    to_skip = completion.num_left_out if num_left_out is None else num_left_out
    read = []
    for message in completion.messages:
        if message["role"] != "system" and to_skip:
            to_skip -= 1
        else:
            read.append(message)
    return tuple(read)


def check_completion(completion: Completion) -> Completion:
    """The completion with plain values and an id; BadValue when something in it could not be kept."""
    check_text("completion id", completion.completion_id)
    check_text("completion text", completion.text)
    check_text("version", completion.version, may_be_empty=False)
    for stop in completion.sampling.stop:
        check_text("stop text", stop, may_be_empty=False)
    check_one_of("finish reason", completion.finish_reason, get_args(FinishReason))
    if not math.isfinite(completion.logprob_sum):
        raise BadValue(
            f"logprob_sum {completion.logprob_sum} of completion {completion.completion_id} is not finite"
        )
    return dataclasses.replace(
        completion,
        completion_id=completion.completion_id or new_completion_id(),
        messages=check_messages(completion.messages),
        token_ids=tuple(int(token) for token in completion.token_ids),
        logprob_sum=float(completion.logprob_sum),
        created_at=utc(completion.created_at),
    )


def completion_events(cursor: duckdb.DuckDBPyConnection, completions: Sequence[Completion]) -> list[Event]:
    """The events that save those of the checked completions that are not saved yet."""
    events = []
    for completion in completions:
        known = find_completion(cursor, completion.completion_id)
        if known is not None and known != completion:
            raise StateConflict(f"another completion has the id {completion.completion_id!r} already")
        if known is None:
            events.append(_to_event(completion))
    return events


def find_completion(cursor: duckdb.DuckDBPyConnection, completion_id: str) -> Completion | None:
    """The completion with that id, or None, for whoever holds a cursor already."""
    row = cursor.execute(
        f"SELECT {COLUMNS} FROM completions WHERE completion_id = ?", [completion_id]
    ).fetchone()
    return to_completion(row) if row else None


def to_completion(row: tuple[Any, ...]) -> Completion:
    """A row of `COLUMNS` as a record."""
    return Completion(
        completion_id=row[0],
        messages=tuple(json.loads(row[1])),
        text=row[2],
        version=row[3],
        sampling=Sampling(row[4], row[5], row[6], row[7], stop=tuple(json.loads(row[16]))),
        token_ids=tuple(json.loads(row[8])),
        logprob_sum=row[9],
        finish_reason=row[10],
        num_prompt_tokens=row[11],
        created_at=from_column(row[12]),
        prompt_id=row[13],
        conversation_id=row[14],
        person_id=row[15],
        num_left_out=row[17],
    )


def _to_event(completion: Completion) -> Event:
    sampling = completion.sampling
    return new_event(
        "completion_saved",
        completion.created_at,
        completion_id=completion.completion_id,
        messages=list(completion.messages),
        text=completion.text,
        version=completion.version,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        seed=sampling.seed,
        token_ids=list(completion.token_ids),
        logprob_sum=completion.logprob_sum,
        finish_reason=completion.finish_reason,
        num_prompt_tokens=completion.num_prompt_tokens,
        prompt_id=completion.prompt_id,
        conversation_id=completion.conversation_id,
        person_id=completion.person_id,
        stop=list(sampling.stop),
        num_left_out=completion.num_left_out,
    )


def _title(messages_json: str) -> str:
    asked = [message["content"] for message in json.loads(messages_json) if message["role"] == "user"]
    return " ".join(asked[0].split())[:TITLE_CHARS]
