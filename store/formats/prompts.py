"""Lists of prompts: a text a line, a JSON list of texts, `{"prompt": …}` or `{"messages": …}` with tags."""

from __future__ import annotations

from store.formats.found import BadField, Found, Names, Row, has, read_list, read_prompt
from store.prompts import NewPrompt

LABEL_FIELDS = frozenset(
    (
        "chosen",
        "rejected",
        "completion",
        "completions",
        "label",
        "labels",
        "winner",
        "response_a",
        "responses",
        "annotations",
        "label_annotations",
    )
)


def is_prompt(row: Row) -> bool:
    """`prompt` or `messages`, and nothing that looks like a label."""
    return ("prompt" in row or "messages" in row) and not LABEL_FIELDS.intersection(row)


def read_new_prompt(row: Row, _names: Names) -> list[Found]:
    """One prompt with its tags; a row with labels is refused, so that none gets lost unseen."""
    labels = sorted(LABEL_FIELDS.intersection(row))
    if labels:
        raise BadField(labels[0], "is a label, and this is read as a list of prompts")
    name = "prompt" if has(row, "prompt") or "messages" not in row else "messages"
    tags = read_list(row, "tags") if row.get("tags") is not None else []
    for tag in tags:
        if not isinstance(tag, str) or not tag:
            raise BadField("tags", "must be a list of texts")
    return [NewPrompt(messages=read_prompt(row, name), tags=tuple(tags))]
