"""The backups on disk, as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from annotate.pages.admin.panels.pieces import badge, duration, note, table, time
from annotate.pages.text import plain
from store.backup_folder import KeptBackup
from store.backup_keeper import BackupStatus

MOST_SHOWN = 40


def write_backups(status: BackupStatus | None, backups: Sequence[KeptBackup], now: datetime) -> str:
    """How old the newest one is, what failed last, and the list."""
    if status is None:
        return note("No backups are made by themselves here; `python app.py backup` makes one.")
    if status.newest_at is None or status.age_s is None:
        head = note("There is no backup yet; the first one is made within the hour.")
    else:
        kept = f"{status.num_kept} kept"
        head = f'<p class="verdict">The newest one is {plain(duration(status.age_s))} old; {kept}.</p>'
    if status.last_failure and status.failed_at is not None:
        ago = duration((now - status.failed_at).total_seconds())
        head += f'<p class="said bad" role="status">Failed {ago} ago: {plain(status.last_failure)}</p>'
    if not backups:
        return head
    rows = [
        [
            f"<code>{plain(each.name)}</code>",
            time(each.made_at),
            badge("checked", "good") if each.seq is not None else badge("unfinished", "warn"),
            f"{each.seq:,}" if each.seq is not None else "–",
        ]
        for each in backups[:MOST_SHOWN]
    ]
    return head + table(("Folder", "Made", "State", "Up to event"), rows, label="Backups")
