"""Prompts: what is asked, with where it came from. The same message list is kept once, whoever brings it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from store.boundary import check_messages, check_text
from store.clock import from_column, utc
from store.database import Store
from store.errors import NotFound
from store.events import Event, new_event, to_json
from store.ids import new_id
from store.records import Message, Prompt
from store.writer import Decision

_COLUMNS = "prompt_id, messages_json, source, tags_json, created_at"


@dataclass(frozen=True, slots=True)
class NewPrompt:
    """A prompt as somebody brings it, before it has an id."""

    messages: Sequence[Message]
    tags: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class AddedPrompts:
    """How many were new and how many were known; the ids are in the order the prompts came."""

    added: int
    known: int
    prompt_ids: tuple[str, ...]


def add_prompts(store: Store, prompts: Sequence[NewPrompt], source: str) -> AddedPrompts:
    """Save the prompts that are not there yet, all or none; a known one keeps its id, source and tags."""
    check_text("source", source)
    checked = [check_prompt(prompt) for prompt in prompts]
    hashes = [_content_sha256(prompt.messages) for prompt in checked]

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[AddedPrompts]:
        # A join, not list_contains: an import brings tens of thousands of hashes.
        sql = """
            SELECT content_sha256, prompt_id FROM prompts
            WHERE content_sha256 IN (SELECT unnest(?::VARCHAR[]))"""
        ids: dict[str, str] = dict(cursor.execute(sql, [hashes]).fetchall()) if hashes else {}
        events = []
        for prompt, content_sha256 in zip(checked, hashes, strict=True):
            if content_sha256 not in ids:
                ids[content_sha256] = new_id("p")
                events.append(_to_event(ids[content_sha256], prompt, content_sha256, source))
        prompt_ids = tuple(ids[content_sha256] for content_sha256 in hashes)
        return Decision(AddedPrompts(len(events), len(checked) - len(events), prompt_ids), events)

    return store.write(decide)


def read_prompt(store: Store, prompt_id: str) -> Prompt:
    """The prompt with that id; NotFound when there is none."""
    with store.read() as cursor:
        row = cursor.execute(f"SELECT {_COLUMNS} FROM prompts WHERE prompt_id = ?", [prompt_id]).fetchone()
    if row is None:
        raise NotFound(f"no prompt has the id {prompt_id!r}")
    return _to_prompt(row)


def count_prompts(store: Store) -> int:
    """How many prompts there are."""
    with store.read() as cursor:
        row = cursor.execute("SELECT count(*) FROM prompts").fetchone()
    return int(row[0]) if row else 0


def choose_prompts(store: Store, limit: int, seed: int) -> list[Prompt]:
    """Up to `limit` prompts, those with the fewest tasks first, in an order the seed draws among equals."""
    sql = f"""
        SELECT {_COLUMNS} FROM prompts
        LEFT JOIN (SELECT prompt_id, count(*) AS num_tasks FROM tasks GROUP BY prompt_id) USING (prompt_id)
        ORDER BY coalesce(num_tasks, 0), md5(prompt_id || ?) LIMIT ?"""
    with store.read() as cursor:
        rows = cursor.execute(sql, [f":{seed}", limit]).fetchall()
    return [_to_prompt(row) for row in rows]


def check_prompt(prompt: NewPrompt) -> NewPrompt:
    """The prompt as it will be saved; BadValue for what the store could not give back."""
    tags = tuple(check_text("a tag", tag, may_be_empty=False) for tag in prompt.tags)
    return NewPrompt(check_messages(prompt.messages), tags)


def _content_sha256(messages: Sequence[Message]) -> str:
    return hashlib.sha256(
        to_json([[message["role"], message["content"]] for message in messages]).encode()
    ).hexdigest()


def _to_event(prompt_id: str, prompt: NewPrompt, content_sha256: str, source: str) -> Event:
    return new_event(
        "prompt_added",
        utc(),
        prompt_id=prompt_id,
        messages=list(prompt.messages),
        content_sha256=content_sha256,
        source=source,
        tags=list(prompt.tags),
    )


def _to_prompt(row: tuple[Any, ...]) -> Prompt:
    prompt_id, messages_json, source, tags_json, created_at = row
    messages = tuple(json.loads(messages_json))
    return Prompt(prompt_id, messages, source, tuple(json.loads(tags_json)), from_column(created_at))
