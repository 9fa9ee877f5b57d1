"""A judge to be asked over a real socket: it reads the question, has a taste, and misbehaves where told."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response


@dataclass
class JudgeServer:
    """Prefers the answer with more "good" in it; says tie when both have as many.

    `bias` is said instead of the taste; `hiccups` are statuses given first, one a request; `garbage` is said
    to whatever holds the word "garble".
    """

    bias: str | None = None
    hiccups: list[int] = field(default_factory=list)
    status: int = 200
    garbage: str = "I think A is better."
    retry_after: str = "0"
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    gate: threading.Event | None = None
    most_at_once: int = 0
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ids: Iterator[int] = field(default_factory=itertools.count)

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/v1/chat/completions")
        def answer(body: dict[str, Any], request: Request) -> Response:
            with self._lock:
                self.asked.append(body)
                self.keys.append(request.headers.get("authorization"))
                self._at_once += 1
                self.most_at_once = max(self.most_at_once, self._at_once)
                hiccup = self.hiccups.pop(0) if self.hiccups else self.status
            if self.gate is not None:
                assert self.gate.wait(20), "nobody opened the gate"
            with self._lock:
                self._at_once -= 1
            if hiccup != 200:
                headers = {"retry-after": self.retry_after}
                return JSONResponse({"error": {"message": "not now"}}, hiccup, headers)
            message = {"role": "assistant", "content": self._decide(body["messages"][-1]["content"])}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return JSONResponse(
                {"id": f"chatcmpl-{next(self._ids)}", "object": "chat.completion", "choices": [choice]}
            )

        return app

    def _decide(self, text: str) -> str:
        if "garble" in text:
            return self.garbage
        if self.bias is not None:
            return self.bias
        goods = [read_block(text, name).count("good") for name in ("ANSWER A", "ANSWER B")]
        return "tie" if goods[0] == goods[1] else "A" if goods[0] > goods[1] else "B"


def read_block(text: str, name: str) -> str:
    """What stands between the marks of that name; the marks must be there once and carry one code."""
    found = re.findall(rf"<<<{name} ([0-9a-f]+)>>>\n(.*?)\n<<<END {name} \1>>>", text, re.DOTALL)
    assert len(found) == 1, text
    return str(found[0][1])


@contextmanager
def serve(app: Any) -> Iterator[str]:
    """Run an ASGI app on a free port of this machine; yields its address."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    ready = threading.Event()
    startup = server.startup

    async def announce(*given: Any, **more: Any) -> None:
        await startup(*given, **more)
        ready.set()

    server.startup = announce  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run)
    thread.start()
    assert ready.wait(20), "the server did not start"
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join()
