"""What a round is told: the base model, how it trains, what its gate demands, and the plan that holds all
three.

Plain frozen records and one reader; no torch, so the service can build and check them without loading a
model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from store.errors import BadValue

_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, slots=True)
class BaseModel:
    """The frozen model under every adapter. `chat_template` None means the model's own; "auto" means by
    device."""

    __pydantic_config__ = _STRICT

    model: str
    chat_template: str | None = None
    quantization: Literal["none", "nf4", "auto"] = "auto"
    dtype: Literal["float32", "bfloat16", "auto"] = "auto"


@dataclass(frozen=True, slots=True)
class TrainerSettings:
    """How one candidate is trained. The defaults are cautious ones for a model of a billion parameters or so.

    `starter_settings` has those measured on the starter policy.

    `start` fresh and `reference` base train a new adapter on all labels so far; previous starts from, or
    compares with, the adapter that is live. `label_smoothing` is cDPO's share of flipped labels; `sft_weight`
    is how much of the chosen answer's mean negative log-likelihood is added to each pair's loss. `max_steps`
    ends DPO earlier than `epochs` would (0: it does not), so that many labels are not learned by heart.
    """

    __pydantic_config__ = _STRICT

    beta: float = 0.1
    label_smoothing: float = 0.1
    sft_weight: float = 1.0
    learning_rate: float = 2e-5
    epochs: int = 1
    max_steps: int = 0
    batch_size: int = 8
    accumulation: int = 1
    start: Literal["fresh", "previous"] = "fresh"
    reference: Literal["base", "previous"] = "base"
    rank: int = 16
    alpha: int = 32
    target_modules: str | tuple[str, ...] = "all-linear"
    max_length: int = 1024
    optimizer: str = "adamw_torch"
    schedule: str = "linear"
    warmup: float = 0.1
    max_grad_norm: float = 1.0
    min_pairs: int = 8
    min_ratings_each: int = 16
    kto_learning_rate: float = 1e-5
    kto_epochs: int = 1
    kto_batch_size: int = 8
    logging_steps: int = 1
    seed: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        positive = (
            "beta learning_rate epochs batch_size accumulation rank alpha max_length max_grad_norm min_pairs"
            " min_ratings_each kto_learning_rate kto_epochs kto_batch_size logging_steps processes"
        )
        for name in positive.split():
            if not getattr(self, name) > 0:
                raise BadValue(f"trainer {name} {getattr(self, name)} must be greater than 0")
        if not 0.0 <= self.label_smoothing < 0.5:
            raise BadValue(
                f"trainer label_smoothing {self.label_smoothing} is outside 0..0.5 (0.5 would unlearn)"
            )
        if self.max_steps < 0:
            raise BadValue(f"trainer max_steps {self.max_steps} cannot be negative (0 sets no limit)")
        if self.sft_weight < 0.0:
            raise BadValue(f"trainer sft_weight {self.sft_weight} cannot be negative (0 turns the term off)")
        if not 0.0 <= self.warmup < 1.0:
            raise BadValue(f"trainer warmup {self.warmup} is outside 0..1 of the steps")
        if self.kto_batch_size < 2:
            raise BadValue(
                f"trainer kto_batch_size {self.kto_batch_size} must be at least 2: KTO compares rows"
            )
        if self.start == "fresh" and self.reference == "previous":
            raise BadValue(
                "trainer reference 'previous' needs start 'previous': a fresh adapter starts at the base"
            )


def starter_settings() -> TrainerSettings:
    """What trains the starter policy best: 3 M parameters want 100 times the rate of a large model.

    Chosen among the trials in benchmarks/RESULTS.md: small batches and the likelihood term
    taught most per label and kept the facts; without the term entropy doubled and facts were forgotten.
    """
    return TrainerSettings(
        beta=0.3,
        sft_weight=12.0,
        learning_rate=2e-3,
        epochs=8,
        max_steps=440,
        batch_size=4,
        kto_learning_rate=1.5e-3,
        kto_epochs=3,
    )


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


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """round.json: all a round needs besides its snapshot. `live_adapter` None means the base is live."""

    __pydantic_config__ = _STRICT

    round_id: str
    version: str
    parent: str
    base: BaseModel
    live_adapter: str | None = None
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    gate: GateSettings = field(default_factory=GateSettings)
    guards: GuardSettings = field(default_factory=GuardSettings)
    threads: int = 1
    packages: dict[str, str] = field(default_factory=dict)  # written by the round itself, for the record

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise BadValue(f"threads {self.threads} must be at least 1")


def read_plan(folder: Path) -> RoundPlan:
    """The plan of a round's directory. BadValue names every unknown field and impossible value."""
    path = folder / "round.json"
    try:
        return TypeAdapter(RoundPlan).validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise BadValue(f"{path} is missing: the supervisor writes it before it starts a round") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise BadValue(f"{path}: {faults}") from error
