"""What both library trainers are told alike: arguments, progress lines, and what to do about a non-finite
gradient.

The training loop is the library's; this is all we add around it.
"""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from trainer.settings import TrainerSettings

logger = logging.getLogger(__name__)

MAX_BAD_STEPS = 3


class ProgressLog:
    """progress.jsonl: one whole line a step, on disk at once, so that a reader never waits for a buffer."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def start(self, stage: str) -> None:
        """Say that a stage begins."""
        self._write({"stage": stage, "event": "start"})

    def step(self, stage: str, step: int, max_steps: int, **metrics: Any) -> None:
        """Say how far a stage is. A number that is not finite becomes null: JSON has no NaN."""
        finite = {name: _or_null(value) for name, value in metrics.items()}
        self._write({"stage": stage, "step": step, "max_steps": max_steps, **finite})

    def _write(self, line: dict[str, object]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")


def _or_null(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


class ReportProgress(TrainerCallback):  # type: ignore[misc]
    """Writes each logging step of a library trainer, metrics under the library's names."""

    def __init__(self, log: ProgressLog, stage: str) -> None:
        self._log, self._stage = log, stage

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:  # noqa: ARG002
        """The closing summary has no loss of a step and is left out."""
        if "loss" in logs:
            self._log.step(self._stage, state.global_step, state.max_steps, **logs)


class SkipNonFiniteSteps(TrainerCallback):  # type: ignore[misc]
    """One NaN step would leave a wholly NaN adapter; drop such a gradient, and give up after the third."""

    def __init__(self) -> None:
        self.num_skipped = 0

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Clipping does not help: it divides every gradient by the NaN norm."""
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        if all(torch.isfinite(gradient).all() for gradient in gradients):
            return
        for gradient in gradients:
            gradient.zero_()
        self.num_skipped += 1
        logger.warning("step %d has a non-finite gradient and was skipped", state.global_step + 1)
        if self.num_skipped >= MAX_BAD_STEPS:
            raise RuntimeError(
                f"training diverged: {self.num_skipped} steps with a non-finite gradient, the last at step"
                f" {state.global_step + 1}; try a smaller learning_rate"
            )


def shared_arguments(
    settings: TrainerSettings, folder: Path, learning_rate: float, epochs: int, batch_size: int
) -> dict[str, Any]:
    """Arguments for the library's config classes; the library saves, sends and evaluates nothing."""
    on_cuda = torch.cuda.is_available()
    return {
        "output_dir": str(folder / "work"),
        "beta": settings.beta,
        "learning_rate": learning_rate,
        "num_train_epochs": epochs,
        "per_device_train_batch_size": batch_size,
        "gradient_accumulation_steps": settings.accumulation,
        "optim": settings.optimizer,
        "lr_scheduler_type": settings.schedule,
        "warmup_steps": settings.warmup,  # below 1 it is a share of all steps
        "max_grad_norm": settings.max_grad_norm,
        "max_length": None,  # rows arrive cut, by a rule that keeps the answer
        "remove_unused_columns": False,  # the collator reads our own columns
        "disable_dropout": True,
        "precompute_ref_log_probs": True,
        "logging_steps": settings.logging_steps,
        "logging_nan_inf_filter": False,  # a NaN loss must show as one
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": settings.seed,
        "data_seed": settings.seed,
        "use_cpu": not on_cuda,
        "bf16": on_cuda,
        "activation_checkpointing": on_cuda,  # on a CPU it costs a quarter of the speed
        "dataloader_pin_memory": on_cuda,
    }


def check_processes(trainer: Any, settings: TrainerSettings) -> None:
    """Some launchers silently start one process where two were asked for, or two that train apart."""
    running = trainer.accelerator.num_processes
    if running != settings.processes:
        raise RuntimeError(
            f"training runs in {running} processes instead of {settings.processes}: check the launcher"
        )
