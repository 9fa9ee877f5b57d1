"""Deny by default: nothing without a person, no page without its role, no change from another site.

Pure ASGI, inside `Edge` and around everything else. Routes under /v1 check their own role; here they only
need somebody. Bodies are read here, so that nobody unknown can make the server hold one.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from anyio import CapacityLimiter, to_thread
from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from annotate.auth import Identity, first_page, identify, identify_known, remember_identity, require_role
from annotate.bodies import METHODS_WITH_BODY, bound_body, read_body, replay
from annotate.error_body import answer_error
from annotate.errors import ForeignOrigin, NotSignedIn
from annotate.gradio_gate import (
    PAGE_ROLES,
    SessionHashes,
    check_body,
    check_route,
    find_page,
    is_page_itself,
)
from annotate.services import Services
from annotate.sign_in_page import refused_page
from store.errors import HeedError, NotAllowed

log = logging.getLogger(__name__)

OPEN_PATHS = frozenset(("/", "/login", "/logout", "/healthz", "/readyz", "/metrics", "/favicon.ico"))
# Answered without looking anybody up, so that they answer also when the store is slow.
NAMELESS_PATHS = frozenset(("/healthz", "/readyz", "/favicon.ico"))
IMPORT_PATH = "/v1/import"
LOOKUPS_AT_ONCE = 4  # a room that arrives all at once must not take every thread from those who are at work


@dataclass(frozen=True, slots=True)
class _Call:
    """What the checks look at."""

    method: str
    path: str
    page: str | None
    headers: Headers

    @property
    def is_page_visit(self) -> bool:
        return (
            self.page is not None and self.method in ("GET", "HEAD") and is_page_itself(self.path, self.page)
        )


class Guard:
    """Finds the person, refuses what is not theirs to do, and bounds what they send."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app = app
        self._services = services
        self._hashes = SessionHashes()
        self._lookups = CapacityLimiter(LOOKUPS_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008, "reason": "there are no web sockets here"})
            return
        path = scope["path"]
        call = _Call(scope["method"], path, find_page(path), Headers(scope=scope))
        identity: Identity | None = None
        try:
            identity = await self._find_identity(scope, call)
            receive = await self._admit(scope, receive, call, identity)
        except HeedError as error:
            await self._refuse(call, identity, error)(scope, receive, send)
            return
        remember_identity(scope, identity)
        await self._app(scope, receive, send)

    async def _find_identity(self, scope: Scope, call: _Call) -> Identity | None:
        if call.path in NAMELESS_PATHS or not ("cookie" in call.headers or "authorization" in call.headers):
            return None
        known = identify_known(self._services, scope)
        return known or await to_thread.run_sync(identify, self._services, scope, limiter=self._lookups)

    async def _admit(self, scope: Scope, receive: Receive, call: _Call, identity: Identity | None) -> Receive:
        """Every check in order; returns the `receive` the app is to use, or raises a HeedError."""
        if identity is None and call.path not in OPEN_PATHS:
            raise NotSignedIn("sign in first, or send a token as `Authorization: Bearer …`")
        if identity is not None and call.page is not None:
            require_role(identity.person, *PAGE_ROLES[call.page])
            check_route(call.path, call.page)
        if call.method in METHODS_WITH_BODY:
            self._refuse_foreign(scope, call, identity)
        body, receive = await self._take_body(scope, receive, call)
        if identity is not None and call.page is not None:
            parsed = check_body(body)
            self._hashes.check(call.path, scope["query_string"], parsed, identity)
        return receive

    async def _take_body(self, scope: Scope, receive: Receive, call: _Call) -> tuple[bytes, Receive]:
        settings = self._services.settings
        if call.method not in METHODS_WITH_BODY:
            return b"", receive
        if call.path == IMPORT_PATH:
            return b"", bound_body(scope, receive, settings.max_import_bytes, settings.import_timeout_s)
        body = await read_body(scope, receive, settings.max_json_bytes, settings.body_timeout_s)
        return body, replay(body, receive)

    def _refuse_foreign(self, scope: Scope, call: _Call, identity: Identity | None) -> None:
        """A cookie travels with what other sites send, so a change needs proof that our page sent it."""
        if identity is not None and identity.by == "token":
            return
        is_own = _comes_from_us(
            call.headers, "https" if self._services.settings.public_https else scope["scheme"]
        )
        if is_own is False or (is_own is None and identity is not None):
            raise ForeignOrigin("this change did not come from a page of this service; nothing was done")

    def _refuse(self, call: _Call, identity: Identity | None, error: HeedError) -> Response:
        name = identity.person.name if identity else "nobody"
        log.info("refused %s %r of %r: %s", call.method, call.path, name, error.kind)
        if call.is_page_visit and isinstance(error, NotSignedIn):
            return RedirectResponse(f"/login?next={quote(call.page or '', safe='/')}", 303)
        if call.is_page_visit and isinstance(error, NotAllowed) and identity is not None:
            return HTMLResponse(refused_page(f"{error}.".capitalize(), first_page(identity.person)), 403)
        return answer_error(error)


def _comes_from_us(headers: Headers, scheme: str) -> bool | None:
    """What the browser says about where the request started; None when it says nothing."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = headers.get("origin")
    if origin is None:
        return None
    parts = urlsplit(origin)
    return parts.netloc == headers.get("host") and parts.scheme == scheme
