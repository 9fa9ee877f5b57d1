"""The memory plan: the table it must reproduce, and what a real step on a CPU keeps against what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from settings import STARTER
from store.errors import BadValue
from trainer.memory import (
    GIB,
    ModelShape,
    TrainingShape,
    layer_bytes,
    linear_bytes,
    lora_parameters,
    naive_logits_bytes,
    plan_memory,
    tile_bytes,
    total_bytes,
    unpacked_bytes,
    ways_to_save,
)
from trainer.model_shape import read_shape, shape_of
from trainer.qlora import lora_config, upcast_trainable
from trainer.settings import TrainerSettings
from training_commands import estimate, tell_plan


def qwen(
    hidden: int, layers: int, heads: int, keys: int, mlp: int, vocabulary: int, tied: bool
) -> dict[str, Any]:
    return {
        "model_type": "qwen2",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "intermediate_size": mlp,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
    }


def llama(hidden: int, layers: int, heads: int, mlp: int) -> dict[str, Any]:
    return qwen(hidden, layers, heads, 8, mlp, 128256, False) | {"model_type": "llama"}


CONFIGS = {
    "Qwen2.5-0.5B": qwen(896, 24, 14, 2, 4864, 151936, True),
    "Qwen2.5-1.5B": qwen(1536, 28, 12, 2, 8960, 151936, True),
    "Qwen2.5-7B": qwen(3584, 28, 28, 4, 18944, 152064, False),
    "Llama-3-8B": llama(4096, 32, 32, 14336),
    "Llama-3-70B": llama(8192, 80, 64, 28672),
}
# GiB for 2 pairs of 2 x 1024 tokens, rank 16, AdamW in float32: linears, embeddings and head, adapter (with
# 8-bit AdamW), checkpoints, one layer, whole logits, total with the fused head, total without it.
TABLE = {
    "Qwen2.5-0.5B": (0.17, 0.25, 0.13, 0.08, 0.16, 0.34, 5.8, 2.6, 7.7),
    "Qwen2.5-1.5B": (0.63, 0.43, 0.28, 0.17, 0.33, 0.63, 5.8, 3.9, 8.9),
    "Qwen2.5-7B": (3.14, 2.03, 0.60, 0.38, 0.77, 1.52, 5.8, 9.6, 14.7),
    "Llama-3-8B": (3.35, 1.96, 0.62, 0.39, 1.00, 1.34, 4.9, 9.8, 14.0),
    "Llama-3-70B": (32.9, 3.91, 3.09, 1.93, 5.00, 3.09, 4.9, 49.5, 53.7),
}


@pytest.fixture(scope="module")
def shapes() -> dict[str, ModelShape]:
    return {name: shape_of(config, name) for name, config in CONFIGS.items()}


@pytest.mark.parametrize("name", TABLE)
def test_the_plan_is_the_known_table(shapes, name):
    """Within 1.5 % or the last digit of the table."""
    model, training = shapes[name], TrainingShape()
    total = total_bytes(model, training)
    ours = (
        linear_bytes(model, training),
        model.other_parameters * 2,
        lora_parameters(model, 16) * 16,
        lora_parameters(model, 16) * 10,
        model.layers * training.tokens * model.hidden * 2,
        layer_bytes(model, training) + unpacked_bytes(model, training),
        naive_logits_bytes(model, training),
        total,
        total - tile_bytes(model, training) + naive_logits_bytes(model, training),
    )
    assert [size / GIB for size in ours] == [
        pytest.approx(known, rel=0.015, abs=0.055 if known > 2 else 0.006) for known in TABLE[name]
    ]
    assert total == sum(line.bytes for line in plan_memory(model, training))


def test_8_bit_adam_saves_what_the_table_says(shapes):
    model = shapes["Llama-3-8B"]
    saved = total_bytes(model, TrainingShape()) - total_bytes(model, TrainingShape(optimizer="adamw_8bit"))
    assert saved / GIB == pytest.approx(0.62 - 0.39, abs=0.01)


def test_a_7b_model_without_checkpoints_keeps_some_37_gib(shapes):
    with_all = total_bytes(shapes["Qwen2.5-7B"], TrainingShape(checkpointing=False))
    without = total_bytes(shapes["Qwen2.5-7B"], TrainingShape())
    assert (with_all - without) / GIB + 0.77 + 1.52 == pytest.approx(37, rel=0.05)


def test_a_shared_prompt_is_there_once():
    apart, shared = TrainingShape(seq=1000, batch=2), TrainingShape(seq=1000, batch=2, prompt=400)
    assert (apart.tokens, shared.tokens) == (4000, 3202)


def kept_for_backward(model: Any, length: int) -> int:
    """Bytes that autograd really holds between forward and backward, each storage once, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.randint(0, 1000, (2, length))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model.get_base_model().model(input_ids=ids, use_cache=False).last_hidden_state
    assert hidden.requires_grad
    return sum(held.values())


