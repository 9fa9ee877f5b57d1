"""What an event is: one fact of the journal, a plain dict of JSON values. What it does is in `applying.py`.

Its fields are `type`, `v` (its version, so that old journals stay readable), `at` (ISO UTC) and its own.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from store.clock import utc

Event = dict[str, Any]


def new_event(type_: str, at: datetime, /, **fields: Any) -> Event:
    """A version 1 event; `fields` are JSON values."""
    return {"type": type_, "v": 1, "at": utc(at).isoformat(timespec="microseconds"), **fields}


def to_json(value: Any) -> str:
    """Compact JSON that keeps every character; NaN and infinity are errors."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
