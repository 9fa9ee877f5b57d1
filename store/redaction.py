"""What erasing a person does to every kind of event. One table, `RULES`; docs/erasure.md says it in words.

A `Redaction` walks a journal once, in order: what is gone (a conversation, a task built on it) takes along
what refers to it later. It decides; it neither reads nor writes files.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Literal

from store.clock import utc
from store.errors import HeedError
from store.events import Event, new_event, to_json
from store.outside import content_sha256
from store.records import OutsideLabel
from store.shares import pseudonym

Mode = Literal["delete", "pseudonymise"]
NO_PASSWORD = f"scrypt$16384$8$1${'00' * 16}${'00' * 32}"  # no password has this hash
# What an admin types or the service composes around a name: here the name itself is replaced.
_ADMIN_TEXTS = ("reason", "trigger")
# Fields that hold nothing but who it was.
_NAME_FIELDS = ("actor", "source", "annotator")


class Redaction:
    """One erasure's decisions. `new_id` stands for the person from now on; nothing links it to them."""

    def __init__(
        self, person_id: str, name: str, mode: Mode, new_id: str, now: datetime | None = None
    ) -> None:
        self.person_id = person_id
        self.mode = mode
        self.new_id = new_id
        self.new_name = "erased" if mode == "delete" else f"erased {new_id[-8:]}"
        self.gone: Counter[str] = Counter()  # events taken out, by type
        self.changed = 0
        self.mentions = 0  # events of others in which the name still stands, as a word
        self.label_ids: set[str] = set()  # theirs, and those about what is gone: rows of snapshots carry them
        self._name = name
        # A file that was exported and imported again brings the pseudonym back.
        self._names = {name, person_id, pseudonym(person_id)}
        self._id_bytes = person_id.encode()
        self._name_bytes = to_json(name)[1:-1].encode()
        self._name_word = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")
        self._conversations: set[str] = set()
        self._completions: set[str] = set()
        self._tasks: set[str] = set()
        self._adjudicated: set[str] = set()
        self._placeholder = to_json(new_event("erased", utc(now))).encode()

    @property
    def deletes(self) -> bool:
        """Whether what they left behind goes; else it stays under the new id."""
        return self.mode == "delete"

    def __call__(self, raw: bytes) -> bytes:
        """The event as it may stay in the journal: itself, with the person replaced, or a placeholder."""
        event: Event = json.loads(raw)
        rule = RULES.get((event["type"], event["v"]))
        if rule is None:
            raise HeedError(
                f"nobody has decided what erasing does to a {event['type']!r}; nothing was changed"
            )
        kept = rule(self, event)
        if kept is None:
            self.gone[event["type"]] += 1
            return self._placeholder
        if kept is event and self._id_bytes not in raw and self._name_bytes not in raw:
            return raw
        cleaned = to_json(self._without_person(kept)).encode()
        self.mentions += self._name_bytes in cleaned and bool(self._name_word.search(cleaned.decode()))
        if cleaned == raw:
            return raw
        self.changed += 1
        return cleaned

    def is_theirs(self, event: Event) -> bool:
        """Whether the event is an act of the person, by their id."""
        return event.get("person_id") == self.person_id

    def replace_id(self, text: str) -> str:
        """Text with the person's id replaced."""
        return text.replace(self.person_id, self.new_id)

    def _without_person(self, event: Event) -> Event:
        was_actor = event.get("actor") == self._name
        cleaned: Event = {name: self._clean(name, value) for name, value in event.items()}
        if was_actor and "reason" in cleaned:
            cleaned["reason"] = ""  # they typed it
        return cleaned

    def _clean(self, name: str, value: Any) -> Any:
        if isinstance(value, str):
            if name in _NAME_FIELDS:
                value = self._rename(value)
            if name in _ADMIN_TEXTS:
                value = self._name_word.sub(self.new_name, value)
            return self.replace_id(value)
        if isinstance(value, list):
            return [self._clean(name, item) for item in value]
        if isinstance(value, dict):
            return {self.replace_id(key): self._clean(key, item) for key, item in value.items()}
        return value

    def _rename(self, who: str) -> str:
        """A label that several people stand behind is imported with their pseudonyms joined by +."""
        if who in self._names:
            return self.new_name
        return "+".join(self.new_name if one in self._names else one for one in who.split("+"))

    # One method a kind of event; None: it goes.

    def keep(self, event: Event) -> Event:
        return event

    def person(self, event: Event) -> Event | None:
        if not self.is_theirs(event):
            return event
        if self.deletes:
            return None
        secrets = {"password_hash": NO_PASSWORD, "token_sha256": ""}
        return event | secrets | {"name": self.new_name, "name_key": self.new_name}

    def about_person(self, event: Event) -> Event | None:
        if not self.is_theirs(event):
            return event
        return None if self.deletes else event | ({"reason": ""} if "reason" in event else {})

    def completion(self, event: Event) -> Event | None:
        theirs = self.is_theirs(event) or event["conversation_id"] in self._conversations
        if not (self.deletes and theirs):
            return event
        self._completions.add(event["completion_id"])
        if event["conversation_id"] is not None:
            self._conversations.add(event["conversation_id"])
        return None

    def task(self, event: Event) -> Event | None:
        about = {event["first_id"], event["second_id"]} & self._completions
        if not self.deletes:
            return event
        if (
            not about
            and event.get("only_for") != self.person_id
            and event.get("repeat_of") not in self._tasks
        ):
            return event
        self._tasks.add(event["task_id"])
        return None

    def retirement(self, event: Event) -> Event:
        return _without(event, "task_ids", self._tasks)

    def judgement(self, event: Event) -> Event | None:
        return self._label(event, "judgement_id", event["task_id"] in self._tasks)

    def undo(self, event: Event) -> Event | None:
        return None if event["judgement_id"] in self.label_ids and self.deletes else event

    def rating(self, event: Event) -> Event | None:
        return self._label(event, "rating_id", event["completion_id"] in self._completions)

    def adjudication(self, event: Event) -> Event | None:
        if self.is_theirs(event):
            self._adjudicated.add(event["task_id"])
        return self._label(event, "adjudication_id", event["task_id"] in self._tasks)

    def gold(self, event: Event) -> Event | None:
        theirs = event["source"] == self._name or (
            event["source"] == "adjudicated" and event["task_id"] in self._adjudicated
        )
        return None if self.deletes and (theirs or event["task_id"] in self._tasks) else event

    def gold_drop(self, event: Event) -> Event | None:
        return None if event["task_id"] in self._tasks else event

    def judge_verdict(self, event: Event) -> Event | None:
        return None if event["task_id"] in self._tasks else event

    def acceptance(self, event: Event) -> Event | None:
        return None if self.deletes and self.is_theirs(event) else event

    def outside_label(self, event: Event) -> Event | None:
        theirs = self._rename(event["annotator"]) != event["annotator"]
        if not theirs and event["task_id"] not in self._tasks:
            return event
        self.label_ids.add(event["label_id"])
        if self.deletes:
            return None
        cleaned = self._without_person(event)
        # The hash covers the annotator: whoever guesses the name could tell by it that it was them.
        cleaned["extra"] = _replace_values(event["extra"], self._names, self.new_name)
        return cleaned | {"content_sha256": _content_sha256(cleaned)}

    def outside_drop(self, event: Event) -> Event:
        return _without(event, "label_ids", self.label_ids) if self.deletes else event

    def _label(self, event: Event, id_field: str, is_about_gone: bool) -> Event | None:
        theirs = self.is_theirs(event)
        if not theirs and not is_about_gone:
            return event
        self.label_ids.add(event[id_field])
        return None if self.deletes else event | {"comment": ""}


