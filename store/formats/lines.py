"""Rows out of JSON lines, JSON documents and plain text, each with its line and, where it breaks, its column.

What JSON allows and a store cannot hold (NaN, infinity, a field given twice) is a fault of that row alone. A
file is never held in memory but for a JSON document, whose rows lie within one list.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from store.errors import BadValue
from store.formats.found import Row, kind_of

MAX_LINE_BYTES = 8 * 2**20
MAX_DOCUMENT_BYTES = 256 * 2**20
MAX_RAW_CHARS = 20_000  # of a row that cannot be read, as the reject file shows it
LISTS = ("data", "rows", "records", "examples", "results", "feedbacks")
_BOM = b"\xef\xbb\xbf"
_BLANK = re.compile(r"[ \t\r\n]*")
_MOST_DIGITS = 400  # more than any float has; Python itself refuses from 4,300 on


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row with its place. `unit` is what `place` counts, from 1: lines of a text, rows of a table."""

    place: int
    unit: str
    fields: Row


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A place that holds no row. `is_end` is True when nothing behind it can be read either."""

    place: int
    unit: str
    column: int | None
    problem: str
    raw: str
    is_end: bool = False


ReadRow = SourceRow | Unreadable


class StrictDecoder:
    """JSON with the store's rules; what breaks them without breaking the syntax is listed in `faults`."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._make_object,
            parse_constant=self._refuse_constant,
            parse_float=self._make_float,
            parse_int=self._make_int,
        )

    def decode(self, text: str, start: int = 0) -> tuple[Any, int]:
        """The value at `start` and where it ends; JSONDecodeError or RecursionError when there is none."""
        self.faults.clear()
        value: tuple[Any, int] = self._decoder.raw_decode(text, start)
        return value

    def _make_object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        row = dict(pairs)
        if len(row) != len(pairs):
            names = [name for name, _ in pairs]
            repeated = next(name for name in names if names.count(name) > 1)
            self.faults.append(f"field {repeated!r} is given twice")
        return row

    def _refuse_constant(self, name: str) -> None:
        self.faults.append(f"{name} is not a JSON value")

    def _make_float(self, digits: str) -> float:
        number = float(digits)
        if not math.isfinite(number):
            self.faults.append(f"{digits[:20]} is too large a number")
            return 0.0
        return number

    def _make_int(self, digits: str) -> int:
        if len(digits) > _MOST_DIGITS:
            self.faults.append(f"a number of {len(digits)} digits is too large")
            return 0
        return int(digits)


def read_json_lines(file: IO[bytes]) -> Iterator[ReadRow]:
    """One JSON object (or a text, which is a prompt) a line; empty lines are passed over."""
    decoder = StrictDecoder()
    for place, line in _numbered_lines(file):
        yield line if isinstance(line, Unreadable) else _read_json_line(place, line, decoder)


def read_text_lines(file: IO[bytes]) -> Iterator[ReadRow]:
    """One prompt a line; empty lines are passed over."""
    for place, line in _numbered_lines(file):
        yield line if isinstance(line, Unreadable) else SourceRow(place, "line", {"prompt": line})


def read_document(file: IO[bytes]) -> Iterator[ReadRow]:
    """The rows of a JSON list, of the list a JSON object holds, or the one object itself."""
    content = file.read(MAX_DOCUMENT_BYTES + 1)
    if len(content) > MAX_DOCUMENT_BYTES:
        raise BadValue(
            f"a JSON document over {MAX_DOCUMENT_BYTES // 2**20} MiB; write it as JSON lines, one row a line"
        )
    try:
        text = content.removeprefix(_BOM).decode()
    except UnicodeDecodeError as error:
        place = content[: error.start].count(b"\n") + 1
        yield Unreadable(place, "line", None, f"byte {error.start + 1} of the file is not UTF-8", "", True)
        return
    yield from _Document(text).rows()


