"""What erasing a person came to, as HTML."""

from __future__ import annotations

from annotate.pages.admin.panels.pieces import badge, count, note, table
from annotate.pages.text import plain
from store.erasure import Erasure

MEANINGS = {
    "delete": "everything they left behind goes: labels, conversations, ratings, comments",
    "pseudonymise": "their labels stay under a random name; name, password and comments go",
}


def write_erasure(erasure: Erasure) -> str:
    """Counts, the versions that were trained on their labels, and what the admin should do next."""
    gone = f"{count(erasure.num_removed, 'event')} taken out, {count(erasure.num_changed, 'event')} changed."
    advice = "".join(f"<li>{plain(_sentence(each))}</li>" for each in erasure.advice)
    return (
        f'<div class="said" role="status"><p><b>Erased.</b> {plain(gone)}'
        f" What is left is called <code>{plain(erasure.person_id)}</code>.</p></div>"
        f"{_write_versions(erasure)}<h3>What to do now</h3><ul class=advice>{advice}</ul>"
    )


def _write_versions(erasure: Erasure) -> str:
    if not erasure.versions:
        return note("No version was trained on their labels.")
    rows = [
        [f"<b>{plain(each.version)}</b>", badge(each.state), plain(each.round_id or "–")]
        for each in erasure.versions
    ]
    return table(("Trained on their labels", "State", "Round"), rows, label="Versions affected")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
