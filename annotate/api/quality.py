"""How good the labels are: agreement, each person's numbers, and which versions learned from somebody."""

from __future__ import annotations

from fastapi import APIRouter

from annotate.api.given import Admin, Given, ShortText
from store.people import read_person
from store.provenance import TrainedVersion, read_versions_trained_on
from store.quality import Quality, read_quality

routes = APIRouter(prefix="/v1", tags=["quality"])


@routes.get("/quality")
def show_quality(services: Given, _person: Admin) -> Quality:
    """Agreement of everybody, and every annotator's numbers; a measure without a value says why."""
    return read_quality(services.store, services.quality)


@routes.get("/people/{person_id}/versions")
def list_versions(person_id: ShortText, services: Given, _person: Admin) -> list[TrainedVersion]:
    """The versions that learned from this person's labels."""
    return read_versions_trained_on(services.store, read_person(services.store, person_id).person_id)
