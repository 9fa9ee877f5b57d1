"""People with an account, what they did, and the secrets of a new one, as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from annotate.pages.admin.panels.pieces import badge, table, time
from annotate.pages.text import plain
from store.activity import Activity
from store.records import Person


def write_people(people: Sequence[Person], activity: Mapping[str, Activity]) -> str:
    """Everybody with an account, and how much each has done."""
    return table(
        ("Name", "Role", "Judged", "Today", "Skipped", "Thumbs", "Since", "State"),
        [_write_person(person, activity.get(person.person_id, Activity())) for person in people],
        label="People",
    )


def _write_person(person: Person, done: Activity) -> list[str]:
    states = [badge("active", "good") if person.active else badge("deactivated", "warn")]
    if not person.trained_on:
        states.append(badge("left out of training", "warn"))
    numbers = (done.judged, done.recent, done.skipped, done.rated)
    return [
        f"<b>{plain(person.name)}</b>",
        plain(person.role),
        *(f"{each:,}" for each in numbers),
        time(person.created_at),
        " ".join(states),
    ]


def write_secrets(name: str, link: str, password: str, token: str) -> str:
    """A new person's sign-in link, password and API token; they are not kept and cannot be shown again."""
    secrets = (
        _secret("Sign-in link (works once, for 24 hours)", link),
        _secret("Password", password),
        _secret("API token", token),
    )
    told = f"{plain(name)} has an account. The link is the easiest to pass on; all three are shown once."
    return f'<div class="said"><p>{told}</p>{"".join(secrets)}</div>'


def write_link(name: str, link: str) -> str:
    """A fresh one-time link for somebody who has an account already."""
    return f'<div class="said">{_secret(f"Sign-in link for {name} (works once, for 24 hours)", link)}</div>'


def _secret(name: str, value: str) -> str:
    button = f'<button type="button" class="quiet" data-copy="{plain(value)}">Copy</button>'
    return f'<p class="secret">{plain(name)} <code>{plain(value)}</code>{button}</p>'
