"""Writing a journal anew with some events changed: the one way in which a fact ever leaves it.

Every event keeps its number, so what counts events (snapshots, backups, the tables) still agrees. It knows
nothing of what an event means; putting the new files in place is `replacing.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from store.journal import encode_line, read_lines, sync_folder

Change = Callable[[bytes], bytes]


def rewrite_journal(
    files: Sequence[Path], target: Path, change: Change, added: Callable[[], list[bytes]]
) -> int:
    """Write `files` to the new folder `target`, each event as `change` returns it, and sync them.

    `added` is asked at the end for events to append. Returns the last number. The files are taken as checked.
    """
    target.mkdir(mode=0o700)
    seq = 0
    for position, path in enumerate(files, start=1):
        with os.fdopen(os.open(target / path.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as new:
            for line in read_lines(path):
                seq += 1
                event = line.split(b" ", 2)[2][:-1]
                changed = change(event)
                new.write(line if changed == event else encode_line(seq, changed))
            if position == len(files):
                for event in added():
                    seq += 1
                    new.write(encode_line(seq, event))
            new.flush()
            os.fsync(new.fileno())
    sync_folder(target)
    return seq
