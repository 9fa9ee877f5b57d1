"""Prompts in, labels out."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import Field

from annotate.api.completions import ChatMessage
from annotate.api.given import Admin, Body, Given, ShortText
from annotate.prompt_lines import BadLine, read_prompt_lines
from annotate.services import Services
from store.errors import BadValue
from store.exchange import export_labels
from store.prompts import NewPrompt, add_prompts
from store.records import Message

routes = APIRouter(prefix="/v1", tags=["data"])

MOST_NAMED = 20  # bad lines named in one error


class PromptBody(Body):
    """One prompt: a conversation that ends with the user."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=500)]
    tags: list[ShortText] = Field(default=[], max_length=50)


class PromptsBody(Body):
    """Prompts to be answered and judged."""

    prompts: Annotated[list[PromptBody], Field(min_length=1, max_length=5000)]
    source: ShortText = "api"


@dataclass(frozen=True)
class AddedAnswer:
    """How many prompts are new and how many were known, their ids, and which lines were left out."""

    added: int
    known: int
    prompt_ids: list[str]
    skipped: list[BadLine] = field(default_factory=list)


@routes.post("/prompts", status_code=201)
def create_prompts(body: PromptsBody, services: Given, _person: Admin) -> AddedAnswer:
    """Add prompts; one that is known already is counted, not added again."""
    prompts = [_new_prompt(prompt) for prompt in body.prompts]
    return _add(services, prompts, body.source, [])


@routes.post("/import", status_code=201)
async def import_prompts(
    request: Request,
    services: Given,
    _person: Admin,
    source: Annotated[ShortText, Query()] = "import",
    skip_bad: bool = False,
) -> AddedAnswer:
    """Add prompts from JSON lines, `{"prompt": text or messages}`; all or none unless `skip_bad`."""
    with tempfile.SpooledTemporaryFile(max_size=1 << 20) as upload:
        async for part in request.stream():
            upload.write(part)
        upload.seek(0)
        return await to_thread.run_sync(_import, services, upload, source, skip_bad)


@routes.get("/export")
def export(services: Given, _person: Admin) -> StreamingResponse:
    """Every usable label as JSON lines, in the columns TRL's trainers take."""
    headers = {"content-disposition": 'attachment; filename="heed-labels.jsonl"'}
    return StreamingResponse(_write_lines(services), media_type="application/x-ndjson", headers=headers)


def _import(services: Services, upload: IO[bytes], source: str, skip_bad: bool) -> AddedAnswer:
    prompts, bad = read_prompt_lines(upload)
    if bad and not skip_bad:
        named = "; ".join(f"line {line.line}: {line.problem}" for line in bad[:MOST_NAMED])
        raise BadValue(f"nothing was imported, {len(bad)} lines cannot be read: {named}")
    if not prompts:
        raise BadValue("there is no prompt in this file")
    return _add(services, prompts, source, bad)


def _add(services: Services, prompts: list[NewPrompt], source: str, skipped: list[BadLine]) -> AddedAnswer:
    result = add_prompts(services.store, prompts, source)
    return AddedAnswer(result.added, result.known, list(result.prompt_ids), skipped)


def _new_prompt(prompt: PromptBody) -> NewPrompt:
    messages = [Message(role=message.role, content=message.text) for message in prompt.messages]
    return NewPrompt(messages=messages, tags=tuple(prompt.tags))


def _write_lines(services: Services) -> Iterator[str]:
    for row in export_labels(services.store):
        yield json.dumps(row, ensure_ascii=False, default=str) + "\n"
