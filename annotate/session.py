"""What an annotator sees next and what a click means. No Gradio, no HTTP: pages and API call the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from annotate.assignment import assign, hold
from annotate.blinding import Side, choose_side, read_sides
from annotate.services import Services
from annotate.text import MOST_COMMENT, MOST_CORRECTION, limit, limit_reasons
from store.completions import read_completion
from store.database import Store
from store.errors import BadValue, LeaseLost, StateConflict
from store.judgements import find_standing, save_judgement, undo_last
from store.records import Choice, Judgement, Lease, Message, Person, TaskKind
from store.tasks import read_lease

ShownChoice = Literal["left", "right", "tie", "both_bad", "skip", "up", "down"]

CHOICES: dict[TaskKind, tuple[ShownChoice, ...]] = {
    "pair": ("left", "right", "tie", "both_bad", "skip"),
    "single": ("up", "down", "skip"),
}
CORRECTABLE: tuple[ShownChoice, ...] = ("left", "right", "up", "down")


@dataclass(frozen=True, slots=True)
class TaskView:
    """A task as it is shown: texts and sides, nothing that tells which policy wrote them."""

    task_id: str
    kind: TaskKind
    messages: tuple[Message, ...]
    left: str
    right: str | None
    lease_expires_at: datetime


@dataclass(frozen=True, slots=True)
class _Act:
    """A click, checked: what `save_judgement` takes besides the task and the completions."""

    choice: ShownChoice
    strength: int
    reasons: tuple[str, ...]
    comment: str
    correction: str | None
    active_ms: int | None


def next_task(services: Services, person: Person, kind: TaskKind) -> TaskView | None:
    """The task this person holds or now gets, as it is shown; None when there is none for them."""
    lease = assign(services, person, kind)
    if lease is None:
        return None
    view = show(services, lease)
    services.texts.read_ahead(services.store, kind)  # while they read this one
    return view


def judge(
    services: Services,
    person: Person,
    task_id: str,
    choice: str,
    *,
    strength: int = 1,
    reasons: Sequence[str] = (),
    comment: str = "",
    correction: str | None = None,
    active_ms: int | None = None,
) -> Judgement:
    """Save what was clicked; the same click again returns the first judgement.

    A correction edits the preferred answer of a pair, or the single one.

    Raises BadValue for a choice that does not fit the task, LeaseLost when the task is no longer held, and
    StateConflict when it was already judged differently.
    """
    act = _check_act(choice, strength, reasons, comment, correction, active_ms)
    try:
        lease = read_lease(services.store, task_id, person.person_id)
    except LeaseLost as lost:
        return _judge_again(services.store, person, task_id, act, lost)
    _check_choice(act.choice, lease.task.kind)
    chosen, rejected = choose_side(lease, act.choice) if act.choice in ("left", "right") else (None, None)
    edited = chosen or read_sides(lease)[0]
    act = _drop_unchanged(services.store, act, edited)
    return _save(services.store, person, task_id, act, chosen, rejected)


def undo(services: Services, person: Person) -> TaskView | None:
    """Take this person's newest judgement or skip back: its task, same sides. None when there is nothing."""
    lease = undo_last(services.store, person.person_id, lease_s=services.settings.lease_s)
    return None if lease is None else show(services, lease)


def renew(services: Services, person: Person, task_id: str) -> datetime:
    """Hold the task for another lease time and say until when; LeaseLost when it is no longer theirs."""
    return hold(services, person, task_id).expires_at


def show(services: Services, lease: Lease) -> TaskView:
    """The texts of a leased task on the sides that were drawn."""
    left_id, right_id = read_sides(lease)
    left, *others = services.texts.read(
        services.store, [left_id] if right_id is None else [left_id, right_id]
    )
    right, task = (others[0].text if others else None), lease.task
    return TaskView(task.task_id, task.kind, left.messages, left.text, right, lease.expires_at)


def _check_act(
    choice: str,
    strength: int,
    reasons: Sequence[str],
    comment: str,
    correction: str | None,
    active_ms: int | None,
) -> _Act:
    known = next((name for names in CHOICES.values() for name in names if name == choice), None)
    if known is None:
        raise BadValue(f"choice {choice!r} is unknown; choose one of {', '.join(_all_choices())}")
    if strength not in (1, 2):
        raise BadValue(f"strength {strength} is not 1 (slightly) or 2 (much better)")
    if active_ms is not None and active_ms < 0:
        raise BadValue(f"active_ms {active_ms} is below 0")
    if correction and known not in CORRECTABLE:
        raise BadValue(
            f"a correction edits one answer, so choose one of {', '.join(CORRECTABLE)}, not {known}"
        )
    return _Act(
        choice=known,
        strength=strength if known in ("left", "right") else 0,
        reasons=limit_reasons(tuple(reasons)),
        comment=limit(comment, MOST_COMMENT, "the comment"),
        correction=limit(correction, MOST_CORRECTION, "the correction") if correction else None,
        active_ms=active_ms,
    )


def _all_choices() -> list[str]:
    return list(dict.fromkeys(name for names in CHOICES.values() for name in names))


def _check_choice(choice: ShownChoice, kind: TaskKind) -> None:
    if choice not in CHOICES[kind]:
        raise BadValue(f"choice {choice!r} does not fit a {kind}; choose one of {', '.join(CHOICES[kind])}")


def _drop_unchanged(store: Store, act: _Act, edited_id: str) -> _Act:
    # An edit box that was opened and left as it was is no correction: an answer cannot be better than itself.
    if act.correction is None or act.correction != read_completion(store, edited_id).text:
        return act
    return _Act(act.choice, act.strength, act.reasons, act.comment, None, act.active_ms)


def _save(
    store: Store, person: Person, task_id: str, act: _Act, chosen: str | None, rejected: str | None
) -> Judgement:
    return save_judgement(
        store,
        task_id,
        person.person_id,
        choice=_stored_choice(act.choice),
        chosen_id=chosen,
        rejected_id=rejected,
        strength=act.strength,
        reasons=act.reasons,
        comment=act.comment,
        correction=act.correction,
        active_ms=act.active_ms,
    )


def _stored_choice(choice: ShownChoice) -> Choice:
    return "prefer" if choice == "left" or choice == "right" else choice


def _judge_again(store: Store, person: Person, task_id: str, act: _Act, lost: LeaseLost) -> Judgement:
    """A click on a task that is not held: a repeat (the reply to the first got lost), or too late."""
    first = find_standing(store, task_id, person.person_id)
    if first is None:
        raise lost
    if _stored_choice(act.choice) != first.choice:
        raise StateConflict(f"task {task_id} was already judged by you; undo that first to change it")
    if first.choice != "prefer":
        return _save(store, person, task_id, act, None, None)
    chosen, rejected = _sides_of(first, "left" if act.choice == "left" else "right")
    return _save(store, person, task_id, _drop_unchanged(store, act, chosen), chosen, rejected)


def _sides_of(first: Judgement, side: Side) -> tuple[str, str]:
    chosen, rejected = first.chosen_id or "", first.rejected_id or ""
    was_left = chosen == first.left_id
    return (chosen, rejected) if was_left == (side == "left") else (rejected, chosen)
