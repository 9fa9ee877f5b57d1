"""Which policies can be asked, as OpenAI's clients list them."""

from __future__ import annotations

from fastapi import APIRouter

from annotate.api.given import Given, Tester
from annotate.services import Services
from store.errors import NotFound
from store.policies import read_policies

routes = APIRouter(prefix="/v1/models", tags=["chat"])


@routes.get("")
def list_models(services: Given, _person: Tester) -> dict[str, object]:
    """`live`, `base`, and each loaded version."""
    return {"object": "list", "data": list(_describe_models(services).values())}


@routes.get("/{model}")
def show_model(model: str, services: Given, _person: Tester) -> dict[str, object]:
    """One of them."""
    known = _describe_models(services)
    if model not in known:
        raise NotFound(f"model {model!r} is not loaded; loaded: {', '.join(known)}")
    return known[model]


def _describe_models(services: Services) -> dict[str, dict[str, object]]:
    made = {policy.version: int(policy.created_at.timestamp()) for policy in read_policies(services.store)}
    names = dict.fromkeys(("live", "base", *services.loaded_versions()))
    return {
        name: {"id": name, "object": "model", "created": made.get(name, 0), "owned_by": "heed"}
        for name in names
    }
