"""Backups without being asked: when one is due, which are kept, and what to tell whoever watches.

`tick` is called often and decides from the folder of backups, so a restart or a missed tick loses nothing.
"""

from __future__ import annotations

import logging
import shutil
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from store.backup import back_up
from store.backup_folder import (
    UNFINISHED,
    KeptBackup,
    choose_old,
    delete_backups,
    new_name,
    read_backups,
    write_paper,
)
from store.clock import utc
from store.database import Store
from store.errors import BadValue
from store.replacing import TABLES
from store.rounds import running_round

logger = logging.getLogger(__name__)

PATIENCE = 4  # a round puts a backup off, but not for longer than this many intervals
RETRY = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class BackupStatus:
    """How the backups stand; `newest_at` None: there is none yet.

    `age_s` counts from when the newest one was made or last found to hold every event there is.
    """

    newest_at: datetime | None
    age_s: float | None
    num_kept: int
    last_failure: str
    failed_at: datetime | None


class BackupKeeper:
    """Makes a checked backup of a store every `every` into `folder` and deletes old ones."""

    def __init__(self, store: Store, folder: Path, every: timedelta) -> None:
        """BadValue when `every` is not positive; the folder is made when first needed."""
        if every <= timedelta(0):
            raise BadValue(f"a backup every {every} makes no sense; it must be more than nothing")
        self.folder = folder
        self._store = store
        self._every = every
        self._failure = ""
        self._failed_at: datetime | None = None
        self._current_at: datetime | None = None  # when the newest backup was seen to hold everything
        self._busy = threading.Lock()
        self._closing = threading.Event()

    def close(self) -> None:
        """Give up a backup in the making and make none any more; returns when the store is left alone."""
        self._closing.set()
        with self._busy:
            pass

    def tick(self, now: datetime | None = None) -> KeptBackup | None:
        """Make a backup if one is due; None when none is. Raises nothing: a failure is kept and logged."""
        if not self._busy.acquire(blocking=False):
            return None
        moment = utc(now)
        try:
            return self._make(moment) if self._is_due(moment) else None
        except Exception as error:
            if self._closing.is_set():
                logger.info("no backup was made: %s", error)
                return None
            self._failure, self._failed_at = f"{type(error).__name__}: {error}", moment
            logger.exception("NO BACKUP could be made in %s; trying again in %s", self.folder, RETRY)
            return None
        finally:
            self._busy.release()

    def read_status(self, now: datetime | None = None) -> BackupStatus:
        """For metrics and the admin page; reads the names in the folder."""
        whole = [kept for kept in read_backups(self.folder) if kept.seq is not None]
        newest_at = whole[0].made_at if whole else None
        good_at = max((at for at in (newest_at, self._current_at) if at), default=None) if whole else None
        age_s = max(0.0, (utc(now) - good_at).total_seconds()) if good_at else None
        return BackupStatus(newest_at, age_s, len(whole), self._failure, self._failed_at)

    def _is_due(self, now: datetime) -> bool:
        if self._closing.is_set():
            return False
        if self._failed_at and now - self._failed_at < RETRY:
            return False
        newest = next((kept for kept in read_backups(self.folder) if kept.seq is not None), None)
        if newest is None:
            return True
        # A clock that was put back must not silence the backups until it has caught up.
        age = abs(now - newest.made_at)
        if age < self._every:
            return False
        if newest.seq == self._store.health()["last_seq"]:
            self._current_at = now
            return False
        return age >= PATIENCE * self._every or running_round(self._store) is None

    def _make(self, now: datetime) -> KeptBackup:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        delete_backups([kept for kept in read_backups(self.folder) if kept.seq is None])
        final = self.folder / new_name(now)
        draft = final.with_name(final.name + UNFINISHED)
        try:
            made = back_up(self._store, draft, self._closing.is_set)
            for built in draft.glob(f"{TABLES}*"):
                built.unlink()  # the check has built them; a start builds them again in seconds
            write_paper(draft, made.seq, made.facts)
            draft.rename(final)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        self._failure, self._failed_at, self._current_at = "", None, now
        gone = delete_backups(choose_old(read_backups(self.folder)))
        logger.info("backup %s holds every event up to %d; %d old ones deleted", final, made.seq, len(gone))
        return KeptBackup(final, now, made.seq)
