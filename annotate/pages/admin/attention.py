"""What an admin should look at now: facts in, sentences out, the worst first. Knows no page."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from annotate.pages.admin.panels.pieces import count, duration
from store.backup_keeper import BackupStatus
from store.canary_rows import Canary
from store.records import Person, Round

LOW_DISK_MIB = 2048
CANARY_NEWS_DAYS = 7
OLD_BACKUP_HOURS = 26.0  # hourly ones are made while the service runs, so a day without one is a fault


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to look at: how bad, the sentence, and the tab where something can be done about it."""

    tone: Literal["bad", "warn", "info"]
    says: str
    tab: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the notices are made of. None: nobody knows, and nothing is said."""

    health: Mapping[str, object]
    free_mib: int | None
    newest_round: Round | None
    people: tuple[Person, ...]
    num_prompts: int
    num_open_tasks: int
    newest_canary: Canary | None = None
    num_disputed: int | None = None
    num_flagged: int | None = None
    backups: BackupStatus | None = None
    served: tuple[str, ...] = ()  # what is not served as it was promoted


def list_notices(facts: Facts, now: datetime) -> list[Notice]:
    """Faults first, then what waits for a decision, then what is missing to go on."""
    return [*_faults(facts, now), *_decisions(facts), *_missing(facts)]


def free_mib(folder: Path) -> int | None:
    """Free space on the disk of that folder; None when it cannot be told."""
    try:
        return shutil.disk_usage(folder).free // 2**20
    except OSError:
        return None


def _faults(facts: Facts, now: datetime) -> list[Notice]:
    found = []
    if facts.health.get("broken"):
        says = "The journal cannot be written and no label is saved: look at the disk, then restart Heed."
        found.append(Notice("bad", says, "settings"))
    elif not facts.health.get("ok", True):
        says = "The store is repairing its tables; labels are kept, pages may be slow until it is done."
        found.append(Notice("bad", says))
    for problem in facts.served:
        says = problem[0].upper() + problem[1:]
        found.append(Notice("bad", says if says.endswith(".") else f"{says}.", "versions"))
    if facts.free_mib is not None and facts.free_mib < LOW_DISK_MIB:
        says = f"Only {facts.free_mib:,} MiB are free for data; labels stop when the disk is full. Make room."
        found.append(Notice("bad", says))
    newest = facts.newest_round
    if newest is not None and newest.state in ("failed", "interrupted"):
        ago = duration((now - (newest.finished_at or newest.created_at)).total_seconds())
        reason = newest.reason or "no reason kept"
        reason += "" if reason.endswith((".", "?", "!")) else "."
        says = f"Round {newest.round_id} {newest.state} {ago} ago: {reason} Its log says more."
        found.append(Notice("bad", says, "rounds"))
    return [*found, *_canary_faults(facts.newest_canary, now), *_backup_faults(facts.backups, now)]


def _canary_faults(newest: Canary | None, now: datetime) -> list[Notice]:
    """Said for a while, or until the next canary: a withdrawal needs no act, but somebody should know."""
    if newest is None or newest.outcome != "withdrawn" or newest.ended_at is None:
        return []
    age_s = (now - newest.ended_at).total_seconds()
    if age_s > CANARY_NEWS_DAYS * 86400:
        return []
    says = f"The canary {newest.version} was withdrawn {duration(age_s)} ago: {newest.end_reason}."
    return [Notice("warn", says, "versions")]


def _backup_faults(status: BackupStatus | None, now: datetime) -> list[Notice]:
    if status is None:
        return []
    if status.failed_at is not None and status.last_failure:
        ago = duration((now - status.failed_at).total_seconds())
        return [Notice("bad", f"The backup {ago} ago failed: {status.last_failure}.", "settings")]
    if status.age_s is None:
        return [Notice("info", "There is no backup yet; the first one is made within the hour.", "settings")]
    if status.age_s <= OLD_BACKUP_HOURS * 3600:
        return []
    says = f"The newest backup is {duration(status.age_s)} old; the service's log says why."
    return [Notice("bad", says, "settings")]


def _decisions(facts: Facts) -> list[Notice]:
    found = []
    if facts.num_disputed:
        verb = "waits" if facts.num_disputed == 1 else "wait"
        says = f"{count(facts.num_disputed, 'disputed task')} {verb} for your verdict."
        found.append(Notice("warn", says, "quality"))
    if facts.num_flagged:
        verb = "is" if facts.num_flagged == 1 else "are"
        who = "person" if facts.num_flagged == 1 else "people"
        says = f"{facts.num_flagged} {who} {verb} flagged; look at the numbers before you decide anything."
        found.append(Notice("warn", says, "quality"))
    return found


def _missing(facts: Facts) -> list[Notice]:
    if not facts.num_prompts:
        return [
            Notice(
                "info",
                "There are no prompts yet: add or import some, and answers are written to them.",
                "data",
            )
        ]
    found = []
    if not any(person.active and person.role == "annotator" for person in facts.people):
        found.append(Notice("info", "Nobody rates yet: invite an annotator with a sign-in link.", "people"))
    if not facts.num_open_tasks:
        says = "No task is waiting to be judged. The model writes more by itself; if none come, add prompts."
        found.append(Notice("info", says, "data"))
    return found
