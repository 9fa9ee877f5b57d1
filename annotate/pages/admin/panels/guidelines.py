"""The versions of the guidelines and who has accepted the one that holds, as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from annotate.pages.admin.panels.pieces import badge, note, table, time
from annotate.pages.text import plain
from store.records import Guidelines, Person


def write_versions(versions: Sequence[Guidelines]) -> str:
    """Every version with its text folded away, the newest first."""
    if not versions:
        return note("Nobody has set any yet: the text that ships with Heed holds.")
    return "".join(
        f"<details class=panel><summary>Version {each.version} · {time(each.created_at)} ·"
        f' {plain(each.actor)}</summary><pre class="log" tabindex="0">{plain(each.text)}</pre></details>'
        for each in versions
    )


def write_acceptances(people: Sequence[Person], accepted: Mapping[str, int], holding: int) -> str:
    """The active annotators, and which version each has accepted."""
    annotators = [person for person in people if person.active and person.role == "annotator"]
    if not annotators:
        return note("There are no annotators yet; invite some under People.")
    return table(
        ("Annotator", "Accepted", "State"),
        [
            [
                f"<b>{plain(person.name)}</b>",
                f"version {accepted[person.person_id]}" if person.person_id in accepted else "–",
                badge("up to date", "good")
                if accepted.get(person.person_id) == holding
                else badge("asked at the next task", "warn"),
            ]
            for person in annotators
        ],
        label="Who has accepted",
    )
