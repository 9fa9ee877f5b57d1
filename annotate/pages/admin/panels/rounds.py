"""Rounds, why one starts or not, the gate and the log, as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from annotate.pages.admin.panels.pieces import badge, bar, duration, figures, number, table, time
from annotate.pages.text import plain
from store.records import Condition, Round, Why

Row = Mapping[str, object]  # one line of progress.jsonl or one check of gate.json, as its writer left it

_FIGURES = (("loss", "loss"), ("rewards/accuracies", "accuracy"), ("rewards/margins", "margin"))


def write_why(why: Why) -> str:
    """The sentence and the table behind "why does a round start or not"."""
    rows = [
        [
            plain(condition.says),
            number(condition.value),
            number(condition.threshold),
            badge("holds", "good") if condition.holds else badge("not yet", "warn"),
        ]
        for condition in why.conditions
    ]
    return f'<p class="verdict">{plain(explain_start(why))}</p>' + table(
        ("Condition", "Value", "Needed", ""), rows
    )


def explain_start(why: Why) -> str:
    """One sentence: whether a round starts by itself now, and if not, what it waits for."""
    if why.starts:
        return "A round starts by itself with the next check."
    guards = [
        condition.says for condition in why.conditions if condition.kind == "guard" and not condition.holds
    ]
    if guards:
        return f"Held back: {'; '.join(guards)}."
    return f"Waiting: {' or '.join(_open_triggers(why.conditions)) or 'no trigger is set'}."


def write_round(current: Round | None, progress: Sequence[Row], now: datetime) -> str:
    """The round that runs, or the newest one; a sentence when there was none."""
    if current is None:
        return '<p class="nothing">No round has run yet. It starts when the conditions beside hold.</p>'
    aim = f" to {current.version}" if current.version else ""
    line = plain(f" Round {current.round_id} from {current.parent}{aim}")
    head = f'<p class="verdict">{badge(current.state)}{line} · {write_link(current)}</p>'
    tail = f'<p class="nothing">{plain(current.reason)}</p>' if current.reason else ""
    if current.finished_at is None:
        return head + write_progress(current, progress, now) + tail
    counted = f"{current.num_pairs} pairs and {current.num_ratings} ratings, finished "
    return f'{head}<p class="nothing">{counted}{time(current.finished_at)}</p>{tail}'


def write_link(current: Round) -> str:
    """Where the page about a round is."""
    path = f"/v1/rounds/{plain(current.round_id)}/report"
    return f'<a href="{path}" target="_blank" rel="noopener">report of this round</a>'


def write_progress(current: Round, progress: Sequence[Row], now: datetime) -> str:
    """Stage, step bar, the newest numbers and about how long the stage still takes."""
    last = next((row for row in reversed(progress) if "step" in row and "eval_loss" not in row), None)
    stage = str(progress[-1].get("stage", current.state)) if progress else current.state
    if last is None or stage != last.get("stage"):  # a stage that counts no steps, or has just begun
        return bar(0.02) + figures([f"<span>{plain(stage)}</span>"])
    step, most = _as_float(last.get("step")) or 0.0, _as_float(last.get("max_steps")) or 1.0
    share = min(max(step / most, 0.0), 1.0)
    values = [(name, _as_float(last.get(key))) for key, name in _FIGURES]
    shown = [
        f"<span>{plain(stage)} step <b>{step:.0f}/{most:.0f}</b></span>",
        *(f"<span>{name} <b>{value:.3f}</b></span>" for name, value in values if value is not None),
    ]
    if 0.0 < share < 1.0:
        # A stage that does not measure its pace: as if all the time since the round began had been its own.
        seconds = _as_float(last.get("eta_s"))
        if seconds is None:
            seconds = (now - current.created_at).total_seconds() * (1 / share - 1)
        shown.append(f"<span>about <b>{duration(seconds)}</b> left</span>")
    return bar(share) + figures(shown)


def write_gate(round_id: str, gate: Mapping[str, object] | None) -> str:
    """The gate's decision and each of its checks against the live version."""
    if gate is None:
        return '<p class="nothing">No candidate yet. The gate decides at the end of a round.</p>'
    checks = gate.get("checks")
    rows = [
        [
            plain(str(check.get("says") or check.get("name", ""))),
            *(number(check.get(key)) for key in ("value", "live", "threshold", "noise_floor")),
            badge("passed", "good") if check.get("passed") else badge("failed", "bad"),
        ]
        for check in (checks if isinstance(checks, list) else [])
        if isinstance(check, Mapping)
    ]
    decision = str(gate.get("decision", ""))
    verdict = badge(decision, "good" if decision == "promote" else "bad")
    line = plain(f"Round {round_id}: {gate.get('reason', '')}")
    head = f'<p class="verdict">{verdict} {line}</p>'
    return head + table(("Check", "Candidate", "Live", "Threshold", "Noise", ""), rows)


def write_log(lines: Sequence[str]) -> str:
    """The last lines a round wrote."""
    if not lines:
        return '<p class="nothing">Nothing written yet.</p>'
    return f'<pre class="log" tabindex="0" aria-label="Round log">{plain(chr(10).join(lines))}</pre>'


def write_rounds(rounds: Sequence[Round]) -> str:
    """What ran before, newest first."""
    if not rounds:
        return '<p class="nothing">No rounds yet.</p>'
    return table(
        ("Round", "State", "Trigger", "From", "To", "Pairs", "Ratings", "Finished", "Reason"),
        [
            [
                plain(each.round_id),
                badge(each.state),
                plain(each.trigger),
                plain(each.parent),
                plain(each.version or "–"),
                str(each.num_pairs),
                str(each.num_ratings),
                time(each.finished_at) if each.finished_at else "–",
                plain(each.reason),
            ]
            for each in rounds
        ],
    )


def _open_triggers(conditions: Sequence[Condition]) -> list[str]:
    return [c.says for c in conditions if c.kind == "trigger" and not c.holds and c.threshold is not None]


def _as_float(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
