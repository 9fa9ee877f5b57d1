"""Notices when the files of a loaded version change on disk. Cheap enough for every few seconds.

What is in memory stays as it was, but a restart would have to serve another version.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from serving.adapters import BadAdapter, hash_files

logger = logging.getLogger(__name__)

REHASH_S = 3600.0  # a disk may rot without a new time of change
Stamp = tuple[tuple[str, int, int, int], ...]  # (name, inode, size in bytes, mtime in ns) of each file


@dataclass(slots=True)
class _Watched:
    folder: Path
    hashes: dict[str, str]
    stamp: Stamp
    hashed_at: float
    problem: str | None = None


class FileWatch:
    """The files of the versions in memory, as they were when they were loaded."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._watched: dict[str, _Watched] = {}
        self._lock = threading.Lock()  # guards the dictionary, not the looking

    def begin(self, version: str, folder: Path, hashes: dict[str, str], stamp: Stamp) -> None:
        """Watch the files of a version that was loaded from exactly these bytes."""
        with self._lock:
            self._watched[version] = _Watched(folder, hashes, stamp, self._clock())

    def end(self, version: str) -> None:
        """The version left memory."""
        with self._lock:
            self._watched.pop(version, None)

    def look(self) -> None:
        """See whether anything changed; a file is read only when its stamp did, or once an hour."""
        with self._lock:
            watched = dict(self._watched)
        for version, files in watched.items():
            self._look_at(version, files)

    def problem_of(self, version: str) -> str | None:
        """What is wrong with a version's files, as of now."""
        with self._lock:
            files = self._watched.get(version)
        if files is None:
            return None
        self._look_at(version, files)
        return files.problem

    def problems(self) -> dict[str, str]:
        """What was wrong when last looked, by version."""
        with self._lock:
            return {version: files.problem for version, files in self._watched.items() if files.problem}

    def _look_at(self, version: str, files: _Watched) -> None:
        stamp, now = read_stamp(files.folder), self._clock()
        if stamp == files.stamp and now - files.hashed_at < REHASH_S:
            return
        files.stamp, files.hashed_at = stamp, now
        try:
            changed = sorted(
                name for name, sha in hash_files(files.folder).items() if files.hashes[name] != sha
            )
            problem = f"the files of {version} changed on disk ({', '.join(changed)})" if changed else None
        except BadAdapter as error:
            problem = f"the files of {version} changed on disk ({error})"
        if problem and not files.problem:
            files.problem = f"{problem}, noticed at {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
            logger.error("%s", files.problem)
        elif not problem and files.problem:
            files.problem = None
            logger.info("the files of %s are again what was loaded", version)


def read_stamp(folder: Path) -> Stamp:
    """What changes when a file of the folder does; empty when the folder cannot be read."""
    try:
        with os.scandir(folder) as entries:
            facts = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
    except OSError:
        return ()
    return tuple(sorted((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in facts))
