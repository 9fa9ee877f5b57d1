"""Policy versions and who made which of them live, as tables."""

from __future__ import annotations

from collections.abc import Sequence

from annotate.pages.admin.panels.pieces import badge, note, table, time
from annotate.pages.text import plain
from store.records import Policy, Promotion


def write_versions(policies: Sequence[Policy]) -> str:
    """The registry, newest first."""
    return table(
        ("Version", "State", "Parent", "Created", "Reason"),
        [
            [
                f"<b>{plain(policy.version)}</b>",
                badge(policy.state),
                plain(policy.parent or "–"),
                time(policy.created_at),
                plain(policy.reason or ("the base model" if policy.parent is None else "")),
            ]
            for policy in policies
        ],
    )


def write_audit(promotions: Sequence[Promotion]) -> str:
    """Who changed what is live, when and why."""
    if not promotions:
        return note("Nothing has been promoted yet; the base model v0 is live.")
    return table(
        ("When", "Who", "What", "From", "To", "Reason"),
        [
            [
                time(row.created_at),
                plain(row.actor),
                badge(row.kind),
                plain(row.previous),
                plain(row.version),
                plain(row.reason),
            ]
            for row in promotions
        ],
    )
