"""One OpenAI-compatible endpoint: a message list in, the reply's text out, within a budget of requests.

Busy and broken replies are tried again with growing waits; every request counts, whatever came of it. Knows
no store and no pair.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import httpx

from annotate.judge.settings import JudgeSettings
from store.errors import HeedError
from store.records import Message

HOPELESS = frozenset({401, 403, 404, 405})  # the next pair would fare no better
TRY_AGAIN = frozenset({408, 409, 425, 429})  # and every 5xx
SHOWN_CHARS = 200


class NoReply(HeedError):
    """The endpoint gave no reply to this question; the message says what it gave instead."""


class EndpointRefused(NoReply):
    """It would refuse every question: a wrong key, path or model."""


class BudgetSpent(HeedError):
    """No request is left."""


class Budget:
    """How many requests may still be sent; shared by the threads that ask."""

    def __init__(self, left: int) -> None:
        self._left = left
        self._lock = threading.Lock()

    def take(self, number: int) -> None:
        """Use that many requests up; BudgetSpent when there are fewer, and then none is taken."""
        with self._lock:
            if self._left < number:
                raise BudgetSpent(f"{self._left} of the judge's calls are left, and {number} are needed")
            self._left -= number


class Meter:
    """The requests sent for one pair: `reserved` ones were taken from the budget before."""

    def __init__(self, budget: Budget, reserved: int) -> None:
        self.num_calls = 0
        self._budget = budget
        self._reserved = reserved

    def take(self) -> None:
        """Count a request that is about to be sent. BudgetSpent."""
        if self._reserved:
            self._reserved -= 1
        else:
            self._budget.take(1)
        self.num_calls += 1


class Endpoint:
    """A connection, safe to share between threads; `pause` waits that many seconds and is True to give up."""

    def __init__(self, settings: JudgeSettings, pause: Callable[[float], bool]) -> None:
        assert settings.url is not None
        self._settings = settings
        self._pause = pause
        headers = {"authorization": f"Bearer {settings.key}"} if settings.key else {}
        self._url = f"{settings.url.rstrip('/')}/chat/completions"
        self._http = httpx.Client(headers=headers, timeout=settings.timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def ask(self, messages: Sequence[Message], meter: Meter) -> str:
        """The reply's text, at temperature 0. NoReply, EndpointRefused, BudgetSpent."""
        body = {
            "model": self._settings.model,
            "messages": [*messages],
            "temperature": 0,
            "max_tokens": self._settings.max_tokens,
        }
        wait_s = self._settings.first_wait_s
        for is_last in [False] * (self._settings.max_tries - 1) + [True]:
            meter.take()
            try:
                reply = self._http.post(self._url, json=body)
            except httpx.TransportError as error:
                problem, asked_s = f"{type(error).__name__}: {error}", 0.0
            else:
                if reply.is_success:
                    return read_text(reply)
                problem, asked_s = describe(reply), read_wait(reply)
                if reply.status_code in HOPELESS:
                    raise EndpointRefused(problem)
                if reply.status_code not in TRY_AGAIN and not reply.is_server_error:
                    raise NoReply(problem)
            if is_last:
                raise NoReply(f"{problem} (tried {self._settings.max_tries} times)")
            if self._pause(min(max(wait_s, asked_s), self._settings.longest_wait_s)):
                raise NoReply(f"{problem} (then it was cancelled)")
            wait_s *= 2
        raise AssertionError("the last try returns or raises")


def read_text(reply: httpx.Response) -> str:
    """The first choice's content; the body itself, cut, when it is not in the chat format."""
    try:
        content = reply.json()["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        return shorten(reply.text)
    return content if isinstance(content, str) else json.dumps(content)


def describe(reply: httpx.Response) -> str:
    """The status with the beginning of what was said."""
    return f"HTTP {reply.status_code}: {shorten(reply.text)}"


def read_wait(reply: httpx.Response) -> float:
    """How many seconds the endpoint asks us to wait; 0 when it does not say, or gives a date."""
    try:
        asked_s = float(reply.headers.get("retry-after", "0"))
    except ValueError:
        return 0.0
    return asked_s if 0 <= asked_s < float("inf") else 0.0


def shorten(text: str) -> str:
    """The beginning of a text on one line, in characters that a log and the store can keep."""
    plain = " ".join(text[: 2 * SHOWN_CHARS].split())[:SHOWN_CHARS]
    return plain.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
