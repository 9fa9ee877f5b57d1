"""A version on trial with a share of conversations: start, watch, stop, promote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from annotate.api.given import Admin, Body, Given, ShortText
from annotate.api.policies import VERSION
from annotate.canary import Trial, read_trials, require_desk
from store.canary_rows import Canary
from store.records import Promotion

routes = APIRouter(prefix="/v1/canary", tags=["policies"])


class Start(Body):
    """Which version gets which share of conversations (the setting when it is left out), and why."""

    version: Annotated[str, Field(pattern=VERSION)]
    share: Annotated[float, Field(gt=0, lt=1)] | None = None
    reason: ShortText = ""


class Why(Body):
    """Why; kept in the history."""

    reason: ShortText = ""


@dataclass(frozen=True)
class CanaryAnswer:
    """The one that runs, with its measured share, thumbs and bounds, and the ended ones, newest first."""

    running: Trial | None
    measured_share: float | None
    history: list[Trial]


@routes.get("")
def show_canary(services: Given, _person: Admin) -> CanaryAnswer:
    """What is on trial and how it does; `worse_by` bounds live's up-rate minus the candidate's."""
    trials = read_trials(services)
    running = next((trial for trial in trials if trial.canary.outcome is None), None)
    ended = [trial for trial in trials if trial.canary.outcome is not None]
    return CanaryAnswer(running, running.sides.share if running else None, ended)


@routes.post("", status_code=201)
def start_canary(body: Start, services: Given, person: Admin) -> Canary:
    """Give a version a share of conversations, once it has proved itself; 409 while another is on trial."""
    return require_desk(services).start(body.version, body.share, person.name, body.reason)


@routes.post("/stop")
def stop_canary(services: Given, person: Admin, body: Why | None = None) -> Canary:
    """End the trial without a verdict; every conversation goes to live again."""
    return require_desk(services).stop(person.name, (body or Why()).reason)


@routes.post("/promote")
def promote_canary(services: Given, person: Admin, body: Why | None = None) -> Promotion:
    """Make the version on trial live; that ends the trial."""
    return require_desk(services).promote(person.name, (body or Why()).reason)
