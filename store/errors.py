"""Errors that cross folders because somebody catches them: the API gives each a status, a page a sentence."""

from __future__ import annotations


class HeedError(Exception):
    """The root: `status` is the HTTP status, `kind` the machine-readable type of the error body."""

    status = 500
    kind = "internal"


class BadValue(HeedError, ValueError):
    """A value that can never be right; the message names it and says what would be."""

    status = 400
    kind = "bad_value"


class NotFound(HeedError):
    """No row with that id; the message names the known ones when they are few."""

    status = 404
    kind = "not_found"


class NotAllowed(HeedError):
    """The person is known but their role does not cover this act."""

    status = 403
    kind = "not_allowed"


class LeaseLost(HeedError):
    """The annotator no longer holds the task; nothing was saved."""

    status = 409
    kind = "lease_lost"


class StateConflict(HeedError):
    """The act does not fit the present state: a second round, a promotion raced by another."""

    status = 409
    kind = "state_conflict"


class Busy(HeedError):
    """Full queue or a part not ready yet; `retry_after_s` says when the caller should try again."""

    status = 503
    kind = "busy"

    def __init__(self, message: str, retry_after_s: float = 2.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NoSpace(HeedError):
    """The disk is (nearly) full; nothing was acknowledged."""

    status = 507
    kind = "no_space"
