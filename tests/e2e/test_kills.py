"""kill -9: of the round process while the service answers, and of the service while people rate."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from store.database import Store
from store.judgements import read_judgements
from tests.running import RunningService

NOTHING_BY_ITSELF = ("--min-labels", "8", "--min-new-labels", "100000", "--max-wait-hours", "0")
RATERS = 3


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunningService]:
    running = RunningService(tmp_path / "data", NOTHING_BY_ITSELF).start()
    yield running
    if running.process is not None and running.process.poll() is None:
        running.stop()


def make_annotator(service: RunningService, name: str) -> str:
    with service.client() as admin:
        made = admin.post("/v1/people", json={"name": name, "role": "annotator"})
        assert made.status_code in (httpx.codes.OK, httpx.codes.CREATED), made.text
        return str(made.json()["token"])


def judge_one(client: httpx.Client) -> str | None:
    """Lease a pair and prefer the shorter answer; the acknowledged judgement's id, None without a task."""
    task = client.post("/v1/tasks/next", json={"kind": "pair"})
    if task.status_code == httpx.codes.NO_CONTENT:
        time.sleep(0.05)
        return None
    assert task.status_code == httpx.codes.OK, task.text
    pair = task.json()
    side = "left" if len(pair["left"]) <= len(pair["right"]) else "right"
    reply = client.post(f"/v1/tasks/{pair['task_id']}/judgement", json={"choice": side, "strength": 1})
    assert reply.status_code in (httpx.codes.OK, httpx.codes.CREATED), reply.text
    return str(reply.json()["judgement_id"])


def judge(service: RunningService, token: str, count: int) -> None:
    with service.client(token) as client:
        done = 0
        while done < count:
            done += judge_one(client) is not None


def read_round(admin: httpx.Client, round_id: str) -> dict[str, Any]:
    reply = admin.get(f"/v1/rounds/{round_id}")
    assert reply.status_code == httpx.codes.OK, reply.text
    found: dict[str, Any] = reply.json()["round"]
    return found


def wait_for_state(
    admin: httpx.Client, round_id: str, states: set[str], limit_s: float = 300
) -> dict[str, Any]:
    """Poll until the round is in one of these states; the service must answer every time."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        found = read_round(admin, round_id)
        if found["state"] in states:
            return found
        assert found["state"] not in {"failed", "cancelled", "interrupted"}, found["reason"]
        time.sleep(0.1)
    raise AssertionError(f"round {round_id} reached none of {states} in {limit_s} s")


def find_round_process(round_id: str) -> int:
    found = subprocess.run(
        ["pgrep", "-f", f"trainer.round .*{round_id}"], capture_output=True, text=True, check=True
    )
    return int(found.stdout.split()[0])


@pytest.mark.slow
def test_a_killed_round_process_is_resumed_and_nothing_else_notices(service: RunningService) -> None:
    judge(service, make_annotator(service, "ann"), 16)
    question = {"model": "live", "messages": [{"role": "user", "content": "What is the capital of France?"}]}
    with service.client() as admin:
        killed = admin.post("/v1/rounds").json()["round_id"]
        wait_for_state(admin, killed, {"training", "evaluating"})
        os.kill(find_round_process(killed), signal.SIGKILL)
        assert admin.post("/v1/chat/completions", json=question).status_code == httpx.codes.OK
        assert admin.get("/v1/policies").json()["live"] == "v0"
        assert wait_for_state(admin, killed, {"promoted", "rejected"})["version"] == "v1"
        assert "SIGKILL" in (service.data / "rounds" / killed / "resumes.jsonl").read_text()
        assert admin.post("/v1/chat/completions", json=question).status_code == httpx.codes.OK


@pytest.mark.slow
def test_a_round_dies_with_the_service_and_goes_on_after_the_restart(service: RunningService) -> None:
    judge(service, make_annotator(service, "ann"), 16)
    with service.client() as admin:
        begun = admin.post("/v1/rounds").json()["round_id"]
        wait_for_state(admin, begun, {"training", "evaluating"})
        process = Path(f"/proc/{find_round_process(begun)}")
        service.kill()
    deadline = time.monotonic() + 30
    while process.exists():
        assert time.monotonic() < deadline, "the round outlived the service that should take its result"
        time.sleep(0.1)
    service.start()
    with service.client() as admin:
        assert wait_for_state(admin, begun, {"promoted", "rejected"})["version"] == "v1"
        assert "the service was stopped" in (service.data / "rounds" / begun / "resumes.jsonl").read_text()
        assert "no round is running" in admin.get("/v1/rounds/why").text


def rate_until_it_dies(service: RunningService, token: str, acknowledged: list[str]) -> None:
    with service.client(token) as client:
        while True:
            try:
                judged = judge_one(client)
            except httpx.TransportError:
                return  # killed: what was not acknowledged may or may not be there
            if judged is not None:
                acknowledged.append(judged)


@pytest.mark.parametrize("kills", [1, pytest.param(50, marks=pytest.mark.slow)])
def test_every_acknowledged_judgement_survives_kills_of_the_service(
    service: RunningService, kills: int
) -> None:
    tokens = [make_annotator(service, f"rater {n}") for n in range(RATERS)]
    acknowledged: list[str] = []
    for kill in range(kills):
        goal = len(acknowledged) + 5
        raters = [
            threading.Thread(target=rate_until_it_dies, args=(service, token, acknowledged))
            for token in tokens
        ]
        for rater in raters:
            rater.start()
        deadline = time.monotonic() + 60
        while len(acknowledged) < goal and time.monotonic() < deadline:
            time.sleep(0.001 * (kill % 7))  # not always at the same moment of a write
        service.kill()
        for rater in raters:
            rater.join()
        service.start()
    service.stop()
    store = Store.open(service.data)
    kept = {judgement.judgement_id for judgement in read_judgements(store)}
    store.close()
    assert len(acknowledged) >= 5 * kills
    assert not set(acknowledged) - kept
