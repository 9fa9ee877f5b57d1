"""Errors that only a web service has; they turn into a status and a sentence like the store's."""

from __future__ import annotations

from store.errors import BadValue, HeedError, StateConflict


class NotSignedIn(HeedError):
    """No session, no token, or one that is no longer valid."""

    status = 401
    kind = "not_signed_in"


class TooManyRequests(HeedError):
    """The caller should slow down; `retry_after_s` says for how long."""

    status = 429
    kind = "too_many_requests"

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BodyTooLarge(HeedError):
    """The request body is over its limit; the message names the limit."""

    status = 413
    kind = "too_large"


class TextTooLong(BadValue):
    """One text in the request is over its limit; the message names both."""

    status = 413
    kind = "too_large"


class BodyTooSlow(HeedError):
    """The request body did not arrive in time."""

    status = 408
    kind = "too_slow"


class ForeignOrigin(HeedError):
    """A changing request that did not come from our own pages; it carried a session cookie."""

    status = 403
    kind = "foreign_origin"


class ForeignHash(HeedError):
    """A page session that was first used by another person."""

    status = 403
    kind = "foreign_session"


class GuidelinesNotAccepted(StateConflict):
    """The annotator has not accepted the guidelines that hold; the page shows them, a program must ask."""

    kind = "guidelines_not_accepted"
