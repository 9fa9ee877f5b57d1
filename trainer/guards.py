"""What stops a training, or a step of it, before it spoils the adapter."""

from __future__ import annotations

import logging
from typing import Any

import torch
from transformers import TrainerCallback

logger = logging.getLogger(__name__)

MAX_BAD_STEPS = 3


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
