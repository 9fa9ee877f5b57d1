"""What a round is told: the base model, how it trains, what its gate demands, and the plan that holds all
three.

Plain frozen records and one reader; no torch, so the service can build and check them without loading a
model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from store.errors import BadValue
from trainer.limits import GateSettings, GuardSettings

TRACKERS = ("tensorboard", "wandb", "trackio")
_STRICT = ConfigDict(extra="forbid", strict=True)

LossName = Literal[
    "sigmoid",
    "cdpo",
    "ipo",
    "hinge",
    "robust",
    "exo",
    "apo_zero",
    "apo_down",
    "aot",
    "sigmoid_norm",
    "simpo",
    "orpo",
]
# They compare nothing with a reference, so none is computed for them.
REFERENCE_FREE: frozenset[LossName] = frozenset({"simpo", "orpo"})
ADAPTERS = ("lora", "rslora")
# Bytes an optimizer keeps for each trained parameter, of those that were tried: each trains the tiny test
# model, 4-bit base or whole. "Paged" ones move to host memory when the device runs out.
OPTIMIZER_BYTES = {
    "adamw_torch": 8,
    "adamw_torch_fused": 8,
    "adamw_8bit": 2,
    "paged_adamw_32bit": 8,
    "paged_adamw_8bit": 2,
    "lion_8bit": 1,
    "rmsprop": 4,
    "sgd": 0,
}
Sharding = Literal["none", "fsdp2", "zero3"]


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
    is how much of the chosen answer's mean negative log-likelihood is added to each pair's loss, and
    `kto_sft_weight` how much of a liked answer's to its rating's. `max_steps` ends DPO earlier than `epochs`
    would (0: it does not), so that many labels are not learned by heart.
    `loss` and `rating_loss` choose among those of docs/training.md; `wpo` weighs pairs by how likely the
    policy itself finds both answers.

    `order` is that of DPO and KTO. `sft_epochs` above 0 puts supervised fine-tuning before both: on the
    answers people wrote, or with `sft_on` chosen on every answer somebody chose or liked.
    `report_to` names trackers that are told of every step too: tensorboard, wandb, trackio.

    `adapter` lora scales by alpha / rank, rslora by alpha / sqrt(rank). `checkpointing` auto recomputes
    activations in the backward pass where there is CUDA. `batch_size` and `kto_batch_size` are rows a step of
    all `processes` together, so that their number changes nothing but the time; `sharding` splits the base
    among them.
    """

    __pydantic_config__ = _STRICT

    loss: LossName = "cdpo"
    rating_loss: Literal["kto", "apo_zero_unpaired"] = "kto"
    beta: float = 0.1
    simpo_gamma: float = 0.5
    orpo_weight: float = 0.1
    wpo: bool = False
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
    adapter: str = "lora"
    target_modules: str | tuple[str, ...] = "all-linear"
    max_length: int = 1024
    optimizer: str = "adamw_torch_fused"
    checkpointing: Literal["auto", "on", "off"] = "auto"
    schedule: str = "linear"
    warmup: float = 0.1
    max_grad_norm: float = 1.0
    min_pairs: int = 8
    min_ratings_each: int = 16
    kto_sft_weight: float = 1.0
    kto_learning_rate: float = 1e-5
    kto_epochs: int = 1
    kto_batch_size: int = 8
    order: Literal["kto,dpo", "dpo,kto"] = "kto,dpo"
    sft_epochs: int = 0
    sft_learning_rate: float = 2e-5
    sft_on: Literal["written", "chosen"] = "written"
    logging_steps: int = 1
    seed: int = 0
    processes: int = 1
    report_to: tuple[str, ...] = ()
    sharding: Sharding = "none"

    def __post_init__(self) -> None:
        positive = (
            "beta orpo_weight learning_rate epochs batch_size accumulation rank alpha max_length"
            " max_grad_norm min_pairs min_ratings_each kto_learning_rate kto_epochs kto_batch_size"
            " sft_learning_rate logging_steps processes"
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
        if self.sft_epochs < 0:
            raise BadValue(f"trainer sft_epochs {self.sft_epochs} cannot be negative (0 turns the stage off)")
        for name in ("sft_weight", "kto_sft_weight"):
            if getattr(self, name) < 0.0:
                raise BadValue(
                    f"trainer {name} {getattr(self, name)} cannot be negative (0 turns the term off)"
                )
        if not 0.0 <= self.warmup < 1.0:
            raise BadValue(f"trainer warmup {self.warmup} is outside 0..1 of the steps")
        check_trackers(self.report_to)
        if self.kto_batch_size < 2 and self.rating_loss == "kto":
            raise BadValue(
                f"trainer kto_batch_size {self.kto_batch_size} must be at least 2: KTO compares rows"
            )
        check_method(self.adapter, self.optimizer)
        check_sharing(self.processes, self.sharding, self.batch_size, self.kto_batch_size)
        if self.start == "fresh" and self.reference == "previous":
            raise BadValue(
                "trainer reference 'previous' needs start 'previous': a fresh adapter starts at the base"
            )
        self._check_loss()

    def _check_loss(self) -> None:
        if self.simpo_gamma < 0.0:
            raise BadValue(
                f"trainer simpo_gamma {self.simpo_gamma} cannot be negative: it is a lead to win by"
            )
        if self.loss in REFERENCE_FREE and self.reference == "previous":
            raise BadValue(
                f"trainer loss {self.loss!r} has no reference: leave reference 'base', or take another loss"
            )
        if self.loss == "exo" and self.label_smoothing == 0.0:
            raise BadValue("trainer loss 'exo' is infinite at label_smoothing 0; its paper takes 0.001")
        if self.loss == "orpo" and self.sft_weight == 0.0:
            raise BadValue("trainer loss 'orpo' needs its likelihood term: sft_weight 1.0 is its paper's")
        if self.loss == "aot" and self.processes > 1:
            raise BadValue(
                "trainer loss 'aot' compares the quantiles of a whole step, and each of several processes"
                " sees only its share: set processes 1, or take another loss"
            )
        if self.loss == "aot" and self.wpo:
            raise BadValue("trainer wpo cannot weigh loss 'aot', which compares quantiles and not pairs")
        if self.batch_size < 2 and (self.loss == "aot" or self.wpo):
            name = "loss 'aot'" if self.loss == "aot" else "wpo"
            raise BadValue(f"trainer {name} compares the pairs of a batch: batch_size must be at least 2")


def check_trackers(names: tuple[str, ...]) -> None:
    """BadValue for a tracker that is unknown or not installed, before a round finds out."""
    for name in names:
        if name not in TRACKERS:
            raise BadValue(f"trainer report_to {name!r} is unknown; known: {', '.join(TRACKERS)}")
        if find_spec(name) is None:
            raise BadValue(f"trainer report_to {name!r} needs its package: pip install {name}")


def check_method(adapter: str, optimizer: str) -> None:
    """Raise BadValue for an adapter that cannot be served or an optimizer that was not tried."""
    if adapter == "dora":
        raise BadValue(
            "trainer adapter 'dora' cannot be served: a batch over many versions adds products to one shared"
            " base, and DoRA rescales the base's own output; use lora or rslora"
        )
    if adapter not in ADAPTERS:
        raise BadValue(f"trainer adapter {adapter!r} is unknown; known: {', '.join(ADAPTERS)}")
    if optimizer not in OPTIMIZER_BYTES:
        raise BadValue(f"trainer optimizer {optimizer!r} is unknown; known: {', '.join(OPTIMIZER_BYTES)}")


def check_sharing(processes: int, sharding: Sharding, batch_size: int, kto_batch_size: int) -> None:
    """Raise BadValue when a step's rows cannot be shared out evenly, or nothing is there to shard over."""
    if sharding != "none" and processes == 1:
        raise BadValue(f"trainer sharding {sharding!r} needs more than 1 of trainer processes")
    if batch_size % processes:
        raise BadValue(f"trainer batch_size {batch_size} cannot be shared out to {processes} processes")
    if kto_batch_size % processes or (processes > 1 and kto_batch_size // processes < 2):
        raise BadValue(
            f"trainer kto_batch_size {kto_batch_size} gives {processes} processes no equal shares of 2 or"
            " more"
        )


def starter_settings() -> TrainerSettings:
    """What trains the starter policy best: 3 M parameters want 100 times the rate of a large model.

    Chosen among the trials in benchmarks/RESULTS.md: small batches and the likelihood term
    taught most per label and kept the facts; without the term entropy doubled and facts were forgotten. It
    does as much for ratings, where it allows KTO twice the rate.
    """
    return TrainerSettings(
        beta=0.3,
        sft_weight=12.0,
        learning_rate=2e-3,
        epochs=8,
        max_steps=440,
        batch_size=4,
        kto_sft_weight=4.0,
        kto_learning_rate=3e-3,
        kto_epochs=3,
        sft_learning_rate=1e-3,
    )


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """round.json: all a round needs besides its snapshot.

    `live_adapter` is a folder as seen from the round's directory, or an absolute path; None means the base is
    live.
    """

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

    def find_live_adapter(self, directory: Path) -> Path | None:
        """The live adapter's folder, for the round in `directory`; None while the base is live."""
        return directory / self.live_adapter if self.live_adapter is not None else None


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
