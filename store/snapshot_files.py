"""The files of a snapshot: which columns they have, and how they come to be on disk.

Equal rows give equal bytes, with one version of pyarrow: it writes its own into each file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from store.events import to_json
from store.journal import sync_folder
from store.records import PairRow, RatingRow

_TIME = pa.timestamp("us", tz="UTC")
_IDS = pa.list_(pa.int32())
_NAMES = pa.list_(pa.string())
PAIR_SCHEMA = pa.schema(
    {
        "row_id": pa.string(),
        "prompt_id": pa.string(),
        "messages_json": pa.string(),
        "chosen": pa.string(),
        "rejected": pa.string(),
        "chosen_ids": _IDS,
        "rejected_ids": _IDS,
        "chosen_version": pa.string(),
        "rejected_version": pa.string(),
        "strength": pa.int32(),
        "weight": pa.float64(),
        "person_ids": _NAMES,
        "label_ids": _NAMES,
        "source": pa.string(),
        "probability": pa.float64(),
        "created_at": _TIME,
        "conversation_id": pa.string(),
        "opening": pa.string(),
        "chosen_logprob": pa.float64(),
        "rejected_logprob": pa.float64(),
        "lag": pa.int32(),
    }
)
RATING_SCHEMA = pa.schema(
    {
        "row_id": pa.string(),
        "prompt_id": pa.string(),
        "messages_json": pa.string(),
        "completion": pa.string(),
        "completion_ids": _IDS,
        "version": pa.string(),
        "desirable": pa.bool_(),
        "weight": pa.float64(),
        "person_ids": _NAMES,
        "label_ids": _NAMES,
        "source": pa.string(),
        "created_at": _TIME,
        "conversation_id": pa.string(),
        "opening": pa.string(),
        "completion_logprob": pa.float64(),
        "lag": pa.int32(),
    }
)
HOLDOUT_SCHEMA = PAIR_SCHEMA.append(pa.field("kind", pa.string()))

Row = PairRow | RatingRow


def write_rows(
    path: Path, rows: Sequence[Row], schema: pa.Schema, lags: Mapping[str, int | None], **extra: str
) -> None:
    """One table of a snapshot; `lags` is each row's staleness by its id, `extra` the same in every row."""
    columns = [
        {name: getattr(row, name, None) for name in schema.names}
        | {"messages_json": to_json(row.messages), "lag": lags[row.row_id]}
        | extra
        for row in rows
    ]
    pq.write_table(pa.Table.from_pylist(columns, schema=schema), path, compression="zstd")
    _sync_file(path)


def write_text(path: Path, text: str) -> None:
    """A text file that is on disk when this returns."""
    path.write_text(text, "utf-8")
    _sync_file(path)


def seal(folder: Path) -> str:
    """List every file's SHA-256 as `sha256sum` does; returns the hash of the list."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    listing = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
    write_text(folder / "SHA256", listing)
    sync_folder(folder)
    return hashlib.sha256(listing.encode()).hexdigest()


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
