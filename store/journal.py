"""The append-only journal: the one place where a fact must be on disk before anyone is told it was saved.

A file `NNNNNN.jsonl` holds lines `crc32 seq event-json`, the checksum over `seq event-json`. Appending is one
write and one `fdatasync` for a whole group. It knows nothing of tables or of what an event means.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from store.clock import utc
from store.errors import HeedError, NoSpace

logger = logging.getLogger(__name__)

ROTATE_BYTES = 64 * 2**20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class FileJournal:
    """The journal of one data folder; used by one thread at a time."""

    def __init__(self, folder: Path, *, min_free_bytes: int = 0, rotate_bytes: int = ROTATE_BYTES) -> None:
        """Check every line of every file: a torn last line is cut off, other damage is a HeedError."""
        self.folder = folder
        self.last_seq = 0
        self.broken = ""
        self._min_free_bytes = min_free_bytes
        self._rotate_bytes = rotate_bytes
        self._file = -1
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._open()

    def append(self, encoded: Sequence[bytes]) -> None:
        """Put the events on disk, in order; when this returns they survive a power cut. All or nothing."""
        if self.broken:
            raise HeedError(f"the journal takes no more events ({self.broken}); restart Heed")
        block = b"".join(encode_line(self.last_seq + n, event) for n, event in enumerate(encoded, start=1))
        self._check_free_space(len(block))
        if self._size and self._size + len(block) > self._rotate_bytes:
            self._rotate()
        self._write(block)
        self._sync()
        self._size += len(block)
        self.last_seq += len(encoded)

    def read_after(self, seq: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Every event with a higher number than `seq`, oldest first."""
        for path in self.files():
            for line in read_lines(path):
                found = line_seq(line)
                if found > seq:
                    yield found, json.loads(line.split(b" ", 2)[2])

    def files(self) -> list[Path]:
        """The journal's files, oldest first."""
        return sorted(path for path in self.folder.glob("*.jsonl") if path.stem.isdigit())

    def close(self) -> None:
        """Give the file back; nothing can be appended afterwards."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self.broken = self.broken or "it is closed"

    def reopen(self) -> None:
        """Open and check whatever files lie in the folder now; for after they were exchanged."""
        self.close()
        self._open()

    def _open(self) -> None:
        self.last_seq = 0
        self.broken = ""
        self._number = self._check_all()
        self._file = self._open_file(self._number)
        self._size = os.fstat(self._file).st_size

    def _check_all(self) -> int:
        files = self.files()
        for position, path in enumerate(files, start=1):
            if int(path.stem) != position:
                raise HeedError(f"journal file {position:06d}.jsonl is missing from {self.folder}; {_ADVICE}")
            self._check_file(path, is_last=position == len(files))
        return max(len(files), 1)

    def _check_file(self, path: Path, is_last: bool) -> None:
        offset, size = 0, path.stat().st_size
        for line in read_lines(path):
            fault = find_fault(line, self.last_seq + 1)
            if fault and is_last and offset + len(line) == size:
                self._cut(path, offset, line, fault)
                return
            if fault:
                raise HeedError(f"{path} is damaged at byte {offset}: {fault}; {_ADVICE}")
            offset += len(line)
            self.last_seq += 1

    def _cut(self, path: Path, offset: int, line: bytes, fault: str) -> None:
        aside = path.with_name(f"{path.name}.torn-{utc():%Y%m%dT%H%M%S%f}")
        aside.write_bytes(line)
        with path.open("r+b") as file:
            file.truncate(offset)
            os.fsync(file.fileno())
        logger.warning(
            "cut %d bytes off %s at byte %d (%s); kept in %s", len(line), path, offset, fault, aside.name
        )

    def _open_file(self, number: int) -> int:
        path = self.folder / f"{number:06d}.jsonl"
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        sync_folder(self.folder)
        return file

    def _rotate(self) -> None:
        try:
            fresh = self._open_file(self._number + 1)
        except OSError as error:
            raise _explain(error, "open the next journal file") from error
        os.close(self._file)
        self._file, self._number, self._size = fresh, self._number + 1, 0

    def _check_free_space(self, num_bytes: int) -> None:
        if not self._min_free_bytes:
            return
        free = shutil.disk_usage(self.folder).free
        if free - num_bytes < self._min_free_bytes:
            raise NoSpace(
                f"only {free // 2**20} MiB are free at {self.folder}; nothing was saved, free some space"
            )

    def _write(self, block: bytes) -> None:
        rest = memoryview(block)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            self._take_back(error)
            raise _explain(error, "write to the journal") from error

    def _take_back(self, error: OSError) -> None:
        try:
            os.ftruncate(self._file, self._size)
        except OSError:
            # Half a group stays on disk: the next start cuts it off, this process must not write behind it.
            self.broken = f"a failed write could not be taken back: {error}"

    def _sync(self) -> None:
        try:
            os.fdatasync(self._file)
        except OSError as error:
            # After a failed fsync the kernel may have dropped the pages: a second try would lie.
            self.broken = f"fdatasync failed: {error}"
            logger.critical("fdatasync of %s failed: %s", self.folder, error)
            raise _explain(error, "bring the journal to disk") from error


class MemoryJournal:
    """A journal without files, for stores that live as long as a test."""

    def __init__(self) -> None:
        self.last_seq = 0
        self.broken = ""
        self._events: list[bytes] = []

    def append(self, encoded: Sequence[bytes]) -> None:
        """Keep the events, in order."""
        if self.broken:
            raise HeedError(f"the journal takes no more events ({self.broken})")
        self._events.extend(encoded)
        self.last_seq = len(self._events)

    def read_after(self, seq: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Every event with a higher number than `seq`, oldest first."""
        for number, event in enumerate(self._events[seq:], start=seq + 1):
            yield number, json.loads(event)

    def close(self) -> None:
        """Nothing can be appended afterwards."""
        self.broken = "it is closed"

    def reopen(self) -> None:
        """Take events again."""
        self.broken = ""


Journal = FileJournal | MemoryJournal


def encode_line(seq: int, event: bytes) -> bytes:
    """One journal line, its newline included."""
    body = b"%d %s" % (seq, event)
    return b"%08x %s\n" % (zlib.crc32(body), body)


def read_lines(path: Path) -> Iterator[bytes]:
    """The file's lines with their newlines; the last may lack one."""
    with path.open("rb") as file:
        yield from file


def line_seq(line: bytes) -> int:
    """The number of a line that has been checked."""
    return int(line.split(b" ", 2)[1])


def find_fault(line: bytes, expected_seq: int) -> str:
    """What is wrong with a line, or an empty text."""
    if not line.endswith(b"\n"):
        return "the line has no end"
    parts = line[:-1].split(b" ", 2)
    if len(parts) != 3:
        return "it is not a journal line"
    if parts[0] != b"%08x" % zlib.crc32(line[9:-1]):
        return "its checksum does not match"
    if parts[1] != b"%d" % expected_seq:
        return f"event {expected_seq} was expected here, not {parts[1].decode(errors='replace')}"
    return ""


def sync_folder(folder: Path) -> None:
    """Make a new or renamed name in this folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_ADVICE = "nothing was changed; put the journal folder of the newest backup in its place and start again"


def _explain(error: OSError, what: str) -> HeedError:
    if error.errno in _FULL:
        return NoSpace(f"could not {what}: the disk is full; nothing was saved, free some space")
    return HeedError(f"could not {what}: {error}; nothing was acknowledged")
