"""Products of bfloat16 on a CPU that has no instruction for them: computed in float32, then rounded.

There the library makes 5 billion operations a second forward and 1 backward, where float32 makes 40. The
factors are the same and the product is rounded as before; only the order in which a sum is taken differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch.nn.functional import linear
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

# Weights cast at one time, 2 MiB of them: they stay in a processor's cache until they are used. A matrix of
# 49,152 x 576 cast whole takes 1.4 to 5 times as long, and one of 256 x 256 is a single block.
BLOCK = 1 << 19
MIN_ROWS = 6  # casting a block costs what four or five rows do
ATTENTION = "sdpa_in_float32"


def lacks_bfloat16() -> bool:
    """Whether this processor would emulate products of bfloat16."""
    return not torch.ops.mkldnn._is_mkldnn_bf16_supported()


def widen_products(model: Any) -> None:
    """Have the frozen bfloat16 layers of `model`, and its attention, compute in float32 and round.

    The weights stay as they are. Does nothing on a processor that has bfloat16, on a GPU, or to weights of
    another type; a layer that is trained itself keeps its own products.
    """
    if not lacks_bfloat16():
        return
    narrow = [module for module in model.modules() if _is_narrow(module)]
    for module in narrow:
        module.forward = partial(_forward, module)
    if narrow:
        AttentionInterface.register(ATTENTION, _attend)
        AttentionMaskInterface.register(ATTENTION, sdpa_mask)
        model.set_attn_implementation(ATTENTION)


def _is_narrow(module: torch.nn.Module) -> bool:
    if type(module) is not torch.nn.Linear:
        return False
    return module.weight.dtype == torch.bfloat16 and module.weight.device.type == "cpu"


def _forward(layer: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
    rows = x.numel() // x.shape[-1]
    if rows < MIN_ROWS or x.dtype != torch.bfloat16 or layer.weight.requires_grad:
        return linear(x, layer.weight, layer.bias)
    product: torch.Tensor = _Product.apply(x, layer.weight, layer.bias)  # type: ignore[no-untyped-call]
    return product


def _attend(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **kwargs: Any
) -> Any:
    """Attention over (batch, heads, seq, head size), whose backward takes four times as long in bfloat16."""
    wide = (tensor.float() for tensor in (query, key, value))
    out, weights = sdpa_attention_forward(module, *wide, mask, **kwargs)
    return out.to(query.dtype), weights


class _Product(torch.autograd.Function):
    """x @ weight.T + bias, with a gradient for x alone."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(weight)
        wide = x.float()
        out = x.new_empty(*x.shape[:-1], len(weight))
        for place, block in _blocks(weight):
            out[..., place] = linear(wide, block, None if bias is None else bias[place].float())
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        (weight,) = ctx.saved_tensors
        total = grad.new_zeros(grad.numel() // grad.shape[-1], weight.shape[1], dtype=torch.float32)
        rows = grad.reshape(len(total), -1)
        for place, block in _blocks(weight):
            total.addmm_(rows[:, place].float(), block)
        return total.to(grad.dtype).reshape(*grad.shape[:-1], -1), None, None


def _blocks(weight: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """A matrix (out, in) in float32, some of its rows at a time."""
    step = max(1, BLOCK // weight.shape[1])
    for start in range(0, len(weight), step):
        place = slice(start, start + step)
        yield place, weight[place].float()
