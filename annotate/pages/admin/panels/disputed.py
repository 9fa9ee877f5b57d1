"""A disputed task's votes and comments, without names, as HTML."""

from __future__ import annotations

from annotate.pages.admin.panels.pieces import badge, count, note
from annotate.pages.text import plain
from store.adjudications import Disputed

_WORDS = {
    "first": "one answer", "second": "the other answer", "tie": "about the same", "both_bad": "both bad",
    "up": "good", "down": "bad",
}  # fmt: skip


def write_votes(disputed: Disputed, left_is_first: bool, num_waiting: int) -> str:
    """What people said, as counts; first and second named as they stand on this screen."""
    names = _WORDS | ({"first": "A", "second": "B"} if left_is_first else {"first": "B", "second": "A"})
    if disputed.task.kind == "single":
        names = _WORDS
    counted = sorted((names.get(said, said), many) for said, many in disputed.votes.items())
    votes = [f"<span>{badge(name)} <b>{many}</b></span>" for name, many in counted]
    if disputed.num_skips:
        votes.append(f"<span>{badge('skipped')} <b>{disputed.num_skips}</b></span>")
    waiting = f"{count(num_waiting, 'task')} waiting"
    comments = "".join(f"<li>{plain(comment)}</li>" for comment in disputed.comments)
    said = f"<p class=label>What people wrote</p><ul class=advice>{comments}</ul>" if comments else ""
    return f'<div class="figures">{" ".join(votes)}<span>{waiting}</span></div>{said}'


def write_none(num_passed: int) -> str:
    """Nothing to decide; those passed over wait for the next visit."""
    if num_passed:
        return note(f"You passed over {count(num_passed, 'task')}; open this tab again to see them.")
    return note("No task is disputed: where people disagree or several skip, it waits here for your verdict.")
