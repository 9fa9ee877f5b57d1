"""Who holds what, noted in a small file so that a page that is open survives a restart of the service.

Leases are no facts: losing one costs an annotator a click. So a line is written and not synced: it outlives
`kill -9`, and a power cut may take the last ones.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from store.records import Lease

logger = logging.getLogger(__name__)

LINES_BEFORE_REWRITE = 20_000


@dataclass(frozen=True, slots=True)
class NotedLease:
    """A lease as the file remembers it; `counts` is False for a hold that takes none of the wanted places."""

    lease_id: str
    task_id: str
    person_id: str
    left_id: str | None
    expires_at: datetime
    counts: bool


class LeaseLog:
    """A line a change. Whoever holds the queue's lock gathers lines; they are written without it, by `flush`.

    Writing under that lock would let go of the interpreter there, and every other caller would queue up.
    """

    def __init__(self, path: Path | None) -> None:
        """`path` None keeps nothing, for stores in memory."""
        self._path = path
        self._num_lines = 0
        self._lines: deque[str] = deque()  # the one thing two threads touch at once
        self._writing = threading.Lock()
        self._file = -1 if path is None else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def read(self) -> list[NotedLease]:
        """What was held when the last line was written, lines that cannot be read left out and counted."""
        held: dict[str, NotedLease] = {}
        unreadable = 0
        for line in self._path.read_bytes().splitlines() if self._path else []:
            try:
                lease_id, *fields = json.loads(line)
                held.pop(lease_id, None)
                if fields:
                    task_id, person_id, left_id, expires_at, counts = fields
                    moment = datetime.fromisoformat(expires_at)
                    held[lease_id] = NotedLease(lease_id, task_id, person_id, left_id, moment, counts)
            except (ValueError, TypeError):
                unreadable += 1
        if unreadable:
            logger.warning("%d lines of %s cannot be read; those holds are given up", unreadable, self._path)
        return list(held.values())

    def note(self, lease: Lease, counts: bool) -> None:
        """The person holds the task from now on, or for longer."""
        self._lines.append(_line(lease, counts))

    def drop(self, lease_id: str) -> None:
        """Nobody holds it by this lease any more."""
        self._lines.append(json.dumps([lease_id]))

    def flush(self) -> None:
        """Write what was gathered; when this returns it outlives the process."""
        with self._writing:
            self._write([self._lines.popleft() for _ in range(len(self._lines))])

    def is_long(self, num_held: int) -> bool:
        """Whether most lines are about holds that are over."""
        return self._num_lines > LINES_BEFORE_REWRITE + 4 * num_held

    def rewrite(self, held: Iterable[tuple[Lease, bool]]) -> None:
        """Begin a new file with what is held now; a kill in between leaves the old or the new one whole."""
        if self._path is None:
            return
        fresh = self._path.with_suffix(".new")
        with self._writing:
            handle = os.open(fresh, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC, 0o600)
            os.close(self._file)
            self._file, self._num_lines = handle, 0
            self._lines.clear()
            self._write([_line(lease, counts) for lease, counts in held])
            fresh.rename(self._path)

    def close(self) -> None:
        """Give the file back; nothing is noted afterwards."""
        self.flush()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _write(self, lines: list[str]) -> None:
        if self._file < 0 or not lines:
            return
        try:
            os.write(self._file, ("\n".join(lines) + "\n").encode())
        except OSError:
            logger.exception("a hold could not be noted in %s; it will not survive a restart", self._path)
        self._num_lines += len(lines)


def _line(lease: Lease, counts: bool) -> str:
    until = lease.expires_at.isoformat()
    return json.dumps([lease.lease_id, lease.task.task_id, lease.person_id, lease.left_id, until, counts])
