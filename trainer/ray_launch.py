"""Runs a round on Ray Train's workers: `python -m trainer.ray_launch N` is a launch prefix like torchrun's.

Ray is not among what Heed installs. Each worker is a process of the round as torchrun would start it, with
the same environment variables; the round knows nothing of Ray.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from store.errors import BadValue

logger = logging.getLogger(__name__)

USAGE = "usage: python -m trainer.ray_launch WORKERS -m trainer.round DIRECTORY"


def read_arguments(arguments: list[str]) -> tuple[int, Path]:
    """The number of workers and the round's directory, of a command line behind the prefix. BadValue."""
    if len(arguments) != 4 or arguments[1:3] != ["-m", "trainer.round"] or not arguments[0].isdigit():
        raise BadValue(USAGE)
    if int(arguments[0]) < 1:
        raise BadValue(f"{arguments[0]} workers cannot train; {USAGE}")
    return int(arguments[0]), Path(arguments[3]).absolute()


def work(config: Mapping[str, Any]) -> None:
    """One worker's share of the round. Raises when there is no verdict: the round's log says why."""
    from trainer.round import reach_verdict

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if reach_verdict(Path(config["folder"])) != 0:
        raise RuntimeError(f"round {config['folder']} ended without a verdict")


def launch(workers: int, folder: Path) -> None:
    """Run the round and wait for it. The cluster is the one RAY_ADDRESS names, else one on this machine."""
    import torch
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    on_cuda = torch.cuda.is_available()
    TorchTrainer(
        work,
        train_loop_config={"folder": str(folder)},
        torch_config=TorchConfig(backend="nccl" if on_cuda else "gloo"),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=on_cuda),
        run_config=RunConfig(name=folder.name, storage_path=str(folder / "work" / "ray")),
    ).fit()


def main(arguments: list[str]) -> int:
    """The process: 0 with a verdict, 1 without, 2 for a wrong command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        workers, folder = read_arguments(arguments)
    except BadValue as error:
        logger.error("%s", error)
        return 2
    try:
        launch(workers, folder)
    except Exception as error:
        logger.exception("the round failed on Ray")
        logger.error("no verdict: %s: %s", type(error).__name__, " ".join(str(error).split()))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
