"""How the pool looks after its servers, which are scripted: one of them hangs in its checks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from serving import vllm_pool
from serving.vllm_client import Card
from serving.vllm_pool import Replica, VllmPool


class ScriptedServer:
    """Takes and forgets adapters; one that `hangs` is healthy and never answers anything else."""

    def __init__(self, url: str, hangs: bool = False) -> None:
        self.url = url
        self.hangs = hangs
        self.adapters: set[str] = set()
        self.num_health_checks = 0

    async def check_health(self) -> None:
        self.num_health_checks += 1

    async def read_card(self) -> Card:
        if self.hangs:
            await asyncio.Event().wait()
        return Card("base", "", 100, frozenset(self.adapters))

    async def load_adapter(self, name: str, _folder: Path) -> None:
        self.adapters.add(name)

    async def unload_adapter(self, name: str) -> None:
        self.adapters.remove(name)


class Pool(VllmPool):
    """A check is no more than the card; whatever else it compares is tested with a real vLLM."""

    async def _check(self, replica: Replica) -> Card:
        return await replica.client.read_card()


def build(monkeypatch: pytest.MonkeyPatch, *servers: ScriptedServer) -> Pool:
    for name in ("WATCH_S", "CHECK_S", "RETURN_S"):
        monkeypatch.setattr(vllm_pool, name, 0.02)
    text: Any = type("Text", (), {"context_length": 100})
    nothing: Any = None
    pool = Pool([server.url for server in servers], nothing, text, nothing, "run")
    for replica, server in zip(pool._replicas, servers, strict=True):
        replica.client = server  # type: ignore[assignment]
        replica.problem = "restarted"
    return pool


async def until(claim: Any) -> None:
    async with asyncio.timeout(10):
        while not claim():
            await asyncio.sleep(0)


def test_a_server_that_hangs_in_its_checks_keeps_no_load_and_no_other_server_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It held the lock for as long as its probes took, up to 600 s each, and the one watch was behind it."""
    hanging, healthy = ScriptedServer("http://hangs", hangs=True), ScriptedServer("http://healthy")

    async def load_meanwhile() -> None:
        pool = build(monkeypatch, hanging, healthy)
        monkeypatch.setattr(vllm_pool, "CHECK_S", 600.0)
        watching = asyncio.create_task(pool.keep_watch())
        await until(lambda: pool.num_up == 1)
        name = await asyncio.wait_for(pool.load(Path("v1"), "v1"), 10)
        assert healthy.adapters == {name}
        pool.lose(pool._replicas[1], "it broke off")
        await until(lambda: pool.num_up == 1 and healthy.num_health_checks > 2)
        watching.cancel()

    asyncio.run(load_meanwhile())
    assert hanging.num_health_checks == 1


def test_checks_end_and_a_server_that_recovers_comes_back_with_every_adapter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hanging, healthy = ScriptedServer("http://hangs", hangs=True), ScriptedServer("http://healthy")

    async def recover() -> None:
        pool = build(monkeypatch, hanging, healthy)
        watching = asyncio.create_task(pool.keep_watch())
        await until(lambda: pool.num_up == 1 and "its checks took longer" in str(pool._replicas[0].problem))
        await pool.load(Path("v1"), "v1")
        hanging.adapters.add("heed-run-0-old")
        hanging.hangs = False
        await until(lambda: pool.num_up == 2)
        watching.cancel()

    asyncio.run(recover())
    assert hanging.adapters == healthy.adapters != set()
