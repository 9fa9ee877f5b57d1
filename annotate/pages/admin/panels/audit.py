"""Who did what, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from annotate.pages.admin.panels.pieces import note, table, time
from annotate.pages.text import plain
from store.audit import AuditEntry


def write_acts(acts: Sequence[AuditEntry]) -> str:
    """One line an act, the newest first."""
    if not acts:
        return note("Nothing was done yet.")
    rows = [
        [time(act.at), plain(act.actor or "–"), plain(act.act), plain(act.subject), plain(act.detail)]
        for act in acts
    ]
    return table(("When", "Who", "What", "Whom or which", "Detail"), rows, label="Who did what")
