"""Whether a round whose process ended early goes on, and the record of each time it did."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from store.clock import utc
from store.errors import BadValue
from trainer.checkpoints import check_can_resume, where_it_stands
from trainer.stopping import STOPPED

RESUMES = "resumes.jsonl"
# It was told to stop, or killed from outside: by the kernel for memory, by a person, by a scheduler. Whatever
# it does of itself it would do again.
_FROM_OUTSIDE = (STOPPED, -signal.SIGKILL, -signal.SIGTERM)


def was_interrupted(code: int) -> bool:
    """Whether an exit code says that the process was ended from outside."""
    return code in _FROM_OUTSIDE


def check_may_resume(directory: Path, most: int) -> None:
    """BadValue saying why when a round cannot go on, or has done so `most` times."""
    check_can_resume(directory)
    path = directory / RESUMES
    count = len(path.read_text("utf-8").splitlines()) if path.exists() else 0
    if count >= most:
        raise BadValue(f"it was resumed {count} times already (max_resumes {most})")


def note_resume(directory: Path, why: str) -> str:
    """Put the resume on record; returns it as a sentence."""
    where = where_it_stands(directory)
    with (directory / RESUMES).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"at": utc().isoformat(), "why": why, "from": where}) + "\n")
    return f"resumed from {where}: {why}"
