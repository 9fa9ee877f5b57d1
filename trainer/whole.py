"""Trains a whole small model on pairs, without an adapter, against a frozen second copy of what it was.

What comes of it is a base model of its own. It cannot be swapped in beside the live policy as an adapter can,
so no round does this: somebody asks for it and serves the folder.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from store.errors import BadValue
from trainer.dpo import build_pair_trainer, pair_dataset
from trainer.labels import log_notices
from trainer.pair_trainer import PairTrainer
from trainer.preferences import TrainingPair, prepare_pairs, read_pairs
from trainer.qlora import LoadedBase, PolicyStart, load_base
from trainer.settings import BaseModel, TrainerSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WholeReport:
    """What a training did. Accuracies are of held-out pairs, ties half; None without any."""

    base: str
    num_pairs: int
    num_held_out: int
    steps: int
    first_loss: float
    last_loss: float
    accuracy: float | None
    margin: float | None


def train_whole(base: BaseModel, snapshot: Path, settings: TrainerSettings, out: Path) -> WholeReport:
    """Train every weight of the base on a snapshot's pairs and write a model folder that can be served.

    Raises BadValue for a 4-bit base, too few pairs or a folder that exists.
    """
    if base.quantization == "nf4":
        raise BadValue("4-bit weights cannot be trained themselves; choose quantization none")
    if out.exists():
        raise BadValue(f"{out} exists already; name a new folder")
    exact = BaseModel(base.model, base.chat_template, quantization="none", dtype="float32")
    # In bfloat16 most updates of this size would be rounded away.
    policy, reference = load_base(exact), load_base(exact)
    rows, held_out = (_read(snapshot, name, policy, settings) for name in ("pairs", "holdout"))
    if len(rows) < settings.min_pairs:
        raise BadValue(f"nothing to train on: {len(rows)} pairs of {settings.min_pairs} needed")
    draft = out.with_name(f"{out.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    trainer = build_whole_trainer(policy, reference.model, rows, settings, draft)
    trainer.train()
    report = _report(base.model, trainer, rows, held_out, settings)
    shutil.rmtree(draft, ignore_errors=True)
    _write(policy, report, settings, draft)
    draft.rename(out)
    return report


def _read(
    snapshot: Path, name: str, policy: LoadedBase, settings: TrainerSettings
) -> tuple[TrainingPair, ...]:
    """The pairs of a snapshot's table as token ids; the log counts and names what was cut or left out."""
    prepared = prepare_pairs(read_pairs(snapshot / f"{name}.parquet"), policy.tokenizer, settings.max_length)
    log_notices(name, prepared.notices)
    return prepared.rows


def build_whole_trainer(
    policy: LoadedBase, reference: Any, rows: Sequence[TrainingPair], settings: TrainerSettings, folder: Path
) -> PairTrainer:
    """The trainer of all weights of `policy`; `reference` is frozen."""
    reference.requires_grad_(False)
    start = PolicyStart(policy.model, None, None, reference_model=reference)
    return build_pair_trainer(start, policy.tokenizer, rows, settings, folder)


@torch.no_grad()
def read_margins(trainer: PairTrainer, rows: Sequence[TrainingPair], batch_size: int) -> list[float]:
    """By how many nats each chosen answer gained more over the reference than its rejected one did."""
    dataset = pair_dataset(rows, 0.0)
    was_training = trainer.model.training
    trainer.model.eval()
    margins: list[float] = []
    for start in range(0, len(rows), batch_size):
        lines = [dataset[i] for i in range(start, min(start + batch_size, len(rows)))]
        batch = trainer._prepare_inputs(trainer.data_collator(lines))
        outputs, chosen, rejected = trainer._forward(trainer.model, batch)
        before = trainer.compute_ref_log_probs(trainer.ref_model, batch)
        gains = [
            (outputs.log_probs * where).sum(1) - old
            for where, old in zip((chosen, rejected), before, strict=True)
        ]
        margins += (gains[0] - gains[1]).tolist()
    trainer.model.train(was_training)
    return margins


def _report(
    name: str,
    trainer: PairTrainer,
    rows: Sequence[TrainingPair],
    held_out: Sequence[TrainingPair],
    settings: TrainerSettings,
) -> WholeReport:
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    margins = read_margins(trainer, held_out, settings.batch_size)
    hits = [1.0 if margin > 0 else 0.5 if margin == 0 else 0.0 for margin in margins]
    return WholeReport(
        base=name,
        num_pairs=len(rows),
        num_held_out=len(held_out),
        steps=trainer.state.global_step,
        first_loss=losses[0],
        last_loss=losses[-1],
        accuracy=sum(hits) / len(hits) if hits else None,
        margin=sum(margins) / len(margins) if margins else None,
    )


def _write(policy: LoadedBase, report: WholeReport, settings: TrainerSettings, folder: Path) -> None:
    policy.model.config.use_cache = True  # training switches it off, and serving wants it
    policy.model.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    facts = asdict(report) | {"settings": asdict(settings)}
    (folder / "training.json").write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
