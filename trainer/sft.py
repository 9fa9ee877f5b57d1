"""Supervised fine-tuning: teaches a policy to answer as recorded dialogue does, through TRL's SFTTrainer.

It builds the starter policy and can warm up any other chat model. The loss covers the assistant's answer
and nothing of the prompt. It knows no preferences, no rounds and no world.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import SFTConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SftSettings:
    """How one SFT run trains; `max_tokens` cuts a dialogue that is longer, prompt included."""

    batch_size: int = 16
    epochs: float = 1.0
    learning_rate: float = 1.5e-3
    warmup_share: float = 0.05
    weight_decay: float = 0.01
    adam_beta2: float = 0.99
    max_tokens: int = 512
    seed: int = 0
    use_cpu: bool = True
    log_every: int = 25

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.epochs <= 0 or self.learning_rate <= 0 or self.max_tokens < 2:
            raise ValueError(
                f"SFT cannot train with {self}; batch size, epochs, rate and max_tokens are above zero"
            )


@dataclass(frozen=True, slots=True)
class SftExample:
    """One prompt as a message list and the answer to learn."""

    messages: list[dict[str, str]]
    answer: str


@dataclass(frozen=True, slots=True)
class SftReport:
    """What a run did: tokens count prompt and answer, without padding."""

    steps: int
    tokens: int
    seconds: float
    final_loss: float

    @property
    def tokens_per_second(self) -> float:
        """Tokens trained on per second of wall clock."""
        return self.tokens / self.seconds


def train_sft(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    examples: Sequence[SftExample],
    settings: SftSettings,
    workspace: Path,
) -> SftReport:
    """Trains `model` in place, the same way for the same seed; `workspace` takes scratch files."""
    from datasets import Dataset
    from trl import SFTTrainer

    if not examples:
        raise ValueError("SFT got no examples; write or import some dialogue first")
    rows = [
        {"prompt": example.messages, "completion": [{"role": "assistant", "content": example.answer}]}
        for example in examples
    ]
    trainer = SFTTrainer(
        model=model,
        args=_trainer_arguments(settings, workspace),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    tokens = sum(len(ids) for ids in trainer.train_dataset["input_ids"])
    logger.info("SFT on %d examples, %d tokens an epoch", len(examples), tokens)
    started = time.monotonic()
    result = trainer.train()
    # The trainer switches the cache off for training, and a saved config would keep it off for serving.
    model.config.use_cache = True
    report = SftReport(
        result.global_step, round(tokens * settings.epochs), time.monotonic() - started, result.training_loss
    )
    logger.info("SFT took %.0f s, %.0f tokens/s", report.seconds, report.tokens_per_second)
    return report


def _trainer_arguments(settings: SftSettings, workspace: Path) -> "SFTConfig":
    from trl import SFTConfig

    return SFTConfig(
        output_dir=str(workspace),
        per_device_train_batch_size=settings.batch_size,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup_share,
        weight_decay=settings.weight_decay,
        adam_beta2=settings.adam_beta2,
        max_length=settings.max_tokens,
        completion_only_loss=True,
        # Dialogues of like length share a batch. That leaves a few per cent of padding, and unlike packing it
        # needs no attention kernel that keeps packed dialogues apart, which the CPU lacks.
        train_sampling_strategy="group_by_length",
        packing=False,
        activation_checkpointing=False,
        bf16=False,
        use_cpu=settings.use_cpu,
        dataloader_pin_memory=not settings.use_cpu,
        seed=settings.seed,
        data_seed=settings.seed,
        logging_steps=settings.log_every,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
