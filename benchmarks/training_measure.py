"""What one way of training is measured by: a clock of CPU time, its peak memory, what it learned."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

Ids = tuple[Sequence[int], Sequence[int], Sequence[int]]  # prompt, chosen, rejected


class Clock(TrainerCallback):  # type: ignore[misc]
    """CPU seconds of each epoch, and each step's loss as the trainer logs it."""

    def __init__(self) -> None:
        self.epochs_s: list[float] = []
        self.losses: list[float] = []
        self._began = 0.0

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        self._began = time.process_time()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        self.epochs_s.append(time.process_time() - self._began)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:  # noqa: ARG002
        if "loss" in logs:
            self.losses.append(logs["loss"])


@dataclass(slots=True)
class Stopwatch:
    """CPU seconds spent in calls of one method."""

    seconds: float = 0.0
    _wrapped: Callable[..., Any] | None = field(default=None, repr=False)

    def around(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.process_time()
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds += time.process_time() - began

        return timed


def report(way: str, clock: Clock, reference_s: float, num_pairs: int, accuracy: float, peak: float) -> Any:
    """One run's figures. A pair's time is an epoch's median plus its share of the reference pass."""
    epoch_s, epochs = statistics.median(clock.epochs_s), len(clock.epochs_s)
    return {
        "way": way,
        "ms_per_pair": 1000 * (epoch_s + reference_s / epochs) / num_pairs,
        "reference_ms_per_pair": 1000 * reference_s / num_pairs,
        "peak_mib": peak,
        "accuracy": accuracy,
        "first_loss": clock.losses[0],
        "last_loss": clock.losses[-1],
        "losses": clock.losses,
    }


def peak_mib() -> float:
    """The most this process ever held, with the libraries; `ru_maxrss` would begin at its parent's."""
    told = Path("/proc/self/status").read_text("ascii")
    return next(int(line.split()[1]) for line in told.splitlines() if line.startswith("VmHWM:")) / 1024


def draw_adapter(model: Any) -> None:
    """The same first weights whoever built the adapter, in float32: ways are then compared from one start."""
    draws = torch.Generator().manual_seed(0)
    for name, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
            if "lora_A" in name:
                torch.nn.init.kaiming_uniform_(parameter.data, a=math.sqrt(5), generator=draws)


@torch.inference_mode()
def held_out_accuracy(policy: Any, pairs: Sequence[Ids]) -> float:
    """The share of pairs whose chosen answer gained more over the base than the rejected one did."""
    policy.eval()
    gains = [_margin(policy, pair) for pair in pairs]
    with policy.disable_adapter():
        before = [_margin(policy, pair) for pair in pairs]
    return sum(now > was for now, was in zip(gains, before, strict=True)) / len(pairs)


def _margin(policy: Any, pair: Ids) -> float:
    prompt, chosen, rejected = pair
    return _logp(policy, prompt, chosen) - _logp(policy, prompt, rejected)


def _logp(policy: Any, prompt: Sequence[int], answer: Sequence[int]) -> float:
    logits = policy(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
    logps = logits.float().log_softmax(-1).gather(1, torch.tensor(answer)[:, None])
    return float(logps.sum())
