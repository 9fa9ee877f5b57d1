"""What an engine tells of itself: the pages and the metrics read it, nobody acts on it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate

# Upper bounds of the first-token histogram, in seconds; what is slower falls under +Inf.
FIRST_TOKEN_BUCKETS_S = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class VersionStats:
    """What one loaded version has done since it was loaded and does now; sizes in bytes.

    `first_token_counts` has one entry a bucket and one for slower ones: answers whose first token came within
    it, counted from the submission. `tokens_per_s` is the mean of the last minute. `waiting` are people's
    requests; what waits in the background yields to them and says nothing of how long they wait.
    """

    waiting: int = 0
    waiting_background: int = 0
    running: int = 0
    finished: int = 0
    cancelled: int = 0
    failed: int = 0
    tokens: int = 0
    tokens_per_s: float = 0.0
    first_token_counts: tuple[int, ...] = (0,) * (len(FIRST_TOKEN_BUCKETS_S) + 1)
    first_token_sum_s: float = 0.0
    adapter_bytes: int = 0

    def estimate_first_token_s(self, share: float) -> float | None:
        """Within how many seconds `share` of the answers had begun, as if evenly spread within a bucket.

        None without answers; infinite when that many were slower than the last bound.
        """
        wanted = share * sum(self.first_token_counts)
        if not wanted:
            return None
        upto = list(accumulate(self.first_token_counts))
        place = next(place for place, total in enumerate(upto) if total >= wanted)
        if place == len(FIRST_TOKEN_BUCKETS_S):
            return math.inf
        lower = FIRST_TOKEN_BUCKETS_S[place - 1] if place else 0.0
        inside = 1 - (upto[place] - wanted) / self.first_token_counts[place]
        return lower + inside * (FIRST_TOKEN_BUCKETS_S[place] - lower)


@dataclass(frozen=True, slots=True)
class EngineStats:
    """The engine as a whole; `cache_*` is what running answers hold, `parked` background work set aside."""

    versions: Mapping[str, VersionStats] = field(default_factory=dict)
    slots: int = 0
    parked: int = 0
    cache_tokens: int = 0
    cache_tokens_limit: int = 0
    cache_bytes: int = 0
    base_bytes: int = 0
