"""The outermost layer: which host we answer for, whose forwarding headers count, what every answer carries.

Pure ASGI, so that streams pass through untouched; knows no person and no store.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from annotate.error_body import answer_error
from annotate.services import WebSettings
from store.errors import BadValue

OWN_HOSTS = ("127.0.0.1", "localhost", "::1")
DIRECT_LOOPBACK = "heed.direct_loopback"
_FORWARDING = frozenset((b"forwarded", b"x-real-ip"))

# Gradio's plots and `js_on_load` compile functions, hence 'unsafe-eval'; remote images stay blocked.
CSP = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval'; font-src 'self' data:; connect-src 'self'; "
    "frame-src 'none'; frame-ancestors 'none'; object-src 'none'; form-action 'self'; base-uri 'self'; "
    "worker-src 'self' blob:"
)
SECURITY_HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # With no-referrer a browser sends "Origin: null" from our own forms, and they could not be told apart.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
PRIVATE_PREFIXES = ("/v1", "/login", "/metrics")


class Edge:
    """Refuses foreign hosts, drops forwarding headers of strangers, adds the security headers."""

    def __init__(self, app: ASGIApp, settings: WebSettings) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in (*OWN_HOSTS, *settings.allowed_hosts))
        self._proxies = tuple(ipaddress.ip_network(proxy, strict=False) for proxy in settings.trusted_proxies)
        self._headers = dict(SECURITY_HEADERS)
        if settings.public_https:
            self._headers["strict-transport-security"] = "max-age=31536000"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        adorned = self._adorn(scope, send)
        scope = self._settle_peer(scope)
        host = Headers(scope=scope).get("host", "")
        if self._is_own(host) and all(
            self._is_own(forwarded) for forwarded in _read(scope, b"x-forwarded-host")
        ):
            await self._app(scope, receive, adorned)
            return
        error = BadValue("this service does not answer for that host; add it to the allowed hosts")
        await answer_error(error)(scope, receive, adorned)

    def _is_own(self, host: str) -> bool:
        return _strip_port(host) in self._hosts

    def _settle_peer(self, scope: Scope) -> Scope:
        """Take client and scheme from a trusted proxy's headers; remove these headers from anybody else."""
        peer = scope["client"][0] if scope.get("client") else ""
        forwarding = [pair for pair in scope["headers"] if _is_forwarding(pair[0])]
        settled = {**scope, DIRECT_LOOPBACK: peer in OWN_HOSTS and not forwarding}
        if not self._is_proxy(peer):
            settled["headers"] = [pair for pair in scope["headers"] if not _is_forwarding(pair[0])]
            return settled
        # The rightmost address that is no proxy of ours is the last one somebody we trust has seen.
        hops = [hop.strip() for line in _read(scope, b"x-forwarded-for") for hop in line.split(",")]
        client = next((hop for hop in reversed(hops) if not self._is_proxy(hop)), peer)
        scheme = next(iter(_read(scope, b"x-forwarded-proto")), scope["scheme"])
        return {**settled, "client": (client, 0), "scheme": scheme if scheme in ("http", "https") else "http"}

    def _is_proxy(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        return any(address in network for network in self._proxies)

    def _adorn(self, scope: Scope, send: Send) -> Send:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers[name] = value
                if scope["path"].startswith(PRIVATE_PREFIXES):
                    headers["cache-control"] = "no-store"
            await send(message)

        return send_with_headers


def _is_forwarding(name: bytes) -> bool:
    return name.startswith(b"x-forwarded-") or name in _FORWARDING


def _read(scope: Scope, wanted: bytes) -> list[str]:
    headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
    return [value.decode("latin-1") for name, value in headers if name == wanted]


def _strip_port(host: str) -> str:
    host = host.strip().lower()
    if host.startswith("["):  # [::1]:7860
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
