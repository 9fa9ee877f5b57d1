"""bfloat16 on a processor without it: many rows are multiplied in float32 and rounded once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import linear

from serving import cpu_products
from serving.base_model import load_base
from serving.cpu_products import MIN_ROWS, multiply, widen_products
from serving.settings import BaseSettings


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("block", [1 << 19, 50])  # all at once; and by blocks of two rows, the last of one
def test_many_rows_are_the_product_of_float32_rounded_once(
    bias: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(cpu_products, "BLOCK", block)
    layer = torch.nn.Linear(24, 37, bias=bias).bfloat16()
    x = torch.randn(2, MIN_ROWS, 24).bfloat16()
    exact = linear(x.float(), layer.weight.float(), layer.bias.float() if bias else None)
    with torch.inference_mode():
        out = multiply(layer, x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), exact.detach(), rtol=2**-8, atol=1e-6)


def test_few_rows_are_the_librarys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_products, "BLOCK", None)  # no block can be cut
    layer, x = torch.nn.Linear(24, 8).bfloat16(), torch.randn(MIN_ROWS - 1, 1, 24).bfloat16()
    assert torch.equal(multiply(layer, x), linear(x, layer.weight, layer.bias))


@pytest.mark.parametrize("lacks", [True, False])
def test_a_bfloat16_base_is_widened_where_the_processor_lacks_it_and_answers_alike(
    lacks: bool, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_products, "lacks_bfloat16", lambda: lacks)
    served = load_base(BaseSettings(str(base_dir), quantization="none", dtype="bfloat16")).model
    assert ("forward" in served.model.layers[0].mlp.up_proj.__dict__) is lacks
    exact = load_base(BaseSettings(str(base_dir), quantization="none", dtype="float32")).model
    ids = torch.arange(5, 45).reshape(2, 20)
    with torch.inference_mode():
        narrow, wide = (model(ids).logits.float().log_softmax(-1) for model in (served, exact))
    assert torch.nn.functional.kl_div(narrow, wide, log_target=True, reduction="batchmean") / 20 < 1e-3


def test_float32_layers_keep_their_own_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_products, "lacks_bfloat16", lambda: True)
    layer = torch.nn.Linear(24, 8)
    widen_products(layer)
    assert "forward" not in layer.__dict__
