"""What the admin page shows, as HTML made from records. Pure functions; every value is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from annotate.pages.text import plain
from store.records import Condition, Person, Policy, Promotion, Round, Why

Row = Mapping[str, object]  # one line of progress.jsonl or one check of gate.json, as its writer left it

_TONES = {
    "live": "live", "promoted": "good", "candidate": "busy", "rejected": "warn", "failed": "bad",
    "cancelled": "warn", "interrupted": "warn", "queued": "busy", "preparing": "busy", "training": "busy",
    "evaluating": "busy", "rollback": "warn", "promote": "good",
}  # fmt: skip
_FIGURES = (("loss", "loss"), ("rewards/accuracies", "accuracy"), ("rewards/margins", "margin"))


def write_tiles(tiles: Sequence[tuple[str, str]]) -> str:
    """Big numbers with their names: (number, name) each."""
    return '<div class="tiles">' + "".join(
        f'<div class="tile"><b>{plain(number)}</b><span>{plain(name)}</span></div>' for number, name in tiles
    ) + "</div>"  # fmt: skip


def write_why(why: Why) -> str:
    """The sentence and the table behind "why does a round start or not"."""
    rows = [
        [
            plain(condition.says),
            plain(_number(condition.value)),
            plain(_number(condition.threshold)),
            _badge("holds", "good") if condition.holds else _badge("not yet", "warn"),
        ]
        for condition in why.conditions
    ]
    return f'<p class="verdict">{plain(explain_start(why))}</p>' + _table(
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
    head = f'<p class="verdict">{_badge(current.state)}{line}</p>'
    tail = f'<p class="nothing">{plain(current.reason)}</p>' if current.reason else ""
    if current.finished_at is None:
        return head + write_progress(current, progress, now) + tail
    counted = f"{current.num_pairs} pairs and {current.num_ratings} ratings, finished "
    return f'{head}<p class="nothing">{counted}{_time(current.finished_at)}</p>{tail}'


def write_progress(current: Round, progress: Sequence[Row], now: datetime) -> str:
    """Stage, step bar, the newest numbers and about how long the stage still takes."""
    last = next((row for row in reversed(progress) if "step" in row), None)
    stage = str(progress[-1].get("stage", current.state)) if progress else current.state
    if last is None or stage != last.get("stage"):  # a stage that counts no steps, or has just begun
        return _bar(0.02) + _figures([f"<span>{plain(stage)}</span>"])
    step, most = _as_float(last.get("step")) or 0.0, _as_float(last.get("max_steps")) or 1.0
    share = min(max(step / most, 0.0), 1.0)
    values = [(name, _as_float(last.get(key))) for key, name in _FIGURES]
    figures = [
        f"<span>{plain(stage)} step <b>{step:.0f}/{most:.0f}</b></span>",
        *(f"<span>{name} <b>{value:.3f}</b></span>" for name, value in values if value is not None),
    ]
    if 0.0 < share < 1.0:
        seconds = (now - current.created_at).total_seconds() * (1 / share - 1)
        figures.append(f"<span>about <b>{_duration(seconds)}</b> left</span>")
    return _bar(share) + _figures(figures)


def write_gate(round_id: str, gate: Mapping[str, object] | None) -> str:
    """The gate's decision and each of its checks against the live version."""
    if gate is None:
        return '<p class="nothing">No candidate yet. The gate decides at the end of a round.</p>'
    checks = gate.get("checks")
    rows = [
        [
            plain(str(check.get("says") or check.get("name", ""))),
            *(plain(_number(check.get(key))) for key in ("value", "live", "threshold", "noise_floor")),
            _badge("passed", "good") if check.get("passed") else _badge("failed", "bad"),
        ]
        for check in (checks if isinstance(checks, list) else [])
        if isinstance(check, Mapping)
    ]
    decision = str(gate.get("decision", ""))
    badge = _badge(decision, "good" if decision == "promote" else "bad")
    line = plain(f"Round {round_id}: {gate.get('reason', '')}")
    head = f'<p class="verdict">{badge} {line}</p>'
    return head + _table(("Check", "Candidate", "Live", "Threshold", "Noise", ""), rows)


