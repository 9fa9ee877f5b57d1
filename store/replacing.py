"""Exchanging files of a data folder for others in one step that no kill can leave half done.

The new files are gathered in `replacing.unfinished`, laid out as in the data folder. Renaming that to
`replacing` decides it: before, a start throws the new files away; after, a start goes on putting them in
place. Old tables are deleted together with the journal they were built from; what accidents left (tables set
aside, half a snapshot) goes too.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from store.journal import sync_folder

logger = logging.getLogger(__name__)

DRAFT, DECIDED = "replacing.unfinished", "replacing"
TABLES = "heed.duckdb"


def new_draft(data_dir: Path) -> Path:
    """An empty folder for the new files; whatever an earlier attempt left there is gone."""
    draft = data_dir / DRAFT
    drop_draft(data_dir)
    draft.mkdir(mode=0o700)
    return draft


def drop_draft(data_dir: Path) -> None:
    """Throw the gathered files away; harmless when there are none."""
    if (data_dir / DRAFT).exists():
        shutil.rmtree(data_dir / DRAFT)


def replace(data_dir: Path) -> None:
    """Put the draft's files in place of the old ones; the caller has closed every old file."""
    for folder in (path for path in (data_dir / DRAFT).rglob("*") if path.is_dir()):
        sync_folder(folder)
    sync_folder(data_dir / DRAFT)
    (data_dir / DRAFT).rename(data_dir / DECIDED)
    sync_folder(data_dir)
    _put_in_place(data_dir)


def recover(data_dir: Path) -> None:
    """At a start: finish a replacement that was decided, undo one that was not."""
    if (data_dir / DRAFT).exists():
        logger.warning("files that were to replace others were not complete; %s goes on as it was", data_dir)
        drop_draft(data_dir)
    if (data_dir / DECIDED).exists():
        logger.warning("the replacement of files in %s was cut off; finishing it", data_dir)
        _put_in_place(data_dir)


def _put_in_place(data_dir: Path) -> None:
    """Every step may be repeated: what has been moved already is no longer found in `replacing`."""
    decided = data_dir / DECIDED
    for new in sorted((decided / "rounds").glob("*/*")):
        _put(new, data_dir / "rounds" / new.parent.name / new.name)
    if (decided / "journal").exists():
        _delete_old(data_dir)
        _put(decided / "journal", data_dir / "journal")
    for new in sorted(decided.glob(f"{TABLES}*")):
        _put(new, data_dir / new.name)
    shutil.rmtree(decided)
    sync_folder(data_dir)


def _put(new: Path, old: Path) -> None:
    if old.is_dir():
        shutil.rmtree(old)
    new.replace(old)
    sync_folder(old.parent)
    sync_folder(new.parent)


def _delete_old(data_dir: Path) -> None:
    """The blocks a DuckDB file has freed still hold what was in them, so the file goes, not only its rows."""
    for unfinished in (data_dir / "rounds").glob("*/snapshot.unfinished"):
        shutil.rmtree(unfinished)
    for old in (*data_dir.glob(f"{TABLES}*"), *data_dir.glob(f"new-{TABLES}*")):
        old.unlink()
    if (data_dir / "set-aside").exists():
        shutil.rmtree(data_dir / "set-aside")
    sync_folder(data_dir)
