"""Taking a person out of the snapshots and papers of past rounds, and finding the versions trained on them.

A snapshot is frozen evidence of what a round trained on. One that loses rows says so in `ERASED.json`, which
keeps the hash it had before, and is sealed anew: it no longer reproduces its round and does not pretend to.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from store.clock import utc
from store.events import to_json
from store.fingerprint import file_sha256
from store.redaction import Redaction
from store.snapshots import seal

ERASED = "ERASED.json"
_PAPERS = (".json", ".jsonl", ".txt", ".md")
_TRAINED_ON = ("pairs.parquet", "ratings.parquet")
_WHO_AND_WHICH = ("person_id", "person_ids", "row_id", "label_ids")


@dataclass(frozen=True, slots=True)
class SnapshotRows:
    """How many rows of a round's snapshot hold a label of the person: trained on, and held out."""

    round_id: str
    num_trained: int
    num_held_out: int


def rewrite_rounds(rounds: Path, draft: Path, redaction: Redaction, now: datetime) -> list[SnapshotRows]:
    """Write what has to change under `rounds` to `draft`, as `draft/<round>/<file or folder>`."""
    found = []
    for folder in sorted(path for path in rounds.glob("*") if path.is_dir()):
        rows = _rewrite_snapshot(folder, draft / folder.name, redaction, now)
        if rows is not None:
            found.append(rows)
        for paper in (path for path in folder.iterdir() if path.suffix in _PAPERS):
            _rewrite_paper(paper, draft / folder.name / paper.name, redaction)
    return found


def _rewrite_snapshot(folder: Path, draft: Path, redaction: Redaction, now: datetime) -> SnapshotRows | None:
    snapshot = folder / "snapshot"
    masks = {path.name: _find_rows(path, redaction) for path in sorted(snapshot.glob("*.parquet"))}
    counts = {name: int(pc.sum(mask).as_py() or 0) for name, mask in masks.items()}
    papers = [path for path in snapshot.glob("*") if path.suffix in _PAPERS]
    if not any(counts.values()) and not any(_names_them(path, redaction) for path in papers):
        return None
    target = draft / "snapshot"
    target.mkdir(parents=True)
    for name, mask in masks.items():
        if counts[name]:
            table = pq.read_table(snapshot / name)
            changed = table.filter(pc.invert(mask)) if redaction.deletes else _replace_ids(table, redaction)
            pq.write_table(changed, target / name, compression="zstd")
        else:
            shutil.copyfile(snapshot / name, target / name)
    for paper in papers:
        shutil.copyfile(paper, target / paper.name)
        _rewrite_paper(paper, target / paper.name, redaction)
    _note(snapshot, target, counts, redaction, now)
    seal(target)
    trained = sum(counts.get(name, 0) for name in _TRAINED_ON)
    return SnapshotRows(folder.name, trained, sum(counts.values()) - trained)


def _note(snapshot: Path, target: Path, counts: dict[str, int], redaction: Redaction, now: datetime) -> None:
    before = snapshot / "SHA256"
    note = {
        "at": utc(now).isoformat(timespec="seconds"),
        "mode": redaction.mode,
        "rows": counts,
        "sha256_before": file_sha256(before) if before.exists() else None,
    }
    earlier = json.loads((snapshot / ERASED).read_text("utf-8")) if (snapshot / ERASED).exists() else []
    (target / ERASED).write_text(to_json([*earlier, note]) + "\n", "utf-8")


def _find_rows(path: Path, redaction: Redaction) -> pa.ChunkedArray:
    """For each row whether a label of theirs is in it."""
    names = [name for name in pq.read_schema(path).names if name in _WHO_AND_WHICH]
    rows = pq.read_table(path, columns=names).to_pylist()
    return pa.chunked_array([pa.array([_is_theirs(row, redaction) for row in rows], pa.bool_())])


def _is_theirs(row: dict[str, object], redaction: Redaction) -> bool:
    people = {row.get("person_id"), *_listed(row.get("person_ids"))}
    labels = {str(row.get("row_id")).partition(":")[0], *_listed(row.get("label_ids"))}
    return redaction.person_id in people or not labels.isdisjoint(redaction.label_ids)


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _replace_ids(table: pa.Table, redaction: Redaction) -> pa.Table:
    replace: Callable[[str], str] = redaction.replace_id
    for name in ("person_id", "person_ids"):
        if name in table.column_names:
            values = table.column(name).to_pylist()
            new = [[replace(one) for one in v] if isinstance(v, list) else v and replace(v) for v in values]
            place = table.column_names.index(name)
            table = table.set_column(
                place, table.schema.field(name), pa.array(new, table.schema.field(name).type)
            )
    return table


def _names_them(path: Path, redaction: Redaction) -> bool:
    return redaction.person_id.encode() in path.read_bytes()


def _rewrite_paper(paper: Path, target: Path, redaction: Redaction) -> None:
    if _names_them(paper, redaction):
        target.parent.mkdir(parents=True, exist_ok=True)
        text = paper.read_text("utf-8", errors="surrogateescape")
        target.write_text(redaction.replace_id(text), "utf-8", errors="surrogateescape")
