"""How much of a request body we take, and for how long we wait for it. Pure ASGI pieces; knows no route."""

from __future__ import annotations

import time

import anyio
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from annotate.errors import BodyTooLarge, BodyTooSlow

METHODS_WITH_BODY = ("POST", "PUT", "PATCH", "DELETE")


async def read_body(scope: Scope, receive: Receive, most_bytes: int, timeout_s: float) -> bytes:
    """The whole body; BodyTooLarge or BodyTooSlow once it goes over, without reading on."""
    bounded = bound_body(scope, receive, most_bytes, timeout_s)
    parts: list[bytes] = []
    more = True
    while more:
        message = await bounded()
        if message["type"] == "http.disconnect":
            return b""
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def bound_body(scope: Scope, receive: Receive, most_bytes: int, timeout_s: float) -> Receive:
    """A `receive` that raises BodyTooLarge or BodyTooSlow; after the body it lets all pass."""
    if _declared_length(scope) > most_bytes:
        raise BodyTooLarge(_too_large(most_bytes))
    deadline = time.monotonic() + timeout_s
    seen = 0
    is_complete = False

    async def receive_bounded() -> Message:
        nonlocal seen, is_complete
        if is_complete:
            return await receive()
        try:
            with anyio.fail_after(max(deadline - time.monotonic(), 0.0)):
                message = await receive()
        except TimeoutError:
            raise BodyTooSlow(f"the request body did not arrive within {timeout_s:.0f} s") from None
        seen += len(message.get("body", b""))
        is_complete = not message.get("more_body", False)
        if seen > most_bytes:
            raise BodyTooLarge(_too_large(most_bytes))
        return message

    return receive_bounded


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read, then whatever comes (a disconnect)."""
    is_sent = False

    async def receive_again() -> Message:
        nonlocal is_sent
        if is_sent:
            return await receive()
        is_sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


def _declared_length(scope: Scope) -> int:
    declared = Headers(scope=scope).get("content-length", "")
    return int(declared) if declared.isdigit() else 0


def _too_large(most_bytes: int) -> str:
    return f"the request body is over {most_bytes} bytes, the most this route takes"
