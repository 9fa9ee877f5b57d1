"""Potato's pairwise output: an annotated instance with the two items it was about.

`label_annotations` (or `annotations`) holds, by scheme, `{"selection": "A" / "B" / "tie"}` or
`{"scale_value": "-2"}`, negative for the left item. Potato writes
annotations and items apart; join them by id first.
"""

from __future__ import annotations

from typing import Any

from store.formats.found import (
    TIE,
    BadField,
    Found,
    Names,
    Row,
    Skip,
    make_pair,
    read_moment,
    read_name,
    read_number,
    rest_of,
)
from store.formats.sides import find_prompt, find_sides, find_winner, read_side
from store.records import STRENGTHS

ANNOTATIONS = ("label_annotations", "annotations", "annotation")
ITEMS = ("responses", "items", "texts", "completions")
UNANSWERED = Skip("an instance without a pairwise annotation")


def is_potato(row: Row) -> bool:
    """An `id` and annotations by scheme, one of them a selection or a value on a scale."""
    return "id" in row and bool(_schemes(row))


def read_potato(row: Row, names: Names) -> list[Found]:
    """One pair; on a scale the strength is the distance from the middle, 3 at most."""
    schemes = _schemes(row)
    name = names.get("question") or (next(iter(schemes)) if len(schemes) == 1 else "")
    if not name and schemes:
        raise BadField(
            "label_annotations", f"has several schemes ({', '.join(schemes)}); choose with question=NAME"
        )
    if name not in schemes:
        return [UNANSWERED]
    data = next((row[k] for k in ("data", "item", "instance") if isinstance(row.get(k), dict)), row)
    prompt = find_prompt(data, names, "the instance")
    first, second = _items(data, names)
    side, strength = _verdict(schemes[name], f"label_annotations.{name}")
    if side == "tie":
        return [TIE]
    chosen, rejected = (first, second) if side == "first" else (second, first)
    annotator = next((read_name(row, k) for k in ("user_id", "annotator", "user") if k in row), "")
    used = ("user_id", "annotator", "user", "data", "item", "instance", *ITEMS, *names.values(), "prompt")
    at = read_moment(row.get("timestamp"))
    return [
        make_pair(
            prompt, chosen, rejected, strength=strength, annotator=annotator, at=at, extra=rest_of(row, used)
        )
    ]


def _schemes(row: Row) -> dict[str, dict[str, Any]]:
    for field in ANNOTATIONS:
        given = row.get(field)
        if isinstance(given, dict):
            return {
                str(name): value
                for name, value in given.items()
                if isinstance(value, dict) and ("selection" in value or "scale_value" in value)
            }
    return {}


def _items(data: Row, names: Names) -> tuple[str, str]:
    for field in (names["items"],) if "items" in names else ITEMS:
        items = data.get(field)
        if isinstance(items, list):
            if len(items) != 2:
                raise BadField(field, f"must hold two items, not {len(items)}")
            return read_side({"0": items[0]}, "0"), read_side({"1": items[1]}, "1")
    first, second = find_sides(data, names, "the instance")
    return read_side(data, first), read_side(data, second)


def _verdict(given: dict[str, Any], field: str) -> tuple[str, int]:
    if given.get("scale_value") is None:
        return find_winner(given.get("selection"), "A", "B", field), 1
    value = read_number(given, "scale_value")
    if value == 0:
        return "tie", 1
    return "first" if value < 0 else "second", max(1, min(round(abs(value)), STRENGTHS[-1]))
