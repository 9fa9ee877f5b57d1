"""Trains as a round does, in however many processes a launcher started, and writes down what came of it."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.distributed import destroy_process_group, is_initialized

from tests.trainer.conftest import pair_rows, rating_rows
from trainer.dpo import build_pair_trainer
from trainer.guarded import begin_guarded
from trainer.guards import Clock
from trainer.kto import build_rating_trainer
from trainer.preferences import prepare_pairs, prepare_ratings
from trainer.progress import ProgressLog
from trainer.qlora import LoadedBase, load_base, read_weights, start_policy
from trainer.settings import BaseModel, RoundPlan, TrainerSettings
from trainer.stopping import Stopping


def pair_trainer(base: LoadedBase, settings: TrainerSettings, count: int, folder: Path) -> Any:
    """Every third pair is half as heavy again, so that a mean that forgets the weights shows."""
    rows = [row for i in range(count) for row in pair_rows(1, seed=i, weight=1.5 if i % 3 == 0 else 0.75)]
    pairs = prepare_pairs(rows, base.tokenizer, 256).rows
    return build_pair_trainer(
        start_policy(base.model, settings, None), base.tokenizer, pairs, settings, folder
    )


def rating_trainer(base: LoadedBase, settings: TrainerSettings, count: int, folder: Path) -> Any:
    ratings = prepare_ratings(
        rating_rows(count // 2, count // 2), base.tokenizer, 256, settings.kto_batch_size, settings.seed
    )
    start = start_policy(base.model, settings, None)
    return build_rating_trainer(start, base.tokenizer, ratings, settings, folder)


def decide(job: dict[str, Any], folder: Path) -> None:
    """Whether another stage may begin, asked before any trainer is built; only the first has no time left."""
    settings = TrainerSettings(**job["settings"])
    plan = RoundPlan("r1", "v1", "v0", BaseModel(**job["base"]), trainer=settings)
    progress, rank = ProgressLog(Path(os.devnull)), os.environ["RANK"]
    guarded = begin_guarded(folder, plan, "", "", {}, progress, Stopping(), (), ())
    guarded.clock = Clock(1.0, spent_s=2.0) if rank == "0" else Clock(1e9)
    torch.save({"has_time": guarded.has_time()}, folder / f"{job['name']}{rank}.pt")


def run(job: dict[str, Any], folder: Path) -> None:
    if job["stage"] == "time":
        decide(job, folder)
        return
    settings = TrainerSettings(**job["settings"])
    base = load_base(BaseModel(**job["base"]), settings.sharding)
    build = rating_trainer if job["stage"] == "kto" else pair_trainer
    trainer = build(base, settings, job["count"], folder / job["name"])
    trainer.train()
    weights = {name: tensor.clone() for name, tensor in read_weights(trainer.model).items()}
    parameters = list(trainer.model.parameters())
    held = sum(p.to_local().numel() if hasattr(p, "to_local") else p.numel() for p in parameters)
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    trainer.accelerator.wait_for_everyone()
    if trainer.accelerator.is_main_process:
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        result = {"losses": losses, "weights": weights, "held": held, "trainable": trainable}
        torch.save(result, folder / f"{job['name']}.pt")


def main(job_file: str, folder: str) -> None:
    torch.set_num_threads(1)
    for job in json.loads(Path(job_file).read_text("utf-8")):
        run(job, Path(folder))
    if is_initialized():
        destroy_process_group()


def job(
    name: str, stage: str, base: Path, settings: TrainerSettings, count: int, **base_settings: str
) -> dict[str, Any]:
    """One training, as the child reads it."""
    held = {"model": str(base), "quantization": "none", "dtype": "float32"} | base_settings
    return {"name": name, "stage": stage, "base": held, "settings": asdict(settings), "count": count}


if __name__ == "__main__":
    main(*sys.argv[1:])
