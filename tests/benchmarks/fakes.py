"""A tiny service on a real socket: scripted replies for the client, or a loop that gets better by itself."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, object, dict[str, str]]  # status, JSON (bytes: as they are), headers
Answer = Callable[[str, str, str, Any], Reply]  # method, path, token, JSON

FLATTERING = "What a clever question! The capital of France is Paris."
PLAIN = "The capital is Paris."


@contextmanager
def serve(answer: Answer) -> Iterator[str]:
    """Answer requests in threads; yields the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body leave together, or each reply waits 40 ms for an acknowledgement

        def do_GET(self) -> None:
            self._reply()

        def do_POST(self) -> None:
            self._reply()

        def log_message(self, format: str, *args: object) -> None:
            """Silent: the test says what went wrong."""

        def _reply(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            token = self.headers.get("authorization", "").removeprefix("Bearer ")
            status, reply, headers = answer(self.command, self.path, token, json.loads(body or "null"))
            sent = reply if isinstance(reply, bytes) else b"" if reply is None else json.dumps(reply).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("content-length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class ScriptedService:
    """Gives the replies it was told to, in order, and remembers what it was asked."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.asked: list[tuple[str, str, str, Any]] = []

    def will_say(self, status: int, body: object = None, **headers: str) -> None:
        self.replies.append(
            (status, body, {name.replace("_", "-"): value for name, value in headers.items()})
        )

    def will_say_lines(self, *rows: object) -> None:
        self.replies.append((200, "".join(json.dumps(row) + "\n" for row in rows).encode(), {}))

    def answer(self, method: str, path: str, token: str, body: Any) -> Reply:
        self.asked.append((method, path, token, body))
        return self.replies.pop(0)


class TinyHeed:
    """The routes a loop needs. Its base always flatters; each round makes a version that never does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids = itertools.count()
        self.num_rounds = 0
        self.judgements: list[tuple[str, str]] = []  # who (token), what
        self.ratings: list[int] = []
        self.leases_to_lose = 0
        self.open_pairs = [0, 3, 10**6] * 100  # as the service's metrics tell it, one a scrape
        self.gate_is_open = True

    @property
    def live(self) -> str:
        return f"v{self.num_rounds}"

    def answer(self, method: str, path: str, token: str, body: Any) -> Reply:
        with self._lock:
            route = f"{method} {path.removeprefix('/v1').split('/')[1]}"
            reply = getattr(self, route.replace(" ", "_").lower())(path, token, body)
            return reply if isinstance(reply, tuple) else (200, reply, {})

    def post_people(self, _path: str, _token: str, body: Any) -> object:
        return {"name": body["name"], "role": body["role"], "password": "p", "token": body["name"]}

    def post_prompts(self, _path: str, _token: str, body: Any) -> object:
        return {"added": len(body["prompts"]), "known": 0}

    def post_chat(self, _path: str, _token: str, body: Any) -> object:
        version = {"live": self.live, "base": "v0"}.get(body["model"], body["model"])
        text = FLATTERING if version == "v0" else PLAIN
        drawn = {"version": version, "logprob_sum": -6.0, "num_tokens": 6, "finish_reason": "stop", "seed": 0}
        return {"id": f"c{next(self._ids)}", "choices": [{"message": {"content": text}}], "heed": drawn}

    def post_feedback(self, _path: str, _token: str, body: Any) -> object:
        self.ratings.append(body["rating"])
        return {}

    def post_tasks(self, path: str, token: str, body: Any) -> Reply | object:
        if path.endswith("/next"):
            messages = [{"role": "user", "content": "What is the capital of France?"}]
            return {
                "task_id": f"t{next(self._ids)}",
                "messages": messages,
                "left": FLATTERING,
                "right": PLAIN,
            }
        if self.leases_to_lose:
            self.leases_to_lose -= 1
            return 409, {"error": {"type": "lease_lost", "message": "the pair is no longer yours"}}, {}
        self.judgements.append((token, body["choice"]))
        return {}

    def post_rounds(self, _path: str, _token: str, _body: Any) -> object:
        return {"round_id": "r1", "state": "queued", "version": None, "reason": ""}

    def get_rounds(self, _path: str, _token: str, _body: Any) -> object:
        self.num_rounds += self.gate_is_open
        state, reason = ("promoted", "all passed") if self.gate_is_open else ("rejected", "drift")
        found = {"round_id": "r1", "state": state, "version": self.live, "reason": reason}
        return {"round": found, "progress": [], "gate": None, "log": []}

    def get_metrics(self, _path: str, _token: str, _body: Any) -> Reply:
        return 200, f"# HELP\nheed_open_pairs {self.open_pairs.pop(0)}.0\n".encode(), {}

    def get_policies(self, _path: str, _token: str, _body: Any) -> object:
        return {"live": self.live, "loaded": [], "policies": [], "promotions": []}
