"""The engine in this process: for each version a module tree over the same base tensors, and a scheduler.

No adapter is ever switched or merged: loading builds a new tree whose base parameters are the very tensors of
the others, so versions answer side by side and a swap pauses nobody. Knows no database and no "live".
"""

from __future__ import annotations

import copy
import gc
import logging
import math
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from peft import PeftModel

from serving.adapters import AdapterBase, BadAdapter, check_adapter
from serving.base_model import BaseModel, load_base
from serving.batching import DecodeBatch, Request
from serving.scheduler import BatchSettings, Scheduler
from serving.scoring import Scoring
from serving.settings import BaseSettings
from serving.streaming import HALF_CHARACTER, AnswerStream, TextStream
from store.errors import BadValue, HeedError, NotFound, StateConflict
from store.records import Chunk, Message, Sampling

logger = logging.getLogger(__name__)


class InProcessEngine:
    """Loads the base when built; implements `Engine`."""

    def __init__(self, base: BaseSettings, settings: BatchSettings | None = None) -> None:
        if base.threads:
            torch.set_num_threads(base.threads)
        self.base: BaseModel = load_base(base)
        self._adapter_base = AdapterBase.of(self.base.model, self.base.fingerprint)
        self._settings = settings or BatchSettings()
        self._schedulers: dict[str, Scheduler] = {}
        self._lock = threading.Lock()  # guards _schedulers
        self._loading = threading.Lock()
        # A Rust tokenizer refuses to be used while another thread changes its padding or truncation.
        self._tokenizing = threading.Lock()

    def load(self, version: str, adapter: Path | None) -> None:
        """Check an adapter and put its version beside the others; see `Engine`."""
        with self._loading:
            if version in self.versions():
                raise StateConflict(f"policy {version} is loaded already")
            if adapter is not None:
                check_adapter(adapter, self._adapter_base)
            tree = share_base(self.base.model)
            model = tree if adapter is None else put_adapter(tree, adapter)
            scheduler = Scheduler(version, DecodeBatch(model, self.base.end_ids), self._settings)
            with self._lock:
                self._schedulers[version] = scheduler
        logger.info("policy %s is loaded", version)

    def generate(
        self, version: str, messages: Sequence[Message], sampling: Sampling, background: bool = False
    ) -> Iterator[Chunk]:
        """Submit a request now; see `Engine`. `max_tokens` is cut to what the context still holds."""
        scheduler = self._find(version)
        prompt_ids = self._tokenize(messages)
        room = self.base.context_length - len(prompt_ids)
        if room < 1:
            raise BadValue(
                f"the prompt has {len(prompt_ids)} tokens and the model's context holds"
                f" {self.base.context_length}, answer included; shorten the prompt"
            )
        request = Request(prompt_ids, sampling, min(sampling.max_tokens, room), background)
        scheduler.submit(request)
        return AnswerStream(request, version, TextStream(self._decode))

    def score(
        self, version: str, messages: Sequence[Message], answers: Sequence[Sequence[int]]
    ) -> list[float]:
        """The answers' sums of log-probs under a version, in one pass where they fit; see `Engine`."""
        scheduler = self._find(version)
        prompt_ids = self._tokenize(messages)
        rows = [Scoring(prompt_ids, answer) for answer in answers]
        for row in rows:
            if not row.answer_ids:
                raise BadValue("an answer without tokens has no log-probability")
            if row.num_tokens > self.base.context_length:
                raise BadValue(
                    f"prompt and answer have {row.num_tokens} tokens and the model's context holds"
                    f" {self.base.context_length}"
                )
        for row in rows:
            scheduler.submit_scoring(row)
        try:
            sums = [row.logprob_sum.result() for row in rows]
        except CancelledError:
            raise StateConflict(f"policy {version} was closed before the answers were scored") from None
        if not all(map(math.isfinite, sums)):
            raise HeedError(f"policy {version} computed log-probs that are not numbers")
        return sums

    def unload(self, version: str) -> None:
        """Wait until the version's last answer is written, then free it. NotFound."""
        scheduler = self._find(version)
        scheduler.close()
        with self._lock:
            self._schedulers.pop(version, None)
        del scheduler
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        logger.info("policy %s is unloaded", version)

    def versions(self) -> list[str]:
        """What is loaded, in order of loading."""
        with self._lock:
            return list(self._schedulers)

    def num_in_flight(self) -> dict[str, int]:
        """Waiting and running requests of each version, for the metrics."""
        with self._lock:
            return {version: scheduler.num_in_flight() for version, scheduler in self._schedulers.items()}

    def close(self) -> None:
        """Cancel everything and end all threads."""
        with self._lock:
            schedulers, self._schedulers = self._schedulers, {}
        for scheduler in schedulers.values():
            scheduler.close(cancel=True)

    def _find(self, version: str) -> Scheduler:
        with self._lock:
            if version not in self._schedulers:
                loaded = ", ".join(self._schedulers) or "none"
                raise NotFound(f"policy {version!r} is not loaded; loaded: {loaded}")
            return self._schedulers[version]

    def _tokenize(self, messages: Sequence[Message]) -> list[int]:
        tokenizer = self.base.tokenizer
        with self._tokenizing:
            try:
                text = tokenizer.apply_chat_template([*messages], add_generation_prompt=True, tokenize=False)
            except TemplateError as error:
                raise BadValue(f"the model's chat template cannot write these messages: {error}") from error
            ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _decode(self, token_ids: Sequence[int]) -> str:
        with self._tokenizing:
            text: str = self.base.tokenizer.decode(
                token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        return text.replace("\0", HALF_CHARACTER)  # the one character that no store can keep


def share_base(base: Any) -> Any:
    """A new module tree over the same tensors: layers can be wrapped in it without the base noticing."""
    # A 4-bit layer also holds its scales, outside of parameters and buffers.
    scales = (getattr(module, "quant_state", None) for module in base.modules())
    shared = [thing for thing in chain(base.parameters(), base.buffers(), scales) if thing is not None]
    return copy.deepcopy(base, memo={id(thing): thing for thing in shared})


def put_adapter(tree: Any, adapter: Path) -> Any:
    """Lay a checked adapter over a tree and return the model to call."""
    try:
        wrapped = PeftModel.from_pretrained(tree, str(adapter), is_trainable=False, local_files_only=True)
    except Exception as error:  # whatever the library raises, the caller learns which adapter it was
        raise BadAdapter(f"adapter {adapter.name} cannot be loaded: {error}") from error
    return wrapped.eval().requires_grad_(False).get_base_model()
