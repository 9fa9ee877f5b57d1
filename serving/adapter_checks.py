"""What an adapter may say and hold: its config, and the tensors that it lays over a base. Knows no files.

The config is checked by an allow-list: what is not named here must stand at PEFT's own default. "pissa" would
rewrite the base, `megatron_core` would import a module of its choosing, a text as `target_modules` would be a
regular expression.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from serving.peft_defaults import read_default
from store.errors import HeedError

MAX_RANK = 1024
MAX_HEADER_BYTES = 1 << 20
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# A tensor may grow to ten times its parent's norm. Where no parent is known its root mean square may be 1: a
# new lora_A starts near 1 / sqrt(3 * inputs), 0.02 for 1,000 inputs. A parent's is never taken for less than
# a hundredth, because a lora_B starts at zero and a short first round leaves it small.
MAX_NORM_GROWTH = 10.0
RMS_WITHOUT_PARENT = 0.1
MIN_PARENT_RMS = 0.01

FLAGS = ("fan_in_fan_out", "use_rslora")
# Keys of the config that may differ between rounds; each is checked below or changes nothing at inference.
FREE_KEYS = {"base_model_name_or_path", "inference_mode", "peft_version", "revision", "task_type"}
CHECKED_KEYS = {"peft_type", "r", "lora_alpha", "lora_dropout", "target_modules", *FLAGS}


class BadAdapter(HeedError):
    """An adapter that must not be served; the message gives the one reason."""

    status = 409
    kind = "bad_adapter"


def check_config(name: str, config: Mapping[str, Any]) -> None:
    """Raise BadAdapter unless every key is checked here or at PEFT's own default."""
    for key in sorted(set(config) - FREE_KEYS - CHECKED_KEYS):
        try:
            default = read_default(key)
        except KeyError:
            raise BadAdapter(f"adapter {name}: config key {key!r} is unknown") from None
        if config[key] != default:
            raise BadAdapter(f"adapter {name}: config {key} {config[key]!r} is not allowed")
    for problem in _find_problems(config):
        raise BadAdapter(f"adapter {name}: config {problem}")


def find_scaling(config: Mapping[str, Any]) -> float:
    """What the adapter's product is multiplied by: alpha / r, with rank-stabilized LoRA alpha / sqrt(r)."""
    rank = config["r"]
    return float(config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank))


def expect_shapes(
    name: str, config: Mapping[str, Any], layers: Mapping[str, tuple[int, int]]
) -> dict[str, dict[str, tuple[int, int]]]:
    """By layer of the base, the shape of "A" (r, inputs) and of "B" (outputs, r)."""
    expected = {}
    for target in config["target_modules"]:
        wrapped = [layer for layer in layers if layer == target or layer.endswith(f".{target}")]
        if not wrapped:
            raise BadAdapter(f"adapter {name}: target module {target!r} is no linear layer of the base")
        for layer in wrapped:
            inputs, outputs = layers[layer]
            expected[layer] = {"A": (config["r"], inputs), "B": (outputs, config["r"])}
    return expected


def tensor_name(layer: str, side: str) -> str:
    """What PEFT calls a layer's tensor in the file; `side` is "A" or "B"."""
    return f"base_model.model.{layer}.lora_{side}.weight"


def read_tensors(
    adapter: str, content: bytes, shapes: Mapping[str, Mapping[str, tuple[int, int]]]
) -> dict[str, tuple[Tensor, Tensor]]:
    """(A, B) of each layer; BadAdapter unless these tensors are there, no others, of these shapes, finite."""
    header_bytes = int.from_bytes(content[:8], "little")
    if header_bytes > MAX_HEADER_BYTES:
        raise BadAdapter(f"adapter {adapter}: a header of {header_bytes} bytes is over {MAX_HEADER_BYTES}")
    try:
        found = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise BadAdapter(f"adapter {adapter}: the weights cannot be read: {error}") from error
    expected = {tensor_name(layer, side) for layer in shapes for side in "AB"}
    if set(found) != expected:
        raise BadAdapter(f"adapter {adapter}: {_tell_difference(set(found), expected)}")
    for layer, sides in shapes.items():
        for side, shape in sides.items():
            key = tensor_name(layer, side)
            _check_tensor(adapter, key, found[key], shape)
    return {layer: (found[tensor_name(layer, "A")], found[tensor_name(layer, "B")]) for layer in shapes}


def _check_tensor(adapter: str, key: str, tensor: Tensor, shape: tuple[int, int]) -> None:
    if tuple(tensor.shape) != shape:
        raise BadAdapter(f"adapter {adapter}: {key} has shape {tuple(tensor.shape)}, not {shape}")
    if tensor.dtype not in DTYPES:
        names = ", ".join(map(dtype_name, DTYPES))
        raise BadAdapter(f"adapter {adapter}: {key} has dtype {dtype_name(tensor.dtype)}, not one of {names}")
    if not tensor.isfinite().all():
        raise BadAdapter(f"adapter {adapter}: {key} holds values that are not finite")


def check_norms(
    adapter: str, layers: Mapping[str, tuple[Tensor, Tensor]], parent_norms: Mapping[str, float] | None
) -> None:
    """Raise BadAdapter when a tensor has outgrown its parent's; norms by name, None without a parent."""
    for layer, sides in layers.items():
        for side, tensor in zip("AB", sides, strict=True):
            key = tensor_name(layer, side)
            parent = (parent_norms or {}).get(key)
            size = math.sqrt(tensor.numel())
            usual = RMS_WITHOUT_PARENT * size if parent is None else max(parent, MIN_PARENT_RMS * size)
            norm = float(tensor.float().norm())
            if norm > MAX_NORM_GROWTH * usual:
                against = "no parent is known" if parent is None else f"its parent's is {parent:.3g}"
                raise BadAdapter(
                    f"adapter {adapter}: {key} has norm {norm:.3g}, over {MAX_NORM_GROWTH * usual:.3g}"
                    f" ({against})"
                )


def _tell_difference(found: set[str], expected: set[str]) -> str:
    missing, extra = sorted(expected - found), sorted(found - expected)
    says = [f"{len(missing)} tensors are missing, first {missing[0]}"] if missing else []
    says += [f"{len(extra)} tensors are unexpected, first {extra[0]}"] if extra else []
    return "; ".join(says)


def _find_problems(config: Mapping[str, Any]) -> Iterator[str]:
    rank, alpha, dropout = config.get("r"), config.get("lora_alpha"), config.get("lora_dropout", 0.0)
    targets = config.get("target_modules")
    if config.get("peft_type") != "LORA":
        yield f"peft_type {config.get('peft_type')!r} is not 'LORA'"
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        yield f"task_type {config['task_type']!r} is not 'CAUSAL_LM'"
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        yield f"r {rank!r} is not a rank of 1..{MAX_RANK}"
    if not isinstance(alpha, int | float) or not 0 < alpha <= sys.float_info.max:
        yield f"lora_alpha {alpha!r} is not a positive number"
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        yield f"lora_dropout {dropout!r} is outside 0..1"
    # A string would be taken as a regular expression and match what nobody meant.
    if not targets or not isinstance(targets, list) or not all(isinstance(name, str) for name in targets):
        yield f"target_modules {targets!r} is not a list of layer names"
    for key in FLAGS:
        if not isinstance(config.get(key, False), bool):
            yield f"{key} {config[key]!r} is neither true nor false"


def dtype_name(dtype: torch.dtype) -> str:
    """As configs and manifests write it."""
    return str(dtype).removeprefix("torch.")
