"""One Heed per data folder, held by the kernel: the lock goes when the process does, however it ends.

DuckDB's own lock is not enough: it is lost when its owner opens and closes the file for any other reason.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from store.errors import StateConflict


class FolderLock:
    """Holds `<folder>/store.lock`, which names the owner's process id, until `release`."""

    def __init__(self, folder: Path) -> None:
        """StateConflict naming the owner when somebody holds the folder."""
        self._file = os.open(folder / "store.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(self._file, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise StateConflict(f"{folder} is in use by process {owner}; stop it first") from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let the next one in."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