class _Document:
    """Walks through a JSON text and counts its lines."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._decoder = StrictDecoder()
        self._at = 0
        self._counted, self._line = 0, 1

    def rows(self) -> Iterator[ReadRow]:
        self._pass_blanks()
        if self._here() == "[":
            yield from self._list()
            return
        start = self._at
        if self._find_list():
            yield from self._list()
            return
        self._at = start
        yield from self._value(is_only=True)

    def _list(self) -> Iterator[ReadRow]:
        self._at += 1
        self._pass_blanks()
        while self._here() != "]":
            for row in self._value():
                yield row
                if isinstance(row, Unreadable) and row.is_end:
                    return
            self._pass_blanks()
            if self._here() == ",":
                self._at += 1
                self._pass_blanks()
            elif self._here() != "]":
                yield self._end("a comma or the end of the list is missing")
                return

    def _value(self, is_only: bool = False) -> Iterator[ReadRow]:
        place, start = self._count_lines(self._at), self._at
        try:
            value, self._at = self._decoder.decode(self._text, start)
        except json.JSONDecodeError as error:
            raw = self._text[start : start + MAX_RAW_CHARS]
            yield Unreadable(error.lineno, "line", error.colno, f"not JSON: {error.msg}", raw, True)
            return
        except RecursionError:
            yield Unreadable(place, "line", None, "this JSON is nested too deeply", "", True)
            return
        self._pass_blanks()
        if is_only and self._at < len(self._text):
            yield self._end("more text follows the JSON value")
            return
        yield _to_row(place, value, self._decoder.faults, self._text[start : start + MAX_RAW_CHARS])

    def _find_list(self) -> bool:
        """Go to the first list under a known name of the object here; False when it has none."""
        if self._here() != "{":
            return False
        self._at += 1
        try:
            while True:
                self._pass_blanks()
                name, self._at = self._decoder.decode(self._text, self._at)
                self._pass_blanks()
                if self._here() != ":":
                    return False
                self._at += 1
                self._pass_blanks()
                if name in LISTS and self._here() == "[" and self._begins_rows():
                    return True
                _, self._at = self._decoder.decode(self._text, self._at)
                self._pass_blanks()
                if self._here() != ",":
                    return False
                self._at += 1
        except (json.JSONDecodeError, RecursionError):
            return False

    def _begins_rows(self) -> bool:
        after = _BLANK.match(self._text, self._at + 1)
        return after is not None and self._text[after.end() : after.end() + 1] == "{"

    def _end(self, problem: str) -> Unreadable:
        column = self._at - self._text.rfind("\n", 0, self._at)
        return Unreadable(self._count_lines(self._at), "line", column, f"not JSON: {problem}", "", True)

    def _here(self) -> str:
        return self._text[self._at : self._at + 1]

    def _pass_blanks(self) -> None:
        blanks = _BLANK.match(self._text, self._at)
        self._at = blanks.end() if blanks else self._at

    def _count_lines(self, position: int) -> int:
        self._line += self._text.count("\n", self._counted, position)
        self._counted = position
        return self._line


def _read_json_line(place: int, line: str, decoder: StrictDecoder) -> ReadRow:
    text = line.strip()
    offset = len(line) - len(line.lstrip())
    try:
        value, end = decoder.decode(text)
        if end < len(text):
            raise json.JSONDecodeError("more text follows the JSON value", text, end)
    except json.JSONDecodeError as error:
        column = error.pos + offset + 1
        return Unreadable(place, "line", column, f"not JSON: {error.msg}", text[:MAX_RAW_CHARS])
    except RecursionError:
        return Unreadable(place, "line", None, "this JSON is nested too deeply", text[:MAX_RAW_CHARS])
    return _to_row(place, value, decoder.faults, text[:MAX_RAW_CHARS])


def _to_row(place: int, value: Any, faults: list[str], raw: str) -> ReadRow:
    if faults:
        return Unreadable(place, "line", None, faults[0], raw)
    if isinstance(value, str):
        value = {"prompt": value}
    if not isinstance(value, dict):
        return Unreadable(place, "line", None, f"a row must be a JSON object, not {kind_of(value)}", raw)
    return SourceRow(place, "line", value)


def _numbered_lines(file: IO[bytes]) -> Iterator[tuple[int, str | Unreadable]]:
    place = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        place += 1
        if len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            while (more := file.readline(MAX_LINE_BYTES)) and not more.endswith(b"\n"):
                pass
            problem = f"this line is longer than {MAX_LINE_BYTES // 2**20} MiB"
            yield place, Unreadable(place, "line", None, problem, "")
            continue
        line = line.removeprefix(_BOM) if place == 1 else line
        try:
            text = line.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            raw = line.decode(errors="replace")[:MAX_RAW_CHARS]
            column = error.start + 1
            yield place, Unreadable(place, "line", column, f"byte {column} is not UTF-8", raw)
            continue
        if text.strip():
            yield place, text
