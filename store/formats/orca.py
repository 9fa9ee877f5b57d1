"""Orca DPO pairs, Intel's (`question`) and Argilla's (`input`, with ratings and a status)."""

from __future__ import annotations

from store.formats.found import (
    TIE,
    BadField,
    Found,
    Names,
    Row,
    ask,
    grade,
    has,
    make_pair,
    read_list,
    read_number,
    read_text,
    rest_of,
)
from store.formats.ultrafeedback import BETTER, MUCH_BETTER


def is_orca(row: Row) -> bool:
    """`chosen` and `rejected` as texts with a `question` or an `input`, and no `prompt`."""
    return has(row, "chosen", "rejected") and ("question" in row or "input" in row) and "prompt" not in row


def read_orca(row: Row, _names: Names) -> list[Found]:
    """One pair; the strength is 1, or by the gap of the two ratings (1 to 10) where there are some."""
    asked = "question" if "question" in row else "input"
    if row.get("status") == "tie":
        return [TIE]
    system = read_text(row, "system") if row.get("system") is not None else ""
    prompt = ask(read_text(row, asked, may_be_empty=False), system)
    extra = rest_of(row, ("system", asked, "chosen", "rejected"))
    texts = read_text(row, "chosen"), read_text(row, "rejected")
    return [make_pair(prompt, *texts, strength=_strength(row), extra=extra)]


def _strength(row: Row) -> int:
    if row.get("rating") is None:
        return 1
    ratings = read_list(row, "rating")
    if len(ratings) != 2:
        raise BadField("rating", f"must hold two ratings, not {len(ratings)}")
    first, second = (read_number({"rating": rating}, "rating") for rating in ratings)
    return grade(abs(first - second), BETTER, MUCH_BETTER)
