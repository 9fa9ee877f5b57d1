"""Snapshot rows to training sets: token ids, truncation, weights and order. Knows no model and no library
trainer.

The ids of a completion are the ones the policy sampled; text is tokenised only where a person wrote it.
Whatever is cut or left out is counted and named, never repaired in silence.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from jinja2 import TemplateError

from store.records import Message, PairRow, RatingRow
from trainer.mixing import class_weights, mix_classes
from trainer.recorded import Origin


@dataclass(frozen=True, slots=True)
class TrainingPair:
    """A preference pair as token ids. Weights average to 1 over a training set.

    `probability` is how sure it is that chosen beats rejected. An origin is None where nobody sampled the
    answer, or not to this prompt.
    """

    row_id: str
    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]
    weight: float = 1.0
    probability: float = 1.0
    chosen_origin: Origin | None = None
    rejected_origin: Origin | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens of the pair when prompt is shared."""
        return len(self.prompt_ids) + len(self.chosen_ids) + len(self.rejected_ids)


@dataclass(frozen=True, slots=True)
class TrainingRating:
    """One labelled completion as token ids. Weights average to 1 over a training set."""

    row_id: str
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    desirable: bool
    weight: float = 1.0
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """What happened to one row on its way into a training set: `num_cut` of its oldest messages were cut, or
    it was left out for a reason (`why`, short enough to count by)."""

    row_id: str
    what: str
    why: str = ""
    num_cut: int = 0


def leave_out(row_id: str, why: str, details: str = "") -> Notice:
    """The notice of a row that is not trained on; `details` are numbers of this row alone."""
    return Notice(row_id, f"left out: {details or why}", why)


@dataclass(frozen=True, slots=True)
class PairSet:
    """The pairs a round trains on or holds out, and what was cut or left out to get them."""

    rows: tuple[TrainingPair, ...]
    notices: tuple[Notice, ...]


@dataclass(frozen=True, slots=True)
class RatingSet:
    """Ratings in the order KTO must see them, in batches of a fixed size. Weights are of the two classes."""

    rows: tuple[TrainingRating, ...]
    notices: tuple[Notice, ...]
    desirable_weight: float
    undesirable_weight: float

    @property
    def num_desirable(self) -> int:
        """How many rows are desirable; the rest is undesirable."""
        return sum(row.desirable for row in self.rows)


def read_pairs(path: Path) -> list[PairRow]:
    """The pair rows of a snapshot file, in file order."""
    return [PairRow(**_fields(row, "chosen_ids", "rejected_ids")) for row in _read_rows(path)]


def read_ratings(path: Path) -> list[RatingRow]:
    """The rating rows of a snapshot file, in file order."""
    return [RatingRow(**_fields(row, "completion_ids")) for row in _read_rows(path)]


def _read_rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist() if path.exists() else []
    return rows


def _fields(row: dict[str, Any], *id_columns: str) -> dict[str, Any]:
    fields = {name: value for name, value in row.items() if name not in ("messages_json", "kind", "lag")}
    fields["messages"] = tuple(json.loads(row["messages_json"]))
    fields |= {name: tuple(row[name]) for name in ("person_ids", "label_ids")}
    return fields | {name: tuple(row[name] or ()) for name in id_columns}


def prepare_pairs(rows: Sequence[PairRow], tokenizer: Any, max_length: int) -> PairSet:
    """Pairs as token ids, in order of row id; weights scaled to an average of 1."""
    notices: list[Notice] = []
    kept = [
        pair
        for row in sorted(rows, key=lambda r: r.row_id)
        if (pair := _pair(row, tokenizer, max_length, notices))
    ]
    mean = sum(pair.weight for pair in kept) / max(len(kept), 1)
    return PairSet(tuple(replace(pair, weight=pair.weight / mean) for pair in kept), tuple(notices))


def _pair(row: PairRow, tokenizer: Any, max_length: int, notices: list[Notice]) -> TrainingPair | None:
    if not row.weight > 0:
        notices.append(leave_out(row.row_id, "its weight is 0"))
        return None
    chosen = answer_ids(row.chosen_ids, row.chosen, tokenizer)
    rejected = answer_ids(row.rejected_ids, row.rejected, tokenizer)
    if chosen == rejected:
        notices.append(leave_out(row.row_id, "chosen and rejected are the same tokens"))
        return None
    longest = max(len(chosen), len(rejected))
    prompt, is_whole = _prompt(row.row_id, row.messages, longest, tokenizer, max_length, notices)
    if not prompt:
        return None
    return TrainingPair(
        row.row_id,
        prompt,
        chosen,
        rejected,
        row.weight,
        row.probability,
        _origin(row.chosen_version, row.chosen_logprob, is_whole),
        _origin(row.rejected_version, row.rejected_logprob, is_whole),
    )


