"""The data report: what is known to spoil preference training, looked for before it trains anything.

It works on plain rows, so on a file without a store as well as on the store. The checks are in
`data_checks.py`; here they are put together, with figures for plots beside them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import SequenceMatcher
from typing import Any

from store.data_checks import Finding, LabelledRow, Verdict, check_all
from store.database import Store
from store.exchange import HOLDOUT_SHARE, PEOPLES, export_labels
from store.labels import EDITED_VERSION, prompt_digest
from store.records import OutsideLabel
from store.splitting import is_held_out

MOST_POINTS = 1000  # of the length plot
MOST_COMPARED = 1000  # pairs whose texts are compared; difflib is quadratic
COMPARED_WORDS = 200  # of each text, for the same reason
SIMILARITY_BINS = 20


@dataclass(frozen=True, slots=True)
class DataReport:
    """Every finding, the worst verdict among them, and figures for plots.

    `lengths` are (chosen, rejected) in words, at most 1,000 of them; `similarity` counts pairs in equal bins
    from 0 to 1; `labels_per_day` is in the order of days (UTC); `notes` say what was sampled or cut.
    """

    verdict: Verdict
    num_pairs: int
    num_ratings: int
    findings: tuple[Finding, ...]
    lengths: tuple[tuple[int, int], ...]
    similarity: tuple[int, ...]
    labels_per_day: tuple[tuple[str, int], ...]
    notes: tuple[str, ...]


def report_on(rows: Sequence[LabelledRow]) -> DataReport:
    """The report on these rows, in whatever order they come."""
    pairs = [row for row in rows if row.rejected is not None]
    ratings = [row for row in rows if row.rejected is None]
    compared = spread(pairs, MOST_COMPARED)
    similarities = [similarity_of(row) for row in compared]
    findings = tuple(check_all(pairs, ratings, similarities))
    verdicts = {finding.verdict for finding in findings}
    days = Counter(row.created_at.date().isoformat() for row in rows)
    return DataReport(
        verdict="bad" if "bad" in verdicts else "look" if "look" in verdicts else "ok",
        num_pairs=len(pairs),
        num_ratings=len(ratings),
        findings=findings,
        lengths=tuple(
            (len(row.chosen.split()), len((row.rejected or "").split())) for row in spread(pairs, MOST_POINTS)
        ),
        similarity=_bin(similarities),
        labels_per_day=tuple(sorted(days.items())),
        notes=_notes(pairs, compared),
    )


def report_on_store(store: Store) -> DataReport:
    """The report on every label of the store that can be exported."""
    unfinished, unsafe = _read_marks(store)
    return report_on([_from_export(row, unfinished, unsafe) for row in export_labels(store)])


def from_outside(label: OutsideLabel) -> LabelledRow:
    """A label of a file, before it is in any store."""
    held_out = is_held_out(label.messages, HOLDOUT_SHARE)
    return LabelledRow(
        messages=label.messages,
        chosen=label.chosen,
        rejected=label.rejected,
        desirable=label.desirable,
        annotators=(label.annotator,) if label.annotator else (),
        created_at=label.created_at,
        split=label.split or ("holdout" if held_out else "train"),
    )


def similarity_of(row: LabelledRow) -> float:
    """How alike the beginnings of both answers are, 0 to 1: difflib over words, blind to case.

    Words, because over the characters of a longer text difflib finds everything alike or, with its heuristic
    for common elements, nothing.
    """
    chosen, rejected = (text.lower().split()[:COMPARED_WORDS] for text in (row.chosen, row.rejected or ""))
    return SequenceMatcher(None, chosen, rejected, autojunk=False).ratio()


def spread(rows: Sequence[LabelledRow], most: int) -> list[LabelledRow]:
    """At most that many rows, evenly out of the whole."""
    if len(rows) <= most:
        return list(rows)
    return [rows[number * len(rows) // most] for number in range(most)]


def _bin(similarities: Sequence[float]) -> tuple[int, ...]:
    counts = Counter(min(int(value * SIMILARITY_BINS), SIMILARITY_BINS - 1) for value in similarities)
    return tuple(counts[number] for number in range(SIMILARITY_BINS))


def _notes(pairs: Sequence[LabelledRow], compared: Sequence[LabelledRow]) -> tuple[str, ...]:
    notes = []
    if len(compared) < len(pairs):
        notes.append(
            f"similarity and the length plot show {len(compared)} of {len(pairs)} pairs, evenly drawn"
        )
    if any(
        len(text.split()) > COMPARED_WORDS for row in compared for text in (row.chosen, row.rejected or "")
    ):
        notes.append(f"similarity compares the first {COMPARED_WORDS} words of each answer")
    return tuple(notes)


def _from_export(
    row: dict[str, Any], unfinished: set[tuple[str, str]], unsafe: set[tuple[str, str]]
) -> LabelledRow:
    is_pair = row["format"] == "preference"
    answer = row["chosen" if is_pair else "completion"][0]["content"]
    key = (prompt_digest(row["prompt"]), answer)
    version = row.get("chosen_version") if is_pair else row.get("version")
    is_recorded = row["source"] in PEOPLES and version != EDITED_VERSION
    return LabelledRow(
        messages=tuple(row["prompt"]),
        chosen=answer,
        rejected=row["rejected"][0]["content"] if is_pair else None,
        desirable=None if is_pair else row["label"],
        annotators=tuple(row["annotators"]),
        created_at=datetime.fromisoformat(row["created_at"]),
        split=row["split"],
        is_finished=key not in unfinished if is_recorded else None,
        is_unsafe=key in unsafe,
    )


def _read_marks(store: Store) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """Prompt digest and text of the answers that were cut off, and of those somebody flagged as unsafe."""
    cut = "SELECT messages_json, text FROM completions WHERE finish_reason = 'length'"
    flagged = """
        SELECT messages_json, text FROM completions WHERE completion_id IN (
            SELECT unnest(CAST(unsafe_json AS JSON)::VARCHAR[]) FROM judgements WHERE NOT undone)"""
    with store.read() as cursor:
        found = [cursor.execute(sql).fetchall() for sql in (cut, flagged)]
    marks = [{(prompt_digest(json.loads(messages)), text) for messages, text in rows} for rows in found]
    return marks[0], marks[1]
