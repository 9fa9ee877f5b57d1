"""KTO on single ratings: the library's trainer over rows that were mixed beforehand and already carry token
ids."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from transformers.trainer_callback import PrinterCallback
from trl import KTOConfig, KTOTrainer
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

from trainer.guards import SkipNonFiniteSteps
from trainer.invariants import CheckStart, expected_rating_loss
from trainer.library import (
    add_reference,
    check_processes,
    must_wait_with_reference,
    share_rows,
    shared_arguments,
)
from trainer.preferences import RatingSet, TrainingRating
from trainer.progress import ProgressLog, ReportProgress
from trainer.qlora import PolicyStart, settle_weights
from trainer.settings import TrainerSettings

if TYPE_CHECKING:
    from trainer.guarded import Guarded

logger = logging.getLogger(__name__)


class RatingTrainer(KTOTrainer):  # type: ignore[misc]
    """The library's KTO trainer with a weight for each row and a likelihood term. Rows carry ids and their
    batch's rotated completions, so it has none to make."""

    likelihood_weight = 0.0
    desirable_weight: Any
    undesirable_weight: Any

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        return dataset

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        """The library multiplies a class's losses with that class's weight; here each row has its own."""
        assert not return_outputs
        inputs = dict(inputs)
        weight, label = inputs.pop("weight"), inputs["label"].bool()
        lengths = inputs["completion_mask"][:, 1:].sum(1).float()  # (batch,)
        self._remember_lengths(lengths, label)
        classes = self.desirable_weight, self.undesirable_weight
        self.desirable_weight = classes[0] * weight[label]  # (desirable rows of the batch,)
        self.undesirable_weight = classes[1] * weight[~label]
        outputs: list[Any] = []
        hook = model.register_forward_hook(lambda _module, _arguments, said: outputs.append(said))
        try:
            loss = super()._compute_loss(model, inputs, return_outputs)
            liked = self.desirable_weight * outputs[-1].log_probs.sum(1)[label] / lengths[label]
        finally:
            hook.remove()
            self.desirable_weight, self.undesirable_weight = classes
        self._journal["loss/preference"].append(self.accelerator.gather(loss.detach()).mean().item())
        # As for pairs: what people like stays likely (trainer/pair_trainer.py), nats a token.
        return loss - self.likelihood_weight * liked.sum() / len(label)

    @property
    def _journal(self) -> Any:
        return self._metrics["train" if self.model.training else "eval"]

    def measure_difference(self) -> float:
        """Nats a token between the policy and the stored reference: the mean over the answers of the first
        batch that was scored for the reference, laid out as it was then."""
        size, data = self.args.per_device_train_batch_size, self.train_dataset
        first = self.accelerator.process_index * size  # each process scored a batch in turn
        places = range(first, min(first + size, len(data))) or range(min(size, len(data)))
        batch = self._prepare_inputs(self.data_collator([data[place] for place in places]))
        answers = batch["completion_mask"]
        labels = batch["input_ids"].masked_fill(answers == 0, -100)
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad(), self.accelerator.autocast():
            logps = self.model(**inputs, labels=labels, fused_lm_head=True).log_probs.sum(1)
        return float(((logps - batch["ref_logps"]).abs() / answers[:, 1:].sum(1)).mean())

    def _remember_lengths(self, lengths: torch.Tensor, label: torch.Tensor) -> None:
        """Tokens an answer of each class, under the names the library gives their rewards."""
        lengths, label = self.accelerator.gather(lengths), self.accelerator.gather(label)
        for side, mine in (("chosen", lengths[label]), ("rejected", lengths[~label])):
            if len(mine):
                self._journal[f"lengths/{side}"].append(mine.mean().item())


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
        return f"{num_desirable} desirable, {num_undesirable} undesirable ratings of {needed} each needed"
    return None


