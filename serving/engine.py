"""The seam: what can answer as a policy version. Knows no database, no page and no "live"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from store.records import Chunk, Message, Sampling


class Engine(Protocol):
    """Answers as any loaded version; two versions never mix within an answer."""

    def load(self, version: str, adapter: Path | None) -> None:
        """Put a version beside the ones already there; `adapter` None is the base itself.

        Raises BadAdapter, or StateConflict when it is loaded already.
        """

    def generate(
        self, version: str, messages: Sequence[Message], sampling: Sampling, background: bool = False
    ) -> Iterator[Chunk]:
        """Submit a request now and return its chunks; closing or dropping the iterator cancels it.

        `background` work steps aside for people. Raises NotFound, BadValue (prompt too long), Busy.
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
