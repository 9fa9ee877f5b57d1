"""KTO on single ratings: the library's trainer over rows that were mixed beforehand and already carry token
ids."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers.trainer_callback import PrinterCallback
from trl import KTOConfig, KTOTrainer
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

from trainer.guards import SkipNonFiniteSteps
from trainer.library import (
    add_reference,
    check_processes,
    must_wait_with_reference,
    share_rows,
    shared_arguments,
)
from trainer.preferences import RatingSet
from trainer.progress import ProgressLog, ReportProgress
from trainer.qlora import PolicyStart, settle_weights
from trainer.settings import TrainerSettings

logger = logging.getLogger(__name__)


class RatingTrainer(KTOTrainer):  # type: ignore[misc]
    """The library's KTO trainer with a weight for each row. Rows carry ids and their batch's rotated
    completions, so it has none to make."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        return dataset

    desirable_weight: Any
    undesirable_weight: Any

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        """The library multiplies a class's losses with that class's weight; here each row has its own."""
        inputs = dict(inputs)
        weight, label = inputs.pop("weight"), inputs["label"].bool()
        classes = self.desirable_weight, self.undesirable_weight
        self.desirable_weight = classes[0] * weight[label]  # (desirable rows of the batch,)
        self.undesirable_weight = classes[1] * weight[~label]
        try:
            return super()._compute_loss(model, inputs, return_outputs)
        finally:
            self.desirable_weight, self.undesirable_weight = classes


class WeightedCollator:
    """The library's collator, with each row's weight beside it: (batch,)."""

    def __init__(self, collate: Callable[[Sequence[dict[str, Any]]], dict[str, Any]]) -> None:
        self._collate = collate

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return self._collate(rows) | {"weight": torch.tensor([float(row["weight"]) for row in rows])}


def why_not_kto(num_desirable: int, num_undesirable: int, settings: TrainerSettings) -> str | None:
    """Why the ratings cannot train anything; None when they can. One class alone teaches only "more" or
    "less"."""
    needed = settings.min_ratings_each
    if num_desirable + num_undesirable == 0:
        return "there are no ratings"
    if min(num_desirable, num_undesirable) < needed:
        return (
            f"{num_desirable} desirable, {num_undesirable} undesirable ratings; {needed} of each are needed"
        )
    return None


def rating_dataset(ratings: RatingSet, batch_size: int) -> Any:
    """The ratings in their given order. Inside each batch the completions are also rotated by one, prompt
    against a neighbour's completion, which is what KTO estimates the KL from."""
    lines = []
    for start in range(0, len(ratings.rows), batch_size):
        batch = ratings.rows[start : start + batch_size]
        for row, neighbour in zip(batch, (batch[-1], *batch[:-1]), strict=True):
            lines.append(
                {
                    "prompt_ids": list(row.prompt_ids),
                    "completion_ids": list(row.completion_ids),
                    "KL_completion_ids": list(neighbour.completion_ids),
                    "label": row.desirable,
                    "weight": row.weight,
                }
            )
    return Dataset.from_list(lines)


def build_rating_trainer(
    start: PolicyStart, tokenizer: Any, ratings: RatingSet, settings: TrainerSettings, folder: Path
) -> RatingTrainer:
    """A trainer whose adapter holds exactly the starting weights, in float32, before its first step."""
    arguments = shared_arguments(
        settings, folder, settings.kto_learning_rate, settings.kto_epochs, settings.kto_batch_size
    )
    waits = must_wait_with_reference(arguments, settings)
    config = KTOConfig(
        **arguments,
        desirable_weight=ratings.desirable_weight,
        undesirable_weight=ratings.undesirable_weight,
        train_sampling_strategy="sequential",  # the order is ours
    )
    rows = rating_dataset(ratings, settings.kto_batch_size)
    trainer = RatingTrainer(
        model=start.model,
        args=config,
        train_dataset=share_rows(rows, config, folder / "work" / "kto"),
        data_collator=WeightedCollator(DataCollatorForUnpairedPreference(tokenizer.pad_token_id)),
        processing_class=tokenizer,
        peft_config=start.peft_config,
        callbacks=[SkipNonFiniteSteps()],
    )
    trainer.remove_callback(PrinterCallback)
    check_processes(trainer, settings)
    if waits:
        add_reference(trainer)
    settle_weights(trainer.model, start.weights)
    return trainer


def train_kto(
    start: PolicyStart,
    tokenizer: Any,
    ratings: RatingSet,
    settings: TrainerSettings,
    folder: Path,
    progress: ProgressLog,
) -> Any:
    """Train on the ratings; returns the PEFT model whose "default" adapter is the new policy."""
    trainer = build_rating_trainer(start, tokenizer, ratings, settings, folder)
    trainer.add_callback(ReportProgress(progress, "kto"))
    result = trainer.train()
    logger.info(
        "kto: %d ratings, %d steps, mean loss %.4f",
        len(ratings.rows),
        result.global_step,
        result.training_loss,
    )
    return trainer.model
