"""Times: always UTC; aware in Python, plain TIMESTAMP columns in the tables, ISO text in the journal."""

from __future__ import annotations

from datetime import UTC, datetime

from store.errors import BadValue


def utc(now: datetime | None = None) -> datetime:
    """`now` in UTC, or the present when it is None; BadValue for a time without a zone."""
    if now is None:
        return datetime.now(UTC)
    if now.tzinfo is None:
        raise BadValue(f"time {now.isoformat()} has no time zone; pass an aware datetime")
    return now.astimezone(UTC)


def to_column(moment: datetime) -> datetime:
    """The same moment without its zone, as a TIMESTAMP column takes it."""
    return utc(moment).replace(tzinfo=None)


def from_column(moment: datetime) -> datetime:
    """A TIMESTAMP column's value as the aware UTC time it stands for."""
    return moment.replace(tzinfo=UTC)


def from_text(text: str) -> datetime:
    """An event's ISO time as a TIMESTAMP column takes it."""
    return to_column(datetime.fromisoformat(text))
