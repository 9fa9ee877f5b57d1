"""The annotate page's own HTML: headings, numbers, waiting and empty states, shortcuts. Text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from annotate.gradio_gate import PAGE_ROLES
from annotate.pages.acts import Acts
from annotate.pages.text import plain
from store.pace import Pace
from store.records import Message, Role, TaskKind
from store.revision import Decision

_ROLE_NAMES = {"system": "Instructions", "user": "Person", "assistant": "Model"}
MOST_PROMPT_CHARS = 60

STAGE_WAITS = '<p class="preparing">Preparing a pair</p>'


def write_status(pace: Pace, num_ready: int, says: str) -> str:
    """The progress line, and what just happened. `says` is HTML of ours."""
    numbers = [f"<strong>{pace.num_judged}</strong> today"]
    if pace.median_s is not None and pace.per_hour is not None:
        numbers.append(f"<strong>{_write_seconds(pace.median_s)}</strong> median")
        numbers.append(f"<strong>{pace.per_hour:.0f}</strong>/h")
    numbers.append(f"<strong>{num_ready}</strong> in queue")
    return f'<span class="numbers">{" · ".join(numbers)}</span> <span class="says">{says}</span>'


def write_notices(is_training: bool, num_ready: int, minutes_at_work: float | None) -> str:
    """Strips above the item: a round is training, a break would help; empty when neither."""
    strips = []
    if is_training:
        ready = "1 item is ready" if num_ready == 1 else f"{num_ready} items are ready"
        strips.append(f'<p class="strip training">A training round is running; {ready}.</p>')
    if minutes_at_work is not None:
        strips.append(
            f'<p class="strip rest">You have judged for {minutes_at_work:.0f} minutes without a pause. '
            "A short break keeps the eye fresh.</p>"
        )
    return "".join(strips)


def write_heading(name: str) -> str:
    """The line above an answer; a single answer has no letter."""
    if not name:
        return '<h2 class="label">Answer</h2>'
    return f'<h2 class="label side-{name.lower()}"><span class="letter">{name}</span> Answer {name}</h2>'


def write_history(messages: Sequence[Message]) -> str:
    """The turns before the prompt, folded, as literal text; nothing when the prompt is the first."""
    if not messages:
        return ""
    turns = "".join(
        f'<div class="turn {turn["role"]}"><b>{_ROLE_NAMES[turn["role"]]}</b>'
        f"<p>{plain(turn['content'])}</p></div>"
        for turn in messages
    )
    count = "1 earlier turn" if len(messages) == 1 else f"{len(messages)} earlier turns"
    return f'<details id="history" class="turns"><summary>{count} <kbd>H</kbd></summary>{turns}</details>'


def write_empty(num_today: int, kind: TaskKind, is_writing: bool, role: Role) -> str:
    """What to read when nothing is left to judge, or when the model is still writing it."""
    what = "pair" if kind == "pair" else "answer"
    if is_writing:
        return (
            f'<div class="empty waiting"><h2>Preparing a {what}</h2>'
            f"<p>The model is writing this {what}. It appears here by itself.</p></div>"
        )
    chat = '<p><a class="go" href="/chat/">Open chat</a></p>' if _may_chat(role) else ""
    return (
        f'<div class="empty"><h2>All caught up: {num_today} today</h2>'
        f"<p>New items appear here by themselves.</p>{chat}</div>"
    )


def write_other_kind(kind: TaskKind, num_ready: int) -> str:
    """The button that leads from an empty queue to the other one."""
    what = "Rate single answers" if kind == "single" else "Compare pairs"
    return f"{what} ({num_ready} ready)"


def write_guide_head(version: int, is_new: bool) -> str:
    """Above the guidelines: which version, and why they stand there when they are in the way."""
    if not is_new:
        return '<h2 class="label">Guidelines <kbd>G</kbd></h2>'
    why = "Before you begin" if version <= 1 else f"The guidelines have changed (version {version})"
    return f'<h2 class="label">Guidelines</h2><p class="why">{why}</p>'


def write_time(moment: datetime) -> str:
    """A time of day in UTC that the browser turns into the reader's own."""
    return f'<time datetime="{moment.isoformat()}">{moment:%H:%M} UTC</time>'


def write_decisions(decisions: Sequence[Decision], acts: Acts) -> str:
    """The last decisions, the newest first; each can be opened again."""
    if not decisions:
        return '<p class="muted">Nothing decided yet.</p>'
    return f'<ol class="decisions">{"".join(_write_decision(decision, acts) for decision in decisions)}</ol>'


def _write_decision(decision: Decision, acts: Acts) -> str:
    judgement = decision.judgement
    prompt = " ".join(decision.prompt.split())
    shown = prompt if len(prompt) <= MOST_PROMPT_CHARS else prompt[: MOST_PROMPT_CHARS - 1] + "…"
    return (
        f"<li>{write_time(judgement.created_at)} <span>{plain(shown)}</span>"
        f"<b>{plain(acts.say(judgement))}</b>"
        f'<button type="button" class="reopen" data-judgement="{judgement.judgement_id}">Change</button></li>'
    )


def write_shortcuts(acts: Acts) -> str:
    """The key list with its off switch (WCAG 2.1.4)."""
    last = acts.pair[-1].keys[0]
    rows = (
        (f"<kbd>1</kbd> … <kbd>{last}</kbd>", f"{acts.pair[0].label} … {acts.pair[-1].label}"),
        ("<kbd>←</kbd> <kbd>→</kbd>", "A or B, with <kbd>Shift</kbd> the strongest"),
        ("<kbd>↓</kbd> <kbd>0</kbd>", "about the same, both bad"),
        ("<kbd>S</kbd>", "skip: then a number says why, <kbd>S</kbd> again without a reason"),
        ("<kbd>U</kbd>", "undo, again and again (also <kbd>Backspace</kbd>)"),
        ("<kbd>Q</kbd> <kbd>W</kbd>", "answer A, answer B is unsafe"),
        ("<kbd>E</kbd>", "reasons, comment, edit; then <kbd>Enter</kbd> saves"),
        ("<kbd>D</kbd> <kbd>H</kbd>", "highlight differences, earlier turns"),
        ("<kbd>G</kbd> <kbd>R</kbd>", "guidelines, recent decisions"),
        ("<kbd>Esc</kbd>", "leave a field or a panel"),
        ("Single", "<kbd>1</kbd> or <kbd>←</kbd> bad, <kbd>2</kbd> or <kbd>→</kbd> good"),
    )
    listed = "".join(f"<dt>{keys}</dt><dd>{what}</dd>" for keys, what in rows)
    return (
        '<details class="panel" id="shortcuts"><summary>Shortcuts <kbd>?</kbd></summary><div class="sheet">'
        "<p>Read both answers, then press one key. It is saved at once and the next item comes.</p>"
        f'<dl>{listed}</dl><label><input type="checkbox" id="hotkeys-on" checked> '
        "Keyboard shortcuts on</label></div></details>"
    )


def _may_chat(role: Role) -> bool:
    return role == "admin" or role in PAGE_ROLES["/chat"]


def _write_seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
