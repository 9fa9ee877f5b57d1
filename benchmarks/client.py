"""Heed's HTTP API as a person's program sees it: one token, plain records back, patience with a busy service.

It knows no database and no model, so the same benchmark runs against a service on another machine.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import Any, Self

import httpx

from store.records import Message

BUSY = frozenset({429, 502, 503, 504})  # the service asks to come back later
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0
PROMPTS_A_REQUEST = 200  # well below the largest body the service takes
TIMEOUT_S = 300.0  # one answer may wait behind many others


class ApiError(Exception):
    """The service refused a request: its status and the sentence it gave."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


@dataclass(frozen=True, slots=True)
class SampledAnswer:
    """One answer from the chat route, with the vendor fields the metrics need."""

    completion_id: str
    text: str
    version: str
    logprob_sum: float
    num_tokens: int
    finish_reason: str


@dataclass(frozen=True, slots=True)
class PairTask:
    """A pair to judge, as it stands on the screen."""

    task_id: str
    messages: tuple[Message, ...]
    left: str
    right: str


@dataclass(frozen=True, slots=True)
class RoundView:
    """Where a round is. `version` is its candidate, None until there is one."""

    round_id: str
    state: str
    version: str | None
    reason: str


class HeedClient:
    """One person's connection, safe to share between threads.

    A busy service and a lost connection are tried again until `patience_s` of waiting is used up.
    """

    def __init__(
        self, url: str, token: str, patience_s: float = 120.0, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
        self._http = httpx.Client(
            base_url=url,
            headers={"authorization": f"Bearer {token}"},
            timeout=TIMEOUT_S,
            limits=limits,
            verify=_trusted(),
            trust_env=False,
        )
        self._patience_s = patience_s
        self._sleep = sleep

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def is_ready(self) -> bool:
        """Whether the service can answer now; False also when nobody listens."""
        try:
            return self._http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def add_person(self, name: str, role: str) -> str:
        """Add a person and return their bearer token."""
        return str(self._send("POST", "/v1/people", {"name": name, "role": role})["token"])

    def add_prompts(self, prompts: Sequence[Sequence[Message]], source: str) -> None:
        """Add prompts to be answered and judged; those already known are left alone."""
        rows = [{"messages": list(messages)} for messages in prompts]
        for start in range(0, len(rows), PROMPTS_A_REQUEST):
            self._send(
                "POST", "/v1/prompts", {"prompts": rows[start : start + PROMPTS_A_REQUEST], "source": source}
            )

    def ask(self, model: str, messages: Sequence[Message], *, seed: int, max_tokens: int) -> SampledAnswer:
        """Sample one answer at temperature 1 from `live`, `base` or a version such as `v3`."""
        body = {
            "model": model,
            "messages": list(messages),
            "temperature": 1.0,
            "top_p": 1.0,
            "seed": seed,
            "max_tokens": max_tokens,
        }
        reply = self._send("POST", "/v1/chat/completions", body)
        drawn = reply["heed"]
        return SampledAnswer(
            completion_id=reply["id"],
            text=reply["choices"][0]["message"]["content"],
            version=drawn["version"],
            logprob_sum=drawn["logprob_sum"],
            num_tokens=drawn["num_tokens"],
            finish_reason=drawn["finish_reason"],
        )

    def rate(self, completion_id: str, value: int) -> None:
        """Rate one answer: 1 desirable, -1 undesirable, 0 retracted."""
        self._send("POST", "/v1/feedback", {"completion_id": completion_id, "rating": value})

    def next_pair(self) -> PairTask | None:
        """The next pair to judge; None when none is ready yet."""
        reply = self._send("POST", "/v1/tasks/next", {"kind": "pair"})
        if not reply:
            return None
        return PairTask(reply["task_id"], tuple(reply["messages"]), reply["left"], reply["right"])

    def judge(self, task_id: str, choice: str, strength: int) -> None:
        """Judge a pair; `strength` 0 leaves it out. Raises `ApiError` 409 when the lease is lost."""
        body: dict[str, object] = {"choice": choice}
        if strength:
            body["strength"] = strength
        self._send("POST", f"/v1/tasks/{task_id}/judgement", body)

    def count_open_pairs(self) -> int:
        """How many pairs wait for an annotator."""
        text = self._request("GET", "/metrics").text
        lines = [line for line in text.splitlines() if line.startswith("heed_open_pairs ")]
        if not lines:
            raise ApiError(200, "GET /metrics: heed_open_pairs is not among the numbers")
        return int(float(lines[0].split()[1]))

    def start_round(self) -> RoundView:
        """Start a round now on everything labelled so far."""
        return _view_round(self._send("POST", "/v1/rounds"))

    def read_round(self, round_id: str) -> RoundView:
        """How far a round is."""
        return _view_round(self._send("GET", f"/v1/rounds/{round_id}")["round"])

    def live_version(self) -> str:
        """The version people talk to now; `v0` is the base."""
        return str(self._send("GET", "/v1/policies")["live"])

    def export_pairs(self) -> Iterator[dict[str, Any]]:
        """Every preference pair labelled so far, in TRL's format."""
        reply = self._request("GET", "/v1/export")
        rows = (json.loads(line) for line in reply.text.splitlines() if line)
        return (row for row in rows if "chosen" in row)

    def _send(self, method: str, path: str, body: object | None = None) -> Any:
        reply = self._request(method, path, body)
        return reply.json() if reply.content else {}

    def _request(self, method: str, path: str, body: object | None = None) -> httpx.Response:
        """Send until the service has time; every route used here is idempotent or refuses a repeat."""
        waited_s, wait_s = 0.0, FIRST_WAIT_S
        while True:
            last_call = waited_s >= self._patience_s
            try:
                reply = self._http.request(method, path, json=body)
            except httpx.TransportError:
                if last_call:
                    raise
            else:
                if reply.status_code not in BUSY or last_call:
                    return _check(reply)
                wait_s = max(wait_s, _asked_wait(reply))
            self._sleep(wait_s)
            waited_s += wait_s
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)


@cache
def _trusted() -> ssl.SSLContext:
    # Reading the certificates takes 0.1 s, and a benchmark has twenty clients.
    return httpx.create_ssl_context()


def _check(reply: httpx.Response) -> httpx.Response:
    if reply.is_success:
        return reply
    try:
        message = reply.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = reply.text[:200]
    raise ApiError(reply.status_code, f"{reply.request.method} {reply.request.url.path}: {message}")


def _asked_wait(reply: httpx.Response) -> float:
    asked = reply.headers.get("retry-after", "")
    return min(float(asked), LONGEST_WAIT_S) if asked.isdigit() else 0.0


def _view_round(reply: dict[str, Any]) -> RoundView:
    return RoundView(reply["round_id"], reply["state"], reply.get("version"), reply.get("reason") or "")
