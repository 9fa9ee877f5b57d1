"""The folder of backups: what lies there, which stay and which go. One folder a backup, named by its time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from store.events import to_json
from store.journal import sync_folder

NAME = "%Y%m%dT%H%M%SZ"
UNFINISHED = ".unfinished"
PAPER = "BACKUP.json"
KEEP_HOURLY, KEEP_DAILY = 24, 7


@dataclass(frozen=True, slots=True)
class KeptBackup:
    """A backup on disk; `seq` is the last event in it, None for one that was never finished and checked."""

    folder: Path
    made_at: datetime
    seq: int | None

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name


def read_backups(folder: Path) -> list[KeptBackup]:
    """Every backup there, the newest first, unfinished ones too; what is named differently is not ours."""
    found = [_read(path) for path in folder.glob("*") if path.is_dir()] if folder.is_dir() else []
    return sorted((kept for kept in found if kept), key=lambda kept: kept.made_at, reverse=True)


def write_paper(folder: Path, seq: int, facts: str) -> None:
    """Note in a checked backup what is in it."""
    (folder / PAPER).write_text(to_json({"seq": seq, "facts": facts}) + "\n", "utf-8")
    sync_folder(folder)


def choose_old(
    backups: Sequence[KeptBackup], hourly: int = KEEP_HOURLY, daily: int = KEEP_DAILY
) -> list[KeptBackup]:
    """Those that go: all but the newest `hourly` and the newest of each of the last `daily` days with any."""
    whole = sorted(
        (kept for kept in backups if kept.seq is not None), key=lambda kept: kept.made_at, reverse=True
    )
    newest_of_day: dict[object, KeptBackup] = {}
    for kept in whole:
        newest_of_day.setdefault(kept.made_at.date(), kept)
    stay = {kept.folder for kept in (*whole[:hourly], *list(newest_of_day.values())[:daily])}
    return [kept for kept in whole if kept.folder not in stay]


def delete_backups(backups: Sequence[KeptBackup]) -> list[str]:
    """Delete them, each gone from sight before its files are; returns their names."""
    for kept in backups:
        doomed = kept.folder
        if kept.seq is not None:
            doomed = kept.folder.rename(kept.folder.with_name(kept.name + UNFINISHED))
        shutil.rmtree(doomed)
        sync_folder(doomed.parent)
    return [kept.name for kept in backups]


def new_name(now: datetime) -> str:
    """The folder name for a backup made now."""
    return now.astimezone(UTC).strftime(NAME)


def _read(path: Path) -> KeptBackup | None:
    try:
        made_at = datetime.strptime(path.name.removesuffix(UNFINISHED), NAME).replace(tzinfo=UTC)
    except ValueError:
        return None
    if path.name.endswith(UNFINISHED) or not (path / PAPER).exists():
        return KeptBackup(path, made_at, None)
    return KeptBackup(path, made_at, int(json.loads((path / PAPER).read_text("utf-8"))["seq"]))
