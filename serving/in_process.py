"""The engine in this process: one base model, the adapters of all loaded versions, one batch for all.

No adapter is ever switched or merged: each row of the batch goes through its own version's matrices, so
versions answer side by side and a swap pauses nobody. Knows no database and no "live".
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path

import torch

from serving.adapters import AdapterBase, read_adapter
from serving.base_model import BaseModel, load_base
from serving.base_text import ChatTokenizer
from serving.batching import DecodeBatch
from serving.context import fit_messages
from serving.engine import EngineStats
from serving.lora import LoraBank
from serving.request import Request
from serving.scheduler import Scheduler
from serving.scoring import Scoring
from serving.settings import BaseSettings, BatchSettings
from serving.streaming import AnswerStream, TextStream
from serving.threads import choose_threads
from store.errors import BadValue, HeedError, NotFound, StateConflict
from store.records import Chunk, Message, Sampling

logger = logging.getLogger(__name__)


class InProcessEngine:
    """Loads the base when built; implements `Engine`."""

    def __init__(self, base: BaseSettings, settings: BatchSettings | None = None) -> None:
        if base.threads:
            torch.set_num_threads(base.threads)
        self.base: BaseModel = load_base(base)
        if not base.threads:
            choose_threads(self.base.model)
        self._text = ChatTokenizer(self.base.tokenizer)
        self._num_embedded: int = self.base.model.get_input_embeddings().num_embeddings
        self._settings = settings or BatchSettings()
        self._adapter_base = AdapterBase.of(self.base.model, self.base.fingerprint)
        on_cpu = self.base.model.device.type == "cpu"
        self._bank = LoraBank(self.base.model, torch.float32 if on_cpu else getattr(torch, self.base.dtype))
        self._batch = DecodeBatch(
            self.base.model, self._bank, self.base.end_ids, self._settings.prefill_tokens
        )
        self._scheduler = Scheduler(self._batch, self._settings)
        self._loaded: dict[str, None] = {}  # in order of loading
        self._lock = threading.Lock()  # guards _loaded
        self._loading = threading.Lock()

    @property
    def base_fingerprint(self) -> str:
        """See `Engine`."""
        return self.base.fingerprint

    def load(self, version: str, adapter: Path | None) -> None:
        """Check an adapter and put its version beside the others; see `Engine`."""
        with self._loading:
            if version in self.versions():
                raise StateConflict(f"policy {version} is loaded already")
            if adapter is not None:
                weights = read_adapter(adapter, self._adapter_base)
                try:
                    self._bank.add(version, weights.layers, weights.scaling)
                except BaseException:  # out of memory half-way: nothing of it may stay
                    self._bank.remove(version)
                    raise
            self._scheduler.open(version)
            with self._lock:
                self._loaded[version] = None
        logger.info("policy %s is loaded", version)

    def generate(
        self,
        version: str,
        messages: Sequence[Message],
        sampling: Sampling,
        background: bool = False,
        top_logprobs: int | None = None,
    ) -> Iterator[Chunk]:
        """Submit a request now; see `Engine`. `max_tokens` is cut to what the context still holds."""
        self._require(version)
        length = self.base.context_length
        prompt_ids, num_left_out = fit_messages(messages, self._text.encode, length, sampling.max_tokens)
        most = min(sampling.max_tokens, length - len(prompt_ids))
        request = Request(version, prompt_ids, sampling, most, background, top_logprobs)
        self._scheduler.submit(request)
        place = partial(self._scheduler.place_of, request)
        return AnswerStream(request, TextStream(self._text.decode), self._text.decode, place, num_left_out)

    def score(
        self, version: str, messages: Sequence[Message], answers: Sequence[Sequence[int]]
    ) -> list[float]:
        """The answers' sums of log-probs under a version, in one pass where they fit; see `Engine`."""
        self._require(version)
        prompt_ids = self._text.encode(messages)
        rows = [Scoring(version, prompt_ids, answer) for answer in answers]
        for row in rows:
            if not row.answer_ids:
                raise BadValue("an answer without tokens has no log-probability")
            if max(row.answer_ids) >= self._num_embedded:  # on a GPU it would end every answer in flight
                raise BadValue(
                    f"the answer holds token {max(row.answer_ids)}; the model has {self._num_embedded}"
                )
            if row.num_tokens > self.base.context_length:
                raise BadValue(
                    f"prompt and answer have {row.num_tokens} tokens and the model's context holds"
                    f" {self.base.context_length}"
                )
        for row in rows:
            self._scheduler.submit_scoring(row)
        try:
            sums = [row.logprob_sum.result() for row in rows]
        except CancelledError:
            raise StateConflict(f"policy {version} was closed before the answers were scored") from None
        if not all(map(math.isfinite, sums)):
            raise HeedError(f"policy {version} computed log-probs that are not numbers")
        return sums

    def unload(self, version: str) -> None:
        """Wait until the version's last answer is written, then free it. NotFound."""
        self._require(version)
        self._scheduler.drain(version)
        self._bank.remove(version)
        with self._lock:
            self._loaded.pop(version, None)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        logger.info("policy %s is unloaded", version)

    def versions(self) -> list[str]:
        """What is loaded, in order of loading."""
        with self._lock:
            return list(self._loaded)

    def stats(self) -> EngineStats:
        """See `Engine`."""
        load = self._scheduler.count()
        model = self.base.model
        return EngineStats(
            versions={
                version: self._scheduler.counter(version).read(version, load, self._bank.num_bytes(version))
                for version in self.versions()
            },
            slots=self._settings.slots,
            parked=self._scheduler.count_parked(),
            cache_tokens=self._batch.cache_tokens,
            cache_tokens_limit=self._settings.cache_tokens,
            cache_bytes=self._batch.cache_bytes,
            base_bytes=sum(p.nbytes for p in (*model.parameters(), *model.buffers())),
        )

    def close(self) -> None:
        """Cancel everything and end the thread."""
        self._scheduler.close()
        with self._lock:
            self._loaded.clear()

    def _require(self, version: str) -> None:
        with self._lock:
            if version not in self._loaded:
                loaded = ", ".join(self._loaded) or "none"
                raise NotFound(f"policy {version!r} is not loaded; loaded: {loaded}")
