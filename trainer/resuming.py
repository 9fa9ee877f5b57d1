"""Whether a round whose process ended early goes on, and the record of each time it did."""

from __future__ import annotations

import json
import signal
from itertools import takewhile
from pathlib import Path

from store.clock import utc
from store.errors import BadValue
from trainer.checkpoints import check_can_resume, where_it_stands
from trainer.stopping import STOPPED

RESUMES = "resumes.jsonl"
_LEFT = "left_for_later"  # a file: the service stopped in good order and means to go on with the round
# It was told to stop, or killed from outside: by the kernel for memory, by a person, by a scheduler. Whatever
# it does of itself it would do again.
_FROM_OUTSIDE = (STOPPED, -signal.SIGKILL, -signal.SIGTERM)


def was_interrupted(code: int) -> bool:
    """Whether an exit code says that the process was ended from outside."""
    return code in _FROM_OUTSIDE


def leave_for_later(directory: Path) -> None:
    """Put on record that the service stops: going on afterwards is no sign of trouble. BadValue when the
    round cannot go on."""
    check_can_resume(directory)
    (directory / _LEFT).touch()


def check_may_resume(directory: Path, most: int) -> None:
    """BadValue saying why when a round cannot go on, or when `most` resumes in a row brought no newer
    checkpoint. One that the service left in good order always goes on."""
    check_can_resume(directory)
    count, where = _count_in_vain(directory), where_it_stands(directory)
    if count >= most and not (directory / _LEFT).exists():
        raise BadValue(
            f"it was resumed from {where} {count} times already and got no further (max_resumes {most})"
        )


def note_resume(directory: Path, why: str) -> str:
    """Put the resume on record; returns it as a sentence."""
    where, was_left = where_it_stands(directory), (directory / _LEFT).exists()
    line = {"at": utc().isoformat(), "why": why, "from": where, "left_in_order": was_left}
    with (directory / RESUMES).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    (directory / _LEFT).unlink(missing_ok=True)
    return f"resumed from {where}: {why}"


def _count_in_vain(directory: Path) -> int:
    """How many of the latest resumes after a kill began where the round still stands."""
    path = directory / RESUMES
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    after_a_kill = [line["from"] for line in lines if not line.get("left_in_order")]
    where = where_it_stands(directory)
    return sum(1 for _ in takewhile(lambda began: began == where, reversed(after_a_kill)))