@pytest.mark.parametrize(
    ("dtype", "checkpointing", "within"),
    [
        ("float32", False, 0.03),
        ("bfloat16", False, 0.08),
        ("float32", True, 0.005),
        ("bfloat16", True, 0.005),
    ],
)
def test_a_real_step_keeps_what_the_plan_says(dtype, checkpointing, within):
    fields: dict[str, Any] = {
        "hidden_size": 512,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 1024,
    }
    small = LlamaForCausalLM(LlamaConfig(**fields)).to(getattr(torch, dtype))
    model = get_peft_model(small, lora_config(TrainerSettings(rank=8))).train()
    upcast_trainable(model)
    if checkpointing:
        model.enable_input_require_grads()
        small.activation_checkpointing_enable()
    shape = shape_of(fields | {"model_type": "llama"}, "small")
    training = TrainingShape(
        seq=256, batch=1, quantization="none", dtype=dtype, device="cpu", checkpointing=checkpointing
    )
    plan = {line.name.split()[0]: line.bytes for line in plan_memory(shape, training)}
    planned = plan["checkpoints" if checkpointing else "activations"] + plan["last"]
    assert kept_for_backward(model, 256) == pytest.approx(planned, rel=within)


@pytest.mark.parametrize(("dtype", "number"), [("float32", 12), ("bfloat16", 14)])
def test_a_cpu_holds_the_logits_of_every_answer_token(shapes, dtype, number):
    """The plan once had the GPU's tile there, a fraction of it; 12 bytes were measured."""
    training = TrainingShape(seq=512, prompt=128, quantization="none", dtype=dtype, device="cpu")
    model = shapes["Qwen2.5-0.5B"]
    (head,) = (line for line in plan_memory(model, training) if line.name.startswith("head"))
    assert head.bytes == 2 * 2 * 384 * 151936 * number
    assert not [line for line in plan_memory(model, training) if "tile" in line.name]
    told = tell_plan(model, training, 64 * GIB)
    assert f"{head.bytes / GIB:8.2f} GiB  of it at most for a batch of the reference" in told
    assert "fused" not in told


def test_a_plan_that_does_not_fit_says_what_would(shapes):
    told = tell_plan(shapes["Llama-3-8B"], TrainingShape(checkpointing=False), 24 * GIB)
    assert "does not fit into 24.0 GiB" in told
    assert "checkpointing on: a third more time, fits" in told.splitlines()[-1]
    hopeless = tell_plan(shapes["Llama-3-70B"], TrainingShape(), 24 * GIB)
    assert hopeless.splitlines()[-1].startswith("none of it is enough")


def test_each_way_to_save_saves(shapes):
    training = TrainingShape(quantization="none", checkpointing=False, batch=4, seq=2048)
    sizes = [total_bytes(shapes["Llama-3-8B"], shape) for _, shape in ways_to_save(training)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)


def test_a_whole_model_needs_a_second_one(shapes):
    model = shapes["Qwen2.5-0.5B"]
    full = TrainingShape(quantization="none", finetune="full")
    parameters = model.linear_parameters + model.other_parameters
    fixed = sum(line.bytes for line in plan_memory(model, full) if not line.passing)
    assert fixed - int(0.8 * GIB) == parameters * (4 + 4 + 4 + 8)
    with pytest.raises(BadValue, match="4-bit weights cannot be trained themselves"):
        replace(full, quantization="nf4")


def test_the_command_takes_the_starter_a_folder_or_a_shape(tmp_path, capsys):
    estimate([])
    assert capsys.readouterr().out.startswith("starter: 2 pairs of 2 x 1024 tokens a step")
    (tmp_path / "llama.json").write_text(json.dumps(CONFIGS["Llama-3-8B"]))
    estimate(["--shape", str(tmp_path / "llama.json"), "--gpu-gib", "24"])
    told = capsys.readouterr().out
    assert "9.89 GiB  in all (an estimate)" in told
    assert told.endswith("fits into 24.0 GiB\n")
    estimate(["--model", str(STARTER), "--gpu-gib", "24", "--seq", "4096", "--no-checkpointing"])
    assert "activations of 3 layers, 16384 tokens" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is not JSON"),
        ("{}", "names no model_type"),
        ('{"model_type": "squid"}', "no causal language model"),
    ],
)
def test_a_file_that_is_no_shape_is_refused(tmp_path, content, says):
    (tmp_path / "shape.json").write_text(content)
    with pytest.raises(BadValue, match=says):
        read_shape(tmp_path / "shape.json")


def test_the_arithmetic_needs_no_torch():
    import subprocess
    import sys

    code = "import sys, trainer.memory, training_commands; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
