"""Labels that nobody gave here: their sources, the AI judge, and synthetic pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from annotate.api.given import Admin, Body, Given, ShortText, Text
from annotate.judge.desk import JudgeDesk, JudgeRun, JudgeStatus
from annotate.services import Services
from annotate.synthetic import SyntheticOrder, SyntheticRun
from store.errors import NotFound, StateConflict
from store.outside import count_outside_labels, drop_outside_labels

routes = APIRouter(prefix="/v1", tags=["sources"])

MOST_AT_ONCE = 10_000


class JudgeBody(Body):
    """How many pairs to judge; `again_unreadable` asks again where a reply was none of those asked for."""

    limit: Annotated[int, Field(ge=1, le=MOST_AT_ONCE)]
    again_unreadable: bool = False


class SyntheticBody(Body):
    """Two system prompts and how many prompts to answer under both; `model` is live, base or a version."""

    good: Text
    bad: Text
    num: Annotated[int, Field(ge=1, le=MOST_AT_ONCE)]
    name: ShortText
    model: ShortText = "live"
    temperature: Annotated[float, Field(ge=0, le=5, allow_inf_nan=False)] = 0.8
    max_tokens: Annotated[int, Field(ge=1)] = 256


@dataclass(frozen=True)
class SourceAnswer:
    """A source of outside labels and how many it gave."""

    source: str
    labels: int


@routes.get("/sources")
def list_sources(services: Given, _person: Admin) -> list[SourceAnswer]:
    """Where labels that nobody gave here come from, the biggest source first."""
    return [SourceAnswer(source, labels) for source, labels in count_outside_labels(services.store).items()]


@routes.delete("/sources/{source:path}")
def drop_source(source: str, services: Given, person: Admin) -> SourceAnswer:
    """Take every label of a source out of later rounds; answers with how many there were."""
    refuse_while_filling(services, source)
    known = count_outside_labels(services.store)
    if source not in known:
        raise NotFound(f"no label comes from {source!r}; known: {', '.join(known) or 'none'}")
    return SourceAnswer(source, drop_outside_labels(services.store, source, person.name))


@routes.get("/judge")
def read_judge(services: Given, _person: Admin) -> JudgeStatus:
    """Calls, budget, labels, agreement with people, and the run that is going on or was the last."""
    return _require_judge(services).read_status()


@routes.post("/judge/run", status_code=202)
def run_judge(body: JudgeBody, services: Given, _person: Admin) -> JudgeRun:
    """Judge up to `limit` pairs in the background, those people have judged first."""
    return _require_judge(services).start(body.limit, body.again_unreadable)


@routes.post("/judge/cancel")
def cancel_judge(services: Given, _person: Admin) -> JudgeRun:
    """Begin no other pair; what was asked already is still saved."""
    return _require_judge(services).cancel()


@routes.get("/synthetic")
def read_synthetic(services: Given, _person: Admin) -> SyntheticRun | None:
    """How far the synthetic pairs are; null before the first order since the start."""
    return services.synthetic.read_run()


@routes.post("/synthetic", status_code=202)
def make_synthetic(body: SyntheticBody, services: Given, _person: Admin) -> SyntheticRun:
    """Answer prompts under both system prompts in the background; the good answer is the chosen one."""
    return services.synthetic.start(SyntheticOrder(**body.model_dump()))


@routes.post("/synthetic/cancel")
def cancel_synthetic(services: Given, _person: Admin) -> SyntheticRun:
    """Ask nothing more; the pairs made so far stay until their source is dropped."""
    return services.synthetic.cancel()


def _require_judge(services: Services) -> JudgeDesk:
    if services.judge is None:
        raise NotFound("no judge is set up; start with --judge.url and --judge.model")
    return services.judge


def refuse_while_filling(services: Services, source: str) -> None:
    """StateConflict: a source that is being filled would be there again a moment later."""
    making = services.synthetic.read_run()
    if making is not None and making.is_running and making.source == source:
        raise StateConflict(f"{source} is being made; cancel it first")
    if services.judge is None:
        return
    status = services.judge.read_status()
    if status.source == source and status.run is not None and status.run.is_running:
        raise StateConflict(f"{source} is judging; cancel it first")
