"""One walk through a file: which format it has, and what each of its rows gives. Saves nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from store.errors import BadValue
from store.formats import FORMATS, Format
from store.formats.files import Source, read_rows
from store.formats.found import BadField, Found, Names, Row, Skip
from store.formats.lines import MAX_RAW_CHARS, SourceRow, Unreadable
from store.formats.oasst import read_trees
from store.outside import check_label
from store.prompts import NewPrompt, check_prompt
from store.records import OutsideLabel

DETECT_ROWS = 20
MOST_NAMED = 20  # problems kept for showing; the reject file gets all of them
MAX_LABELS = 1_000_000
MAX_CHARS = 512 * 2**20  # of text in one import, all of which is in memory when it is saved


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a place in the file gave nothing. `unit` is what `place` counts; `raw` is the row as it stood.

    `is_end` is True when nothing behind the place can be read either.
    """

    place: int
    unit: str
    reason: str
    column: int | None = None
    field: str | None = None
    raw: str = ""
    is_end: bool = False

    def __str__(self) -> str:
        at = f", column {self.column}" if self.column is not None else ""
        return f"{self.unit} {self.place}{at}: {self.reason}"


@dataclass(slots=True)
class Reading:
    """What a walk through the file has found; `end` is the problem at which it had to stop."""

    labels: list[OutsideLabel] = field(default_factory=list)
    prompts: list[NewPrompt] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    num_problems: int = 0
    num_chars: int = 0
    end: Problem | None = None


Outcome = Found | Problem


def find_format(file: Source, name: str | None = None) -> tuple[Format, str]:
    """The format of that name, or the one that fits the first rows, with the reason; BadValue listing all."""
    if name is not None and name != "auto":
        known = next((format_ for format_ in FORMATS if format_.name == name), None)
        if known is None:
            raise BadValue(f"format {name!r} is not known; {list_formats()}")
        return known, "it was named"
    rows = _first_rows(file)
    if not rows:
        raise BadValue("there is nothing in this file that could be read as a row")
    counts = [(sum(1 for row in rows if format_.detect(row)), format_) for format_ in FORMATS]
    most = max(count for count, _ in counts)
    best = [format_ for count, format_ in counts if count == most]
    if most * 2 < len(rows):
        fields = ", ".join(repr(name) for name in list(rows[0])[:12])
        raise BadValue(
            f"the format is not recognised: the first row has the fields {fields}; {list_formats()}"
        )
    if len(best) > 1:
        raise BadValue(f"the rows fit {' and '.join(f.name for f in best)} alike; name one with `format`")
    return best[0], f"{most} of the first {len(rows)} rows have {best[0].fields}"


def list_formats() -> str:
    """Every format by name with its fields, as one sentence."""
    return "known formats: " + "; ".join(f"{format_.name} ({format_.fields})" for format_ in FORMATS)


def refuse_unless_whole(reading: Reading, skip_bad: bool) -> None:
    """BadValue naming the first problem, unless it may be skipped; also when there is nothing at all."""
    if reading.end is not None:
        raise BadValue(f"nothing was imported: {reading.end}; nothing behind it can be read")
    if reading.problems and not skip_bad:
        more = len(reading.problems) - 1
        others = "; ".join(str(problem) for problem in reading.problems[1:])
        raise BadValue(
            f"nothing was imported: {reading.problems[0]}" + (f" (and {more} more: {others})" if more else "")
        )
    if not (reading.labels or reading.prompts or reading.skipped):
        raise BadValue("nothing was imported: there is no label or prompt in this file")


def _first_rows(file: Source) -> list[Row]:
    rows: list[Row] = []
    first: Unreadable | None = None
    for row in read_rows(file):
        if isinstance(row, SourceRow):
            rows.append(row.fields)
        else:
            first = first or row
        if len(rows) == DETECT_ROWS:
            break
    if not rows and first is not None:
        raise BadValue(f"nothing was imported: {_to_problem(first)}")
    return rows


def read_all(
    file: Source,
    chosen: Format,
    source: str | None,
    names: Names,
    on_problem: Callable[[Problem], None] | None,
) -> Reading:
    """Everything the file gives; without `on_problem` the walk ends after as many problems as are shown.

    `source` replaces the format's name in the stamp `import:<format>`.
    """
    reading = Reading()
    for outcome in _walk(file, chosen, source, names):
        if not isinstance(outcome, Problem):
            _keep(reading, outcome)
            continue
        reading.num_problems += 1
        if len(reading.problems) < MOST_NAMED:
            reading.problems.append(outcome)
        if outcome.is_end:
            reading.end = outcome
        if on_problem is not None:
            on_problem(outcome)
        elif reading.num_problems == MOST_NAMED:
            break
    return reading


def _walk(file: Source, chosen: Format, source: str | None, names: Names) -> Iterator[Outcome]:
    read = chosen.read
    if read is None:
        yield from _walk_trees(file, chosen, source)
        return
    for row in read_rows(file):
        if isinstance(row, Unreadable):
            yield _to_problem(row)
            continue
        try:
            yield from [_settle(found, chosen, source) for found in read(row.fields, names)]
        except BadValue as error:
            yield _blame(row, error)


def _walk_trees(file: Source, chosen: Format, source: str | None) -> Iterator[Outcome]:
    rows: list[SourceRow] = []
    for row in read_rows(file):
        if isinstance(row, Unreadable):
            yield _to_problem(row)
        else:
            rows.append(row)
        if len(rows) > MAX_LABELS:
            raise BadValue(f"one import takes at most {MAX_LABELS} rows; split the file")
    for position, found in read_trees([row.fields for row in rows]):
        try:
            if isinstance(found, BadValue):
                raise found
            yield _settle(found, chosen, source)
        except BadValue as error:
            yield _blame(rows[position], error)


def _settle(found: Found, chosen: Format, source: str | None) -> Found:
    """The row as it will be stored, with its source; BadValue when it cannot be."""
    if isinstance(found, Skip):
        return found
    if isinstance(found, NewPrompt):
        return check_prompt(found)
    stamp = f"import:{source or chosen.name}"
    return check_label(replace(found, source=found.source if found.source and not source else stamp))


def _keep(reading: Reading, found: Found) -> None:
    if isinstance(found, Skip):
        reading.skipped[found.reason] += 1
        return
    if isinstance(found, NewPrompt):
        reading.prompts.append(found)
        reading.num_chars += sum(len(message["content"]) for message in found.messages)
    else:
        reading.labels.append(found)
        asked = sum(len(message["content"]) for message in found.messages)
        reading.num_chars += asked + len(found.chosen) + len(found.rejected or "")
    if reading.num_chars > MAX_CHARS or len(reading.labels) + len(reading.prompts) > MAX_LABELS:
        most = f"{MAX_LABELS} rows and {MAX_CHARS // 2**20} Mi characters"
        raise BadValue(f"one import takes at most {most}; split the file")


def _to_problem(row: Unreadable) -> Problem:
    return Problem(row.place, row.unit, row.problem, row.column, None, row.raw, row.is_end)


def _blame(row: SourceRow, error: BadValue) -> Problem:
    raw = json.dumps(row.fields, ensure_ascii=True)[:MAX_RAW_CHARS]
    name = error.field if isinstance(error, BadField) else None
    return Problem(row.place, row.unit, str(error), None, name, raw)
