"""Whether a round should start now, and why: each trigger and guard with its value, threshold and verdict.

Pure decisions over what the store says; nothing here starts anything, so the answer an admin reads is the
very one the scheduler acts on.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from store.database import Store
from store.policies import read_policy
from store.records import BASE_VERSION, Condition, Round, Why
from store.rounds import read_rounds, running_round
from store.snapshots import LabelCounts, count_labels, count_new_labels


@dataclass(frozen=True, slots=True)
class TriggerSettings:
    """When rounds start by themselves. `max_wait_hours` 0 turns the time trigger off."""

    min_new_labels: int = 100
    max_wait_hours: float = 24.0
    min_labels: int = 8
    cooldown_minutes: float = 10.0
    min_free_mib: int = 512

    def __post_init__(self) -> None:
        if self.min_new_labels < 1:
            raise ValueError(f"min_new_labels {self.min_new_labels} must be at least 1")
        if self.max_wait_hours < 0 or self.cooldown_minutes < 0 or self.min_free_mib < 0:
            raise ValueError("max_wait_hours, cooldown_minutes and min_free_mib cannot be negative")
        if self.min_labels < 1:
            raise ValueError(f"min_labels {self.min_labels} must be at least 1")


def explain(store: Store, settings: TriggerSettings, now: datetime | None = None) -> Why:
    """Every condition for an automatic round. It starts when any trigger and all guards hold."""
    now = now or datetime.now(UTC)
    rounds = read_rounds(store)
    consumed = next((r for r in rounds if r.state in ("promoted", "canary", "rejected")), None)
    fresh = count_new_labels(store, consumed.round_id if consumed else None)
    triggers = (_enough_new_labels(fresh, settings), _waited_long_enough(store, rounds, fresh, settings, now))
    held_back = (*guards(store, settings), _cooled_down(rounds, settings, now))
    starts = any(c.holds for c in triggers) and all(c.holds for c in held_back)
    return Why(starts=starts, conditions=(*triggers, *held_back))


def guards(store: Store, settings: TriggerSettings) -> tuple[Condition, ...]:
    """What must hold for any round, a hand-started one included."""
    return (_none_running(store), _enough_labels(store, settings), _enough_disk(store, settings))


def _enough_new_labels(fresh: LabelCounts, settings: TriggerSettings) -> Condition:
    needed = settings.min_new_labels
    return Condition(
        name="new_labels",
        kind="trigger",
        value=fresh.total,
        threshold=needed,
        holds=fresh.total >= needed,
        says=f"{fresh.total} of {needed} new labels since the last round",
    )


def _waited_long_enough(
    store: Store, rounds: list[Round], fresh: LabelCounts, settings: TriggerSettings, now: datetime
) -> Condition:
    if settings.max_wait_hours == 0:
        says = "the time trigger is off (max_wait_hours = 0)"
        return Condition("waited_hours", "trigger", None, None, False, says)
    # v0 is registered at the first start, so its age is the age of this installation.
    first_start = read_policy(store, BASE_VERSION).created_at
    since = (rounds[0].finished_at or rounds[0].created_at) if rounds else first_start
    hours = (now - since) / timedelta(hours=1)
    long_enough = hours >= settings.max_wait_hours
    what = "the last round" if rounds else "the first start"
    says = f"{hours:.1f} of {settings.max_wait_hours:g} hours since {what}, with {fresh.total} new labels"
    holds = long_enough and fresh.total > 0
    return Condition("waited_hours", "trigger", round(hours, 2), settings.max_wait_hours, holds, says)


def _none_running(store: Store) -> Condition:
    running = running_round(store)
    says = f"round {running.round_id} is {running.state}" if running else "no round is running"
    return Condition(
        "none_running", "guard", running.round_id if running else None, None, running is None, says
    )


def _enough_labels(store: Store, settings: TriggerSettings) -> Condition:
    total = count_labels(store).total
    says = f"{total} usable labels in all; a round needs {settings.min_labels}"
    return Condition("labels", "guard", total, settings.min_labels, total >= settings.min_labels, says)


def _enough_disk(store: Store, settings: TriggerSettings) -> Condition:
    free_mib = shutil.disk_usage(store.data_dir).free // 2**20
    says = f"{free_mib} MiB free on the data disk; a round needs {settings.min_free_mib}"
    return Condition(
        "free_disk_mib", "guard", free_mib, settings.min_free_mib, free_mib >= settings.min_free_mib, says
    )


def _cooled_down(rounds: list[Round], settings: TriggerSettings, now: datetime) -> Condition:
    # A round that failed would fail again on the next tick, for ever: wait before trying by itself.
    failed = rounds[0] if rounds and rounds[0].state in ("failed", "cancelled", "interrupted") else None
    if failed is None:
        return Condition(
            "cooled_down", "guard", None, settings.cooldown_minutes, True, "the last round did not fail"
        )
    minutes = (now - (failed.finished_at or failed.created_at)) / timedelta(minutes=1)
    holds = minutes >= settings.cooldown_minutes
    says = (
        f"round {failed.round_id} {failed.state} {minutes:.1f} minutes ago; automatic rounds wait"
        f" {settings.cooldown_minutes:g} minutes after that"
    )
    return Condition("cooled_down", "guard", round(minutes, 1), settings.cooldown_minutes, holds, says)
