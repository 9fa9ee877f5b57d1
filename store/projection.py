"""The DuckDB file: tables built from the journal, which answer every question and can be built again.

A torn checkpoint can leave a DuckDB 2.0 file that does not open. Then it is moved aside, never deleted, and
the tables are built anew from the journal. Whoever writes owns `begin`, `commit` and `rollback`; readers take
a cursor each.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import duckdb

from store.applying import apply_event
from store.clock import utc
from store.errors import Busy, HeedError, NoSpace, StateConflict
from store.journal import Journal, sync_folder
from store.migrations import FACT_TABLES, migrate
from store.tables import Tables

logger = logging.getLogger(__name__)

EVENTS_PER_TRANSACTION = 5000
READERS_WAIT_S = 30.0
_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "enable_external_access": False,
    "python_enable_replacements": False,  # or SQL could name Python's local variables
    "threads": min(4, os.cpu_count() or 1),  # serving and training want the other cores
}


class Projection:
    """The tables of one journal. Writing belongs to one thread; any thread may read."""

    def __init__(self, path: Path | None, journal: Journal) -> None:
        """Open the file (None: memory) or build it, and bring it up to the journal's last event."""
        self.rebuilt = 0
        self.applied_seq = 0
        self._path = path
        self._journal = journal
        self._gate = threading.Condition()
        self._num_readers = 0
        self._is_open = False
        self._open()

    def begin(self) -> duckdb.DuckDBPyConnection:
        """Start the writer's transaction and return its cursor."""
        self._writer.begin()
        return self._writer

    def commit(self, applied_seq: int) -> None:
        """Commit, remembering that every event up to `applied_seq` is in the tables."""
        if applied_seq != self.applied_seq:
            self._writer.execute("UPDATE journal_position SET applied_seq = ?", [applied_seq])
        self._writer.commit()
        self.applied_seq = applied_seq

    def rollback(self) -> None:
        """Forget the writer's transaction; harmless when there is none."""
        with contextlib.suppress(duckdb.Error):
            self._writer.rollback()

    @contextlib.contextmanager
    def read(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor of its own for one caller: a shared connection hands threads each other's rows."""
        with self._gate:
            if not self._is_open:
                raise Busy("the store is being reopened or is closed; try again shortly")
            self._num_readers += 1
            cursor = self._db.cursor()
        try:
            yield cursor
        finally:
            cursor.close()
            with self._gate:
                self._num_readers -= 1
                self._gate.notify_all()

    def reopen(self) -> None:
        """Close every handle and open again; DuckDB asks for this after a fatal error."""
        self.close()
        self._open()

    def stop_reading(self, wait_s: float = READERS_WAIT_S) -> bool:
        """Let nobody begin to read and wait for those who do; False, with reading allowed again, when they
        go on longer than that."""
        with self._gate:
            self._is_open = False
            if self._gate.wait_for(lambda: self._num_readers == 0, wait_s):
                return True
            self._is_open = True
            return False

    def close(self) -> None:
        """Wait for readers to finish, then close the file."""
        with self._gate:
            self._is_open = False
            if not self._gate.wait_for(lambda: self._num_readers == 0, READERS_WAIT_S):
                logger.warning("%d reads were still running when the tables were closed", self._num_readers)
        for handle in (self._writer, self._db):
            with contextlib.suppress(duckdb.Error):
                handle.close()

    def _open(self) -> None:
        try:
            self._open_file()
        except duckdb.Error as error:
            _refuse_if_environment(error)
            if self._path is None or not self._journal.last_seq:
                raise HeedError(
                    f"{self._path} cannot be opened and there is no journal to build it from: {error}"
                ) from error
            logger.exception("%s cannot be used; building it again from the journal", self._path)
            self._let_go()
            self._set_aside()
            self._open_file()
        with self._gate:
            self._is_open = True

    def _open_file(self) -> None:
        is_new = self._path is None or not self._path.exists()
        if self._path is not None and is_new:
            self._create_file(self._path)
        self._db = _connect(self._path)
        self._writer = self._db.cursor()
        migrate(self._db)
        self.applied_seq = _read_applied_seq(self._db)
        if self.applied_seq > self._journal.last_seq:
            self._let_go()
            raise HeedError(
                f"{self._path} holds {self.applied_seq} events, the journal only {self._journal.last_seq}; "
                "it was removed or cut, put the journal folder of the newest backup in its place"
            )
        if not is_new:
            hash_facts(self._db)  # reads every block: damage shows now and not under an annotator's click
        self._replay()

    def _create_file(self, path: Path) -> None:
        self._set_aside()
        if self._journal.last_seq:
            self.rebuilt += 1
            logger.warning("%s is not there; building it from %d events", path, self._journal.last_seq)
        unfinished = path.with_name(f"new-{path.name}")
        for leftover in path.parent.glob(f"{unfinished.name}*"):
            leftover.unlink()
        with contextlib.closing(_connect(unfinished)) as db:
            migrate(db)
        unfinished.chmod(0o600)
        unfinished.rename(path)
        sync_folder(path.parent)

    def _set_aside(self) -> None:
        """Move the file, its write-ahead log and whatever belongs to them out of the way."""
        assert self._path is not None
        found = sorted(self._path.parent.glob(f"{self._path.name}*"))
        if not found:
            return
        aside = self._path.parent / "set-aside" / f"{utc():%Y%m%dT%H%M%S%f}"
        aside.mkdir(parents=True)
        for file in found:
            file.rename(aside / file.name)
        sync_folder(self._path.parent)
        logger.error("moved %s to %s", ", ".join(file.name for file in found), aside)

    def _replay(self) -> None:
        events = self._journal.read_after(self.applied_seq)
        while chunk := list(islice(events, EVENTS_PER_TRANSACTION)):
            tables = Tables(self.begin())
            for seq, event in chunk:
                apply_event(tables, seq, event)
            tables.flush()
            self.commit(chunk[-1][0])

    def _let_go(self) -> None:
        for name in ("_writer", "_db"):
            handle = getattr(self, name, None)
            if handle is not None:
                with contextlib.suppress(duckdb.Error):
                    handle.close()


def hash_facts(cursor: duckdb.DuckDBPyConnection) -> str:
    """A short text that is equal for equal facts, whatever order the rows lie in."""
    hashes = []
    for table in FACT_TABLES:
        found = cursor.execute(
            f"SELECT count(*), coalesce(sum(hash(t)::HUGEINT), 0) FROM {table} AS t"
        ).fetchone()
        assert found is not None
        hashes.append(f"{table}:{found[0]}:{found[1]:x}")
    return " ".join(hashes)


def _connect(path: Path | None) -> duckdb.DuckDBPyConnection:
    db = duckdb.connect(":memory:" if path is None else str(path), config=dict(_SETTINGS))
    db.execute("SET lock_configuration = true")
    return db


def _read_applied_seq(db: duckdb.DuckDBPyConnection) -> int:
    found = db.execute("SELECT max(applied_seq) FROM journal_position").fetchone()
    assert found is not None
    return int(found[0])


def _refuse_if_environment(error: duckdb.Error) -> None:
    """Raise when the file may be fine and this process cannot have it: moving it aside would not help."""
    text = str(error)
    if "Could not set lock" in text:
        raise StateConflict(f"another program has the tables open; stop it first ({text})") from error
    if "No space left" in text:
        raise NoSpace(
            f"the disk is full, so the tables cannot be opened; free some space ({text})"
        ) from error
    if "Permission denied" in text or "Too many open files" in text:
        raise HeedError(f"the tables cannot be opened: {text}") from error
