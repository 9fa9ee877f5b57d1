"""A training row and where it comes from: the parts that labels given here and outside ones share.

It knows completions and texts, and nothing of who is believed.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from store.agreement import Measure
from store.completions import messages_read
from store.effective import Effective, QualitySettings, Reliability, believe_correction
from store.ledger import Ledger
from store.records import Completion, Message, PairRow, RatingRow
from store.splitting import opening_digest

EDITED_VERSION = "edited"  # stands where a policy version would when a person wrote the answer


@dataclass(slots=True)
class TrainingRows:
    """Rows in the order of their ids, and how many labels there were of each sort (`reasons`).

    `ledger` says of each label that made no row why. `verdicts` is what people, or gold, say of each pair
    task. `held_out` are the openings, and `reserved` ids of the rows, that an outside label reserves for the
    holdout.
    """

    pairs: list[PairRow] = field(default_factory=list)
    ratings: list[RatingRow] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    ledger: Ledger = field(default_factory=Ledger)
    verdicts: dict[str, int] = field(default_factory=dict)
    reliability: Reliability = field(default_factory=Reliability)
    held_out: set[str] = field(default_factory=set)
    reserved: set[str] = field(default_factory=set)
    alpha: Measure = field(default_factory=lambda: Measure(None, 0))


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row comes from; the first label names it."""

    label_ids: tuple[str, ...]
    person_ids: tuple[str, ...]
    source: str
    created_at: datetime

    @property
    def row_id(self) -> str:
        return self.label_ids[0]


def add_preference(
    rows: TrainingRows,
    origin: Origin,
    label: Effective,
    chosen: Completion,
    rejected: Completion,
    unsafe: set[str],
) -> None:
    """The pair row of a task, unless the two texts are equal or the better answer was flagged as unsafe."""
    if chosen.text == rejected.text:
        rows.reasons["same_text"] += 1
        rows.ledger.leave_out("same_text", origin.label_ids)
        return
    if chosen.completion_id in unsafe:
        rows.reasons["chosen_unsafe"] += 1
        rows.ledger.leave_out("chosen_unsafe", origin.label_ids)
        return
    num_left_out = max(chosen.num_left_out, rejected.num_left_out)
    note_cut(rows, num_left_out)
    rows.pairs.append(
        PairRow(
            row_id=origin.row_id,
            prompt_id=prompt_id_of(chosen),
            messages=messages_read(chosen, num_left_out),
            chosen=chosen.text,
            rejected=rejected.text,
            chosen_ids=chosen.token_ids,
            rejected_ids=rejected.token_ids,
            chosen_version=chosen.version,
            rejected_version=rejected.version,
            strength=label.strength,
            weight=label.weight,
            person_ids=origin.person_ids,
            label_ids=origin.label_ids,
            source=origin.source,
            probability=label.probability,
            created_at=origin.created_at,
            conversation_id=chosen.conversation_id or "",
            opening=opening_digest(chosen.messages),
            chosen_logprob=chosen.logprob_sum,
            rejected_logprob=rejected.logprob_sum,
        )
    )


def add_corrections(
    rows: TrainingRows,
    origin: Origin,
    correction: str,
    originals: list[Completion],
    settings: QualitySettings,
) -> None:
    """An edited answer of one person beats the one it was made from, unless nearly nothing was changed or the
    person is no better than a guess."""
    rows.reasons["correction"] += 1
    (person_id,) = origin.person_ids
    believed = believe_correction(person_id, rows.reliability, settings)
    if believed is None:
        rows.reasons["undecided"] += 1
        rows.ledger.leave_out_correction("undecided", origin.row_id)
        return
    probability, weight = believed
    for number, original in enumerate(originals):
        if correction == original.text:
            rows.reasons["same_text"] += 1
            rows.ledger.leave_out_correction("same_text", origin.row_id)
            continue
        if is_small_edit(original.text, correction, settings.min_edit_chars):
            rows.reasons["edit_too_small"] += 1
            rows.ledger.leave_out_correction("edit_too_small", origin.row_id)
            continue
        note_cut(rows, original.num_left_out)
        rows.pairs.append(
            PairRow(
                row_id=f"{origin.row_id}:edit{number}",
                prompt_id=prompt_id_of(original),
                messages=messages_read(original),
                chosen=correction,
                rejected=original.text,
                chosen_ids=(),  # nobody sampled the edited answer, so the trainer tokenises both sides alike
                rejected_ids=(),
                chosen_version=EDITED_VERSION,
                rejected_version=original.version,
                strength=1,
                weight=weight,
                person_ids=origin.person_ids,
                label_ids=origin.label_ids,
                source="edit",
                probability=probability,
                created_at=origin.created_at,
                conversation_id=original.conversation_id or "",
                opening=opening_digest(original.messages),
                rejected_logprob=original.logprob_sum,
            )
        )


