"""Backups: a copy of the journal at one moment, and the proof that a store opens from it with the same facts.

The copied folder is a whole data folder: restoring is putting it in the place of the lost one. Its tables are
built by the child process that checks the copy, so the live DuckDB file is never read behind DuckDB's back.
The adapters of the live version and of the one before it come along, so that a restored service serves the
same. Files that never change again (full journal files, adapters) are linked where the disk is the same.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb

from store.database import Store
from store.errors import BadValue, Busy, HeedError, StateConflict
from store.journal import line_seq, read_lines, sync_folder
from store.projection import hash_facts
from store.records import BASE_VERSION

logger = logging.getLogger(__name__)

CHECK_LIMIT_S = 1800.0
CHILD_POLL_S = 0.25


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup holds: every event up to `seq`, and a hash over the facts they make."""

    folder: str
    seq: int
    facts: str


def back_up(store: Store, folder: Path, is_cancelled: Callable[[], bool] = lambda: False) -> Backup:
    """Copy the store to `folder` while it goes on writing, and check the copy in a child process.

    StateConflict when `folder` exists; HeedError when the copy does not open to the same facts; Busy soon
    after `is_cancelled` says so.
    """
    if not (store.data_dir / "journal").is_dir():
        raise BadValue("a store in memory cannot be backed up")
    folder = folder.resolve()  # the child that checks it stands elsewhere
    if folder.exists():
        raise StateConflict(f"{folder} is there already; a backup is never written twice")
    with store.files_lock:  # nobody is erased between the moment and the end of the copy
        with store.read() as cursor:
            cursor.begin()  # the position and the facts of one moment
            row = cursor.execute("SELECT applied_seq FROM journal_position").fetchone()
            facts = hash_facts(cursor)
            versions = _read_served(cursor)
            cursor.rollback()
        assert row is not None
        _copy_journal(store.data_dir / "journal", folder / "journal", row[0])
        for version in versions:
            _copy_adapter(store.data_dir / "policies" / version, folder / "policies" / version)
        wanted, found = Backup(str(folder), row[0], facts), _check_in_child(folder, is_cancelled)
    if found != wanted:
        raise HeedError(
            f"the backup {folder} holds {found}, not {wanted}; keep the one before and look at the disk"
        )
    return wanted


def read_backup(folder: Path) -> Backup:
    """Open the copy as a store of its own and say what is in it."""
    store = Store.open(folder, min_free_bytes=0)
    try:
        with store.read() as cursor:
            return Backup(str(folder), int(str(store.health()["applied_seq"])), hash_facts(cursor))
    finally:
        store.close()


def _read_served(cursor: duckdb.DuckDBPyConnection) -> list[str]:
    """The version that is live and the one before it; the base alone has no adapter."""
    sql = "SELECT version, previous FROM promotions ORDER BY seq DESC LIMIT 1"
    return [version for version in cursor.execute(sql).fetchone() or () if version != BASE_VERSION]


def _copy_adapter(source: Path, target: Path) -> None:
    """An adapter that is not there is no fact and no reason to have no backup: it is missed aloud."""
    if not source.is_dir():
        logger.warning("the adapter %s is not there, so the backup is without it", source)
        return
    shutil.copytree(source, target, copy_function=_link_or_copy)


def _link_or_copy(source: str | Path, target: str | Path) -> None:
    """For files that never change again: one more name on the same disk, a copy on another."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        shutil.copy2(source, target)
        with Path(target).open("rb") as copy:
            os.fsync(copy.fileno())


def _copy_journal(source: Path, target: Path, last_seq: int) -> None:
    target.mkdir(mode=0o700, parents=True)
    files = sorted(source.glob("*.jsonl"))
    for path, following in zip(files, [*files[1:], None], strict=True):
        if following and _first_seq(following, last_seq + 1) <= last_seq:
            _link_or_copy(path, target / path.name)  # it is full, and all of it is wanted
            continue
        with (target / path.name).open("wb") as copy:
            for line in read_lines(path):
                if not line.endswith(b"\n") or line_seq(line) > last_seq:
                    break  # what the writer has appended since, the last line perhaps half of it
                copy.write(line)
            copy.flush()
            os.fsync(copy.fileno())
    sync_folder(target)


def _first_seq(path: Path, otherwise: int) -> int:
    line = next(read_lines(path), b"")
    return line_seq(line) if line.endswith(b"\n") else otherwise


def _check_in_child(folder: Path, is_cancelled: Callable[[], bool]) -> Backup:
    # A process of its own, because a damaged DuckDB file may take the process that opens it along.
    command = [sys.executable, "-m", "store.backup", str(folder)]
    root = Path(__file__).resolve().parents[1]
    deadline = time.monotonic() + CHECK_LIMIT_S
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root
    ) as child:
        while True:
            try:
                said, complained = child.communicate(timeout=CHILD_POLL_S)
                break
            except subprocess.TimeoutExpired:
                if is_cancelled() or time.monotonic() > deadline:
                    child.kill()
                if is_cancelled():
                    raise Busy(f"the service stops, so the backup {folder} was given up") from None
    if child.returncode:
        raise HeedError(f"the backup {folder} does not open: {complained[-2000:]}")
    return Backup(**json.loads(said))


if __name__ == "__main__":
    os.nice(10)  # people are being served meanwhile
    sys.stdout.write(json.dumps(asdict(read_backup(Path(sys.argv[1])))))
