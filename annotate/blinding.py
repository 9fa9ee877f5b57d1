"""Which completion is shown on the left, and what a chosen side means. Left and right end here."""

from __future__ import annotations

import hashlib
from typing import Literal

from store.errors import BadValue
from store.records import Lease, Task

Side = Literal["left", "right"]


def draw_left(task: Task, person_id: str) -> str:
    """The completion id shown to this person on the left: stable for the two, fair over many tasks."""
    digest = hashlib.sha256(f"{task.task_id}\n{person_id}".encode()).digest()
    return task.completion_ids[digest[0] % len(task.completion_ids)]  # 256 is even: fair for a pair


def read_sides(lease: Lease) -> tuple[str, str | None]:
    """The completion ids on the left and on the right; a single one is on the left, alone."""
    left = lease.left_id or lease.task.completion_ids[0]
    others = [completion_id for completion_id in lease.task.completion_ids if completion_id != left]
    return left, others[0] if others else None


def choose_side(lease: Lease, side: Side) -> tuple[str, str]:
    """Map the side that was preferred to (chosen id, rejected id); BadValue for a single completion."""
    left, right = read_sides(lease)
    if right is None:
        raise BadValue(f"task {lease.task.task_id} shows one answer; choose up, down or skip")
    return (left, right) if side == "left" else (right, left)


def read_side(lease: Lease, side: Side) -> str:
    """The completion id on that side; BadValue for the right of a single one."""
    left, right = read_sides(lease)
    if side == "left":
        return left
    if right is None:
        raise BadValue(f"task {lease.task.task_id} shows one answer, on the left")
    return right