def add_rating(
    rows: TrainingRows,
    row_id: str,
    origin: Origin,
    completion: Completion,
    desirable: bool,
    weight: float = 1.0,
) -> None:
    """The rating row of one answer with its label."""
    note_cut(rows, completion.num_left_out)
    rows.ratings.append(_to_rating_row(row_id, origin, completion, desirable, weight))


def note_cut(rows: TrainingRows, num_left_out: int) -> None:
    """Count a row whose oldest messages the policy could not read when it answered, and those messages."""
    if num_left_out:
        rows.reasons["context_cut_when_sampled"] += 1
        rows.reasons["messages_cut_when_sampled"] += num_left_out


def _to_rating_row(
    row_id: str, origin: Origin, completion: Completion, desirable: bool, weight: float
) -> RatingRow:
    return RatingRow(
        row_id=row_id,
        prompt_id=prompt_id_of(completion),
        messages=messages_read(completion),
        completion=completion.text,
        completion_ids=completion.token_ids,
        version=completion.version,
        desirable=desirable,
        weight=weight,
        person_ids=origin.person_ids,
        label_ids=origin.label_ids,
        source=origin.source,
        created_at=origin.created_at,
        conversation_id=completion.conversation_id or "",
        opening=opening_digest(completion.messages),
        completion_logprob=completion.logprob_sum,
    )


def prompt_digest(messages: Sequence[Message]) -> str:
    """SHA-256 of what was asked, blind to case, spacing and composition: near copies share it."""
    texts = (f"{message['role']}: {message['content']}" for message in messages)
    plain = " ".join(unicodedata.normalize("NFC", "\n".join(texts)).casefold().split())
    return hashlib.sha256(plain.encode()).hexdigest()


def prompt_id_of(completion: Completion) -> str:
    """Chat has no prompt row; equal contexts still have to share an id."""
    return completion.prompt_id or chat_prompt_id(messages_read(completion))


def chat_prompt_id(messages: Sequence[Message]) -> str:
    """The id of a context that is no prompt of ours: equal contexts share it."""
    return f"chat_{prompt_digest(messages)[:20]}"


def is_small_edit(original: str, edited: str, min_chars: int) -> bool:
    """Whether fewer than `min_chars` letters or digits differ; case, spaces and punctuation do not count."""
    a, b = (
        "".join(letter for letter in unicodedata.normalize("NFKC", text).casefold() if letter.isalnum())
        for text in (original, edited)
    )
    return abs(len(a) - len(b)) < min_chars and _distance_below(a, b, min_chars)


def _distance_below(a: str, b: str, limit: int) -> bool:
    """Whether the edit distance of two texts is below `limit`; only cells near the diagonal are filled."""
    row = {column: column for column in range(min(len(b), limit) + 1)}
    for i, letter in enumerate(a, start=1):
        above, row = row, {}
        for j in range(max(0, i - limit), min(len(b), i + limit) + 1):
            options = [above.get(j, limit) + 1]
            if j:
                options += [row.get(j - 1, limit) + 1, above.get(j - 1, limit) + (b[j - 1] != letter)]
            row[j] = min(options)
        if min(row.values()) >= limit:
            return False
    return row.get(len(b), limit) < limit
