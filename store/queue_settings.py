"""What annotators are handed and in which order, as settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """What annotators are handed, and in which order.

    A share of `random_share` comes in any order instead of the most valuable first. Silently, `gold_share`
    are tasks with a known answer and `repeat_share` tasks the person judged at least `repeat_after`
    judgements ago. A task that `skips_to_adjudicate` people skipped is handed to nobody else. `off_policy`
    says what becomes of unjudged tasks of a retired version. `seed` makes the draws repeat.
    """

    random_share: float = 0.2
    gold_share: float = 0.05
    repeat_share: float = 0.05
    repeat_after: int = 20
    skips_to_adjudicate: int = 3
    off_policy: Literal["drop", "keep"] = "drop"
    seed: int | None = None

    def __post_init__(self) -> None:
        for name in ("random_share", "gold_share", "repeat_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} {getattr(self, name)} is outside 0..1")
        for name in ("repeat_after", "skips_to_adjudicate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")


# For whoever opens a store without settings: by value alone, and nothing slipped in.
PLAIN = QueueSettings(random_share=0.0, gold_share=0.0, repeat_share=0.0)
