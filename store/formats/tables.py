"""Rows out of CSV and Parquet.

CSV is read by Python's own reader because it can say on which line a record begins; Parquet by pyarrow, a few
rows at a time. An empty cell is a missing field, and so is NaN in Parquet, which is how pandas writes one.
"""

from __future__ import annotations

import codecs
import csv
import json
import math
from collections.abc import Iterator
from datetime import date, datetime
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from store.errors import BadValue
from store.formats.lines import MAX_RAW_CHARS, ReadRow, SourceRow, Unreadable

MAX_CELL_CHARS = 8 * 2**20
MAX_TABLE_BYTES = 2 * 2**30  # of a Parquet file, unpacked: what its footer says it holds
BATCH_ROWS = 64


def read_csv(file: IO[bytes], delimiter: str = ",") -> Iterator[ReadRow]:
    """One row a record under the names of the first one; `place` is the line where the record begins."""
    csv.field_size_limit(MAX_CELL_CHARS)
    reader = csv.reader(_decoded(file), delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        place = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Unreadable(place, "line", None, f"not CSV: {error}", "")
            continue
        except UnicodeDecodeError as error:
            yield Unreadable(place, "line", None, f"not UTF-8: {error.reason}", "", True)
            return
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = _check_header([cell.strip() for cell in cells])
        elif len(cells) != len(header):
            problem = f"{len(cells)} cells stand under the {len(header)} names of the first line"
            column = min(len(cells), len(header)) + 1
            yield Unreadable(place, "line", column, problem, json.dumps(cells)[:MAX_RAW_CHARS])
        else:
            filled = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
            yield SourceRow(place, "line", filled)


def read_parquet(file: IO[bytes]) -> Iterator[ReadRow]:
    """One row a row; lists and structs come as lists and objects."""
    place = 0
    try:
        table = pq.ParquetFile(file)
        _check_size(table.metadata)
        for batch in table.iter_batches(batch_size=BATCH_ROWS):
            for fields in batch.to_pylist():
                place += 1
                yield _to_row(place, fields)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        problem = f"not Parquet: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        yield Unreadable(place + 1, "row", None, problem, "", True)


def to_plain(value: Any) -> Any:
    """A cell as JSON holds it; BadValue for what it cannot hold."""
    if isinstance(value, float):
        return None if math.isnan(value) else _refuse_infinity(value)
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(name): to_plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    raise BadValue(f"a value of the type {type(value).__name__} has no place in a label")


def _to_row(place: int, fields: dict[str, Any]) -> ReadRow:
    try:
        return SourceRow(place, "row", {name: to_plain(value) for name, value in fields.items()})
    except BadValue as error:
        return Unreadable(place, "row", None, str(error), str(fields)[:MAX_RAW_CHARS])


def _refuse_infinity(value: float) -> float:
    if math.isinf(value):
        raise BadValue("an infinite number has no place in a label")
    return value


def _check_header(names: list[str]) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or "" in names:
        what = f"{twice[0]!r} is named twice" if twice and twice[0] else "a column has no name"
        raise BadValue(f"the first line of the CSV must name every column once: {what}")
    return names


def _check_size(metadata: Any) -> None:
    unpacked = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    if unpacked > MAX_TABLE_BYTES:
        raise BadValue(
            f"this Parquet file unpacks to {unpacked // 2**20} MiB; at most "
            f"{MAX_TABLE_BYTES // 2**20} MiB are read, so split it"
        )


def _decoded(file: IO[bytes]) -> Iterator[str]:
    """Lines with their endings, which a quoted cell may hold; a byte order mark is passed over."""
    decode = codecs.getdecoder("utf-8")
    for number, line in enumerate(iter(lambda: file.readline(MAX_CELL_CHARS), b"")):
        yield decode(line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line)[0]
