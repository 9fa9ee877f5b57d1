"""The HTTP routes, one file a subject; thin over the functions the pages call too."""

from __future__ import annotations

from fastapi import APIRouter

from annotate.api import (
    adjudication,
    asking,
    canary,
    chat,
    data,
    guidelines,
    health,
    labels,
    models,
    people,
    policies,
    quality,
    rounds,
    schema,
    sources,
)

ROUTERS: tuple[APIRouter, ...] = (
    health.routes,
    schema.routes,
    models.routes,
    asking.routes,
    chat.routes,
    labels.routes,
    guidelines.routes,
    data.routes,
    rounds.routes,
    adjudication.routes,
    quality.routes,
    policies.routes,
    canary.routes,
    people.routes,
    sources.routes,
)
