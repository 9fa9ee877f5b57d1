"""A room that is too full: all are answered or told when to come back, and labels are saved meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from annotate.web import build_api
from benchmarks.overload import combine, run_both, summarise
from benchmarks.overload_clients import Talk
from benchmarks.queue_store import add_people, add_tasks
from building import Service, build_service
from settings import ServeSettings
from tests.served import serve

CLIENTS, ANNOTATORS, SLOTS, WAITING = 24, 4, 4, 4


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """The real service with few slots and a short queue."""
    flags = [
        "--data",
        str(tmp_path / "data"),
        "--batch.slots",
        str(SLOTS),
        "--batch.max-waiting",
        str(WAITING),
    ]
    built = build_service(ServeSettings.read(flags, "serve"))
    yield built
    built.close()


@pytest.mark.slow
def test_whoever_is_told_to_wait_is_answered_when_they_come_back(service: Service) -> None:
    annotators = add_people(service.parts.store, ANNOTATORS)
    testers = add_people(service.parts.store, CLIENTS, "tester", first=ANNOTATORS)
    add_tasks(service.parts.store, 300, wanted=3)
    talk = Talk(questions=1, max_tokens=24, patience_s=100)
    with serve(build_api(service.services)) as url:
        port = int(url.rpartition(":")[2])
        room, crowd, took_s = asyncio.run(run_both(port, testers, annotators, talk, think_s=0.1))
    found = summarise(room, crowd, took_s, CLIENTS, talk)
    assert found["failed"] == 0, found["failures"]
    assert found["answered"] == CLIENTS
    assert room.told_to_wait, "24 clients do not fit 4 slots and 4 places in the queue"
    assert min(room.retry_after_s) >= 1
    assert len(crowd.acknowledged) == len(crowd.judge_s) > 0
    assert combine({"short": found})["told_to_wait"] == len(room.told_to_wait)
    assert service.parts.engine.stats().versions["v0"].running == 0
