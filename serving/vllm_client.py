"""One vLLM server as HTTP shows it: what it serves, adapters, answers and scores. Keeps no state of ours.

Written against vLLM 0.32: token ids and log-probs are asked for as numbers (`return_token_ids`,
`return_tokens_as_token_ids`), so nothing of an answer is taken from text that was decoded elsewhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from store.errors import HeedError
from store.records import Sampling

# An answer may wait in vLLM's own queue, behind a long prompt on a slow machine; a dead peer is found sooner,
# because the connection breaks or the health check fails.
TIMEOUT = httpx.Timeout(30.0, connect=5.0)
ANSWER_TIMEOUT = httpx.Timeout(600.0, connect=5.0)
# A model folder's generation_config.json would otherwise be mixed into what was asked.
NEUTRAL = {
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
TOKEN_ID = "token_id:"


class ReplicaLost(Exception):
    """The server cannot be reached, or broke off in the middle; the message says how."""


class Refused(Exception):
    """The server answered with an error; `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Written:
    """One token as the server drew it, its log-prob under the raw logits, and the likeliest ones there."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """Some tokens of an answer; `finish_reason` (vLLM's word) comes with the last."""

    tokens: tuple[Written, ...]
    finish_reason: str | None


@dataclass(frozen=True, slots=True)
class Card:
    """What a server serves: the base's name, where that was loaded from, its context, and the adapters."""

    base_name: str
    root: str
    context_length: int
    adapters: frozenset[str]


class VllmClient:
    """Speaks to the server at `url`. Every call raises ReplicaLost or Refused."""

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self.url = url.rstrip("/")
        self._http = http

    async def check_health(self) -> None:
        """Raise unless the server and the engine behind it are alive."""
        await self._ask("GET", "/health")

    async def read_card(self) -> Card:
        """What is served now."""
        models = (await self._ask("GET", "/v1/models"))["data"]
        bases = [model for model in models if not model.get("parent")]
        if not bases:
            raise Refused(500, "it lists no base model")
        base = bases[0]
        return Card(
            base_name=base["id"],
            root=str(base.get("root") or ""),
            context_length=int(base["max_model_len"]),
            adapters=frozenset(model["id"] for model in models if model.get("parent")),
        )

    async def tokenize(self, model: str, text: str) -> list[int]:
        """The server's own tokens of a text, nothing added."""
        body = {"model": model, "prompt": text, "add_special_tokens": False}
        return list((await self._ask("POST", "/tokenize", body))["tokens"])

    async def load_adapter(self, name: str, folder: Path) -> None:
        """Load a folder, which the server must see under the same path, under a name."""
        await self._ask("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})

    async def unload_adapter(self, name: str) -> None:
        """Take no more requests under a name."""
        await self._ask("POST", "/v1/unload_lora_adapter", {"lora_name": name})

    async def write(
        self,
        model: str,
        prompt_ids: Sequence[int],
        sampling: Sampling,
        max_tokens: int,
        end_ids: Sequence[int],
        top_logprobs: int = 0,
        priority: int = 0,
    ) -> AsyncGenerator[Piece]:
        """An answer as it is written. Leaving the loop early closes the connection, which aborts it there.

        Stop texts are not sent: whoever decodes the tokens looks for them, and closes.
        """
        body = {
            **NEUTRAL,
            "model": model,
            "prompt": list(prompt_ids),
            "max_tokens": max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
            "stop_token_ids": list(end_ids),
            "logprobs": top_logprobs,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            "priority": priority,
            "stream": True,
        }
        try:
            async with self._http.stream(
                "POST", f"{self.url}/v1/completions", json=body, timeout=ANSWER_TIMEOUT
            ) as response:
                if response.status_code != 200:
                    await response.aread()
                    raise _refusal(response)
                async for line in read_lines(response):
                    if line == b"data: [DONE]":
                        return
                    if line.startswith(b"data: "):
                        yield _read_piece(json.loads(line[6:]), top_logprobs)
        except httpx.HTTPError as error:
            raise ReplicaLost(_tell(error)) from error
        raise ReplicaLost("it broke off in the middle of an answer")

    async def score(
        self, model: str, prompt_ids: Sequence[int], answer_ids: Sequence[int], priority: int = 0
    ) -> float:
        """The sum of an answer's log-probs.

        All but its last token go as a prompt, and that one is asked for as the only one allowed: so an answer
        that fills the context can be scored too, and the log-probs are raw all along.
        """
        *read, last = (*prompt_ids, *answer_ids)
        body = {
            **NEUTRAL,
            "model": model,
            "prompt": read,
            "max_tokens": 1,
            "temperature": 0.0,
            "allowed_token_ids": [last],
            "logprobs": 0,
            "prompt_logprobs": 0,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            "priority": priority,
        }
        choice = (await self._ask("POST", "/v1/completions", body, ANSWER_TIMEOUT))["choices"][0]
        (written,) = _read_tokens(choice, 0)
        if written.token_id != last:
            raise Refused(500, f"it wrote token {written.token_id} where only {last} was allowed")
        tail = choice["prompt_logprobs"][len(prompt_ids) :]
        wanted = [found[str(token_id)]["logprob"] for found, token_id in zip(tail, answer_ids, strict=False)]
        return _finite(sum(_finite(logprob) for logprob in (*wanted, written.logprob)))

    async def _ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, timeout: httpx.Timeout = TIMEOUT
    ) -> Any:
        try:
            response = await self._http.request(method, self.url + path, json=body, timeout=timeout)
        except httpx.HTTPError as error:
            raise ReplicaLost(_tell(error)) from error
        if response.status_code != 200:
            raise _refusal(response)
        is_json = response.headers.get("content-type", "").startswith("application/json")
        return response.json() if is_json and response.content else None


async def read_lines(response: httpx.Response) -> AsyncGenerator[bytes]:
    """Lines as events have them, ended by a newline alone: a model's text may hold other characters that
    httpx takes for the end of a line."""
    held = b""
    async for part in response.aiter_bytes():
        *lines, held = (held + part).split(b"\n")
        for line in lines:
            yield line


def _read_piece(event: dict[str, Any], top_logprobs: int) -> Piece:
    if "error" in event:
        error = event["error"]
        raise Refused(int(error.get("code") or 500), str(error.get("message")))
    choice = event["choices"][0]
    return Piece(_read_tokens(choice, top_logprobs), choice.get("finish_reason"))


def _read_tokens(choice: dict[str, Any], top_logprobs: int) -> tuple[Written, ...]:
    """Each position lists the drawn token and the likeliest, under names like `token_id:17`."""
    token_ids, found = choice["token_ids"], choice["logprobs"]
    return tuple(
        Written(token_id, _finite(logprob), _rank(top, top_logprobs))
        for token_id, logprob, top in zip(
            token_ids, found["token_logprobs"], found["top_logprobs"], strict=True
        )
    )


def _rank(top: dict[str, float], number: int) -> tuple[tuple[int, float], ...]:
    if not number:
        return ()
    ranked = sorted(top.items(), key=lambda item: -item[1])[:number]
    return tuple((int(name.removeprefix(TOKEN_ID)), logprob) for name, logprob in ranked)


def _finite(logprob: float | None) -> float:
    if logprob is None or not math.isfinite(logprob):
        raise HeedError("vLLM computed log-probs that are not numbers")
    return logprob


def _refusal(response: httpx.Response) -> Refused:
    try:
        message = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = response.text[:300] or response.reason_phrase
    return Refused(response.status_code, str(message))


def _tell(error: httpx.HTTPError) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