def _origin(version: str, logprob: float | None, is_whole: bool) -> Origin | None:
    return Origin(version, logprob) if logprob is not None and is_whole else None


def prepare_ratings(
    rows: Sequence[RatingRow], tokenizer: Any, max_length: int, batch_size: int, seed: int
) -> RatingSet:
    """Ratings as token ids, mixed for KTO: classes interleaved, prompts apart, no remainder batch of one."""
    notices: list[Notice] = []
    kept = [
        r
        for row in sorted(rows, key=lambda r: r.row_id)
        if (r := prepare_answer(row, tokenizer, max_length, notices))
    ]
    mixed = mix_classes(kept, batch_size, seed)
    if len(mixed) % batch_size == 1:
        # KTO's KL estimate pairs each prompt with a neighbour's completion; alone it would meet its own.
        notices.append(leave_out(mixed.pop().row_id, "it would be a batch of its own"))
    mean = sum(row.weight for row in mixed) / max(len(mixed), 1)
    mixed = [replace(row, weight=row.weight / mean) for row in mixed]
    desirable = sum(row.weight for row in mixed if row.desirable)
    undesirable = sum(row.weight for row in mixed if not row.desirable)
    return RatingSet(tuple(mixed), tuple(notices), *class_weights(desirable, undesirable))


def prepare_answer(
    row: RatingRow, tokenizer: Any, max_length: int, notices: list[Notice]
) -> TrainingRating | None:
    """One answer as token ids; None, with a notice, when it is left out."""
    if not row.weight > 0:
        notices.append(leave_out(row.row_id, "its weight is 0"))
        return None
    completion = answer_ids(row.completion_ids, row.completion, tokenizer)
    prompt, is_whole = _prompt(row.row_id, row.messages, len(completion), tokenizer, max_length, notices)
    if not prompt:
        return None
    origin = _origin(row.version, row.completion_logprob, is_whole)
    return TrainingRating(row.row_id, prompt, completion, row.desirable, row.weight, origin)


def answer_ids(stored: Sequence[int], text: str, tokenizer: Any) -> tuple[int, ...]:
    """The stored ids untouched: no end token is added to an answer that never ended. Text that a person wrote
    has none, so it is tokenised and ended."""
    if stored:
        return tuple(stored)
    return (*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id)


def prompt_ids(messages: Sequence[Message], tokenizer: Any) -> tuple[int, ...]:
    """The prompt as the policy saw it: the chat template with the opening of an answer at its end."""
    rendered = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=False)
    return tuple(rendered)


def _prompt(
    row_id: str,
    messages: Sequence[Message],
    answer_length: int,
    tokenizer: Any,
    max_length: int,
    notices: list[Notice],
) -> tuple[tuple[int, ...], bool]:
    """The prompt's ids, without its oldest turns where they do not fit, and whether it is whole; empty, with
    a notice, when nothing fits."""
    room = max_length - answer_length
    try:
        ids, num_cut = _fit(messages, tokenizer, room)
    except TemplateError as error:
        why = "the chat template refuses it"
        notices.append(leave_out(row_id, why, f"{why} ({error})"))
        return (), False
    if len(ids) > room:
        details = f"{len(ids)} + {answer_length} tokens do not fit in max_length {max_length}"
        notices.append(leave_out(row_id, "its last question and answer do not fit in max_length", details))
        return (), False
    if num_cut:
        notices.append(Notice(row_id, f"cut: the {num_cut} oldest messages", num_cut=num_cut))
    return ids, not num_cut


def _fit(messages: Sequence[Message], tokenizer: Any, room: int) -> tuple[tuple[int, ...], int]:
    """The prompt without as few of its oldest turns as make it fit, all but the last turn where nothing does;
    and how many messages went. The system message stays."""
    ids = prompt_ids(messages, tokenizer)
    num_system = int(bool(messages) and messages[0]["role"] == "system")
    starts = [i for i, message in enumerate(messages) if message["role"] == "user" and i > num_system]
    if len(ids) <= room or not starts:
        return ids, 0

    def cut(start: int) -> list[Message]:
        return [*messages[:num_system], *messages[start:]]

    # Fewer messages are fewer tokens: a chat of 200 turns is rendered 8 times and not 200.
    fewest = bisect_left(starts, True, key=lambda start: len(prompt_ids(cut(start), tokenizer)) <= room)
    start = starts[min(fewest, len(starts) - 1)]
    return prompt_ids(cut(start), tokenizer), start - num_system


def count_notices(notices: Sequence[Notice]) -> dict[str, int]:
    """How many rows each thing happened to, whatever its numbers; the log names the rows with theirs."""
    return dict(
        Counter(f"left out: {notice.why}" if notice.why else "cut: the oldest messages" for notice in notices)
    )
