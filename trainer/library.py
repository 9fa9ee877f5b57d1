"""What both library trainers are told alike. The training loop is the library's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.distributed import barrier, destroy_process_group, is_initialized
from transformers.integrations import TensorBoardCallback

from trainer.settings import TrainerSettings


def shared_arguments(
    settings: TrainerSettings, folder: Path, learning_rate: float, epochs: int, batch_size: int
) -> dict[str, Any]:
    """Arguments for the library's config classes; the library saves, sends and evaluates nothing.

    `batch_size` is of all processes together.
    """
    on_cuda = torch.cuda.is_available()
    arguments = {
        "output_dir": str(folder / "work"),
        "beta": settings.beta,
        "learning_rate": learning_rate,
        "num_train_epochs": epochs,
        "per_device_train_batch_size": batch_size // settings.processes,
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
        "activation_checkpointing": uses_checkpointing(settings.checkpointing, on_cuda),
        "dataloader_pin_memory": on_cuda,
        "ddp_find_unused_parameters": False,  # every adapter weight has a part in every step
    }
    if settings.sharding == "zero3":
        arguments["deepspeed"] = str(Path(__file__).parent / "launch" / "zero3.json")
    return arguments


def uses_checkpointing(checkpointing: str, on_cuda: bool) -> bool:
    """Whether activations are computed again in the backward pass. "auto" saves memory where it is scarce: on
    a CPU it would cost a quarter of the speed."""
    return on_cuda if checkpointing == "auto" else checkpointing == "on"


def place_tensorboard(trainer: Any, folder: Path) -> None:
    """Where TensorBoard's files go, should it be among the trackers; TENSORBOARD_LOGGING_DIR overrides it."""
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str(folder)


def share_rows(rows: Any, arguments: Any, folder: Path) -> Any:
    """The same rows, in one file that all processes read.

    The first process writes the reference log-probs beside that file, and the others look for them there.
    """
    state = arguments.distributed_state
    if state.num_processes == 1:
        return rows
    if state.is_main_process:
        rows.save_to_disk(folder)
    state.wait_for_everyone()
    return Dataset.load_from_disk(folder)


def must_wait_with_reference(arguments: dict[str, Any], settings: TrainerSettings) -> bool:
    """Whether the reference log-probs must be computed after the trainer is built; switches them off in it.

    To name its cache the library hashes every weight as it builds a trainer, and fails on those of a base
    that is split among processes.
    """
    if settings.sharding != "fsdp2" or not arguments["precompute_ref_log_probs"]:
        return False
    arguments["precompute_ref_log_probs"] = False
    return True


def add_reference(trainer: Any) -> None:
    """The reference log-probs of every row, as the library would have added them."""
    rows, batch_size = trainer.train_dataset, trainer.args.per_device_train_batch_size
    trainer.train_dataset = trainer._precompute_ref_logps(rows, "train", batch_size)
    trainer.precompute_ref_logps = True


def check_processes(trainer: Any, settings: TrainerSettings) -> None:
    """Some launchers silently start one process where two were asked for, or two that train apart."""
    running = trainer.accelerator.num_processes
    if running != settings.processes:
        raise RuntimeError(
            f"training runs in {running} processes instead of {settings.processes}: check the launcher"
        )


def leave_group() -> None:
    """Part from the other processes of a launcher, once all of them are done training."""
    if is_initialized():
        barrier()
        destroy_process_group()
