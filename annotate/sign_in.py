"""The routes of signing in and out. Every failure looks the same to the person and costs the same time."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from annotate.auth import (
    FIRST_PAGES,
    drop_session_cookie,
    find_person,
    first_page,
    read_session_token,
    set_session_cookie,
)
from annotate.errors import TooManyRequests
from annotate.services import Services
from annotate.sign_in_page import ICON, sign_in_page
from annotate.throttle import SignInThrottle, Turnstile
from store.people import check_password
from store.records import Person
from store.sessions import end_session, open_session, redeem_sign_in_link

log = logging.getLogger(__name__)
routes = APIRouter(include_in_schema=False)

WRONG = "The name or the password is not right."
STALE_LINK = "This sign-in link was used already or is too old. Ask an admin for a new one."


class SignInDesk:
    """The services, and the two brakes every password passes."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.throttle = SignInThrottle()
        self.turnstile = Turnstile(at_once=2, waiting=8)  # scrypt takes a core for about 50 ms each

    def check(self, name: str, password: str, client: str) -> Person | None:
        """The person with this password, or None; TooManyRequests when the name or the client must wait."""
        keys = (f"name {name.casefold()}", f"client {client}")
        with self.turnstile.enter():
            self.throttle.try_once(keys)
            person = check_password(self.services.store, name, password)
        if person is not None:
            self.throttle.forgive(keys)
        return person


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a plain HTML form; the guard has already bounded its size."""
    body = await request.body()
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=20))


Form = Annotated[Mapping[str, str], Depends(read_form)]


@routes.get("/")
def go_to_first_page(request: Request) -> Response:
    person = find_person(request)
    return RedirectResponse(first_page(person) if person else "/login", 303)


@routes.get("/favicon.ico")
async def show_icon() -> Response:
    return Response(ICON, media_type="image/svg+xml", headers={"cache-control": "max-age=86400"})


@routes.get("/login")
def show_sign_in(request: Request, token: str | None = None, next: str = "") -> Response:
    if token is None:
        return HTMLResponse(sign_in_page(safe_next(next)))
    person = redeem_sign_in_link(_desk(request).services.store, token)
    if person is None:
        return HTMLResponse(sign_in_page(notice=STALE_LINK), 401)
    return _open(request, person, first_page(person))


@routes.post("/login")
def sign_in(request: Request, form: Form) -> Response:
    name, goal = form.get("name", "").strip()[:200], safe_next(form.get("next", ""))
    client = request.client.host if request.client else "unknown"
    try:
        person = _desk(request).check(name, form.get("password", "")[:1000], client)
    except TooManyRequests as error:
        wait_s = math.ceil(error.retry_after_s)
        page = sign_in_page(goal, f"Too many attempts. Try again in {wait_s} s.", name)
        return HTMLResponse(page, 429, {"retry-after": str(wait_s)})
    if person is None:
        log.warning("failed sign-in from %s", client)
        return HTMLResponse(sign_in_page(goal, WRONG, name), 401)
    return _open(request, person, goal or first_page(person))


@routes.post("/logout")
def sign_out(request: Request) -> Response:
    services = _desk(request).services
    _end_old_session(request, services)
    response = RedirectResponse("/login", 303)
    drop_session_cookie(response, services.settings)
    return response


def safe_next(path: str) -> str:
    """The page to go to after signing in: one of ours, or "" (never another site)."""
    return path if path.partition("?")[0].rstrip("/") in FIRST_PAGES.values() else ""


def _desk(request: Request) -> SignInDesk:
    desk: SignInDesk = request.app.state.desk
    return desk


def _open(request: Request, person: Person, goal: str) -> Response:
    # A new token at every sign-in: one that somebody planted before it is worth nothing after it.
    services = _desk(request).services
    _end_old_session(request, services)
    response = RedirectResponse(goal, 303)
    set_session_cookie(response, services.settings, open_session(services.store, person.person_id))
    return response


def _end_old_session(request: Request, services: Services) -> None:
    token = read_session_token(request.scope, services.settings)
    if token:
        end_session(services.store, token)
