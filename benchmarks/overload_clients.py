"""Many testers in one thread, each asking over a connection of its own and reading the answer as it streams.

The HTTP is spoken by hand: a client library costs more time an answer than the service, on the same cores.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

QUESTIONS = (
    "What is the capital of France?",
    "How do I boil an egg?",
    "Hello there, how are you today?",
    "Why is the sky blue?",
)
TOLD_TO_WAIT = (429, 503)


@dataclass
class Room:
    """What a room of chat clients got; times are seconds to the first word and to the end of an answer."""

    first_word_s: list[float] = field(default_factory=list)
    answer_s: list[float] = field(default_factory=list)
    answered: int = 0
    told_to_wait: set[int] = field(default_factory=set)  # clients
    refusals: int = 0
    retry_after_s: list[int] = field(default_factory=list)
    saw_place: int = 0
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Talk:
    """What each client does: so many questions one by one, each given up after `patience_s` of waiting."""

    questions: int
    max_tokens: int
    patience_s: float


class TurnedAway(Exception):
    """The service said when to come back."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"come back in {retry_after_s} s")
        self.retry_after_s = retry_after_s


async def run_room(port: int, tokens: list[str], talk: Talk) -> tuple[Room, float]:
    """All of them at once; returns what they got and how many seconds it took."""
    room, begun = Room(), time.monotonic()
    await asyncio.gather(*(_talk(port, number, token, talk, room) for number, token in enumerate(tokens)))
    return room, time.monotonic() - begun


async def _talk(port: int, number: int, token: str, talk: Talk, room: Room) -> None:
    for turn in range(talk.questions):
        deadline = time.monotonic() + talk.patience_s
        while True:
            try:
                await _ask(port, token, QUESTIONS[(number + turn) % len(QUESTIONS)], talk.max_tokens, room)
                room.answered += 1
                break
            except TurnedAway as told:
                room.told_to_wait.add(number)
                room.refusals += 1
                room.retry_after_s.append(told.retry_after_s)
                if time.monotonic() + told.retry_after_s > deadline:
                    room.failures.append(f"client {number} was told to wait for {talk.patience_s:.0f} s")
                    return
                await asyncio.sleep(told.retry_after_s)
            except (OSError, EOFError, ValueError) as error:
                room.failures.append(f"client {number}: {error!r}")
                return


async def _ask(port: int, token: str, question: str, max_tokens: int, room: Room) -> None:
    """One answer to its end. Raises TurnedAway, or ValueError for anything that is no answer."""
    begun = time.perf_counter()
    first_word_s, is_whole, saw_place = None, False, False
    async for line in _stream(port, token, question, max_tokens):
        if line.startswith(b": place"):
            saw_place = True
        elif line == b"data: [DONE]":
            is_whole = True
        elif line.startswith(b"data: "):
            if b'"error"' in line:
                raise ValueError(line.decode())
            first_word_s = first_word_s or time.perf_counter() - begun
    if not is_whole or first_word_s is None:
        raise ValueError("the answer broke off")
    room.first_word_s.append(first_word_s)
    room.answer_s.append(time.perf_counter() - begun)
    room.saw_place += saw_place


async def _stream(port: int, token: str, question: str, max_tokens: int) -> AsyncIterator[bytes]:
    """The lines of a streamed answer."""
    body = json.dumps(
        {"messages": [{"role": "user", "content": question}], "stream": True, "max_tokens": max_tokens}
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = (
            "POST /v1/chat/completions HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            f"Authorization: Bearer {token}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            "Connection: close",
        )
        writer.write("\r\n".join((*head, "", body)).encode())
        answered = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        status = int(answered.split()[1])
        if status in TOLD_TO_WAIT:
            raise TurnedAway(int(answered.partition("retry-after:")[2].split()[0]))
        if status != 200:
            raise ValueError(f"{status}: {(await reader.read()).decode()}")
        # Chunk sizes stand on lines of their own between the events; no event looks like one.
        while line := await reader.readline():
            yield line.strip()
    finally:
        writer.close()
