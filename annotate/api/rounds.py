"""Rounds: why one starts or not, starting, watching and stopping one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from pydantic import Field

from annotate.api.given import Admin, Body, Given, ShortText
from store.records import Round, Why
from store.rounds import read_round, read_rounds

routes = APIRouter(prefix="/v1/rounds", tags=["rounds"])


class StartBody(Body):
    """Whose labels to leave out of this round, by person id; `fresh` trains a new adapter on all labels."""

    without: list[ShortText] = Field(default=[], max_length=1000)
    fresh: bool = False


@dataclass(frozen=True)
class RoundAnswer:
    """A round with its logged steps, the gate's checks once there are any, and the end of its log."""

    round: Round
    progress: list[dict[str, object]]
    gate: dict[str, object] | None
    log: list[str]


@routes.get("")
def list_rounds(
    services: Given, _person: Admin, limit: Annotated[int, Query(ge=1, le=1000)] = 50
) -> list[Round]:
    """The newest rounds first."""
    return read_rounds(services.store, limit)


@routes.get("/why")
def explain_round(services: Given, _person: Admin) -> Why:
    """Each trigger and guard with its value, threshold and verdict."""
    return services.explain_round()


@routes.post("", status_code=201)
def start_round(services: Given, person: Admin, body: StartBody | None = None) -> Round:
    """Start a round now, without the labels of some people or from scratch if asked; 409 names the one that
    is running."""
    body = body or StartBody()
    return services.start_round(person.name, body.without, body.fresh)


@routes.get("/{round_id}")
def watch_round(
    round_id: str, services: Given, _person: Admin, log_lines: Annotated[int, Query(ge=0, le=1000)] = 50
) -> RoundAnswer:
    """One round and how far it is. A number that is not finite is sent as null: JSON has no word for it."""
    found = read_round(services.store, round_id)
    gate = services.read_gate(round_id)
    return RoundAnswer(
        round=found,
        progress=[_finite_values(line) for line in services.read_progress(round_id)],
        gate=None if gate is None else _finite_values(gate),
        log=services.read_log(round_id, log_lines) if log_lines else [],
    )


@routes.get("/{round_id}/report", response_class=HTMLResponse)
def show_report(round_id: str, services: Given, _person: Admin) -> HTMLResponse:
    """One page about a round: labels, curves and what they mean, gate, settings; as it stands now."""
    return HTMLResponse(services.read_report(read_round(services.store, round_id)))


@routes.post("/{round_id}/cancel")
def cancel_round(round_id: str, services: Given, person: Admin) -> Round:
    """Stop a running round; nothing of it becomes live."""
    return services.cancel_round(read_round(services.store, round_id).round_id, person.name)


def _finite_values(values: dict[str, object]) -> dict[str, object]:
    return {name: _finite(value) for name, value in values.items()}


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return _finite_values(value) if isinstance(value, dict) else value
