"""Label Studio's JSON export of a pairwise project: tasks with data and annotations."""

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
    read_list,
    read_moment,
    read_name,
    read_object,
    rest_of,
)
from store.formats.sides import find_prompt, find_sides, find_winner, read_side

CANCELLED = Skip("an annotation that was cancelled")
UNANSWERED = Skip("a task without an annotation")


def is_label_studio(row: Row) -> bool:
    """`data` as an object and `annotations` as a list."""
    return isinstance(row.get("data"), dict) and isinstance(row.get("annotations"), list)


def read_label_studio(row: Row, names: Names) -> list[Found]:
    """A pair for each annotation that was not cancelled."""
    data = read_object(row, "data")
    found: list[Found] = []
    for number, annotation in enumerate(read_list(row, "annotations")):
        if not isinstance(annotation, dict):
            raise BadField(f"annotations[{number}]", "must be an object")
        if annotation.get("was_cancelled") is True:
            found.append(CANCELLED)
        else:
            found.append(_read_annotation(row, data, annotation, names))
    return found or [UNANSWERED]


def _read_annotation(row: Row, data: dict[str, Any], annotation: dict[str, Any], names: Names) -> Found:
    result = _pairwise(annotation, names)
    if result is None:
        return Skip("an annotation without a pairwise result")
    first, second = _sides(result, data, names)
    selected = result["value"].get("selected") if isinstance(result.get("value"), dict) else None
    side = find_winner(selected, first, second, "annotations.result.value.selected")
    if side == "tie":
        return TIE
    texts = {"first": read_side(data, first), "second": read_side(data, second)}
    other = "second" if side == "first" else "first"
    prompt = find_prompt(data, names, "data")
    extra = rest_of(row, ("data", "annotations")) | {
        "annotation": rest_of(annotation, ("result", "completed_by")),
        "data": rest_of(data, (first, second, *(k for k in data if data[k] == prompt[-1]["content"]))),
    }
    return make_pair(
        prompt,
        texts[side],
        texts[other],
        annotator=_annotator(annotation),
        at=read_moment(annotation.get("created_at")),
        extra=extra,
    )


def _pairwise(annotation: dict[str, Any], names: Names) -> dict[str, Any] | None:
    results = annotation.get("result")
    if not isinstance(results, list):
        raise BadField("annotations.result", "must be a list")
    for result in results:
        if not isinstance(result, dict) or result.get("type") != "pairwise":
            continue
        if names.get("question", result.get("from_name")) == result.get("from_name"):
            return result
    return None


def _sides(result: dict[str, Any], data: dict[str, Any], names: Names) -> tuple[str, str]:
    """`to_name` lists the two tags, left first; in most projects they are called like the data's fields."""
    tags = [tag.strip() for tag in str(result.get("to_name", "")).split(",")]
    if "first" not in names and len(tags) == 2 and all(tag in data for tag in tags):
        return tags[0], tags[1]
    return find_sides(data, names, "data")


def _annotator(annotation: dict[str, Any]) -> str:
    by = annotation.get("completed_by")
    return read_name(by, "id") if isinstance(by, dict) else read_name(annotation, "completed_by")
