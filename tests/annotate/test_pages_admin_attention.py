"""What the first tab asks an admin to look at, from facts alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from annotate.pages.admin.attention import Facts, list_notices
from annotate.pages.admin.panels.overview import write_notices
from store.backup_keeper import BackupStatus
from store.canary_rows import Canary
from store.records import Person, Round

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
ANN = Person("u_1", "ann", "annotator", True, NOW)
WELL = Facts(
    health={"ok": True, "broken": ""},
    free_mib=50_000,
    newest_round=None,
    people=(ANN,),
    num_prompts=10,
    num_open_tasks=5,
)
FAILED = Round("rd_1", "failed", "labels", "v0", "v1", 40, 3, "out of memory", NOW, NOW - timedelta(hours=3))
WITHDRAWN = Canary(
    "ca_1", "v2", "v1", 0.1, "ann", "", NOW - timedelta(days=1), NOW - timedelta(hours=2), "withdrawn",
    "12 points worse", "heed",
)  # fmt: skip
BACKUP = BackupStatus(NOW, 600.0, 3, "", None)


def test_nothing_is_asked_for_when_all_is_well() -> None:
    assert list_notices(WELL, NOW) == []
    assert "Nothing needs you now." in write_notices([])


@pytest.mark.parametrize(
    ("changed", "tone", "says", "tab"),
    [
        ({"health": {"ok": False, "broken": "no space"}}, "bad", "no label is saved", "settings"),
        ({"health": {"ok": False, "broken": ""}}, "bad", "repairing its tables", ""),
        (
            {"served": ("the files of v3 changed on disk; v3 still answers from memory",)},
            "bad",
            "The files of v3 changed on disk; v3 still answers from memory.",
            "versions",
        ),
        ({"free_mib": 300}, "bad", "Only 300 MiB", ""),
        ({"newest_round": FAILED}, "bad", "rd_1 failed 3 h ago: out of memory.", "rounds"),
        ({"num_disputed": 1}, "warn", "1 disputed task waits", "quality"),
        ({"num_flagged": 2}, "warn", "2 people are flagged", "quality"),
        (
            {"newest_canary": WITHDRAWN},
            "warn",
            "canary v2 was withdrawn 2 h ago: 12 points worse.",
            "versions",
        ),
        ({"num_prompts": 0}, "info", "There are no prompts yet", "data"),
        ({"people": (replace(ANN, active=False),)}, "info", "Nobody rates yet", "people"),
        ({"num_open_tasks": 0}, "info", "No task is waiting", "data"),
        ({"backups": replace(BACKUP, newest_at=None, age_s=None)}, "info", "no backup yet", "settings"),
        ({"backups": replace(BACKUP, age_s=3 * 86_400.0)}, "bad", "newest backup is 3 days old", "settings"),
        (
            {"backups": replace(BACKUP, last_failure="disk full", failed_at=NOW - timedelta(minutes=5))},
            "bad",
            "The backup 5 min ago failed: disk full.",
            "settings",
        ),
    ],
)
def test_each_fault_is_named_with_where_to_go(
    changed: dict[str, object], tone: str, says: str, tab: str
) -> None:
    (notice,) = list_notices(replace(WELL, **changed), NOW)  # type: ignore[arg-type]
    assert (notice.tone, notice.tab) == (tone, tab)
    assert says in notice.says


def test_a_fresh_backup_and_a_promoted_round_are_no_news() -> None:
    assert (
        list_notices(replace(WELL, backups=BACKUP, newest_round=replace(FAILED, state="promoted")), NOW) == []
    )


def test_a_canary_that_was_stopped_or_is_long_gone_is_no_news() -> None:
    stopped = replace(WITHDRAWN, outcome="stopped")
    old = replace(WITHDRAWN, ended_at=NOW - timedelta(days=8))
    for canary in (stopped, old, replace(WITHDRAWN, outcome=None, ended_at=None)):
        assert list_notices(replace(WELL, newest_canary=canary), NOW) == []


def test_a_reason_from_a_log_is_escaped() -> None:
    facts = replace(WELL, newest_round=replace(FAILED, reason="<img src=x>"))
    assert "<img" not in write_notices(list_notices(facts, NOW))
