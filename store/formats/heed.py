"""Our own export, read back: an outside label comes back as it was, a person's label as `import:heed`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, cast

from store.formats.found import (
    BadField,
    Found,
    Names,
    Row,
    Skip,
    has,
    make_pair,
    make_rating,
    read_list,
    read_moment,
    read_number,
    read_prompt,
    read_text,
    read_truth,
    rest_of,
)
from store.formats.trl import read_preference, read_unpaired

OUTSIDE = ("import:", "judge:", "synthetic")
_USED = (
    "format",
    "prompt",
    "chosen",
    "rejected",
    "completion",
    "label",
    "strength",
    "weight",
    "annotators",
    "created_at",
    "source",
    "split",
    "given_split",
    "task_id",
    "extra_json",
)


def is_heed(row: Row) -> bool:
    """The columns only our export has."""
    return has(row, "format", "row_id", "annotators", "source") and row["format"] in (
        "preference",
        "unpaired",
    )


def read_heed(row: Row, names: Names) -> list[Found]:
    """The label with its strength, weight, annotator, time, task and extra fields."""
    is_pair = read_text(row, "format") == "preference"
    [found] = (read_preference if is_pair else read_unpaired)(row, names)
    if isinstance(found, Skip):
        return [found]
    source = read_text(row, "source", may_be_empty=False)
    is_outside = source.startswith(OUTSIDE)
    kept = _read_extra(row) if is_outside else rest_of(row, _USED)
    at = read_moment(row["created_at"]) if has(row, "created_at") else None
    if at is None:
        raise BadField("created_at", "is not a time")
    make: Any = make_pair if is_pair else make_rating
    prompt = read_prompt(row, "prompt")
    verdict: Any = found.rejected if is_pair else read_truth(row, "label")  # type: ignore[union-attr]
    label = make(prompt, found.chosen, verdict, annotator=_annotator(row), at=at, extra=kept)  # type: ignore[union-attr]
    return [
        cast(
            Found,
            replace(
                label,
                source=source if is_outside else "",
                strength=int(read_number(row, "strength")) if has(row, "strength") else 1,
                weight=read_number(row, "weight") if has(row, "weight") else 1.0,
                task_id=read_text(row, "task_id") if has(row, "task_id") else None,
                split=_split(row),
            ),
        )
    ]


def _split(row: Row) -> Any:
    given = row.get("given_split")
    if given not in (None, "train", "holdout"):
        raise BadField("given_split", f"{str(given)[:40]!r} is neither train nor holdout")
    return given


def _annotator(row: Row) -> str:
    names = read_list(row, "annotators")
    if not all(isinstance(name, str) for name in names):
        raise BadField("annotators", "must be a list of texts")
    return "+".join(names)


def _read_extra(row: Row) -> dict[str, object]:
    if not has(row, "extra_json"):
        return {}
    try:
        extra = json.loads(read_text(row, "extra_json"))
    except (ValueError, RecursionError):
        extra = None
    if not isinstance(extra, dict):
        raise BadField("extra_json", "is not a JSON object")
    return extra
