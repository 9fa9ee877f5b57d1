"""How much memory a training would take, on paper: a line for each thing that lies there at the worst moment.

Arithmetic on a model's shape; no weights, no torch. Bytes are of one process. The formulas are sums over what
a LoRA step keeps: base, adapter with gradient and optimizer, activations, and the largest passing things.
What was measured against them is in docs/training.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from store.errors import BadValue
from trainer.settings import OPTIMIZER_BYTES, check_method

GIB = 2**30
# 4 bits, an 8-bit scale for 64 weights, a 32-bit scale for 256 of those (QLoRA, arXiv 2305.14314, section 3).
NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
TILE_TOKENS, TILE_WORDS = 4096, 32768  # the library's fused head works on logits of this size at a time
# In bfloat16 norms and the float32 adapter keep float32 copies, which count twice. Measured on small models:
# within 3 % in float32 and 8 % in bfloat16.
KEPT_VECTORS = {"float32": (6, 4, 2), "bfloat16": (14, 6, 4)}
CUDA_CONTEXT = int(0.8 * GIB)  # context, kernels and what the allocator cannot use
CPU_PROCESS = int(0.5 * GIB)  # the libraries themselves


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What of a model decides its memory: (inputs, outputs) of every linear layer under the head, the width
    of keys, and how many parameters all the rest has (embeddings, head, norms; a tied head counts once)."""

    name: str
    layers: int
    hidden: int
    intermediate: int
    key_width: int
    vocabulary: int
    linears: tuple[tuple[int, int], ...]
    other_parameters: int

    @property
    def linear_parameters(self) -> int:
        return sum(inputs * outputs for inputs, outputs in self.linears)


@dataclass(frozen=True, slots=True)
class TrainingShape:
    """What of a training decides its memory. `batch` are pairs a step of one process, each of two sequences
    of `seq` tokens that share the first `prompt` of them; `device` cpu has no CUDA context."""

    seq: int = 1024
    batch: int = 2
    prompt: int = 0
    rank: int = 16
    quantization: Literal["none", "nf4"] = "nf4"
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    optimizer: str = "adamw_torch"
    checkpointing: bool = True
    finetune: Literal["lora", "full"] = "lora"
    device: Literal["cuda", "cpu"] = "cuda"

    def __post_init__(self) -> None:
        if self.seq < 2 or self.batch < 1 or self.rank < 1 or not 0 <= self.prompt < self.seq:
            raise BadValue(
                f"seq {self.seq}, batch {self.batch}, rank {self.rank} and prompt {self.prompt} must be at"
                " least 2, 1, 1 and 0, and the prompt shorter than the sequence"
            )
        check_method("lora", self.optimizer)
        if self.finetune == "full" and self.quantization == "nf4":
            raise BadValue("4-bit weights cannot be trained themselves; choose quantization none, or lora")

    @property
    def tokens(self) -> int:
        """Positions of a step: a shared prompt is there once, its last token again for the second answer."""
        a_pair = 2 * self.seq - self.prompt + 1 if self.prompt else 2 * self.seq
        return self.batch * a_pair

    @property
    def answer_tokens(self) -> int:
        """Positions of a step that predict a token of an answer."""
        return self.batch * 2 * (self.seq - self.prompt)

    @property
    def number_bytes(self) -> int:
        return 4 if self.dtype == "float32" else 2


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that takes memory; a `passing` one is gone between steps."""

    name: str
    bytes: int
    passing: bool = False


def plan_memory(model: ModelShape, training: TrainingShape) -> tuple[Line, ...]:
    """What lies in memory at the worst moment of a step, each line in bytes."""
    return (
        *_fixed_lines(model, training),
        *_activation_lines(model, training),
        Line("last norm, in float32", training.tokens * model.hidden * 4, passing=True),
        _head_line(model, training),
        Line("CUDA context and slack", CUDA_CONTEXT)
        if training.device == "cuda"
        else Line("the process itself", CPU_PROCESS),
    )


def total_bytes(model: ModelShape, training: TrainingShape) -> int:
    """The sum of `plan_memory`."""
    return sum(line.bytes for line in plan_memory(model, training))


def lora_parameters(model: ModelShape, rank: int) -> int:
    """LoRA on every linear layer: A (rank, inputs) and B (outputs, rank) (arXiv 2106.09685, section 4)."""
    return sum(rank * (inputs + outputs) for inputs, outputs in model.linears)


def linear_bytes(model: ModelShape, training: TrainingShape) -> int:
    """The linear layers of the frozen base."""
    if training.quantization == "nf4":
        return round(model.linear_parameters * NF4_BITS / 8)
    return model.linear_parameters * training.number_bytes


def layer_bytes(model: ModelShape, training: TrainingShape) -> int:
    """What one decoder layer keeps for its backward pass: so many vectors a token of the hidden width (norms,
    residuals, what LoRA reads), of the MLP's and of the keys', counted in KEPT_VECTORS."""
    hidden, mlp, keys = KEPT_VECTORS[training.dtype]
    width = hidden * model.hidden + mlp * model.intermediate + keys * model.key_width
    return training.tokens * training.number_bytes * width


def unpacked_bytes(model: ModelShape, training: TrainingShape) -> int:
    """The largest 4-bit layer, unpacked for its product, twice: the next is unpacked before it is freed."""
    if training.quantization != "nf4":
        return 0
    return 2 * max(inputs * outputs for inputs, outputs in model.linears) * training.number_bytes


def tile_bytes(model: ModelShape, training: TrainingShape) -> int:
    """A tile of logits, in the model's type and in float32."""
    tile = min(training.tokens, TILE_TOKENS) * min(model.vocabulary, TILE_WORDS)
    return tile * (training.number_bytes + 4)


