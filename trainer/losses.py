"""Preference losses as pure functions, in the words of their papers. Knows no model and no trainer."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812


def cdpo_losses(margins: torch.Tensor, flip: torch.Tensor) -> torch.Tensor:
    """Conservative DPO: a share `flip` of the labels is taken for flipped. `margins` are beta times the
    difference of log-ratios; at flip 0 it is the sigmoid loss, above 0 its optimum is finite: margin = log((1
    - flip) / flip)."""
    return -(1 - flip) * F.logsigmoid(margins) - flip * F.logsigmoid(-margins)  # (batch,)
