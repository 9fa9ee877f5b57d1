"""Signs of life of a round's process, and how the service reads them: hung, slow or well.

A thread writes them, so that one long step does not look like death; each line says how often the model was
run and how much the process has computed, so that a thread that still writes does not look like life.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.errors import StateConflict

HEARTBEAT = "heartbeat.json"
EVERY_S = 2.0
HOLD_WAIT_S = 60.0
IDLE_SHARE = 0.01  # of one core: a process that computes less is waiting for something


class Heartbeat:
    """Writes heartbeat.json every two seconds while it is entered. `beat` is called from the work itself."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / HEARTBEAT
        self._beats = 0
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def beat(self, *_: Any) -> None:
        """The work has got on; takes any arguments, to be a hook of a module."""
        self._beats += 1

    def __enter__(self) -> Heartbeat:
        if int(os.environ.get("RANK", "0")) == 0:
            self._write()
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()

    def _run(self) -> None:
        while not self._ends.wait(EVERY_S):
            self._write()

    def _write(self) -> None:
        draft = self._path.with_suffix(".tmp")
        signs = {"pid": os.getpid(), "beats": self._beats, "cpu_s": time.process_time()}
        draft.write_text(json.dumps(signs) + "\n", "utf-8")
        draft.replace(self._path)


@dataclass(slots=True)
class Pulse:
    """Follows a round from outside. `silence_limit_s` is for one that does nothing, `slow_limit_s` for one
    that computes and gets nowhere."""

    silence_limit_s: float
    slow_limit_s: float
    _work: object = None
    _cpu_s: float = 0.0
    _worked_at: float = 0.0
    _computed_at: float = 0.0

    def read(self, folder: Path, files: tuple[str, ...], now: float) -> str | None:
        """Why the process should be stopped; None while it is well. `now` is a steady clock's seconds.

        A change in one of `files` is work done, and so is a beat.
        """
        beats, cpu_s = _read_signs(folder / HEARTBEAT)
        work = (beats, *((folder / name).stat().st_mtime_ns for name in files if (folder / name).exists()))
        if work != self._work:
            self._work, self._worked_at, self._computed_at, self._cpu_s = work, now, now, cpu_s
        elif cpu_s - self._cpu_s > IDLE_SHARE * (now - self._computed_at) and cpu_s > self._cpu_s:
            self._computed_at, self._cpu_s = now, cpu_s
        if now - self._computed_at > self.silence_limit_s:
            return f"no progress for {self.silence_limit_s:g} s; the process was stopped"
        if now - self._worked_at > self.slow_limit_s:
            return f"no step for {self.slow_limit_s:g} s, though it computed; the process was stopped"
        return None


def _read_signs(path: Path) -> tuple[int, float]:
    try:
        signs = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return 0, 0.0
    return int(signs["beats"]), float(signs["cpu_s"])


@contextlib.contextmanager
def hold_folder(folder: Path, holds: bool, wait_s: float = HOLD_WAIT_S) -> Iterator[None]:
    """Be the only process that works in a round's directory. StateConflict when another one does not end.

    Of several processes of one launch only the first `holds` it. The kernel lets go of it with the process.
    """
    if not holds:
        yield
        return
    handle = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        _lock(handle, folder, wait_s)
        yield
    finally:
        os.close(handle)


def is_held(folder: Path) -> bool:
    """Whether a process works in a round's directory right now."""
    if not (folder / "lock").exists():
        return False
    handle = os.open(folder / "lock", os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _lock(handle: int, folder: Path, wait_s: float) -> None:
    ends_at = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > ends_at:
                raise StateConflict(
                    f"another process still works in {folder}; wait for its end or kill it"
                ) from None
            time.sleep(0.1)
        else:
            return
