"""What each kind of event does to the tables. No decisions: those were taken before it was written.

A function here, once released, keeps applying the events written for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from store.clock import from_text
from store.errors import HeedError
from store.events import Event, to_json
from store.tables import Tables

Apply = Callable[[Tables, int, Event], None]


def apply_event(tables: Tables, seq: int, event: Event) -> None:
    """Put one event into the tables; an event of an unknown type or version stops loudly."""
    known = APPLY.get((event["type"], event["v"]))
    if known is None:
        raise HeedError(
            f"journal event {seq} is a {event['type']!r} of version {event['v']}, unknown to this Heed; "
            "start the version that wrote it, or a newer one"
        )
    known(tables, seq, event)


def _create_store(tables: Tables, seq: int, event: Event) -> None:
    """v0 is the base model itself: live from the first moment and always a valid target of a rollback."""
    row = {
        "version": "v0",
        "state": "live",
        "parent": None,
        "round_id": None,
        "weights_sha256": None,
        "reason": "",
    }
    tables.insert("policies", **_stamp(seq, event), **row)


def _add_person(tables: Tables, seq: int, event: Event) -> None:
    fields = _pick(event, ("person_id", "name", "name_key", "role", "password_hash", "token_sha256"))
    tables.insert("people", **_stamp(seq, event), **fields, active=True, trained_on=True)


def _set_person_trained_on(tables: Tables, seq: int, event: Event) -> None:
    changed = [event["trained_on"], event["person_id"]]
    tables.execute("UPDATE people SET trained_on = ? WHERE person_id = ?", changed)
    _add_person_act(tables, seq, event, "taken in again" if event["trained_on"] else "left out of rounds")


def _add_person_act(tables: Tables, seq: int, event: Event, act: str) -> None:
    reason = event.get("reason", "")
    fields = _pick(event, ("person_id", "actor"))
    tables.insert("person_acts", **_stamp(seq, event), **fields, act=act, reason=reason)


def _erase_person(tables: Tables, seq: int, event: Event) -> None:
    """Only the record that it happened: what the person left behind is gone from the journal itself."""
    fields = _pick(event, ("person_id", "mode", "actor", "num_events"))
    tables.insert("erasures", **_stamp(seq, event), **fields, versions_json=to_json(event["versions"]))


def _skip_erased(_tables: Tables, _seq: int, _event: Event) -> None:
    """An event that was taken out of the journal leaves its number behind, so that the numbers stay whole."""


def _set_person_active(tables: Tables, seq: int, event: Event) -> None:
    tables.execute("UPDATE people SET active = ? WHERE person_id = ?", [event["active"], event["person_id"]])
    _add_person_act(tables, seq, event, "activated" if event["active"] else "deactivated")


def _set_person_role(tables: Tables, seq: int, event: Event) -> None:
    tables.execute("UPDATE people SET role = ? WHERE person_id = ?", [event["role"], event["person_id"]])
    _add_person_act(tables, seq, event, f"made {event['role']}")


def _add_prompt(tables: Tables, seq: int, event: Event) -> None:
    tables.insert(
        "prompts",
        **_stamp(seq, event),
        **_pick(event, ("prompt_id", "content_sha256", "source")),
        messages_json=to_json(event["messages"]),
        tags_json=to_json(event["tags"]),
    )


_COMPLETION_FIELDS = (
    "completion_id",
    "text",
    "version",
    "temperature",
    "top_p",
    "max_tokens",
    "seed",
    "logprob_sum",
    "finish_reason",
    "num_prompt_tokens",
    "prompt_id",
    "conversation_id",
    "person_id",
)


def _save_completion(tables: Tables, seq: int, event: Event) -> None:
    fields = _pick(event, _COMPLETION_FIELDS)
    tables.insert(
        "completions",
        **_stamp(seq, event),
        **fields,
        messages_json=to_json(event["messages"]),
        token_ids_json=to_json(event["token_ids"]),
        # Completions of before 0.3 were written whole, without stop texts.
        stop_json=to_json(event.get("stop", [])),
        num_left_out=event.get("num_left_out", 0),
    )


def _add_task(tables: Tables, seq: int, event: Event) -> None:
    fields = _pick(event, ("task_id", "kind", "prompt_id", "first_id", "second_id", "version", "wanted"))
    newer = {
        "purpose": event.get("purpose", "label"),
        "priority": event.get("priority", 0.0),
        "repeat_of": event.get("repeat_of"),
        "only_for": event.get("only_for"),
    }
    tables.insert("tasks", **_stamp(seq, event), **fields, **newer, num_accepted=0, retired=False)


def _retire_tasks(tables: Tables, _seq: int, event: Event) -> None:
    tables.execute("UPDATE tasks SET retired = true WHERE list_contains(?, task_id)", [event["task_ids"]])


_JUDGEMENT_FIELDS = (
    "judgement_id",
    "task_id",
    "person_id",
    "choice",
    "chosen_id",
    "rejected_id",
    "left_id",
    "strength",
    "comment",
    "correction",
    "active_ms",
)


def _save_judgement(tables: Tables, seq: int, event: Event) -> None:
    fields = _pick(event, _JUDGEMENT_FIELDS)
    reasons_json = to_json(event["reasons"])
    unsafe_json = to_json(event.get("unsafe_ids", []))
    tables.insert(
        "judgements",
        **_stamp(seq, event),
        **fields,
        reasons_json=reasons_json,
        unsafe_json=unsafe_json,
        undone=False,
        counts=_counts(event),
    )
    if event["choice"] != "skip" and _counts(event):
        tables.add_accepted(event["task_id"], 1)


def _undo_judgement(tables: Tables, _seq: int, event: Event) -> None:
    tables.execute("UPDATE judgements SET undone = true WHERE judgement_id = ?", [event["judgement_id"]])
    if event["choice"] != "skip" and _counts(event):
        tables.add_accepted(event["task_id"], -1)


def _counts(event: Event) -> bool:
    """Whether the judgement takes one of the wanted places: not when the task was slipped in as gold."""
    return bool(event.get("counts", True))


def _save_rating(tables: Tables, seq: int, event: Event) -> None:
    fields = _pick(event, ("rating_id", "completion_id", "person_id", "value", "comment", "correction"))
    tables.insert("ratings", **_stamp(seq, event), **fields, reasons_json=to_json(event["reasons"]))


_ADJUDICATION_FIELDS = (
    "adjudication_id",
    "task_id",
    "person_id",
    "choice",
    "chosen_id",
    "rejected_id",
    "strength",
    "comment",
)


def _adjudicate(tables: Tables, seq: int, event: Event) -> None:
    fields = (
        "adjudication_id",
        "task_id",
        "person_id",
        "choice",
        "chosen_id",
        "rejected_id",
        "strength",
        "comment",
    )
    tables.insert("adjudications", **_stamp(seq, event), **_pick(event, fields))


def _set_gold(tables: Tables, seq: int, event: Event) -> None:
    tables.execute("DELETE FROM gold WHERE task_id = ?", [event["task_id"]])
    tables.insert("gold", **_stamp(seq, event), **_pick(event, ("task_id", "choice", "chosen_id", "source")))


def _drop_gold(tables: Tables, _seq: int, event: Event) -> None:
    tables.execute("DELETE FROM gold WHERE task_id = ?", [event["task_id"]])


def _set_guidelines(tables: Tables, seq: int, event: Event) -> None:
    tables.insert("guidelines", **_stamp(seq, event), **_pick(event, ("version", "text", "actor")))


def _accept_guidelines(tables: Tables, seq: int, event: Event) -> None:
    tables.insert("guideline_acceptances", **_stamp(seq, event), **_pick(event, ("person_id", "version")))


_OUTSIDE_LABEL_FIELDS = (
    "label_id",
    "content_sha256",
    "kind",
    "source",
    "annotator",
    "chosen",
    "rejected",
    "desirable",
    "strength",
    "weight",
    "task_id",
    "split",
)


def _add_outside_label(tables: Tables, seq: int, event: Event) -> None:
    tables.insert(
        "outside_labels",
        **_stamp(seq, event),
        **_pick(event, _OUTSIDE_LABEL_FIELDS),
        messages_json=to_json(event["messages"]),
        extra_json=to_json(event["extra"]),
    )


def _save_judge_verdict(tables: Tables, seq: int, event: Event) -> None:
    fields = ("task_id", "source", "content_sha256", "verdict", "num_calls", "problem")
    replies_json = to_json(event["replies"])
    tables.insert("judge_verdicts", **_stamp(seq, event), **_pick(event, fields), replies_json=replies_json)


def _drop_outside_labels(tables: Tables, _seq: int, event: Event) -> None:
    tables.execute("DELETE FROM outside_labels WHERE list_contains(?, label_id)", [event["label_ids"]])


def _add_policy(tables: Tables, seq: int, event: Event) -> None:
    fields = _pick(event, ("version", "parent", "round_id", "weights_sha256"))
    tables.insert("policies", **_stamp(seq, event), **fields, state="candidate", reason="")


def _mark_policy(tables: Tables, _seq: int, event: Event) -> None:
    marked = [event["state"], event["reason"], event["version"]]
    tables.execute("UPDATE policies SET state = ?, reason = ? WHERE version = ?", marked)


def _promote(tables: Tables, seq: int, event: Event) -> None:
    tables.insert(
        "promotions", **_stamp(seq, event), **_pick(event, ("version", "previous", "kind", "actor", "reason"))
    )
    tables.execute("UPDATE policies SET state = 'retired' WHERE version = ?", [event["previous"]])
    tables.execute("UPDATE policies SET state = 'live' WHERE version = ?", [event["version"]])


def _start_canary(tables: Tables, seq: int, event: Event) -> None:
    fields = _pick(event, ("canary_id", "version", "live", "share", "actor", "reason"))
    running = {"ended_at": None, "outcome": None, "end_reason": "", "ended_by": "", "numbers_json": "{}"}
    tables.insert("canaries", **_stamp(seq, event), **fields, **running)


def _end_canary(tables: Tables, _seq: int, event: Event) -> None:
    ended = [event["outcome"], event["reason"], event["actor"], to_json(event["numbers"])]
    tables.execute(
        "UPDATE canaries SET ended_at = ?, outcome = ?, end_reason = ?, ended_by = ?, numbers_json = ? "
        "WHERE canary_id = ?",
        [from_text(event["at"]), *ended, event["canary_id"]],
    )


def _create_round(tables: Tables, seq: int, event: Event) -> None:
    fields = _pick(event, ("round_id", "trigger", "parent"))
    empty = {"version": None, "num_pairs": 0, "num_ratings": 0, "reason": "", "finished_at": None}
    without_json = to_json(event.get("without", []))
    # Until the snapshot says otherwise, labels up to the round's creation are the ones it consumes.
    tables.insert(
        "rounds",
        **_stamp(seq, event),
        **fields,
        **empty,
        without_json=without_json,
        state="queued",
        snapshot_seq=seq,
    )


def _advance_round(tables: Tables, _seq: int, event: Event) -> None:
    changes = _pick(event, ("state", "reason", "version", "num_pairs", "num_ratings", "snapshot_seq"))
    changes["finished_at"] = from_text(event["at"]) if event["finished"] else None
    kept = {column: value for column, value in changes.items() if value is not None}
    places = ", ".join(f"{column} = ?" for column in kept)
    tables.execute(f"UPDATE rounds SET {places} WHERE round_id = ?", [*kept.values(), event["round_id"]])


def _stamp(seq: int, event: Event) -> dict[str, Any]:
    return {"seq": seq, "created_at": from_text(event["at"])}


def _pick(event: Event, fields: Sequence[str]) -> dict[str, Any]:
    return {name: event[name] for name in fields}


APPLY: dict[tuple[str, int], Apply] = {
    ("store_created", 1): _create_store,
    ("person_added", 1): _add_person,
    ("person_active_set", 1): _set_person_active,
    ("person_role_set", 1): _set_person_role,
    ("person_trained_on_set", 1): _set_person_trained_on,
    ("person_erased", 1): _erase_person,
    ("erased", 1): _skip_erased,
    ("prompt_added", 1): _add_prompt,
    ("completion_saved", 1): _save_completion,
    ("task_added", 1): _add_task,
    ("tasks_retired", 1): _retire_tasks,
    ("judgement_saved", 1): _save_judgement,
    ("judgement_undone", 1): _undo_judgement,
    ("rating_saved", 1): _save_rating,
    ("adjudicated", 1): _adjudicate,
    ("gold_set", 1): _set_gold,
    ("gold_dropped", 1): _drop_gold,
    ("guidelines_set", 1): _set_guidelines,
    ("guidelines_accepted", 1): _accept_guidelines,
    ("outside_label_added", 1): _add_outside_label,
    ("outside_labels_dropped", 1): _drop_outside_labels,
    ("judge_verdict_saved", 1): _save_judge_verdict,
    ("policy_added", 1): _add_policy,
    ("policy_marked", 1): _mark_policy,
    ("promoted", 1): _promote,
    ("canary_started", 1): _start_canary,
    ("canary_ended", 1): _end_canary,
    ("round_created", 1): _create_round,
    ("round_advanced", 1): _advance_round,
}