def _without(event: Event, field: str, gone: Iterable[str]) -> Event:
    kept = [item for item in event[field] if item not in gone]
    return event if len(kept) == len(event[field]) else event | {field: kept}


def _replace_values(value: Any, old: set[str], new: str) -> Any:
    if isinstance(value, dict):
        return {key: _replace_values(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace_values(item, old, new) for item in value]
    return new if isinstance(value, str) and value in old else value


def _content_sha256(event: Event) -> str:
    fields = (
        "label_id",
        "kind",
        "source",
        "messages",
        "chosen",
        "rejected",
        "desirable",
        "annotator",
        "task_id",
    )
    given = {name: event[name] for name in fields}
    return content_sha256(OutsideLabel(**given, created_at=datetime.fromisoformat(event["at"])))


Rule = Callable[[Redaction, Event], Event | None]
RULES: dict[tuple[str, int], Rule] = {
    ("store_created", 1): Redaction.keep,
    ("person_added", 1): Redaction.person,
    ("person_active_set", 1): Redaction.about_person,
    ("person_trained_on_set", 1): Redaction.about_person,
    ("person_role_set", 1): Redaction.about_person,
    ("person_erased", 1): Redaction.keep,
    ("erased", 1): Redaction.keep,
    ("prompt_added", 1): Redaction.keep,
    ("completion_saved", 1): Redaction.completion,
    ("task_added", 1): Redaction.task,
    ("tasks_retired", 1): Redaction.retirement,
    ("judgement_saved", 1): Redaction.judgement,
    ("judgement_undone", 1): Redaction.undo,
    ("rating_saved", 1): Redaction.rating,
    ("adjudicated", 1): Redaction.adjudication,
    ("gold_set", 1): Redaction.gold,
    ("gold_dropped", 1): Redaction.gold_drop,
    ("guidelines_set", 1): Redaction.keep,
    ("guidelines_accepted", 1): Redaction.acceptance,
    ("outside_label_added", 1): Redaction.outside_label,
    ("outside_labels_dropped", 1): Redaction.outside_drop,
    ("judge_verdict_saved", 1): Redaction.judge_verdict,
    ("policy_added", 1): Redaction.keep,
    ("policy_marked", 1): Redaction.keep,
    ("promoted", 1): Redaction.keep,
    ("canary_started", 1): Redaction.keep,
    ("canary_ended", 1): Redaction.keep,
    ("round_created", 1): Redaction.keep,
    ("round_advanced", 1): Redaction.keep,
}
