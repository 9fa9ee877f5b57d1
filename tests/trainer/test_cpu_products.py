"""Products of bfloat16 made in float32: the same numbers, rounded once, where a processor has no bfloat16."""

from __future__ import annotations

import pytest
import torch

from trainer import cpu_products
from trainer.cpu_products import MIN_ROWS, widen_products
from trainer.qlora import load_base
from trainer.settings import BaseModel

NARROW = torch.bfloat16


@pytest.fixture
def old_processor(monkeypatch):
    monkeypatch.setattr(cpu_products, "lacks_bfloat16", lambda: True)


def widened(layer: torch.nn.Linear, monkeypatch: pytest.MonkeyPatch) -> torch.nn.Linear:
    layer = layer.to(NARROW).requires_grad_(False)
    monkeypatch.setattr(layer, "forward", cpu_products.partial(cpu_products._forward, layer))
    return layer


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("block", [1 << 19, 50])  # all at once; and by blocks of two rows, the last of one
def test_a_product_and_its_gradient_are_those_of_float32_rounded_once(bias, block, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(cpu_products, "BLOCK", block)
    layer = widened(torch.nn.Linear(24, 37, bias=bias), monkeypatch)
    x = torch.randn(3, MIN_ROWS, 24).to(NARROW).requires_grad_()
    wide = x.detach().float().requires_grad_()
    exact = torch.nn.functional.linear(wide, layer.weight.float(), layer.bias.float() if bias else None)
    given = torch.randn_like(exact).to(NARROW)

    out = layer(x)
    out.backward(given)
    exact.backward(given.float())

    assert out.dtype == NARROW
    assert x.grad.dtype == NARROW
    # One rounding to 8 bits: half a unit in the last place, 2^-9 of the value.
    torch.testing.assert_close(out.float(), exact.detach(), rtol=2**-8, atol=1e-6)
    torch.testing.assert_close(x.grad.float(), wide.grad, rtol=2**-8, atol=1e-6)


def test_a_few_rows_are_multiplied_as_ever(monkeypatch):
    layer = widened(torch.nn.Linear(24, 8), monkeypatch)
    monkeypatch.setattr(cpu_products._Product, "apply", None)  # nobody may call it
    few = torch.randn(1, MIN_ROWS - 1, 24).to(NARROW)
    assert torch.equal(layer(few), torch.nn.functional.linear(few, layer.weight, layer.bias))


@pytest.mark.usefixtures("old_processor")
def test_a_bfloat16_base_answers_and_learns_as_in_float32(base_folder, monkeypatch):
    widened = load_base(BaseModel(str(base_folder), quantization="none", dtype="bfloat16")).model
    assert widened.config._attn_implementation == cpu_products.ATTENTION
    assert widened.model.layers[0].mlp.up_proj.weight.dtype == NARROW
    monkeypatch.setattr(cpu_products, "lacks_bfloat16", lambda: False)
    plain = load_base(BaseModel(str(base_folder), quantization="none", dtype="bfloat16")).model
    exact = load_base(BaseModel(str(base_folder), quantization="none", dtype="float32")).model
    ids = torch.arange(3, 43)[None].repeat(2, 1)

    losses, gradients = {}, {}
    for name, model in (("widened", widened), ("plain", plain), ("exact", exact)):
        embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
        loss = model.requires_grad_(False)(inputs_embeds=embedded, labels=ids).loss
        loss.backward()
        losses[name], gradients[name] = loss.item(), embedded.grad.float()

    far = abs(losses["plain"] - losses["exact"])
    assert abs(losses["widened"] - losses["exact"]) < 2 * far + 1e-3
    likeness = torch.nn.functional.cosine_similarity(
        gradients["widened"].flatten(), gradients["exact"].flatten(), dim=0
    )
    assert likeness > 0.999


def test_a_layer_that_is_trained_gets_its_gradient(monkeypatch):
    layer = widened(torch.nn.Linear(24, 8), monkeypatch).requires_grad_()
    layer(torch.randn(MIN_ROWS, 24).to(NARROW)).sum().backward()
    assert layer.weight.grad.abs().sum() > 0


@pytest.mark.usefixtures("old_processor")
def test_a_float32_base_keeps_its_own_products(base_folder):
    model = load_base(BaseModel(str(base_folder), quantization="none", dtype="float32")).model
    assert "forward" not in model.model.layers[0].mlp.up_proj.__dict__
    assert model.config._attn_implementation == "sdpa"


def test_a_processor_with_bfloat16_is_left_alone(monkeypatch):
    monkeypatch.setattr(cpu_products, "lacks_bfloat16", lambda: False)
    layer = torch.nn.Linear(24, 8).to(NARROW)
    widen_products(layer)
    assert "forward" not in layer.__dict__
