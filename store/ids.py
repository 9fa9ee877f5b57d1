"""Ids made here and nowhere else: they sort by the moment they were made and cannot be guessed."""

from __future__ import annotations

import secrets
import time


def new_id(prefix: str) -> str:
    """`prefix`, 14 hex digits of microseconds (sortable until the year 4253), 64 random bits."""
    return f"{prefix}_{time.time_ns() // 1000:014x}{secrets.token_hex(8)}"
