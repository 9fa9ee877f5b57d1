"""What may reach the mounted pages: few of Gradio's own routes, no file objects, nobody else's session hash.

Knows Gradio's wire format, never imports it.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from urllib.parse import parse_qs

from annotate.auth import Identity
from annotate.errors import ForeignHash
from store.errors import BadValue, NotAllowed
from store.records import Role

PAGE_ROLES: dict[str, tuple[Role, ...]] = {
    "/annotate": ("annotator",),
    "/chat": ("tester",),
    "/admin": ("admin",),
}

# What our pages use. Left out: uploads, served files, streams, the proxy, and `call` with its unbound ids.
GRADIO_ROUTES = frozenset(
    (
        *("queue", "run", "api", "heartbeat", "cancel", "reset", "component_server", "custom_component"),
        *("info", "startup-events", "theme.css", "app_id"),
    )
)
CLOSED_ROUTES = frozenset(
    ("login", "logout", "monitoring")
)  # Gradio's own sign-in and statistics; ours are elsewhere
FILE_MARK = "gradio.FileData"
MOST_HASHES = 50_000
_HEARTBEAT = re.compile(r"^/\w+/gradio_api/heartbeat/([^/]+)")


def find_page(path: str) -> str | None:
    """The mount path a request falls under, or None."""
    return next((page for page in PAGE_ROLES if path == page or path.startswith(f"{page}/")), None)


def is_page_itself(path: str, page: str) -> bool:
    """Whether this is what a person types into the address bar, rather than something the page loads."""
    return path in (page, f"{page}/")


def check_route(path: str, page: str) -> None:
    """NotAllowed for those of Gradio's own routes that our pages do not use."""
    parts = path[len(page) :].strip("/").split("/")
    is_closed_api = parts[0] == "gradio_api" and parts[1:2] and parts[1] not in GRADIO_ROUTES
    if is_closed_api or parts[0] in CLOSED_ROUTES:
        raise NotAllowed(f"{path} is not used by this page and is closed")


def check_body(body: bytes) -> object:
    """The parsed JSON body of a call to a page, None when empty; BadValue for a file object or no JSON."""
    if not body.strip():
        return None
    try:
        return json.loads(body, object_pairs_hook=_refuse_files)
    except (ValueError, RecursionError) as error:
        if isinstance(error, BadValue):
            raise
        raise BadValue("calls to a page carry JSON, and this is none") from None


class SessionHashes:
    """Which person used a session hash first; the hash itself is drawn by the browser and proves nothing."""

    def __init__(self) -> None:
        self._owners: OrderedDict[str, str] = OrderedDict()

    def check(self, path: str, query: bytes, body: object, identity: Identity) -> None:
        """ForeignHash when one of the hashes in the request belongs to somebody else."""
        for session_hash in _find_hashes(path, query, body):
            owner = self._owners.setdefault(session_hash, identity.person.person_id)
            self._owners.move_to_end(session_hash)
            if owner != identity.person.person_id:
                raise ForeignHash("this page session belongs to somebody else; reload the page")
        while len(self._owners) > MOST_HASHES:
            self._owners.popitem(last=False)


def _refuse_files(pairs: list[tuple[str, object]]) -> dict[str, object]:
    # A mounted app checks the paths in file objects only once its server flag is set; our pages use none.
    if any(key == FILE_MARK or (key == "_type" and value == FILE_MARK) for key, value in pairs):
        raise BadValue("files cannot be sent to a page; use the import route")
    return dict(pairs)


def _find_hashes(path: str, query: bytes, body: object) -> list[str]:
    found = parse_qs(query.decode("latin-1")).get("session_hash", [])
    if isinstance(body, dict) and isinstance(body.get("session_hash"), str):
        found.append(body["session_hash"])
    heartbeat = _HEARTBEAT.match(path)
    return [*found, heartbeat.group(1)] if heartbeat else found