def rating_dataset(ratings: RatingSet, batch_size: int, rating_loss: str = "kto") -> Any:
    """The ratings in their given order. For KTO the completions inside each batch are also rotated, prompt
    against a neighbour's completion, which is what it estimates the KL from."""
    lines = []
    for start in range(0, len(ratings.rows), batch_size):
        batch = ratings.rows[start : start + batch_size]
        for row, neighbour in zip(batch, rotate(batch), strict=True):
            lines.append(
                {
                    "prompt_ids": list(row.prompt_ids),
                    "completion_ids": list(row.completion_ids),
                    "label": row.desirable,
                    "weight": row.weight,
                }
                | ({"KL_completion_ids": list(neighbour.completion_ids)} if rating_loss == "kto" else {})
            )
    return Dataset.from_list(lines)


def rotate(batch: Sequence[TrainingRating]) -> Sequence[TrainingRating]:
    """The batch shifted by as few rows as leave no prompt beside an answer to itself, which says nothing of
    the KL; by one, with a warning, when each shift has such a row."""
    shifts = (tuple(batch[-step:]) + tuple(batch[:-step]) for step in range(1, len(batch)))
    by_one = None
    for shifted in shifts:
        by_one = by_one or shifted
        if all(row.prompt_ids != other.prompt_ids for row, other in zip(batch, shifted, strict=True)):
            return shifted
    logger.warning(
        "a KTO batch of %d ratings has %d prompts: its KL is estimated from answers to the same prompt too",
        len(batch),
        len({row.prompt_ids for row in batch}),
    )
    return by_one or batch


def build_rating_trainer(
    start: PolicyStart, tokenizer: Any, ratings: RatingSet, settings: TrainerSettings, folder: Path
) -> RatingTrainer:
    """A trainer whose adapter holds exactly the starting weights, in float32, before its first step."""
    arguments = shared_arguments(
        settings, folder, settings.kto_learning_rate, settings.kto_epochs, settings.kto_batch_size
    )
    classes = ratings.desirable_weight, ratings.undesirable_weight
    check = CheckStart(start, settings, expected_rating_loss(settings, classes))
    waits = must_wait_with_reference(arguments, settings)
    config = KTOConfig(
        **arguments,
        loss_type=settings.rating_loss,
        desirable_weight=ratings.desirable_weight,
        undesirable_weight=ratings.undesirable_weight,
        train_sampling_strategy="sequential",  # the order is ours
    )
    rows = rating_dataset(ratings, settings.kto_batch_size, settings.rating_loss)
    trainer = RatingTrainer(
        model=start.model,
        args=config,
        train_dataset=share_rows(rows, config, folder / "work" / "kto" / "rows"),
        data_collator=WeightedCollator(DataCollatorForUnpairedPreference(tokenizer.pad_token_id)),
        processing_class=tokenizer,
        peft_config=start.peft_config,
        callbacks=[SkipNonFiniteSteps()],
    )
    trainer.likelihood_weight = settings.kto_sft_weight
    trainer.remove_callback(PrinterCallback)
    check_processes(trainer, settings)
    if waits:
        add_reference(trainer)
    settle_weights(trainer.model, start.weights)
    check.watch(trainer)
    return trainer


def train_kto(
    start: PolicyStart,
    tokenizer: Any,
    ratings: RatingSet,
    settings: TrainerSettings,
    folder: Path,
    progress: ProgressLog,
    guarded: Guarded | None = None,
) -> Any:
    """Train on the ratings, for a round under its guards; returns the PEFT model whose "default" adapter is
    the new policy."""
    trainer = build_rating_trainer(start, tokenizer, ratings, settings, folder)
    trainer.add_callback(ReportProgress(progress, "kto"))
    if guarded:
        logps = trainer.train_dataset["ref_logps"]
        referred = zip(ratings.rows, logps, strict=True)
        guarded.compare_with_recorded(
            "kto", [(row.origin, len(row.completion_ids), logp) for row, logp in referred]
        )
    result = guarded.train(trainer, "kto", tokenizer.pad_token_id) if guarded else trainer.train()
    logger.info(
        "kto: %d ratings, %d steps, mean loss %.4f",
        len(ratings.rows),
        result.global_step,
        result.training_loss,
    )
    return trainer.model
