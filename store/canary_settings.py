"""How a canary is run: how much it gets, and how sure people's thumbs must be before it is withdrawn."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CanarySettings:
    """A canary is a version that a share of conversations goes to, beside the live one.

    `share` is what it gets unless its start says otherwise. It is withdrawn once the live version's up-rate
    is higher than its own by more than `margin`, sure to `confidence`, with `min_ratings` on both sides.
    `after_gate` above 0 starts what passed a round's gate as a canary with that share; 0 promotes it at once.
    """

    share: float = 0.1
    confidence: float = 0.95
    min_ratings: int = 10
    margin: float = 0.0
    after_gate: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 < self.share < 1.0:
            raise ValueError(f"share {self.share} must lie between 0 and 1")
        if not 0.5 <= self.confidence < 1.0:
            raise ValueError(f"confidence {self.confidence} is outside 0.5..1")
        if self.min_ratings < 1:
            raise ValueError(f"min_ratings {self.min_ratings} must be at least 1")
        if not 0.0 <= self.margin < 1.0:
            raise ValueError(f"margin {self.margin} is outside 0..1; it is a difference of two shares")
        if not 0.0 <= self.after_gate < 1.0:
            raise ValueError(f"after_gate {self.after_gate} must be 0 (promote at once) or a share below 1")
