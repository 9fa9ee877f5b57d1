"""`POST /v1/chat/completions`: an OpenAI-compatible door to the policies, streaming and not.

Nothing here waits in a thread: an answer is read by a thread of its own (`annotate.writing`), which wakes the
event loop. A client that goes away stops the engine at once, also while it waits for the first word.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from functools import partial

from anyio import CapacityLimiter, fail_after, move_on_after, to_thread
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from annotate.api.completions import (
    ChatRequest,
    StreamWriter,
    read_messages,
    read_samplings,
    write_break,
    write_completion,
)
from annotate.api.given import Given, Tester
from annotate.chat import answer_all
from annotate.services import Services
from annotate.writing import STOPPED, Answer, Writing
from store.errors import Busy, HeedError

log = logging.getLogger(__name__)
routes = APIRouter(prefix="/v1", tags=["chat"])

KEEP_ALIVE_S = 10.0  # proxies close a connection on which nothing comes, many of them after a minute
MOST_EVENTS_PER_S = 400  # of all streams together; one costs the event loop about half a millisecond
LONGEST_PAUSE_S = 0.1
SEND_S = 60.0  # a client that takes nothing for so long is as good as gone
GONE = 499  # nobody reads it: the client has closed the connection

Answers = tuple[Answer, ...]


class Reader:
    """Answers that are being written, as the event loop sees them: newest states, and when they change."""

    def __init__(self, writings: Sequence[Writing]) -> None:
        self._writings = writings
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._changed.set()  # what came before anybody listened is to be read too
        for writing in writings:
            writing.listen(self._wake)

    async def read(self, longest_s: float | None = None) -> Answers:
        """The states after the next change, or after `longest_s`; raises what ended one of them."""
        with move_on_after(longest_s):
            await self._changed.wait()
        self._changed.clear()
        return tuple(writing.read() for writing in self._writings)

    async def read_until(self, is_enough: Callable[[Answers], bool]) -> Answers:
        """The first states that are enough."""
        while not is_enough(answers := await self.read(KEEP_ALIVE_S)):
            pass
        return answers

    def close(self) -> None:
        """Stop what is still being written; it is kept as cancelled."""
        for writing in self._writings:
            writing.listen(None)
            writing.close()

    def _wake(self) -> None:  # called by the threads that write
        if not self._changed.is_set():
            self._loop.call_soon_threadsafe(self._changed.set)


class AnswerStream(StreamingResponse):
    """Server-sent events of answers; whatever ends the response also ends the writing of the answers.

    A client that reads too slowly misses no word and holds nothing up: states are skipped, not collected. One
    that reads nothing for SEND_S is let go.
    """

    def __init__(self, reader: Reader, events: AsyncIterator[str], headers: dict[str, str]) -> None:
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._reader = reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            with fail_after(SEND_S):
                await send(message)

        try:
            await super().__call__(scope, receive, send_in_time)
        except (TimeoutError, ClientDisconnect):  # Starlette makes the second of the first
            log.warning("a client took nothing of its answer for %.0f s and is let go", SEND_S)
        finally:
            self._reader.close()


@routes.post("/chat/completions")
async def complete_chat(body: ChatRequest, request: Request, services: Given, person: Tester) -> Response:
    """Ask a policy, streaming or not; an answer's completion id is what feedback refers to."""
    threads: CapacityLimiter = request.app.state.chat_threads
    ask = partial(
        answer_all,
        services,
        person,
        body.model,
        read_messages(body),
        read_samplings(body, services.settings),
        body.conversation_id,
        most_in_flight=services.settings.limits.in_flight_per_person,
        top_logprobs=body.wanted_logprobs,
    )
    reader = Reader(await to_thread.run_sync(ask, limiter=threads))
    try:
        reply = await _while_connected(request, _reply(body, reader, partial(_find_pace, services)))
    except BaseException:
        reader.close()
        raise
    if not isinstance(reply, AnswerStream):  # a stream closes it when it ends
        reader.close()
    return reply or Response(status_code=GONE)


async def _reply(body: ChatRequest, reader: Reader, pace_s: Callable[[], float]) -> Response:
    """A stream from the first sign of life on, or the whole answers at their end."""
    created = int(time.time())
    with_logprobs = body.wanted_logprobs is not None
    if body.stream:
        begun = await reader.read_until(_has_begun)
        writer = StreamWriter(begun[0], created, body.stream_options, with_logprobs)
        return AnswerStream(reader, _write_events(begun, reader, writer, pace_s), _write_headers(begun))
    answers = _refuse_stopped(await reader.read_until(_has_ended))
    left_out = max(answer.completion.num_left_out for answer in answers if answer.completion)
    headers = _write_headers(answers) | ({"x-left-out-messages": str(left_out)} if left_out else {})
    return JSONResponse(write_completion(answers, created, with_logprobs), headers=headers)


async def _while_connected(request: Request, reply: Coroutine[None, None, Response]) -> Response | None:
    """What the coroutine returns, or None as soon as the client has gone away."""
    replying = asyncio.ensure_future(reply)
    leaving = asyncio.ensure_future(_wait_until_gone(request))
    try:
        await asyncio.wait((replying, leaving), return_when=asyncio.FIRST_COMPLETED)
        return replying.result() if replying.done() else None
    finally:
        replying.cancel()
        leaving.cancel()


async def _wait_until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _write_events(
    answers: Answers, reader: Reader, writer: StreamWriter, pace_s: Callable[[], float]
) -> AsyncIterator[str]:
    try:
        while not _has_ended(answers):
            words = writer.write(answers)
            yield words or writer.write_place(answers)
            if words:
                await asyncio.sleep(pace_s())  # what comes meanwhile goes into one event
            answers = await reader.read(KEEP_ALIVE_S)
        yield writer.write(_refuse_stopped(answers)) + writer.write_end(answers)
    except HeedError as error:
        yield write_break(error.kind, str(error))
    except Exception:
        # The status line is long gone: the stream itself has to say that there will be no more.
        log.exception("answer %s broke off", answers[0].completion_id)
        yield write_break("internal", "the answer broke off; the server's log says why")


def _find_pace(services: Services) -> float:
    """Seconds between two events of a stream: the more answers, the longer, so that labels get their turn."""
    return min(services.slots.count() / MOST_EVENTS_PER_S, LONGEST_PAUSE_S)


def _has_begun(answers: Answers) -> bool:
    """The version is known and the engine has not refused; the stream's headers can be sent."""
    return bool(_refuse_stopped(answers)[0].version)


def _has_ended(answers: Answers) -> bool:
    return all(answer.finish_reason is not None for answer in answers)


def _refuse_stopped(answers: Answers) -> Answers:
    """Only finished answers leave in OpenAI's shape, which knows no `cancelled`."""
    if any(answer.finish_reason == "cancelled" for answer in answers):
        raise Busy(STOPPED)
    return answers


def _write_headers(answers: Answers) -> dict[str, str]:
    return {"x-policy-version": answers[0].version, "cache-control": "no-store"}
