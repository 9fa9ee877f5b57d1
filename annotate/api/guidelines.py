"""Guidelines: everybody reads and accepts them, an admin sets the next version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from annotate.api.given import Admin, Annotator, Body, Given, Text
from annotate.guidelines import read_guidelines
from store.guidelines import accept_guidelines, accepted_version, set_guidelines
from store.records import Guidelines

routes = APIRouter(prefix="/v1/guidelines", tags=["labels"])


class GuidelinesBody(Body):
    """The next version, in Markdown."""

    text: Text


class AcceptBody(Body):
    """Which version was read."""

    version: Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class GuidelinesAnswer:
    """The version that holds (0: the text that ships with Heed) and the newest one you have accepted."""

    version: int
    text: str
    accepted: int | None


@routes.get("")
def show_guidelines(services: Given, person: Annotator) -> GuidelinesAnswer:
    """What annotators are asked to do."""
    version, text = read_guidelines(services.store)
    return GuidelinesAnswer(version, text, accepted_version(services.store, person.person_id))


@routes.post("", status_code=201)
def create_guidelines(body: GuidelinesBody, services: Given, person: Admin) -> Guidelines:
    """Set the next version; everybody must accept it before their next task."""
    return set_guidelines(services.store, body.text, person.name)


@routes.post("/accept")
def accept(body: AcceptBody, services: Given, person: Annotator) -> GuidelinesAnswer:
    """Accept the version that holds; 409 for another."""
    accept_guidelines(services.store, person.person_id, body.version)
    return show_guidelines(services, person)
