"""Whether the service is alive, whether it can answer, and its numbers."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse

from annotate.api.given import Given
from annotate.auth import require
from annotate.edge import DIRECT_LOOPBACK
from store.errors import Busy

routes = APIRouter(tags=["health"])


@routes.get("/healthz")
def read_health(services: Given) -> dict[str, object]:
    """Alive. `degraded`, with `reasons`: the store repairs itself, or something served is not as promoted."""
    reasons = [*services.read_problems()]
    if not services.store.health().get("ok"):
        reasons.insert(0, "the store is reopening or rebuilding itself, or cannot write its journal")
    return {"status": "degraded", "reasons": reasons} if reasons else {"status": "ok"}


@routes.get("/readyz")
def read_readiness(services: Given) -> dict[str, str]:
    """Able to answer; 503 while the policy is still being loaded."""
    if not services.is_ready():
        raise Busy("the policy is still being loaded; try again shortly")
    return {"status": "ready"}


@routes.get("/metrics", response_class=PlainTextResponse)
def read_metrics(request: Request, services: Given) -> PlainTextResponse:
    """Prometheus text; for an admin, or from this machine without a proxy in between."""
    if not request.scope.get(DIRECT_LOOPBACK):
        require(request, "admin")
    return PlainTextResponse(services.write_metrics(), media_type="text/plain; version=0.0.4")
