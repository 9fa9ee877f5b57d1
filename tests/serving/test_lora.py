"""Our LoRA layers against PEFT's, for whole and 4-bit layers, and what must never be mixed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from serving.adapter_checks import expect_shapes, find_scaling, read_tensors
from serving.adapters import AdapterBase
from serving.base_model import keep_weights_unpacked, nf4_config
from serving.lora import LoraBank, LoraLinear
from store.errors import HeedError

IDS = torch.randint(5, 260, (4, 12), generator=torch.Generator().manual_seed(3))


def load_base(folder: Path, kind: str) -> Any:
    dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
    config = nf4_config(torch.float32) if kind == "nf4" else None
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, quantization_config=config).eval()
    keep_weights_unpacked(model)
    return model


def lay(bank: LoraBank, version: str, folder: Path, base: AdapterBase) -> None:
    bank.add(version, *read_layers(folder, base))


def read_layers(
    folder: Path, base: AdapterBase
) -> tuple[dict[str, tuple[torch.Tensor, torch.Tensor]], float]:
    """The adapter's layers and their scaling, over whatever base: its manifest is not asked."""
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    shapes = expect_shapes(folder.name, config, base.layers)
    content = (folder / "adapter_model.safetensors").read_bytes()
    return read_tensors(folder.name, content, shapes), find_scaling(config)


@pytest.mark.parametrize("columns", [1, 12])
@pytest.mark.parametrize(
    ("kind", "dtype", "most"),
    [
        ("float32", torch.float32, 1e-5),
        ("nf4", torch.float32, 1e-5),
        ("bfloat16", torch.float32, 0.05),
        ("bfloat16", torch.bfloat16, 0.05),
    ],
)
def test_a_batch_of_three_versions_gives_each_row_what_peft_gives_it(
    base_dir: Path, adapters: dict[str, Path], kind: str, dtype: torch.dtype, most: float, columns: int
) -> None:
    """In bfloat16 PEFT keeps the adapter in float32, and we do so for few rows only: rounding."""
    ids = IDS[:, :columns]
    model = load_base(base_dir, kind)
    base = AdapterBase.of(model, "")
    bank = LoraBank(model, dtype)
    with torch.inference_mode():
        before = model(ids).logits
        for version in ("v1", "v2"):
            lay(bank, version, adapters[version], base)
        bank.route(["v0", "v1", "v1", "v2"])
        mixed = model(ids).logits.float()
        bank.route(["v0"] * 4)
        assert torch.equal(model(ids).logits, before)
        for version, rows in (("v1", slice(1, 3)), ("v2", slice(3, 4))):
            theirs = PeftModel.from_pretrained(load_base(base_dir, kind), adapters[version]).eval()
            assert difference(mixed[rows], theirs(ids[rows]).logits) < most
            assert difference(mixed[rows], before[rows]) > 0.5
        assert difference(mixed[:1], before[:1]) < most


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """The norm of what differs, relative to the second."""
    return float((one.float() - other.float()).norm() / other.float().norm())


def test_a_layer_that_sees_other_rows_refuses(base_dir: Path, adapters: dict[str, Path]) -> None:
    model = load_base(base_dir, "float32")
    bank = LoraBank(model, torch.float32)
    lay(bank, "v1", adapters["v1"], AdapterBase.of(model, ""))
    bank.route(["v0", "v1", "v1"])
    with pytest.raises(HeedError, match="a layer saw 4 positions for 3 rows"), torch.inference_mode():
        model(IDS[:, :1])


def test_removing_a_version_leaves_the_others(base_dir: Path, adapters: dict[str, Path]) -> None:
    model = load_base(base_dir, "float32")
    base = AdapterBase.of(model, "")
    bank = LoraBank(model, torch.float32)
    for version in ("v1", "v2"):
        lay(bank, version, adapters[version], base)
    assert bank.num_bytes("v1") == 4 * sum(a.numel() + b.numel() for a, b in pairs_of(adapters["v1"], base))
    with torch.inference_mode():
        bank.route(["v2"] * 4)
        before = model(IDS).logits
        bank.remove("v1")
        assert torch.equal(model(IDS).logits, before)
    assert bank.num_bytes("v1") == 0
    assert all(set(layer.pairs) == {"v2"} for layer in model.modules() if isinstance(layer, LoraLinear))


def pairs_of(folder: Path, base: AdapterBase) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(read_layers(folder, base)[0].values())
