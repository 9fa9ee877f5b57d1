"""The seam: what can answer as a policy version. Knows no database, no page and no "live"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from store.engine_stats import FIRST_TOKEN_BUCKETS_S as FIRST_TOKEN_BUCKETS_S
from store.engine_stats import EngineStats as EngineStats
from store.engine_stats import VersionStats as VersionStats
from store.records import Chunk, Message, Sampling


class Engine(Protocol):
    """Answers as any loaded version; two versions never mix within an answer."""

    @property
    def base_fingerprint(self) -> str:
        """The identity of the base under every version, as adapters' manifests name it."""

    def load(self, version: str, adapter: Path | None) -> None:
        """Put a version beside the ones already there; `adapter` None is the base itself.

        Raises BadAdapter, or StateConflict when it is loaded already.
        """

    def generate(
        self,
        version: str,
        messages: Sequence[Message],
        sampling: Sampling,
        background: bool = False,
        top_logprobs: int | None = None,
    ) -> Iterator[Chunk]:
        """Submit a request now and return its chunks; closing or dropping the iterator cancels it.

        `background` work steps aside for people. With `top_logprobs` (0 to 20) chunks carry their tokens'
        log-probs. Where the messages do not fit the context the oldest are left out, system messages and the
        last one never. Raises NotFound, BadValue (the last message alone is too long), Busy.
        """

    def score(
        self, version: str, messages: Sequence[Message], answers: Sequence[Sequence[int]]
    ) -> list[float]:
        """For each answer (token ids) to `messages` the sum of its log-probs in nats, as `logprob_sum` is.

        Background work: waits for its turn. Raises NotFound, BadValue (empty or too long), Busy.
        """

    def unload(self, version: str) -> None:
        """Take no new requests for a version, wait until nothing of it is in flight, free it. NotFound."""

    def versions(self) -> list[str]:
        """What is loaded, in order of loading."""

    def stats(self) -> EngineStats:
        """Counts and rates for the metrics."""

    def close(self) -> None:
        """Cancel everything in flight and let go of what the engine holds."""
