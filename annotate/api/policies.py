"""The policy versions, and moving between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field

from annotate.api.given import Admin, Body, Given, ShortText
from store.policies import live_version, read_policies, read_promotions
from store.records import Policy, Promotion

routes = APIRouter(prefix="/v1", tags=["policies"])

VERSION = r"^v\d{1,9}$"


class Promote(Body):
    """Why; kept in the history."""

    reason: ShortText = ""


class RollBack(Body):
    """Where to, the version before the live one by default, and why."""

    version: Annotated[str, Field(pattern=VERSION)] | None = None
    reason: ShortText = ""


@dataclass(frozen=True)
class PoliciesAnswer:
    """Every version, newest first, which one is live, which are loaded, and the newest moves."""

    live: str
    loaded: list[str]
    policies: list[Policy]
    promotions: list[Promotion]


@routes.get("/policies")
def list_policies(services: Given, _person: Admin) -> PoliciesAnswer:
    """The versions and the history of what was live."""
    store = services.store
    return PoliciesAnswer(
        live_version(store), services.loaded_versions(), read_policies(store), read_promotions(store)
    )


@routes.post("/policies/{version}/promote")
def promote_policy(
    version: Annotated[str, Path(pattern=VERSION)],
    services: Given,
    person: Admin,
    body: Promote | None = None,
) -> Promotion:
    """Make a version live; requests in flight finish on the one that began them."""
    return services.promote(version, person.name, (body or Promote()).reason)


@routes.post("/rollback")
def roll_back_policy(services: Given, person: Admin, body: RollBack | None = None) -> Promotion:
    """Return to the version before the live one, or to the one named; `v0` is the base model."""
    wanted = body or RollBack()
    return services.roll_back(person.name, wanted.version, wanted.reason)
