"""What both library trainers are told alike. The training loop is the library's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from trainer.settings import TrainerSettings


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
        "report_to": list(settings.report_to) or "none",
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