def write_log(lines: Sequence[str]) -> str:
    """The last lines a round wrote."""
    if not lines:
        return '<p class="nothing">Nothing written yet.</p>'
    return f'<pre class="log" tabindex="0" aria-label="Round log">{plain(chr(10).join(lines))}</pre>'


def write_versions(policies: Sequence[Policy]) -> str:
    """The registry, newest first."""
    return _table(
        ("Version", "State", "Parent", "Created", "Reason"),
        [
            [
                f"<b>{plain(policy.version)}</b>",
                _badge(policy.state),
                plain(policy.parent or "–"),
                _time(policy.created_at),
                plain(policy.reason or ("the base model" if policy.parent is None else "")),
            ]
            for policy in policies
        ],
    )


def write_rounds(rounds: Sequence[Round]) -> str:
    """What ran before, newest first."""
    if not rounds:
        return '<p class="nothing">No rounds yet.</p>'
    return _table(
        ("Round", "State", "Trigger", "From", "To", "Pairs", "Ratings", "Finished", "Reason"),
        [
            [
                plain(each.round_id),
                _badge(each.state),
                plain(each.trigger),
                plain(each.parent),
                plain(each.version or "–"),
                str(each.num_pairs),
                str(each.num_ratings),
                _time(each.finished_at) if each.finished_at else "–",
                plain(each.reason),
            ]
            for each in rounds
        ],
    )


def write_audit(promotions: Sequence[Promotion]) -> str:
    """Who changed what is live, when and why."""
    if not promotions:
        return '<p class="nothing">Nothing has been promoted yet; the base model v0 is live.</p>'
    return _table(
        ("When", "Who", "What", "From", "To", "Reason"),
        [
            [
                _time(row.created_at),
                plain(row.actor),
                _badge(row.kind),
                plain(row.previous),
                plain(row.version),
                plain(row.reason),
            ]
            for row in promotions
        ],
    )


def write_people(people: Sequence[tuple[Person, int]]) -> str:
    """Everybody with an account, and how many items each has judged."""
    return _table(
        ("Name", "Role", "Judged", "Since", ""),
        [
            [
                f"<b>{plain(person.name)}</b>",
                plain(person.role),
                str(judged),
                _time(person.created_at),
                _badge("active", "good") if person.active else _badge("deactivated", "warn"),
            ]
            for person, judged in people
        ],
    )


def write_secrets(name: str, password: str, token: str) -> str:
    """A new person's password and API token; they are not kept anywhere and cannot be shown again."""
    return (
        f'<div class="said"><p>{plain(name)} can sign in now. Pass these on; they are shown once.</p>'
        f"<p>Password <code>{plain(password)}</code></p><p>API token <code>{plain(token)}</code></p></div>"
    )


def say(sentence: str, is_bad: bool = False) -> str:
    """The answer to a click, beside the button; spoken by screen readers."""
    tone, role = ("said bad", "alert") if is_bad else ("said", "status")
    return f'<p class="{tone}" role="{role}">{plain(sentence)}</p>'


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(
        f"<th scope=col>{plain(name) or '<span class=unseen>Verdict</span>'}</th>" for name in heads
    )
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="table" tabindex="0">{table}</div>'


def _bar(share: float) -> str:
    return (
        '<div class="bar" role="progressbar" aria-label="Training progress" aria-valuemin="0"'
        f' aria-valuemax="100" aria-valuenow="{share * 100:.0f}">'
        f'<i style="width:{share * 100:.1f}%"></i></div>'
    )


def _figures(figures: Sequence[str]) -> str:
    return f'<div class="figures">{"".join(figures)}</div>'


def _badge(word: str, tone: str | None = None) -> str:
    return f'<span class="badge {_TONES.get(word, "") if tone is None else tone}">{plain(word)}</span>'


def _open_triggers(conditions: Sequence[Condition]) -> list[str]:
    return [c.says for c in conditions if c.kind == "trigger" and not c.holds and c.threshold is not None]


def _number(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _as_float(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _time(moment: datetime) -> str:
    text = moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
    return f'<time datetime="{moment.isoformat()}" title="UTC">{text}</time>'
