"""SFT inside a round: the adapter learns answers that people wrote or chose before it learns preferences.

The loss is each answer's mean negative log-likelihood, times its row's weight. Raw token ids, as everywhere.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from transformers.trainer_callback import PrinterCallback
from trl import SFTConfig, SFTTrainer

from store.records import PairRow, RatingRow
from trainer.guards import SkipNonFiniteSteps
from trainer.library import check_processes, shared_arguments
from trainer.preferences import Notice, TrainingRating, leave_out, prepare_answer
from trainer.progress import ProgressLog, ReportProgress
from trainer.qlora import PolicyStart, settle_weights
from trainer.settings import TrainerSettings

if TYPE_CHECKING:
    from trainer.guarded import Guarded

logger = logging.getLogger(__name__)

WRITTEN = ("edit", "import:")  # sources whose good answers a person wrote


@dataclass(frozen=True, slots=True)
class AnswerSet:
    """Answers to learn, each once, in order of their rows' ids; weights average to 1."""

    rows: tuple[TrainingRating, ...] = ()
    notices: tuple[Notice, ...] = ()


def prepare_answers(
    pairs: Sequence[PairRow], ratings: Sequence[RatingRow], tokenizer: Any, settings: TrainerSettings
) -> AnswerSet:
    """The answers SFT learns: those that people wrote (corrections, imported demonstrations), or, with
    `sft_on` chosen, every chosen and every desirable one. Empty while `sft_epochs` is 0."""
    if not settings.sft_epochs:
        return AnswerSet()
    wanted = [
        row
        for row in (*(_chosen(pair) for pair in pairs), *(rating for rating in ratings if rating.desirable))
        if settings.sft_on == "chosen" or (row.source.startswith(WRITTEN) and not row.completion_ids)
    ]
    notices: list[Notice] = []
    kept: dict[tuple[tuple[int, ...], tuple[int, ...]], TrainingRating] = {}
    for row in sorted(wanted, key=lambda row: row.row_id):
        answer = prepare_answer(row, tokenizer, settings.max_length, notices)
        if answer is None:
            continue
        if kept.setdefault((answer.prompt_ids, answer.completion_ids), answer) is not answer:
            notices.append(leave_out(row.row_id, "another row teaches the same answer"))
    mean = sum(row.weight for row in kept.values()) / max(len(kept), 1)
    rows = tuple(replace(row, weight=row.weight / mean) for row in kept.values())
    return AnswerSet(rows, tuple(notices))


def _chosen(pair: PairRow) -> RatingRow:
    return RatingRow(
        row_id=pair.row_id,
        prompt_id=pair.prompt_id,
        messages=pair.messages,
        completion=pair.chosen,
        completion_ids=pair.chosen_ids,
        version=pair.chosen_version,
        desirable=True,
        weight=pair.weight,
        person_ids=pair.person_ids,
        label_ids=pair.label_ids,
        source=pair.source,
        created_at=pair.created_at,
    )


class AnswerTrainer(SFTTrainer):  # type: ignore[misc]
    """The library's SFT trainer with a weight for each row."""

    loss_is_scaled_for_ga = False  # a mean over the batch, which the library divides when it accumulates

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,  # noqa: ARG002 - the library hands it over; ours is a mean over rows
    ) -> torch.Tensor:
        assert not return_outputs
        inputs = dict(inputs)
        weight = inputs.pop("weight")  # (batch,)
        outputs = model(**inputs, use_cache=False, fused_lm_head=True)
        is_answer = inputs["labels"][:, 1:] != -100  # (batch, seq - 1)
        logps = (outputs.log_probs * is_answer).sum(1) / is_answer.sum(1)
        loss: torch.Tensor = -(logps * weight).mean()
        return loss


class AnswerCollator:
    """Prompt and answer, padded on the right; the prompt has no labels."""

    def __init__(self, pad: int) -> None:
        self._pad = pad

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        whole = [[*row["prompt_ids"], *row["completion_ids"]] for row in rows]
        length = max(len(ids) for ids in whole)
        batch = {
            "input_ids": torch.full((len(rows), length), self._pad),
            "attention_mask": torch.zeros(len(rows), length, dtype=torch.long),
            "labels": torch.full((len(rows), length), -100),
        }
        for place, (row, ids) in enumerate(zip(rows, whole, strict=True)):
            batch["input_ids"][place, : len(ids)] = torch.tensor(ids)
            batch["attention_mask"][place, : len(ids)] = 1
            batch["labels"][place, len(row["prompt_ids"]) : len(ids)] = torch.tensor(row["completion_ids"])
        return batch | {"weight": torch.tensor([float(row["weight"]) for row in rows])}


def build_answer_trainer(
    start: PolicyStart,
    tokenizer: Any,
    rows: Sequence[TrainingRating],
    settings: TrainerSettings,
    folder: Path,
) -> AnswerTrainer:
    """A trainer whose adapter holds exactly the starting weights, in float32, before its first step."""
    arguments = shared_arguments(
        settings, folder, settings.sft_learning_rate, settings.sft_epochs, settings.batch_size
    )
    known = {field.name for field in fields(SFTConfig)}  # beta and the reference are for preferences alone
    lines = [
        {
            "prompt_ids": list(row.prompt_ids),
            "completion_ids": list(row.completion_ids),
            "weight": row.weight,
        }
        for row in rows
    ]
    trainer = AnswerTrainer(
        model=start.model,
        args=SFTConfig(
            **{name: value for name, value in arguments.items() if name in known},
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=Dataset.from_list(lines),
        data_collator=AnswerCollator(tokenizer.pad_token_id),
        processing_class=tokenizer,
        peft_config=start.peft_config,
        callbacks=[SkipNonFiniteSteps()],
    )
    trainer.remove_callback(PrinterCallback)
    check_processes(trainer, settings)
    settle_weights(trainer.model, start.weights)
    return trainer


def train_answers(
    start: PolicyStart,
    tokenizer: Any,
    rows: Sequence[TrainingRating],
    settings: TrainerSettings,
    folder: Path,
    progress: ProgressLog,
    guarded: Guarded | None = None,
) -> Any:
    """Train on the answers, for a round under its guards; returns the PEFT model whose "default" adapter is
    the new policy."""
    trainer = build_answer_trainer(start, tokenizer, rows, settings, folder)
    trainer.add_callback(ReportProgress(progress, "sft"))
    result = guarded.train(trainer, "sft", tokenizer.pad_token_id) if guarded else trainer.train()
    logger.info(
        "sft: %d answers, %d steps, mean loss %.4f", len(rows), result.global_step, result.training_loss
    )
    return trainer.model
