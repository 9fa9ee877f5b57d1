"""The store of one data folder: lock, journal, tables and the writer thread, opened and closed together.

Every subject (people, tasks, judgements …) reads through `Store.read` and writes through `Store.write`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import duckdb

from store.clock import utc
from store.commit import GroupCommit
from store.errors import Busy, HeedError
from store.events import Event, new_event
from store.filling import read_entries, read_filling
from store.journal import FileJournal, Journal, MemoryJournal
from store.lease_log import LeaseLog
from store.lock import FolderLock
from store.projection import Projection
from store.queue import TaskQueue
from store.queue_settings import PLAIN, QueueSettings
from store.replacing import recover
from store.roster import Roster
from store.writer import Decide, Decision, Writer

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
MIN_FREE_BYTES = 64 * 2**20  # below this labels are refused while there is still room to close cleanly


class _Memory:
    """Keeps the queue and the roster in step with the tables."""

    def __init__(self, projection: Projection, queue: TaskQueue, roster: Roster) -> None:
        self._projection, self._queue, self._roster = projection, queue, roster
        with projection.read() as cursor:
            queue.open(read_filling(cursor))

    def apply(self, events: list[Event], first_seq: int) -> None:
        unknown = self._queue.unknown_tasks(events)
        if unknown:
            with self._projection.read() as cursor:
                self._queue.apply(events, first_seq, read_entries(cursor, unknown))
        else:
            self._queue.apply(events, first_seq)
        self._roster.apply(events)

    def abandon(self) -> None:
        self._queue.abandon()

    def rebuild(self) -> None:
        with self._projection.read() as cursor:
            self._queue.refill(read_filling(cursor))
        self._roster.clear()


class Store:
    """Facts and the tables that answer questions about them; safe to use from any thread."""

    def __init__(
        self,
        data_dir: Path,
        journal: Journal,
        projection: Projection,
        lock: FolderLock | None,
        queue: TaskQueue,
    ) -> None:
        """For `open` and `in_memory` only."""
        self.data_dir = data_dir
        # Held by whoever copies the journal's files or exchanges them.
        self.files_lock = threading.Lock()
        self.queue = queue
        self.roster = Roster()
        self._journal = journal
        self._projection = projection
        self._lock = lock
        self._memory = _Memory(projection, queue, self.roster)
        self._group_commit = GroupCommit(journal, projection, self._memory)
        self._writer = Writer(self._group_commit.commit)
        if not journal.last_seq:
            self.write(lambda _: Decision(None, [new_event("store_created", utc())]))

    @classmethod
    def open(
        cls, data_dir: Path, *, min_free_bytes: int = MIN_FREE_BYTES, queue: QueueSettings = PLAIN
    ) -> Store:
        """Open or create the store in `data_dir`; StateConflict naming the process that has it already."""
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.ExitStack() as undo:
            lock = FolderLock(data_dir)
            undo.callback(lock.release)
            recover(data_dir)
            journal = FileJournal(data_dir / "journal", min_free_bytes=min_free_bytes)
            undo.callback(journal.close)
            projection = Projection(data_dir / "heed.duckdb", journal)
            undo.callback(projection.close)
            tasks = TaskQueue(queue, LeaseLog(data_dir / "leases.jsonl"))
            undo.callback(tasks.close)
            store = cls(data_dir, journal, projection, lock, tasks)
            undo.pop_all()
        logger.info("store %s opened at event %d", data_dir, journal.last_seq)
        return store

    @classmethod
    def in_memory(cls, queue: QueueSettings = PLAIN) -> Store:
        """A store without files, for tests; its `data_dir` is a place where nothing can be written."""
        journal = MemoryJournal()
        tasks = TaskQueue(queue, LeaseLog(None))
        return cls(Path(os.devnull), journal, Projection(None, journal), None, tasks)

    def write(self, decide: Decide[Result], *, sees_tables: bool = True) -> Result:
        """Decide and save in the writer thread; returns once it is durable, Busy when too many wait.

        A decision that does not look at the tables (`sees_tables` False) shares its rows' statement with
        its neighbours'.
        """
        return self._writer.submit(decide, sees_tables=sees_tables)

    def exchange_files(
        self, prepare: Callable[[duckdb.DuckDBPyConnection], Result], swap: Callable[[], None]
    ) -> Result:
        """Run `prepare` while nothing is written, then `swap` while the journal and the tables are closed.

        Writers wait meanwhile. When `prepare` raises nothing has happened; Busy when reads do not end. When
        `swap` raises the store stays closed until the next start, which finishes or undoes it.
        """
        return self._writer.run_alone(lambda: self._exchange(prepare, swap))

    def _exchange(
        self, prepare: Callable[[duckdb.DuckDBPyConnection], Result], swap: Callable[[], None]
    ) -> Result:
        self._group_commit.require_ready()
        with self._projection.read() as cursor:
            prepared = prepare(cursor)
        if not self._projection.stop_reading():
            raise Busy("somebody has been reading for a long time; nothing was changed, try again shortly")
        self._projection.close()
        self._journal.close()
        try:
            swap()
            self._journal.reopen()
            self._projection.reopen()
            self._memory.rebuild()
        except BaseException:
            self._journal.broken = "its files were being exchanged when something failed"
            raise
        return prepared

    @contextlib.contextmanager
    def read(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor for this caller alone; it sees everything acknowledged so far."""
        try:
            with self._projection.read() as cursor:
                yield cursor
        except duckdb.FatalException as error:
            with contextlib.suppress(HeedError):
                self._writer.send(lambda _: Decision(None))  # the next write repairs the tables, so cause one
            raise Busy("the tables have to be repaired; try again shortly") from error

    def health(self) -> dict[str, object]:
        """`ok`, the last events journalled and applied, and how often tables were rebuilt or reopened."""
        return {
            "ok": not self._journal.broken and not self._group_commit.is_behind,
            "broken": self._journal.broken,
            "last_seq": self._journal.last_seq,
            "applied_seq": self._projection.applied_seq,
            "rebuilt": self._projection.rebuilt,
            "reopened": self._group_commit.reopened,
            "num_waiting": self._writer.num_waiting(),
        }

    def close(self) -> None:
        """Finish what was queued and give everything back; a second call does nothing."""
        self._writer.close()
        self._projection.close()
        self._journal.close()
        self.queue.close()
        if self._lock is not None:
            self._lock.release()
