"""What an annotator sees next and what a click means. No Gradio, no HTTP: pages and API call the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from annotate.acts import ShownChoice, check_act
from annotate.assignment import assign, hold
from annotate.blinding import Side, choose_side, read_side, read_sides
from annotate.services import Services
from store.completions import read_completion
from store.database import Store
from store.errors import LeaseLost
from store.judgements import save_judgement, undo_last
from store.records import Judgement, Lease, Message, Person, Task, TaskKind
from store.revision import read_last_act
from store.tasks import read_lease


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
class Earlier:
    """What the person said of this task before they took it back, by the sides they see."""

    choice: ShownChoice
    strength: int
    reasons: tuple[str, ...]
    comment: str
    correction: str | None
    unsafe: tuple[Side, ...]
    created_at: datetime


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
    unsafe: Sequence[str] = (),
) -> Judgement:
    """Save what was clicked; the same click again returns the first judgement.

    A correction edits the preferred answer of a pair, or the single one; `unsafe` names sides.

    Raises BadValue for a choice that does not fit the task, LeaseLost when the task is no longer held, and
    StateConflict when it was already judged differently.
    """
    given = check_act(services.annotation, choice, strength, reasons, comment, correction, active_ms, unsafe)
    lease = _find_hold(services.store, person, task_id)
    act = given.fitted(lease.task.kind, _read_texts(services.store, lease) if correction else ())
    chosen, rejected = None, None
    if act.choice == "left" or act.choice == "right":
        chosen, rejected = choose_side(lease, act.choice)
    return save_judgement(
        services.store,
        task_id,
        person.person_id,
        choice=act.stored_choice,
        chosen_id=chosen,
        rejected_id=rejected,
        strength=act.strength,
        reasons=act.reasons,
        comment=act.comment,
        correction=act.correction,
        active_ms=act.active_ms,
        unsafe_ids=[read_side(lease, side) for side in act.unsafe],
    )


def undo(services: Services, person: Person, judgement_id: str | None = None) -> TaskView | None:
    """Take their newest act (or that one) back: its task, same sides. None when there is nothing."""
    lease_s = services.settings.lease_s
    lease = undo_last(services.store, person.person_id, lease_s=lease_s, judgement_id=judgement_id)
    return None if lease is None else show(services, lease)


def renew(services: Services, person: Person, task_id: str) -> datetime:
    """Hold the task for another lease time and say until when; LeaseLost when it is no longer theirs."""
    return hold(services, person, task_id).expires_at


def read_held(services: Services, person: Person, task_id: str) -> TaskView:
    """The task they hold once more, without holding it longer; LeaseLost when it is not theirs."""
    return show(services, read_lease(services.store, task_id, person.person_id))


def read_earlier(services: Services, person: Person, task_id: str) -> Earlier | None:
    """What this person said of the task before they took it back; None when they have not."""
    last = read_last_act(services.store, person.person_id, task_id)
    if last is None or not last[1].undone:
        return None
    task, act = last
    sides = read_sides(_as_lease(task, act))
    return Earlier(
        choice=_shown_choice(act, sides),
        strength=act.strength,
        reasons=act.reasons,
        comment=act.comment,
        correction=act.correction,
        unsafe=tuple(_side_of(sides, unsafe_id) for unsafe_id in act.unsafe_ids),
        created_at=act.created_at,
    )


def show(services: Services, lease: Lease) -> TaskView:
    """The texts of a leased task on the sides that were drawn."""
    left_id, right_id = read_sides(lease)
    left, *others = services.texts.read(
        services.store, [left_id] if right_id is None else [left_id, right_id]
    )
    right, task = (others[0].text if others else None), lease.task
    return TaskView(task.task_id, task.kind, left.messages, left.text, right, lease.expires_at)


def _find_hold(store: Store, person: Person, task_id: str) -> Lease:
    """The hold on the task; for a click sent twice (the reply to the first got lost) the one it had then."""
    try:
        return read_lease(store, task_id, person.person_id)
    except LeaseLost:
        last = read_last_act(store, person.person_id, task_id)
        if last is None or last[1].undone:
            raise
        return _as_lease(*last)


def _as_lease(task: Task, act: Judgement) -> Lease:
    return Lease("", task, act.person_id, act.left_id, act.created_at)


def _read_texts(store: Store, lease: Lease) -> list[str]:
    return [read_completion(store, completion_id).text for completion_id in lease.task.completion_ids]


def _shown_choice(act: Judgement, sides: tuple[str, str | None]) -> ShownChoice:
    return act.choice if act.choice != "prefer" else _side_of(sides, act.chosen_id or "")


def _side_of(sides: tuple[str, str | None], completion_id: str) -> Side:
    return "left" if completion_id == sides[0] else "right"
