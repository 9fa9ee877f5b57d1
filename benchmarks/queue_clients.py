"""Many annotators in one thread: each asks for a task, judges it and asks again, over its own connection.

The HTTP is spoken by hand: a client library costs more time a request than the service, on the same cores.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from dataclasses import dataclass, field
from typing import Any

POLL_S = 0.25


@dataclass
class Crowd:
    """What a crowd did: seconds a request, and each judgement that was acknowledged, by its id."""

    next_s: list[float] = field(default_factory=list)
    judge_s: list[float] = field(default_factory=list)
    acknowledged: dict[str, str] = field(default_factory=dict)  # judgement id, task id
    vanished: int = 0
    lost: int = 0


@dataclass
class Work:
    """When a crowd is done: after `judgements` in all, or after `seconds`."""

    judgements: int | None
    seconds: float
    think_s: float = 0.0


class Connection:
    """One keep-alive connection of one person."""

    def __init__(self, port: int, token: str) -> None:
        self._port, self._token = port, token
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and body; once more on a new connection when the service closed the idle one."""
        is_fresh = self._streams is None
        try:
            return await self._post(path, json.dumps(body))
        except (asyncio.IncompleteReadError, ConnectionError):
            if is_fresh:
                raise
        await self.close()
        return await self._post(path, json.dumps(body))

    async def _post(self, path: str, content: str) -> tuple[int, dict[str, Any]]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nAuthorization: Bearer {self._token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n{content}".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length:")[2].split("\r\n")[0] or 0)
        answer = await reader.readexactly(length)
        return int(head.split()[1]), json.loads(answer) if answer else {}

    async def close(self) -> None:
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()
            with contextlib.suppress(ConnectionError):
                await streams[1].wait_closed()


async def annotate(
    port: int, token: str, crowd: Crowd, work: Work, deadline: float, vanish_after: int
) -> None:
    """Judge until the work is done; after `vanish_after` judgements take one more task and be gone."""
    connection, draw, num_judged = Connection(port, token), random.Random(token), 0
    try:
        while time.monotonic() < deadline:
            if work.judgements is not None and len(crowd.acknowledged) >= work.judgements:
                return
            before = time.perf_counter()
            status, task = await connection.post("/v1/tasks/next", {"kind": "pair"})
            crowd.next_s.append(time.perf_counter() - before)
            if status == 204:
                await asyncio.sleep(POLL_S)
                continue
            assert status == 200, (status, task)
            if num_judged == vanish_after:
                crowd.vanished += 1
                return
            if work.think_s:
                await asyncio.sleep(draw.expovariate(1 / work.think_s))
            choice = {"choice": draw.choice(["left", "right", "tie"]), "active_ms": 1500}
            before = time.perf_counter()
            status, saved = await connection.post(f"/v1/tasks/{task['task_id']}/judgement", choice)
            crowd.judge_s.append(time.perf_counter() - before)
            if status == 409:  # it thought longer than the lease
                crowd.lost += 1
                continue
            assert status == 200, (status, saved)
            crowd.acknowledged[saved["judgement_id"]] = saved["task_id"]
            num_judged += 1
    finally:
        await connection.close()


async def run_crowd(
    port: int, tokens: list[str], work: Work, share_vanishing: float = 0.0
) -> tuple[Crowd, float]:
    """All of them at once; returns what they did and how many seconds it took."""
    crowd, begun = Crowd(), time.monotonic()
    num_vanishing = round(share_vanishing * len(tokens))
    people = (
        annotate(port, token, crowd, work, begun + work.seconds, n % 4 if n < num_vanishing else -1)
        for n, token in enumerate(tokens)
    )
    await asyncio.gather(*people)
    return crowd, time.monotonic() - begun
