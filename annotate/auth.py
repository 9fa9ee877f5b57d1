"""Who is asking: a signed-in session or a bearer token becomes a Person.

The guard asks once per request; pages and routes read what it found. The store checks passwords and tokens.
"""

from __future__ import annotations

import hmac
import threading
from dataclasses import dataclass
from typing import Literal

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Scope

from annotate.errors import NotSignedIn
from annotate.services import Services, WebSettings
from store.database import Store
from store.errors import NotAllowed
from store.people import add_person, find_by_token, find_known_token, read_people
from store.records import Person, Role
from store.sessions import SESSION_LIFE, find_known_session, find_session

AUTOMATION = "automation"  # the person behind the admin token; acts need a person to belong to
FIRST_PAGES: dict[Role, str] = {"annotator": "/annotate", "tester": "/chat", "admin": "/admin"}
_IDENTITY = "heed.identity"
_automation_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Identity:
    """The person, and how they proved it: only a session cookie can be abused by another site."""

    person: Person
    by: Literal["session", "token"]


def current_person(request: HTTPConnection) -> Person:
    """The person the guard found (of a `gr.Request` pass `.request`); NotSignedIn without one."""
    person = find_person(request)
    if person is None:
        raise NotSignedIn("sign in first, or send a token as `Authorization: Bearer …`")
    return person


def find_person(request: HTTPConnection) -> Person | None:
    """The person the guard found for this request, or None."""
    identity: Identity | None = request.scope.get(_IDENTITY)
    return identity.person if identity else None


def require(request: HTTPConnection, *roles: Role) -> Person:
    """The person when they have one of these roles; an admin has all. NotSignedIn or NotAllowed otherwise."""
    return require_role(current_person(request), *roles)


def require_role(person: Person, *roles: Role) -> Person:
    """The same check for a person already at hand."""
    if person.role != "admin" and person.role not in roles:
        needed = " or ".join(dict.fromkeys((*roles, "admin")))
        raise NotAllowed(f"this needs the role {needed}; yours is {person.role}")
    return person


def first_page(person: Person) -> str:
    """Where this person lands after signing in."""
    return FIRST_PAGES[person.role]


def identify(services: Services, scope: Scope) -> Identity | None:
    """Look the token or the session of a request up (reads the store, so not on the event loop).

    A request that carries a bearer token stands or falls with it: NotSignedIn when nobody has that token.
    """
    token = _read_bearer(Headers(scope=scope))
    if token is not None:
        person = _find_automation(services, token) or find_by_token(services.store, token)
        if person is None:
            raise NotSignedIn("nobody has this token (any more); an admin can make a new one")
        return Identity(person, "token")
    session = read_session_token(scope, services.settings)
    owner = find_session(services.store, session) if session else None
    return Identity(owner, "session") if owner else None


def identify_known(services: Services, scope: Scope) -> Identity | None:
    """`identify` when the answer is kept in memory (reads nothing); None: it has to be looked up."""
    token = _read_bearer(Headers(scope=scope))
    if token is not None:
        person = find_known_token(services.store, token)
        return Identity(person, "token") if person else None
    session = read_session_token(scope, services.settings)
    owner = find_known_session(services.store, session) if session else None
    return Identity(owner, "session") if owner else None


def remember_identity(scope: Scope, identity: Identity | None) -> None:
    """Leave what was found where `current_person` reads it, also inside mounted apps."""
    scope[_IDENTITY] = identity


def read_session_token(scope: Scope, settings: WebSettings) -> str | None:
    """The session token in the request's cookie, or None."""
    return HTTPConnection(scope).cookies.get(cookie_name(settings))


def cookie_name(settings: WebSettings) -> str:
    """Browsers keep a `__Host-` cookie only when it is Secure and bound to this host."""
    return "__Host-heed_session" if settings.public_https else "heed_session"


def set_session_cookie(response: Response, settings: WebSettings, token: str) -> None:
    """Hand the browser its session."""
    response.set_cookie(
        cookie_name(settings),
        token,
        max_age=int(SESSION_LIFE.total_seconds()),
        path="/",
        httponly=True,
        samesite="lax",
        secure=settings.public_https,
    )


def drop_session_cookie(response: Response, settings: WebSettings) -> None:
    """Make the browser forget its session."""
    response.delete_cookie(
        cookie_name(settings), path="/", httponly=True, samesite="lax", secure=settings.public_https
    )


def read_automation(store: Store) -> Person:
    """The built-in admin behind the admin token, made when first needed; its password is thrown away."""
    with _automation_lock:
        known = next((person for person in read_people(store) if person.name == AUTOMATION), None)
        return known or add_person(store, AUTOMATION, "admin").person


def _find_automation(services: Services, token: str) -> Person | None:
    secret = services.settings.admin_token
    if secret is None or not hmac.compare_digest(token.encode(), secret.encode()):
        return None
    person = read_automation(services.store)
    return person if person.active else None


def _read_bearer(headers: Headers) -> str | None:
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None
