"""What a round must not exceed: the guards of its training and the demands of its gate. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ConfigDict

from store.errors import BadValue

_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, slots=True)
class GateSettings:
    """What a candidate must show. Shares and ratios are of answers; drift is in nats a token, against the
    base."""

    __pydantic_config__ = _STRICT

    min_holdout_pairs: int = 10
    accuracy_margin: float = 0.05
    max_drift: float = 1.5
    max_own_drift: float = 1.5
    num_prompts: int = 32
    samples_per_prompt: int = 1
    max_tokens: int = 96
    share_margin: float = 0.1
    min_distinct: float = 0.6
    min_length_ratio: float = 0.2
    max_length_ratio: float = 2.0
    min_entropy_ratio: float = 0.5
    max_entropy_ratio: float = 1.5
    batch_size: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (
            "max_drift",
            "max_own_drift",
            "num_prompts",
            "samples_per_prompt",
            "max_tokens",
            "batch_size",
        ):
            if not getattr(self, name) > 0:
                raise BadValue(f"gate {name} {getattr(self, name)} must be greater than 0")
        if self.min_holdout_pairs < 2:
            raise BadValue(
                f"gate min_holdout_pairs {self.min_holdout_pairs} must be at least 2: one pair has no noise"
            )
        for low, high in (
            ("min_length_ratio", "max_length_ratio"),
            ("min_entropy_ratio", "max_entropy_ratio"),
        ):
            if not 0.0 <= getattr(self, low) < 1.0 < getattr(self, high):
                raise BadValue(
                    f"gate {low} {getattr(self, low)} and {high} {getattr(self, high)} must enclose 1"
                )
        if (
            not 0.0 <= self.min_distinct <= 1.0
            or not 0.0 <= self.accuracy_margin <= 1.0
            or self.share_margin < 0.0
        ):
            raise BadValue(
                "gate min_distinct and accuracy_margin must be within 0..1 and share_margin not negative"
            )


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """What ends a training before it spoils the adapter, and how often its state is saved. 0 turns a limit
    off.

    Collapse and drift are in nats a token, over held-out answers; with fewer than `min_holdout_pairs` of them
    some training pairs are watched instead, and nothing stops early. `patience` is how many evaluations may
    pass without a better held-out loss; the best weights are kept. `eval_steps` replaces `evals_per_epoch`,
    and `save_steps` adds to `save_minutes`.
    """

    __pydantic_config__ = _STRICT

    max_bad_steps: int = 3
    max_collapse: float = 3.0
    max_drift: float = 3.0
    patience: int = 3
    min_holdout_pairs: int = 20
    max_holdout_pairs: int = 128
    evals_per_epoch: int = 2
    eval_steps: int = 0
    max_minutes: float = 0.0
    save_minutes: float = 5.0
    save_steps: int = 0

    def __post_init__(self) -> None:
        if self.max_bad_steps < 1:
            raise BadValue(
                f"guards max_bad_steps {self.max_bad_steps} must be at least 1: that ends it at the first one"
            )
        limits = (
            "max_collapse max_drift patience evals_per_epoch eval_steps max_minutes save_minutes save_steps"
        )
        for name in (*limits.split(), "save_steps"):
            if not getattr(self, name) >= 0:
                raise BadValue(f"guards {name} {getattr(self, name)} cannot be negative (0 turns it off)")
        if not 2 <= self.min_holdout_pairs <= self.max_holdout_pairs:
            raise BadValue(
                f"guards min_holdout_pairs {self.min_holdout_pairs} must be at least 2 and at most"
                f" max_holdout_pairs {self.max_holdout_pairs}"
            )


def starter_guards() -> GuardSettings:
    """The starter's held-out loss goes up and down by noise for most of its training: nothing stops early.

    docs/training.md, "Guards", has the figures.
    """
    return GuardSettings(patience=0)
