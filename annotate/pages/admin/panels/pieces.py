"""The small pieces all panels are made of: a sentence, a badge, a table, a bar, a tile, a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from annotate.pages.text import plain

_TONES = {
    "live": "live", "promoted": "good", "candidate": "busy", "rejected": "warn", "failed": "bad",
    "cancelled": "warn", "interrupted": "warn", "queued": "busy", "preparing": "busy", "training": "busy",
    "evaluating": "busy", "rollback": "warn", "promote": "good", "canary": "busy", "withdrawn": "bad",
    "stopped": "warn", "superseded": "warn",
}  # fmt: skip

MANY_COLUMNS = 5  # so many do not fit a phone: the table scrolls inside itself


def say(sentence: str, is_bad: bool = False) -> str:
    """The answer to a click, beside the button; spoken by screen readers."""
    tone, role = ("said bad", "alert") if is_bad else ("said", "status")
    return f'<p class="{tone}" role="{role}">{plain(sentence)}</p>'


def note(sentence: str) -> str:
    """A quiet line: what a panel means, or what to do while it is empty."""
    return f'<p class="nothing">{plain(sentence)}</p>'


def badge(word: str, tone: str | None = None) -> str:
    """A word in a pill; without a tone, the one that the word is known by."""
    return f'<span class="badge {_TONES.get(word, "") if tone is None else tone}">{plain(word)}</span>'


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], label: str = "") -> str:
    """Cells are HTML already; heads are text. Scrolls inside itself, also by keyboard."""
    head = "".join(
        f"<th scope=col>{plain(name) or '<span class=unseen>Verdict</span>'}</th>" for name in heads
    )
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    named = f' role="region" aria-label="{plain(label)}"' if label else ""
    wide = " wide" if len(heads) >= MANY_COLUMNS else ""
    inner = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="table{wide}" tabindex="0"{named}>{inner}</div>'


def bar(share: float, label: str = "Training progress") -> str:
    """How far something is, 0 to 1."""
    return (
        f'<div class="bar" role="progressbar" aria-label="{plain(label)}" aria-valuemin="0"'
        f' aria-valuemax="100" aria-valuenow="{share * 100:.0f}">'
        f'<i style="width:{share * 100:.1f}%"></i></div>'
    )


def figures(parts: Sequence[str]) -> str:
    """A row of small numbers; the parts are HTML already."""
    return f'<div class="figures">{"".join(parts)}</div>'


def tiles(numbers: Sequence[tuple[str, str]]) -> str:
    """Big numbers with their names: (number, name) each."""
    shown = (f"<b>{plain(figure)}</b><span>{plain(name)}</span>" for figure, name in numbers)
    return f'<div class="tiles">{"".join(f"<div class=tile>{each}</div>" for each in shown)}</div>'


def number(value: object) -> str:
    """A number for a table cell; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else plain(str(value))


def percent(share: float | None, digits: int = 0) -> str:
    """A share as per cent; a dash where there is none."""
    return "–" if share is None else f"{share * 100:.{digits}f} %"


def count(many: int, noun: str) -> str:
    """`1 pair`, `2,000 pairs`."""
    return f"{many:,} {noun}{'' if many == 1 else 's'}"


def duration(seconds: float) -> str:
    """Roughly how long, in the unit a person would use."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


def time(moment: datetime) -> str:
    """A moment in UTC, to the minute."""
    text = moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
    return f'<time datetime="{moment.isoformat()}" title="UTC">{text}</time>'
