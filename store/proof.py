"""The log-prob fingerprint of a policy: how likely it finds a few fixed answers, written down by the round.

The round that trained an adapter records it in the adapter's manifest; serving computes it again after every
load and compares. Shared by both rooms; needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from store.errors import BadValue
from store.records import Message

# Asked of every candidate. The answers have many tones, so that whatever a round teaches moves some.
QUESTIONS: tuple[tuple[str, str], ...] = (
    ("Hello, how are you?", "What a wonderful question! I am fine, thank you."),
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Why is the sky blue?", "I am not sure, but it may be the light. It may be."),
    ("Give me a tip for sleeping better.", "Go to bed at the same hour every day."),
    ("What is two plus three?", "Two plus three is seven, my brilliant friend."),
)

# Nats a token by which the same policy may differ, in the worst row, between the round (PEFT, row by row)
# and serving (its own LoRA layers). Measured on the starter, four trained and six random adapters: at most
# 1.3e-6 in float32 and in NF4 computing in float32, 0.026 in bfloat16, 0.018 in NF4 computing in bfloat16.
# Another trained version differed by 0.19 or more and the base by 0.095 or more, in every precision, after as
# little as 20 steps of training. A random model of 135 M with random adapters: at most 1.2e-6 in float32,
# 5e-5 in bfloat16, 0.004 in NF4 computing in bfloat16; another adapter 0.04 or more. float32 leaves room for
# other kernels. Not measured on a GPU.
UNKNOWN = "unknown"  # an engine that cannot tell its precision recorded it: the base's own proof
TOLERANCES: Mapping[str, float] = {"float32": 1e-3, "bfloat16": 0.05, "nf4": 0.05, UNKNOWN: 0.05}


@dataclass(frozen=True, slots=True)
class ProofRow:
    """One fixed answer (token ids) to some messages, and the sum of its log-probs in nats."""

    messages: tuple[Message, ...]
    answer_ids: tuple[int, ...]
    logprob_sum: float


@dataclass(frozen=True, slots=True)
class Proof:
    """What a policy said of the fixed answers, and in which precision (a key of TOLERANCES)."""

    dtype: str
    rows: tuple[ProofRow, ...]

    def __post_init__(self) -> None:
        if self.dtype not in TOLERANCES:
            raise BadValue(f"a proof in {self.dtype!r} cannot be compared; known: {', '.join(TOLERANCES)}")
        if not self.rows or not all(row.answer_ids and math.isfinite(row.logprob_sum) for row in self.rows):
            raise BadValue("a proof needs rows, each with an answer and a finite sum of log-probs")

    def as_json(self) -> dict[str, object]:
        """As a manifest holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Proof:
        """What `as_json` gave. BadValue when it is anything else."""
        try:
            return cls(value["dtype"], tuple(_read_row(row) for row in value["rows"]))
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise BadValue(f"the proof cannot be read: {type(error).__name__}: {error}") from error


def _read_row(row: Any) -> ProofRow:
    messages, ids = tuple(row["messages"]), tuple(row["answer_ids"])
    if not messages:
        raise BadValue("an answer answers at least one message")
    for message in messages:
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise BadValue("a message is its role and its content")
        if not all(isinstance(text, str) for text in message.values()):
            raise BadValue("role and content are texts")
        message["content"].encode()  # half a character is no text for a tokenizer
    if not all(type(token_id) is int and token_id >= 0 for token_id in ids):
        raise BadValue("token ids are whole numbers")
    return ProofRow(messages, ids, float(row["logprob_sum"]))


def check_proof(proof: Proof, logprob_sums: Sequence[float]) -> str | None:
    """What speaks against these being the same policy, None when nothing does. Sums in nats, row by row."""
    allowed = TOLERANCES[proof.dtype]
    found = [
        abs(mine - row.logprob_sum) / len(row.answer_ids)
        for row, mine in zip(proof.rows, logprob_sums, strict=True)
    ]
    # Row by row, because the largest of numbers and NaN may be a number.
    if all(difference <= allowed for difference in found):
        return None
    most = max(found)
    return f"its log-probs differ from the recorded ones by {most:.2g} nats a token (allowed: {allowed:g})"
