"""Writing a round's snapshot again from the journal alone, to show that it is what it says.

The events up to the snapshot's place are played into tables of their own, in memory; the store's own tables,
which have gone on since, are not looked at. The journal is only read, so a service may be running.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from store.errors import BadValue, NotFound
from store.journal import MemoryJournal, find_fault, read_lines
from store.projection import Projection
from store.snapshots import Recipe, SnapshotReport, write_from_tables


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A snapshot that was written again; `differing` are the files that are not byte for byte the same."""

    report: SnapshotReport
    differing: tuple[str, ...]


def rebuild_snapshot(journal: Path, recipe: Recipe, folder: Path) -> SnapshotReport:
    """Write the snapshot of `recipe` to the new `folder` from the journal's files."""
    events = MemoryJournal()
    events.append(read_events(journal, recipe.seq))
    with contextlib.closing(Projection(None, events)) as tables, tables.read() as cursor:
        return write_from_tables(cursor, folder, recipe)


def rebuild_round(data: Path, round_id: str, folder: Path) -> Rebuilt:
    """Write a round's snapshot again and compare it with the one in the round's directory.

    NotFound when the round has none. A snapshot that somebody was erased from differs: it says so itself.
    """
    snapshot = data / "rounds" / round_id / "snapshot"
    report = rebuild_snapshot(data / "journal", read_recipe(snapshot), folder)
    names = sorted({path.name for path in (*snapshot.iterdir(), *folder.iterdir())})
    return Rebuilt(report, tuple(name for name in names if _bytes(snapshot / name) != _bytes(folder / name)))


def read_recipe(snapshot: Path) -> Recipe:
    """The recipe a snapshot's report.json keeps."""
    path = snapshot / "report.json"
    if not path.exists():
        raise NotFound(f"{path} is not there; only a round that took a snapshot can be rebuilt")
    kept = json.loads(path.read_text("utf-8")).get("recipe")
    if kept is None:
        raise BadValue(f"{path} keeps no recipe: it was written before snapshots could be rebuilt")
    try:
        return TypeAdapter(Recipe).validate_python(kept)
    except ValidationError as error:
        raise BadValue(f"the recipe in {path} cannot be read: {error}") from error


def read_events(journal: Path, up_to: int) -> list[bytes]:
    """The first `up_to` events of a journal's files, each line checked. BadValue when there are fewer."""
    events: list[bytes] = []
    for path in sorted(path for path in journal.glob("*.jsonl") if path.stem.isdigit()):
        for line in read_lines(path):
            if len(events) == up_to:
                return events
            fault = find_fault(line, len(events) + 1)
            if fault:
                raise BadValue(f"{path} is damaged at event {len(events) + 1}: {fault}")
            events.append(line.split(b" ", 2)[2][:-1])
    if len(events) < up_to:
        raise BadValue(f"{journal} holds {len(events)} events; the snapshot covers {up_to}")
    return events


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None
