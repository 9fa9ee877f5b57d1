"""Reads a model's shape off its config: it is built on the meta device, where weights take no memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from store.errors import BadValue
from trainer.memory import ModelShape


def read_shape(path: Path) -> ModelShape:
    """The shape of a model folder, or of a file with a config.json's fields. BadValue when it has none."""
    file = path / "config.json" if path.is_dir() else path
    if not file.is_file():
        raise BadValue(f"{path} is neither a model folder nor a config file; a config.json is all it takes")
    try:
        fields = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise BadValue(f"{file} is not JSON: {error}") from error
    if not isinstance(fields, dict) or "model_type" not in fields:
        raise BadValue(f"{file} names no model_type, so it is no model's config")
    return shape_of(fields, path.name)


def shape_of(fields: dict[str, Any], name: str) -> ModelShape:
    """The shape that a config's fields stand for. BadValue when transformers knows no such model."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    known = {key: value for key, value in fields.items() if key not in ("model_type", "quantization_config")}
    try:
        config = AutoConfig.for_model(fields["model_type"], **known).get_text_config()
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (ValueError, TypeError) as error:
        raise BadValue(f"model {name}: no causal language model comes of its config: {error}") from error
    linears = tuple(_sizes(model))
    heads = config.num_attention_heads
    head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return ModelShape(
        name=name,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        key_width=(getattr(config, "num_key_value_heads", None) or heads) * head_width,
        vocabulary=config.vocab_size,
        linears=linears,
        other_parameters=sum(p.numel() for p in model.parameters()) - sum(i * o for i, o in linears),
    )


def _sizes(model: Any) -> list[tuple[int, int]]:
    """(inputs, outputs) of every linear layer but the head, which adapters leave alone."""
    import torch

    head = model.get_output_embeddings()
    found = []
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module is not head:
            found.append((module.in_features, module.out_features))
        elif type(module).__name__ == "Conv1D":  # GPT-2's transposed linear layer
            found.append((int(module.nx), int(module.nf)))
    return found
