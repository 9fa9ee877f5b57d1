"""Prompts and labels in, labels out, and a report on what there is."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import IO, Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from annotate.api.completions import ChatMessage
from annotate.api.given import Admin, Body, Given, MessageAnswer, ShortText, show_messages
from annotate.services import Services
from store.data_report import DataReport, report_on_store
from store.errors import BadValue
from store.exchange import ExportFilter, Kind, export_labels
from store.export_files import to_csv_lines, to_json_lines, write_parquet
from store.formats.reading import Problem
from store.formats.sides import read_names
from store.importing import Preview, import_file, preview
from store.prompts import NewPrompt, add_prompts
from store.records import OutsideLabel

routes = APIRouter(prefix="/v1", tags=["data"])

MOST_REJECTS = 1000  # rows an answer gives back; an import with more bad ones has another problem
MOST_RAW_CHARS = 2000
_PIECE = 1 << 20
_IN_MEMORY = 1 << 20  # a larger upload or Parquet file waits on disk

ExportFormat = Literal["jsonl", "parquet", "csv"]
MEDIA_TYPES: dict[ExportFormat, str] = {
    "jsonl": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
    "csv": "text/csv; charset=utf-8",
}


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
    """How many prompts are new and how many were known, and their ids in the order they came."""

    added: int
    known: int
    prompt_ids: list[str]


@dataclass(frozen=True)
class RejectAnswer:
    """A row that could not be read: its place, why, and how it stood there."""

    place: int
    unit: str
    column: int | None
    field: str | None
    reason: str
    raw: str


@dataclass(frozen=True)
class ImportAnswer:
    """What an import did; `skipped` counts by rule what teaches nothing, `rejected` names what is broken."""

    format: str
    kind: str
    added: int
    known: int
    skipped: dict[str, int]
    num_rejected: int
    rejected: list[RejectAnswer] = field(default_factory=list)


@dataclass(frozen=True)
class PreviewRow:
    """A label or prompt as it would be stored."""

    kind: str
    messages: list[MessageAnswer]
    chosen: str | None = None
    rejected: str | None = None
    desirable: bool | None = None
    strength: int | None = None
    annotator: str | None = None
    source: str | None = None
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class PreviewAnswer:
    """What an import would do; nothing was saved."""

    format: str
    reason: str
    rows: list[PreviewRow]
    counts: dict[str, int]
    skipped: dict[str, int]
    num_repeated: int
    num_problems: int
    problems: list[RejectAnswer]


@dataclass(frozen=True)
class ImportWish:
    """How a file is to be read."""

    format: str | None
    source: str | None
    skip_bad: bool
    names: dict[str, str]


@routes.post("/prompts", status_code=201)
def create_prompts(body: PromptsBody, services: Given, _person: Admin) -> AddedAnswer:
    """Add prompts; one that is known already is counted, not added again."""
    prompts = [_new_prompt(prompt) for prompt in body.prompts]
    added = add_prompts(services.store, prompts, body.source)
    return AddedAnswer(added.added, added.known, list(added.prompt_ids))


@routes.post("/import", status_code=201)
async def import_upload(
    request: Request,
    response: Response,
    services: Given,
    _person: Admin,
    format: Annotated[ShortText, Query()] = "auto",
    source: Annotated[ShortText | None, Query()] = None,
    skip_bad: bool = False,
    preview: bool = False,
    names: Annotated[ShortText, Query()] = "",
) -> ImportAnswer | PreviewAnswer:
    """Labels or prompts of any known format; all or none unless `skip_bad`, and none with `preview`."""
    wish = ImportWish(format, source, skip_bad, read_names(names))
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as upload:
        async for part in request.stream():
            upload.write(part)
        if preview:
            response.status_code = 200
            return await to_thread.run_sync(_preview, upload, wish)
        return await to_thread.run_sync(_import, services, upload, wish)


@routes.get("/export")
def export(
    services: Given,
    _person: Admin,
    format: ExportFormat = "jsonl",
    kind: Kind | None = None,
    source: Annotated[ShortText | None, Query()] = None,
    version: Annotated[ShortText | None, Query()] = None,
    annotator: Annotated[ShortText | None, Query()] = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> StreamingResponse:
    """Every usable label in the columns TRL's trainers take; Parquet and CSV hold one kind a file."""
    wanted = ExportFilter(kind, source, version, annotator, since, until)
    name = f"heed-labels-{kind}.{format}" if kind else f"heed-labels.{format}"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(
        _write(services, wanted, format), media_type=MEDIA_TYPES[format], headers=headers
    )


@routes.get("/data-report")
def read_data_report(services: Given, _person: Admin) -> DataReport:
    """What the labels in the store look like as training data: checks with verdicts, and points for plots."""
    return report_on_store(services.store)


def _import(services: Services, upload: IO[bytes], wish: ImportWish) -> ImportAnswer:
    rejected: list[RejectAnswer] = []

    def keep(problem: Problem) -> None:
        if len(rejected) < MOST_REJECTS:
            rejected.append(_show_problem(problem))

    done = import_file(
        services.store,
        upload,
        wish.format,
        wish.skip_bad,
        wish.source,
        names=wish.names,
        on_reject=keep,
    )
    return ImportAnswer(
        done.format, done.kind, done.added, done.known, done.skipped, done.num_rejected, rejected
    )


def _preview(upload: IO[bytes], wish: ImportWish) -> PreviewAnswer:
    shown: Preview = preview(upload, wish.format, wish.names)
    return PreviewAnswer(
        shown.format,
        shown.reason,
        [_show_row(row) for row in shown.rows],
        shown.counts,
        shown.skipped,
        shown.num_repeated,
        shown.num_problems,
        [_show_problem(problem) for problem in shown.problems],
    )


def _show_row(row: OutsideLabel | NewPrompt) -> PreviewRow:
    if isinstance(row, NewPrompt):
        return PreviewRow("prompt", show_messages(row.messages), tags=list(row.tags))
    return PreviewRow(
        row.kind,
        show_messages(row.messages),
        row.chosen,
        row.rejected,
        row.desirable,
        row.strength,
        row.annotator,
        row.source,
    )


def _show_problem(problem: Problem) -> RejectAnswer:
    # A broken row may hold half a surrogate pair, which no answer can carry.
    raw = problem.raw[:MOST_RAW_CHARS].encode(errors="replace").decode()
    reason = problem.reason.encode(errors="replace").decode()
    return RejectAnswer(problem.place, problem.unit, problem.column, problem.field, reason, raw)


def _new_prompt(prompt: PromptBody) -> NewPrompt:
    messages = [message.as_record() for message in prompt.messages]
    return NewPrompt(messages=messages, tags=tuple(prompt.tags))


def _write(services: Services, wanted: ExportFilter, format: ExportFormat) -> Iterator[str | bytes]:
    rows = export_labels(services.store, wanted)
    if format == "jsonl":
        return to_json_lines(rows)
    if wanted.kind is None:
        raise BadValue(f"a {format} file holds one kind of label: add kind=preference or kind=unpaired")
    if format == "csv":
        return to_csv_lines(rows, wanted.kind)
    return _parquet_pieces(services, wanted, wanted.kind)


def _parquet_pieces(services: Services, wanted: ExportFilter, kind: Kind) -> Iterator[bytes]:
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as file:
        write_parquet(export_labels(services.store, wanted), kind, file)
        file.seek(0)
        while piece := file.read(_PIECE):
            yield piece
