"""Which policy versions learned from a person's labels: read from the frozen snapshots themselves.

A version that was started from an affected one carries on what that one learned, so it is named too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from store.database import Store
from store.records import PolicyState


@dataclass(frozen=True, slots=True)
class TrainedVersion:
    """A version that learned from somebody's labels.

    `num_rows` counts training rows they had a part in; None when the snapshot is gone, so that nobody can
    say. `inherited` is True when it was started from an affected version.
    """

    version: str
    round_id: str
    num_rows: int | None
    state: PolicyState
    inherited: bool = False


def read_versions_trained_on(store: Store, person_id: str) -> list[TrainedVersion]:
    """Every version with rows of that person behind it, or for which nobody can tell; oldest first."""
    sql = """
        SELECT p.version, p.parent, p.round_id, p.state FROM policies AS p
        WHERE p.round_id IS NOT NULL ORDER BY p.seq"""
    with store.read() as cursor:
        policies = cursor.execute(sql).fetchall()
    found: dict[str, TrainedVersion] = {}
    for version, parent, round_id, state in policies:
        folder = store.data_dir / "rounds" / round_id
        num_rows = count_rows_of(folder / "snapshot", person_id)
        inherited = parent in found and _continues(folder)
        if num_rows or num_rows is None or inherited:
            found[version] = TrainedVersion(version, round_id, num_rows, state, inherited)
    return list(found.values())


def count_rows_of(snapshot: Path, person_id: str) -> int | None:
    """How many training rows of a snapshot that person had a part in; None when the snapshot is not there."""
    files = [path for name in ("pairs", "ratings") if (path := snapshot / f"{name}.parquet").exists()]
    return sum(_count_in(path, person_id) for path in files) if files else None


def _count_in(path: Path, person_id: str) -> int:
    # Snapshots written before several people could stand behind a row have one `person_id`.
    column = next(name for name in pq.read_schema(path).names if name in ("person_ids", "person_id"))
    values = pq.read_table(path, columns=[column]).column(0).combine_chunks()
    if column == "person_ids":
        rows = pc.list_parent_indices(values).filter(pc.equal(pc.list_flatten(values), person_id))
        return int(pc.count_distinct(rows).as_py())
    return int(pc.sum(pc.equal(values, pa.scalar(person_id)).cast(pa.int64())).as_py() or 0)


def _continues(folder: Path) -> bool:
    """Whether the round's adapter was started from its parent's instead of from nothing."""
    plan = folder / "round.json"
    if not plan.exists():
        return True  # nobody can tell any more, so it is named
    return bool(json.loads(plan.read_text("utf-8"))["trainer"]["start"] == "previous")
