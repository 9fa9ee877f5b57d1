"""A process whose children erase somebody and are killed, each one step later than the one before.

It tells on stdout, a line each, the folder that every child left behind; the last child was not killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from itertools import count
from pathlib import Path

from store.database import Store
from store.erasure import erase_person

STEPS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "open")


def erase(data: Path, person_id: str, name: str, last_step: int) -> None:
    """Erase, and die before the file system is changed for the `last_step`-th time."""
    taken = count(1)
    store = Store.open(data)

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event not in STEPS:
            return
        if event == "open" and not (
            isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        ):
            return
        if next(taken) == last_step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    erase_person(store, person_id, actor="x", confirm=name)
    store.close()


def sweep(data: Path, person_id: str, name: str, stride: int) -> None:
    for step in count(1, stride):
        copy = data.with_name(f"killed-at-{step:03}")
        shutil.copytree(data, copy)
        child = os.fork()  # before any thread and any open database
        if child == 0:
            erase(copy, person_id, name, step)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{copy}\n")
        sys.stdout.flush()
        if not os.WIFSIGNALED(status):
            raise SystemExit(os.WEXITSTATUS(status))


if __name__ == "__main__":
    sweep(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
