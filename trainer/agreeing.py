"""What the processes of one training decide together: one that goes its own way leaves the others waiting.

Everything here is a collective: every process must call it, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

Gather = Callable[[torch.Tensor], torch.Tensor]  # every process's rows, one below the other


def alone(ours: torch.Tensor) -> torch.Tensor:
    """Gathers over a single process."""
    return ours


def any_claims(claims: Sequence[bool], gather: Gather) -> list[bool]:
    """Of several processes one may know what the others do not yet: what any claims holds for all."""
    return [bool(claim) for claim in gather(torch.tensor([list(claims)])).any(0).tolist()]


def mean_values(values: Sequence[float], gather: Gather) -> list[float]:
    """The same figures for all, though each measured for itself; not a number where anybody's is none."""
    means: list[float] = gather(torch.tensor([list(values)], dtype=torch.float64)).mean(0).tolist()
    return means


def gather_over(trainer: Any) -> Gather:
    """Gathers over a trainer's processes; for one alone there is nothing to do."""
    if trainer.args.world_size == 1:
        return alone
    accelerator, device = trainer.accelerator, trainer.args.device

    def gather(ours: torch.Tensor) -> torch.Tensor:
        rows: torch.Tensor = accelerator.gather(ours.to(device)).cpu()
        return rows

    return gather


def gather_between_stages(processes: int) -> Gather:
    """Gathers where no trainer is at hand: a resumed round may have built none yet, so that its processes
    have still to find each other."""
    if processes == 1:
        return alone

    def gather(ours: torch.Tensor) -> torch.Tensor:
        PartialState(cpu=not torch.cuda.is_available())
        return torch.tensor(gather_object(ours.tolist()), dtype=ours.dtype)

    return gather
