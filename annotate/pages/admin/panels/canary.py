"""A canary as HTML: both sides with what is known of their up-rates, and the ended ones."""

from __future__ import annotations

from collections.abc import Sequence

from annotate.canary import Trial
from annotate.pages.admin.panels.pieces import badge, note, percent, table, time
from annotate.pages.text import plain
from store.canary_rows import Side
from store.canary_verdict import Interval

EMPTY = (
    "No version is on trial. A canary answers a share of the conversations while live answers the rest, and"
    " is withdrawn by itself when people's thumbs say it is worse."
)


def write_trial(trial: Trial | None, can_start: bool) -> str:
    """The canary that runs, side by side with live; what one is while none does."""
    if trial is None or trial.verdict is None:
        more = "" if can_start else " There is no version that could be tried: train one first."
        return note(EMPTY + more)
    canary, sides, verdict = trial.canary, trial.sides, trial.verdict
    measured = "no conversation yet" if sides.share is None else f"{percent(sides.share, 1)} measured"
    head = (
        f'<p class="verdict">{badge("canary")} <b>{plain(canary.version)}</b> beside'
        f" <b>{plain(canary.live)}</b> since {time(canary.created_at)}, by {plain(canary.actor)}:"
        f" {percent(canary.share, 1)} of conversations set, {measured}.</p>"
    )
    rows = [
        _write_side(canary.version, "canary", sides.candidate, verdict.candidate),
        _write_side(canary.live, "live", sides.live, verdict.live),
    ]
    heads = ("Version", "Up-rate", "Surely between", "Thumbs up", "Thumbs down", "Conversations")
    shown = table(heads, rows, label="Both sides of the canary")
    return f"{head}{shown}<p class=verdict>{plain(trial.says)}</p>"


def write_past_trials(trials: Sequence[Trial]) -> str:
    """How earlier canaries ended."""
    if not trials:
        return note("No canary has ended yet.")
    rows = [
        [
            time(trial.canary.ended_at or trial.canary.created_at),
            f"<b>{plain(trial.canary.version)}</b> beside {plain(trial.canary.live)}",
            badge(trial.canary.outcome or ""),
            percent(trial.sides.share, 1),
            f"{percent(trial.sides.candidate.up_rate)} of {trial.sides.candidate.ratings:,}",
            f"{percent(trial.sides.live.up_rate)} of {trial.sides.live.ratings:,}",
            plain(trial.canary.ended_by),
            plain(trial.canary.end_reason),
        ]
        for trial in trials
    ]
    heads = ("Ended", "Version", "Outcome", "Share", "Its up-rate", "Live's", "Who", "Reason")
    return table(heads, rows, label="Earlier canaries")


def _write_side(version: str, role: str, side: Side, possible: Interval) -> list[str]:
    between = f"{percent(possible.lower)} and {percent(possible.upper)}" if side.ratings else "–"
    return [
        f"<b>{plain(version)}</b> {badge(role)}",
        percent(side.up_rate),
        between,
        f"{side.up:,}",
        f"{side.down:,}",
        f"{side.conversations:,}",
    ]
