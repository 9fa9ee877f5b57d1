"""Every way to train that is offered does: optimizers, checkpointing, rank-stabilized LoRA, whole models."""

from __future__ import annotations

import json
from dataclasses import replace
from math import log, sqrt
from typing import Any

import pytest
import torch

from serving.adapter_checks import check_config, find_scaling
from serving.base_model import load_base as load_served
from serving.settings import BaseSettings
from store.errors import BadValue
from tests.trainer.conftest import pair_rows, write_snapshot
from trainer.dpo import build_pair_trainer
from trainer.library import shared_arguments
from trainer.preferences import prepare_pairs
from trainer.publish import save_adapter
from trainer.qlora import load_base, read_weights, start_policy
from trainer.settings import OPTIMIZER_BYTES, BaseModel
from trainer.whole import build_whole_trainer, read_margins, train_whole

# Trains for minutes in all, in processes of its own.
pytestmark = pytest.mark.slow


def prepared(base: Any, count: int, seed: int = 0) -> Any:
    return prepare_pairs(pair_rows(count, seed), base.tokenizer, 256).rows


def trained(base: Any, settings: Any, folder: Any, count: int = 16) -> Any:
    rows = prepared(base, count)
    trainer = build_pair_trainer(
        start_policy(base.model, settings, None), base.tokenizer, rows, settings, folder
    )
    trainer.train()
    return trainer


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("optimizer", OPTIMIZER_BYTES)
def test_each_offered_optimizer_trains_over_a_4_bit_base(nf4_base, settings, tmp_path, optimizer):
    rate = 0.5 if optimizer == "sgd" else 2e-3
    settings = replace(settings, optimizer=optimizer, learning_rate=rate, epochs=4)
    trainer = trained(nf4_base, settings, tmp_path)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[0] == pytest.approx(log(2), abs=1e-5)
    assert losses[-1] < losses[0] - 0.02
    assert all(w.isfinite().all() for w in read_weights(trainer.model).values())


@pytest.mark.parametrize("base_name", ["base", "nf4_base"])
def test_checkpointing_changes_memory_and_nothing_else(request, settings, tmp_path, base_name):
    base = request.getfixturevalue(base_name)
    results = []
    for checkpointing in ("off", "on"):
        trainer = trained(base, replace(settings, checkpointing=checkpointing), tmp_path)
        assert trainer.args.activation_checkpointing is (checkpointing == "on")
        results.append(read_weights(trainer.model))
        trainer.model.unload()
        base.model.activation_checkpointing_disable()
    assert all(torch.allclose(results[0][name], results[1][name], atol=1e-6) for name in results[0])


@pytest.mark.skipif(torch.cuda.is_available(), reason="where there is a GPU auto means on")
def test_auto_checkpointing_is_off_on_a_cpu(settings, tmp_path):
    assert shared_arguments(settings, tmp_path, 1e-3, 1, 8)["activation_checkpointing"] is False


def test_rank_stabilized_lora_is_scaled_by_the_root_of_its_rank(base, settings, tmp_path):
    """PEFT's own forward pass and what serving multiplies with are the same number."""
    trainer = trained(base, replace(settings, adapter="rslora"), tmp_path)
    save_adapter(trainer.model, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    check_config("v1", config)
    assert find_scaling(config) == pytest.approx(settings.alpha / sqrt(settings.rank))
    layer = trainer.model.get_base_model().model.layers[0].mlp.up_proj
    assert find_scaling(config) == layer.scaling["default"]


def test_a_rank_stabilized_adapter_is_served_as_it_was_trained(base, base_folder, settings, tmp_path):
    """The bank that serves many versions against PEFT itself, on the same tokens."""
    from serving.adapter_checks import expect_shapes, read_tensors
    from serving.adapters import AdapterBase
    from serving.lora import LoraBank

    trainer = trained(base, replace(settings, adapter="rslora"), tmp_path)
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    with torch.no_grad():
        told = trainer.model(input_ids=ids).logits
    save_adapter(trainer.model, tmp_path / "adapter")
    trainer.model.unload()
    served = load_served(BaseSettings(str(base_folder), quantization="none", dtype="float32"))
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    shapes = expect_shapes("v1", config, AdapterBase.of(served.model, served.fingerprint).layers)
    content = (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes()
    bank = LoraBank(served.model, torch.float32)
    bank.add("v1", read_tensors("v1", content, shapes), find_scaling(config))
    with torch.no_grad():
        bank.route(["v1"])
        answered = served.model(input_ids=ids).logits
        bank.route([])
        bare = served.model(input_ids=ids).logits
    assert torch.allclose(answered, told, atol=2e-5)
    assert (bare - told).abs().max() > 1e-2


def test_a_whole_model_starts_at_ln_2_and_its_reference_stays(base_folder, settings, tmp_path):
    exact = BaseModel(str(base_folder), quantization="none", dtype="float32")
    policy, reference = load_base(exact), load_base(exact)
    before = {name: tensor.clone() for name, tensor in reference.model.state_dict().items()}
    rows, held_out = prepared(policy, 64), prepared(policy, 40, seed=1)
    settings = replace(settings, learning_rate=1e-4, epochs=3)
    trainer = build_whole_trainer(policy, reference.model, rows, settings, tmp_path)
    assert read_margins(trainer, held_out, 8) == pytest.approx([0.0] * 40, abs=1e-4)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[0] == pytest.approx(log(2), abs=1e-5)
    assert losses[-1] < 0.5
    assert all(torch.equal(tensor, before[name]) for name, tensor in reference.model.state_dict().items())
    moved = [not torch.equal(tensor, before[name]) for name, tensor in policy.model.state_dict().items()]
    assert all(moved)
    assert sum(margin > 0 for margin in read_margins(trainer, held_out, 8)) >= 38


def test_a_whole_model_is_written_to_be_served(base_folder, settings, tmp_path):
    write_snapshot(tmp_path / "snapshot", pair_rows(48), (), pair_rows(20, seed=1))
    base = BaseModel(str(base_folder), quantization="none")
    settings = replace(settings, learning_rate=1e-4)
    report = train_whole(base, tmp_path / "snapshot", settings, tmp_path / "whole")
    assert (report.num_pairs, report.num_held_out, report.steps) == (48, 20, 12)
    assert report.accuracy is not None
    assert report.accuracy > 0.9
    assert json.loads((tmp_path / "whole" / "training.json").read_text())["accuracy"] == report.accuracy
    served = load_served(BaseSettings(str(tmp_path / "whole")))
    assert served.fingerprint != load_served(BaseSettings(str(base_folder))).fingerprint
    assert served.tokenizer.chat_template == load_base(base).tokenizer.chat_template
    with pytest.raises(BadValue, match="exists already; name a new folder"):
        train_whole(base, tmp_path / "snapshot", settings, tmp_path / "whole")


def test_4_bit_weights_are_not_trained_themselves(base_folder, settings, tmp_path):
    with pytest.raises(BadValue, match="4-bit weights cannot be trained themselves"):
        train_whole(BaseModel(str(base_folder), quantization="nf4"), tmp_path, settings, tmp_path / "out")
