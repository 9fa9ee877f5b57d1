"""Exported rows as files: JSON lines, Parquet, CSV, or a folder that `datasets.load_dataset` opens by itself.

Each file but JSON lines holds one kind of row, since a trainer wants its columns and no others.
"""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from store.dataset_card import write_card
from store.errors import BadValue, StateConflict
from store.exchange import KINDS, Kind

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_ORIGIN = (
    ("strength", pa.int32()),
    ("weight", pa.float64()),
    ("probability", pa.float64()),
    ("annotators", pa.list_(pa.string())),
    ("created_at", pa.timestamp("us", tz="UTC")),
    ("source", pa.string()),
    ("split", pa.string()),
    ("active_ms", pa.int64()),
    ("given_split", pa.string()),
    ("task_id", pa.string()),
    ("extra_json", pa.string()),
    ("format", pa.string()),
    ("row_id", pa.string()),
    ("prompt_id", pa.string()),
)
SCHEMAS: dict[Kind, pa.Schema] = {
    "preference": pa.schema(
        [
            ("prompt", _MESSAGES),
            ("chosen", _MESSAGES),
            ("rejected", _MESSAGES),
            *_ORIGIN,
            ("chosen_version", pa.string()),
            ("rejected_version", pa.string()),
        ]
    ),
    "unpaired": pa.schema(
        [
            ("prompt", _MESSAGES),
            ("completion", _MESSAGES),
            ("label", pa.bool_()),
            *_ORIGIN,
            ("version", pa.string()),
        ]
    ),
}
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_BATCH_ROWS = 1000

Rows = Iterable[dict[str, Any]]


def to_json_lines(rows: Rows) -> Iterator[str]:
    """One row a line, both kinds as they come."""
    for row in rows:
        yield json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def to_csv_lines(rows: Rows, kind: Kind) -> Iterator[str]:
    """CSV with a header; messages and lists as JSON, and a quote before what a spreadsheet would compute."""
    names = SCHEMAS[kind].names
    yield _csv_line(names)
    for row in rows:
        yield _csv_line([_cell(row[name]) for name in names])


def write_parquet(rows: Rows, kind: Kind, file: IO[bytes]) -> int:
    """Write one kind of row; returns how many there were."""
    schema, written = SCHEMAS[kind], 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in _batches(rows):
            lines = [row | {"created_at": datetime.fromisoformat(row["created_at"])} for row in batch]
            writer.write_table(pa.Table.from_pylist(lines, schema=schema))
            written += len(batch)
    return written


def write_json_lines(rows: Rows, path: Path) -> int:
    """Write every row to one file, which appears whole or not at all; returns how many there were."""
    return _write_text(path, to_json_lines(rows))


def write_by_kind(rows: list[dict[str, Any]], path: Path, format: str) -> dict[Path, int]:
    """Write `x.csv` as x-preference.csv and x-unpaired.csv, empty ones left out; returns rows a file."""
    written: dict[Path, int] = {}
    for kind in KINDS:
        chosen = [row for row in rows if row["format"] == kind]
        if not chosen:
            continue
        one = path.with_name(f"{path.stem}-{kind}{path.suffix or '.' + format}")
        if format == "csv":
            written[one] = _write_text(one, to_csv_lines(chosen, kind)) - 1
        else:
            written[one] = _write_whole(one, lambda file, c=chosen, k=kind: write_parquet(c, k, file))  # type: ignore[misc]
    return written


def write_dataset(
    rows: list[dict[str, Any]], folder: Path, guidelines_version: int | None
) -> dict[Path, int]:
    """Write a dataset folder (a configuration a kind, a Parquet file a split, a card); rows a file.

    StateConflict when the folder is there already.
    """
    if folder.exists():
        raise StateConflict(f"{folder} is there already; name a folder that does not exist yet")
    if not rows:
        raise BadValue("there is no label to export")
    folder.parent.mkdir(parents=True, exist_ok=True)
    written: dict[Path, int] = {}
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as unfinished:
        made = Path(unfinished) / "dataset"
        for kind in KINDS:
            for split in ("train", "holdout"):
                chosen = [row for row in rows if row["format"] == kind and row["split"] == split]
                if chosen:
                    (made / kind).mkdir(parents=True, exist_ok=True)
                    name = Path(kind) / f"{split}.parquet"
                    with (made / name).open("wb") as file:
                        written[name] = write_parquet(chosen, kind, file)
        (made / "README.md").write_text(write_card(rows, guidelines_version), "utf-8")
        made.rename(folder)
    return written


def escape_formula(text: str) -> str:
    """The text with a quote before it when a spreadsheet would take it for a formula."""
    return "'" + text if text.startswith(_FORMULA_STARTS) else text


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, (list, dict)):
        return escape_formula(json.dumps(value, ensure_ascii=False))
    if isinstance(value, bool):
        return "true" if value else "false"
    return escape_formula(value) if isinstance(value, str) else str(value)


def _csv_line(cells: list[str]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()


def _batches(rows: Rows) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _write_text(path: Path, lines: Iterator[str]) -> int:
    def write(file: IO[bytes]) -> int:
        return sum(file.write(line.encode()) > 0 for line in lines)

    return _write_whole(path, write)


def _write_whole(path: Path, write: Callable[[IO[bytes]], int]) -> int:
    try:
        unfinished = path.with_name(f".{path.name}.unfinished")
        with unfinished.open("wb") as file:
            written = write(file)
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise BadValue(f"{path} cannot be written: {error.strerror}") from None
    return written
