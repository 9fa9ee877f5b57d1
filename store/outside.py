"""Outside labels: imported ones, an AI judge's, synthetic ones. Stamped with their source, kept once each.

They lie apart from judgements, so that nothing can take one for a person's; what they weigh in a round is
decided when its rows are built.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import duckdb

from store.boundary import check_messages, check_one_of, check_text
from store.clock import from_column, utc
from store.database import Store
from store.errors import BadValue
from store.events import Event, new_event, to_json
from store.ids import new_id
from store.records import STRENGTHS, OutsideLabel, Split
from store.writer import Decision

COLUMNS = """label_id, kind, source, messages_json, chosen, created_at, rejected, desirable, strength, weight,
    annotator, task_id, split, extra_json"""


@dataclass(frozen=True, slots=True)
class AddedLabels:
    """How many were new and how many were known; the ids are in the order the labels came."""

    added: int
    known: int
    label_ids: tuple[str, ...]


def add_outside_labels(store: Store, labels: Sequence[OutsideLabel]) -> AddedLabels:
    """Save the labels that are not there yet, all or none, filling in empty ids.

    Two labels are the same when kind, source, annotator, messages, answers, verdict and task are.
    """
    checked = [check_label(label) for label in labels]
    return store.write(lambda cursor: decide_labels(cursor, checked))


def decide_labels(
    cursor: duckdb.DuckDBPyConnection, checked: Sequence[OutsideLabel]
) -> Decision[AddedLabels]:
    """`add_outside_labels` for whoever writes more in the same go; the labels come from `check_label`."""
    hashes = [content_sha256(label) for label in checked]
    # A join, not list_contains: an import brings tens of thousands of hashes.
    sql = """
        SELECT content_sha256, label_id FROM outside_labels
        WHERE content_sha256 IN (SELECT unnest(?::VARCHAR[]))"""
    ids: dict[str, str] = dict(cursor.execute(sql, [hashes]).fetchall()) if hashes else {}
    events = []
    for label, digest in zip(checked, hashes, strict=True):
        if digest not in ids:
            ids[digest] = label.label_id
            events.append(_to_event(label, digest))
    label_ids = tuple(ids[digest] for digest in hashes)
    return Decision(AddedLabels(len(events), len(checked) - len(events), label_ids), events)


def drop_outside_labels(store: Store, source: str, actor: str) -> int:
    """Take every label of that source out of the tables and of later rounds; returns how many there were."""

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[int]:
        sql = "SELECT label_id FROM outside_labels WHERE source = ? ORDER BY seq"
        label_ids = [label_id for (label_id,) in cursor.execute(sql, [source]).fetchall()]
        dropped = new_event("outside_labels_dropped", utc(), label_ids=label_ids, source=source, actor=actor)
        return Decision(len(label_ids), [dropped] if label_ids else [])

    return store.write(decide)


def count_outside_labels(store: Store) -> dict[str, int]:
    """How many labels there are by source, the biggest first."""
    sql = "SELECT source, count(*) FROM outside_labels GROUP BY source ORDER BY count(*) DESC, source"
    with store.read() as cursor:
        return dict(cursor.execute(sql).fetchall())


def read_outside_labels(cursor: duckdb.DuckDBPyConnection) -> list[OutsideLabel]:
    """Every outside label in the order it came, for whoever holds a cursor already."""
    rows = cursor.execute(f"SELECT {COLUMNS} FROM outside_labels ORDER BY seq").fetchall()
    return [_to_label(row) for row in rows]


def content_sha256(label: OutsideLabel) -> str:
    """What makes two labels the same, as a hash."""
    messages = [[message["role"], message["content"]] for message in label.messages]
    answers = [label.chosen, label.rejected, label.desirable]
    origin = [label.kind, label.source, label.annotator, label.task_id]
    return hashlib.sha256(to_json([*origin, messages, *answers]).encode()).hexdigest()


def check_label(label: OutsideLabel) -> OutsideLabel:
    """The label as it is kept, with an id; BadValue when it is none."""
    check_text("source", label.source, may_be_empty=False)
    check_text("annotator", label.annotator)
    check_text("the chosen answer", label.chosen)
    if label.rejected is not None:
        check_text("the rejected answer", label.rejected)
        if label.rejected == label.chosen:
            raise BadValue("chosen and rejected are the same text")
    if label.split is not None:
        check_one_of("split", label.split, get_args(Split))
    check_one_of("strength", label.strength, STRENGTHS)
    if not (math.isfinite(label.weight) and label.weight >= 0):
        raise BadValue(f"weight {label.weight} of a label must be 0 or more")
    return replace(
        label,
        label_id=label.label_id or new_id("o"),
        messages=check_messages(label.messages),
        created_at=utc(label.created_at),
        extra=_check_extra(label.extra),
    )


def _check_extra(extra: dict[str, object]) -> dict[str, object]:
    try:
        text = to_json(extra)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise BadValue(f"the extra fields of a label are not JSON: {error}") from None
    kept: dict[str, object] = json.loads(text)
    return kept


def _to_event(label: OutsideLabel, digest: str) -> Event:
    return new_event(
        "outside_label_added",
        label.created_at,
        label_id=label.label_id,
        content_sha256=digest,
        kind=label.kind,
        source=label.source,
        annotator=label.annotator,
        messages=list(label.messages),
        chosen=label.chosen,
        rejected=label.rejected,
        desirable=label.desirable,
        strength=label.strength,
        weight=label.weight,
        task_id=label.task_id,
        split=label.split,
        extra=label.extra,
    )


def _to_label(row: tuple[Any, ...]) -> OutsideLabel:
    (
        label_id,
        kind,
        source,
        messages_json,
        chosen,
        created_at,
        rejected,
        desirable,
        strength,
        weight,
        *rest,
    ) = row
    annotator, task_id, split, extra_json = rest
    return OutsideLabel(
        label_id=label_id,
        kind=kind,
        source=source,
        messages=tuple(json.loads(messages_json)),
        chosen=chosen,
        created_at=from_column(created_at),
        rejected=rejected,
        desirable=desirable,
        strength=strength,
        weight=weight,
        annotator=annotator,
        task_id=task_id,
        split=split,
        extra=json.loads(extra_json),
    )
