"""The engine that has vLLM answer, one server or several: implements `Engine` over HTTP.

Prompts are rendered here and sent as token ids, answers come back as token ids with raw log-probs, so both
engines read and write the same tokens. Knows no database and no "live".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import threading
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import torch
from transformers import AutoModelForCausalLM

from serving.adapters import WEIGHTS, AdapterBase, BadAdapter, read_adapter, weights_sha256
from serving.base_text import BaseText, ChatTokenizer, load_text
from serving.context import fit_messages
from serving.engine import EngineStats
from serving.request import Request
from serving.settings import BaseSettings, BatchSettings, VllmSettings
from serving.streaming import AnswerStream, TextStream
from serving.vllm_pool import HOTTEST, VllmPool
from serving.vllm_schedule import Scoring, VllmScheduler
from serving.vllm_server import OUTPUT_LAYER, VllmServer
from store.errors import BadValue, NotFound, StateConflict
from store.records import Chunk, Message, Sampling

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Loaded:
    """One version: vLLM's name for its adapter, None for the base, and the size of its weights."""

    name: str | None
    adapter_bytes: int


class VllmEngine:
    """Checks the servers when built, or starts one; implements `Engine`."""

    def __init__(
        self, base: BaseSettings, batch: BatchSettings, settings: VllmSettings, log_file: Path
    ) -> None:
        self.text = load_text(base)
        if self.text.quantization != "none":
            raise BadValue(
                f"vLLM serves whole weights and {self.text.quantization} ones would answer unlike those that"
                " rounds train over; give --quantization none"
            )
        self._tokenizer = ChatTokenizer(self.text.tokenizer)
        self._adapter_base = read_layers(self.text)
        self._versions: dict[str, Loaded] = {}
        self._loading = threading.Lock()  # one load at a time
        self.server = (
            None
            if settings.urls
            else VllmServer(self.text, settings, batch.slots, adaptable_layers(self._adapter_base), log_file)
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm-requests", daemon=True)
        self._thread.start()
        self._tasks: list[asyncio.Task[None]] = []
        try:
            self._wait_for(self._open(batch, settings.urls))
        except BaseException:
            self._stop()
            raise

    async def _open(self, batch: BatchSettings, urls: Sequence[str]) -> None:
        urls = urls or ([self.server.url] if self.server else [])
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=batch.slots * len(urls))
        self._http = httpx.AsyncClient(limits=limits, trust_env=False)
        self._pool = VllmPool(urls, self._http, self.text, self._tokenizer, secrets.token_hex(3))
        await self._pool.open()
        self._scheduler = VllmScheduler(
            self._loop, self._pool, batch, self.text.end_ids, lambda version: self._versions[version].name
        )
        self._slots = batch.slots
        watches = (self._pool.keep_watch(), self._scheduler.keep_dropping())
        self._tasks = [self._loop.create_task(watch) for watch in watches]

    @property
    def base_fingerprint(self) -> str:
        """The identity of the base under every version; see `Engine`."""
        return self.text.fingerprint

    def load(self, version: str, adapter: Path | None) -> None:
        """Check an adapter and load it on every server; see `Engine`."""
        with self._loading:
            if version in self._versions:
                raise StateConflict(f"policy {version} is loaded already")
            loaded = Loaded(None, 0)
            if adapter is not None:
                loaded = self._load_adapter(version, adapter)
            self._scheduler.open(version)
            self._versions[version] = loaded
        logger.info("policy %s is loaded as %s", version, loaded.name or "the base")

    def generate(
        self,
        version: str,
        messages: Sequence[Message],
        sampling: Sampling,
        background: bool = False,
        top_logprobs: int | None = None,
    ) -> Iterator[Chunk]:
        """Submit a request now; see `Engine`. `max_tokens` is cut to what the context still holds."""
        self._find(version)
        if sampling.temperature > HOTTEST:
            raise BadValue(f"temperature {sampling.temperature} is more than vLLM takes, {HOTTEST}")
        length = self._pool.context_length
        ids, num_left_out = fit_messages(messages, self._tokenizer.encode, length, sampling.max_tokens)
        room = min(sampling.max_tokens, length - len(ids))
        request = Request(version, ids, sampling, room, background, top_logprobs)
        self._scheduler.submit(request)
        decode = self._tokenizer.decode
        place = self._scheduler.place_of
        return AnswerStream(request, TextStream(decode), decode, lambda: place(request), num_left_out)

    def score(
        self, version: str, messages: Sequence[Message], answers: Sequence[Sequence[int]]
    ) -> list[float]:
        """The answers' sums of log-probs under a version; see `Engine`."""
        self._find(version)
        ids = self._tokenizer.encode(messages)
        for answer in answers:
            if not answer:
                raise BadValue("an answer without tokens has no log-probability")
            if len(ids) + len(answer) > self._pool.context_length:
                raise BadValue(
                    f"prompt and answer have {len(ids) + len(answer)} tokens and the model's context holds"
                    f" {self._pool.context_length}"
                )
        rows = [Scoring(version, ids, answer) for answer in answers]
        if rows:
            self._scheduler.submit(*rows)
        try:
            return [row.logprob_sum.result() for row in rows]
        except CancelledError:
            raise StateConflict(f"policy {version} was closed before the answers were scored") from None

    def unload(self, version: str) -> None:
        """Wait until the version's last answer is written, then take it off every server. NotFound."""
        self._find(version)
        self._scheduler.drain(version)  # others may be loaded meanwhile
        loaded = self._versions.pop(version, None)
        if loaded is not None and loaded.name is not None:
            self._wait_for(self._pool.unload(loaded.name))
        logger.info("policy %s is unloaded", version)

    def versions(self) -> list[str]:
        """What is loaded, in order of loading."""
        return list(self._versions)

    def stats(self) -> EngineStats:
        """What we sent and got; caches and base are vLLM's own, which has /metrics for them."""
        load = self._scheduler.count()
        figures = {
            version: self._scheduler.counter(version).read(version, load, loaded.adapter_bytes)
            for version, loaded in [*self._versions.items()]
        }
        return EngineStats(versions=figures, slots=self._slots * self._pool.num_up)

    def close(self) -> None:
        """Cancel everything, take our adapters off the servers, and end a server of our own."""
        if self._loop.is_closed():
            return
        self._scheduler.close()
        if self.server is None:
            self._wait_for(self._pool.close())
        self._stop()

    def _load_adapter(self, version: str, adapter: Path) -> Loaded:
        weights = read_adapter(adapter, self._adapter_base)
        if any(layer.rpartition(".")[2] == OUTPUT_LAYER for layer in weights.layers):
            raise BadAdapter(f"adapter {adapter.name} wraps {OUTPUT_LAYER}, which vLLM is not asked to serve")
        name = self._wait_for(self._pool.load(adapter, f"{version}-{weights.sha256:.8}"))
        if weights_sha256(adapter) != weights.sha256:  # vLLM read the folder after we did
            self._wait_for(self._pool.unload(name))
            raise BadAdapter(f"adapter {adapter.name} changed while it was loaded")
        return Loaded(name, (adapter / WEIGHTS).stat().st_size)

    def _stop(self) -> None:
        """End the loop, its thread and a server of our own, however far the start has come."""
        self._wait_for(self._close_loop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self.server is not None:
            self.server.close()

    async def _close_loop(self) -> None:
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._http.aclose()

    def _wait_for(self, doing: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(doing, self._loop).result()

    def _find(self, version: str) -> Loaded:
        loaded = self._versions.get(version)
        if loaded is None:
            known = ", ".join(self.versions()) or "none"
            raise NotFound(f"policy {version!r} is not loaded; loaded: {known}")
        return loaded


def read_layers(text: BaseText) -> AdapterBase:
    """What adapters must fit, from the model's shape alone: no weight is read."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(text.config, dtype=getattr(torch, text.dtype))
    return AdapterBase.of(model, text.fingerprint)


def adaptable_layers(base: AdapterBase) -> list[str]:
    """The last words of the names of the layers an adapter may wrap, as vLLM wants to be told."""
    return sorted({name.rpartition(".")[2] for name in base.layers} - {OUTPUT_LAYER})
