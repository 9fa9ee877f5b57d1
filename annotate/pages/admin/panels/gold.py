"""Gold tasks and what is known of each, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from annotate.pages.admin.panels.pieces import badge, note, table, time
from annotate.pages.text import plain
from store.records import Gold
from store.shown import ShownTask

EXCERPT_CHARS = 160
_WORDS = {"tie": "about the same", "both_bad": "both bad", "up": "good", "down": "bad"}


def write_gold(gold: Sequence[Gold], tasks: Mapping[str, ShownTask]) -> str:
    """Each with the end of what was asked and its known answer."""
    if not gold:
        return note(
            "No gold tasks yet. Promote tasks that everybody judged alike, or make one of a verdict: they are"
            " slipped in silently, measure people, and are never trained on."
        )
    rows = [_write_row(each, tasks.get(each.task_id)) for each in gold]
    return table(("Task", "Asked", "Known answer", "From", "Since"), rows, label="Gold tasks")


def shorten(text: str) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT_CHARS else line[: EXCERPT_CHARS - 1] + "…"


def _write_row(gold: Gold, task: ShownTask | None) -> list[str]:
    asked = task.messages[-1]["content"] if task and task.messages else ""
    known = task.text_of(gold.chosen_id) if task and gold.chosen_id else _WORDS.get(gold.choice, gold.choice)
    answer = plain(shorten(known))
    return [
        f"<code>{plain(gold.task_id[-8:])}</code>",
        plain(shorten(asked)),
        answer if gold.chosen_id else badge(known),
        badge(gold.source),
        time(gold.created_at),
    ]
