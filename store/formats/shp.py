"""Stanford Human Preferences: a post and two comments, of which `labels` (1: the first) got more votes."""

from __future__ import annotations

from store.formats.found import (
    Found,
    Names,
    Row,
    Skip,
    ask,
    grade,
    has,
    make_pair,
    read_number,
    read_text,
    read_truth,
    rest_of,
)

LEAST_RATIO = 2.0  # the authors' advice: below twice the votes the label is mostly noise
BETTER, MUCH_BETTER = 4.0, 8.0
TOO_CLOSE = Skip(f"score_ratio below {LEAST_RATIO:g}")


def is_shp(row: Row) -> bool:
    """`history`, `human_ref_A`, `human_ref_B` and `labels`."""
    return has(row, "history", "human_ref_A", "human_ref_B", "labels")


def read_shp(row: Row, _names: Names) -> list[Found]:
    """One pair; twice the votes is strength 1, four times 2, eight times 3."""
    first, second = read_text(row, "human_ref_A"), read_text(row, "human_ref_B")
    prompt = ask(read_text(row, "history", may_be_empty=False))
    prefers_first, ratio = read_truth(row, "labels"), read_number(row, "score_ratio")
    if ratio < LEAST_RATIO:
        return [TOO_CLOSE]
    chosen, rejected = (first, second) if prefers_first else (second, first)
    extra = rest_of(row, ("history", "human_ref_A", "human_ref_B", "labels"))
    return [make_pair(prompt, chosen, rejected, strength=grade(ratio, BETTER, MUCH_BETTER), extra=extra)]