def answer_logits_bytes(model: ModelShape, training: TrainingShape) -> int:
    """What our head holds at once on a CPU, where there is no fused one: logits of all answer tokens in the
    model's type, where that is not float32 also in float32, their probabilities, and the products of the two
    for the entropy."""
    copy = 0 if training.dtype == "float32" else 4
    return training.answer_tokens * model.vocabulary * (training.number_bytes + copy + 4 + 4)


def naive_logits_bytes(model: ModelShape, training: TrainingShape) -> int:
    """What whole logits would take without the fused head: the model's type, float32, and its gradient."""
    return training.tokens * model.vocabulary * (training.number_bytes + 8)


def _fixed_lines(model: ModelShape, training: TrainingShape) -> tuple[Line, ...]:
    size, state = training.number_bytes, OPTIMIZER_BYTES[training.optimizer]
    if training.finetune == "full":
        whole = model.linear_parameters + model.other_parameters
        return (
            Line("model in float32", whole * 4),
            Line("reference, a second model", whole * 4),
            Line(f"gradients + {training.optimizer}", whole * (4 + state)),
        )
    held = "NF4, 4.127 bit" if training.quantization == "nf4" else training.dtype
    adapter = lora_parameters(model, training.rank)
    return (
        Line(f"linear layers ({held})", linear_bytes(model, training)),
        Line(f"embeddings, head, norms ({training.dtype})", model.other_parameters * size),
        Line(f"LoRA rank {training.rank} + gradient + {training.optimizer}", adapter * (4 + 4 + state)),
    )


def _head_line(model: ModelShape, training: TrainingShape) -> Line:
    if training.device == "cuda":
        return Line("fused head, one tile of logits", tile_bytes(model, training), passing=True)
    name = f"head, logits and probabilities of {training.answer_tokens} answer tokens"
    return Line(name, answer_logits_bytes(model, training), passing=True)


def _activation_lines(model: ModelShape, training: TrainingShape) -> tuple[Line, ...]:
    one, unpacked = layer_bytes(model, training), unpacked_bytes(model, training)
    if not training.checkpointing:
        name = f"activations of {model.layers} layers, {training.tokens} tokens"
        return (Line(name, model.layers * one + unpacked, passing=True),)
    kept = model.layers * training.tokens * model.hidden * training.number_bytes
    return (
        Line(f"checkpoints of {model.layers} layers, {training.tokens} tokens", kept, passing=True),
        Line("one layer computed again", one + unpacked, passing=True),
    )


def ways_to_save(training: TrainingShape) -> list[tuple[str, TrainingShape]]:
    """What could be changed, each on top of the ones before it, the cheapest in speed and quality first."""
    ways: list[tuple[str, TrainingShape]] = []
    now = training

    def take(says: str, **changes: object) -> None:
        nonlocal now
        now = replace(now, **changes)  # type: ignore[arg-type]
        ways.append((says, now))

    if now.finetune == "full":
        take("--finetune lora: no second model, no optimizer for the base", finetune="lora")
    if now.quantization == "none" and now.device == "cuda":
        take("--quantization nf4: the base in 4 bits", quantization="nf4")
    if not now.checkpointing:
        take("checkpointing on: a third more time", checkpointing=True)
    while now.batch > 1:
        take(f"--batch {now.batch // 2}, with twice the accumulation", batch=now.batch // 2)
    if OPTIMIZER_BYTES[now.optimizer] > 2:
        take("--optimizer paged_adamw_8bit", optimizer="paged_adamw_8bit")
    if now.rank > 8:
        take("--rank 8", rank=8)
    while now.seq > 512:
        seq = max(512, now.seq // 2)
        take(
            f"--seq {seq}: longer chats are cut at their oldest turns",
            seq=seq,
            prompt=min(now.prompt, seq - 1),
        )
    return ways
