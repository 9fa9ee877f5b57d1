"""What needs attention, as a list with a link to where something can be done."""

from __future__ import annotations

from collections.abc import Sequence

from annotate.pages.admin.attention import Notice
from annotate.pages.admin.panels.pieces import badge, note
from annotate.pages.text import plain

_WORDS = {"bad": "act now", "warn": "decide", "info": "next step"}
_TONES = {"bad": "bad", "warn": "warn", "info": "busy"}


def write_notices(notices: Sequence[Notice]) -> str:
    """One line a notice; a sentence when there is none."""
    if not notices:
        return note("Nothing needs you now.")
    return f'<ul class="notices">{"".join(_write_notice(notice) for notice in notices)}</ul>'


def _write_notice(notice: Notice) -> str:
    link = f' <a href="?tab={plain(notice.tab)}">Open {plain(notice.tab)}</a>' if notice.tab else ""
    return (
        f"<li>{badge(_WORDS[notice.tone], _TONES[notice.tone])}<span>{plain(notice.says)}{link}</span></li>"
    )
