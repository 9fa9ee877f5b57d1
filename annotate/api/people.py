"""The people who may sign in; only an admin sees or changes them. Secrets are shown once and never again."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter

from annotate.api.given import Admin, Body, Given, ShortText
from annotate.auth import AUTOMATION
from store.erasure import Erasure, erase_person
from store.errors import BadValue, StateConflict
from store.people import add_person, read_people, read_person, set_active
from store.records import Person, Role
from store.redaction import Mode
from store.sessions import make_sign_in_link

routes = APIRouter(prefix="/v1/people", tags=["people"])


class NewPerson(Body):
    """Who is added; without a password a random one is made."""

    name: ShortText
    role: Role
    password: ShortText | None = None


@dataclass(frozen=True)
class NewPersonAnswer:
    """The new person with their secrets; they cannot be read again."""

    person_id: str
    name: str
    role: Role
    password: str
    token: str


@dataclass(frozen=True)
class SignInLinkAnswer:
    """A path that signs this person in once, within a day."""

    path: str


@routes.get("")
def list_people(services: Given, _person: Admin) -> list[Person]:
    """Everybody, also those who were deactivated."""
    return read_people(services.store)


@routes.post("", status_code=201)
def create_person(body: NewPerson, services: Given, _person: Admin) -> NewPersonAnswer:
    """Add somebody; hand them the password (or a sign-in link), and the token to their programs."""
    if body.name.strip().casefold() == AUTOMATION:
        raise BadValue(f"the name {AUTOMATION!r} is kept for the admin token")
    made = add_person(services.store, body.name, body.role, body.password)
    person = made.person
    return NewPersonAnswer(person.person_id, person.name, person.role, made.password, made.token)


@routes.post("/{person_id}/deactivate")
def deactivate_person(person_id: str, services: Given, person: Admin) -> Person:
    """End their sessions and tokens at once and free what they hold; their judgements stay."""
    if person_id == person.person_id:
        raise StateConflict("you cannot deactivate yourself; another admin can")
    return set_active(services.store, person_id, False, person.name)


@routes.post("/{person_id}/activate")
def activate_person(person_id: str, services: Given, person: Admin) -> Person:
    """Let them in again."""
    return set_active(services.store, person_id, True, person.name)


class EraseBody(Body):
    """How somebody is erased; `confirm` is their name, typed out."""

    mode: Mode = "delete"
    confirm: ShortText
    also_backups: bool = False


@routes.post("/{person_id}/erase")
def erase(person_id: str, body: EraseBody, services: Given, person: Admin) -> Erasure:
    """Erase somebody for good: what goes, and which versions were trained on them, is in the answer."""
    return erase_person(
        services.store,
        person_id,
        body.mode,
        actor=person.name,
        confirm=body.confirm,
        actor_id=person.person_id,
        backup_folder=services.backup_folder,
        also_backups=body.also_backups,
    )


@routes.post("/{person_id}/sign-in-link", status_code=201)
def create_sign_in_link(person_id: str, services: Given, _person: Admin) -> SignInLinkAnswer:
    """A link for somebody who has no password or forgot it."""
    token = make_sign_in_link(services.store, read_person(services.store, person_id).person_id)
    return SignInLinkAnswer(f"/login?token={token}")
