"""The quantized base plus LoRA: loads the base, says what the policy starts from and what its reference is.

Every correction of a library trap that concerns weights or precision lives here under a name of its own.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import torch
from accelerate import PartialState
from huggingface_hub import snapshot_download
from peft import (
    LoraConfig,
    PeftConfig,
    PeftModel,
    get_peft_model_state_dict,
    load_peft_weights,
    set_peft_model_state_dict,
)
from torch.distributed import get_world_size, is_initialized
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.distributed import DistributedConfig

from store.chat_templates import read_chat_template
from store.errors import BadValue
from store.fingerprint import base_fingerprint, resolve_precision
from trainer.cpu_products import widen_products
from trainer.settings import BaseModel, Sharding, TrainerSettings

logger = logging.getLogger(__name__)

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class LoadedBase:
    """A base model in memory, with what identifies it; its quantization and dtype are never "auto"."""

    model: Any
    tokenizer: Any
    name: str
    fingerprint: str
    quantization: str
    dtype: str


@dataclass(frozen=True, slots=True)
class PolicyStart:
    """What a library trainer is handed. `weights` are to be laid over the adapter once it exists; None leaves
    it new.

    With a `peft_config` the reference is the base. Without one `model` already carries the live adapter, and
    the library freezes a copy of it, named "ref", as the reference. A `reference_model` says that the whole
    of `model` trains and is compared with that one.
    """

    model: Any
    peft_config: Any | None
    weights: Weights | None
    reference_model: Any | None = None


def find_model_folder(model: str) -> Path:
    """The folder of a base model: the path itself, or the local snapshot of a hub name (downloaded if
    allowed)."""
    if Path(model).is_dir():
        return Path(model)
    try:
        return Path(snapshot_download(model))
    except Exception as error:
        raise BadValue(
            f"base model {model!r} is neither a folder nor a hub model at hand: {error}"
        ) from error


def load_base(base: BaseModel, sharding: Sharding = "none") -> LoadedBase:
    """Load the base model and its tokenizer, in the precision that "auto" stands for on this machine.

    With `sharding` fsdp2 this process holds its share of each layer and must run in step with the others.
    """
    folder = find_model_folder(base.model)
    quantization, dtype = resolve_precision(base.quantization, base.dtype, torch.cuda.is_available())
    template = read_chat_template(base.chat_template)
    tokenizer = load_tokenizer(folder, template)
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=getattr(torch, dtype),
        quantization_config=_nf4(getattr(torch, dtype)) if quantization == "nf4" else None,
        attn_implementation="sdpa",  # prefix sharing hands it a mask of its own
        **place_base(quantization, sharding),
    )
    forbid_cpu_repacking(model)
    if sharding == "none":
        widen_products(model)
    return LoadedBase(
        model=model,
        tokenizer=tokenizer,
        name=base.model,
        fingerprint=base_fingerprint(folder, template, quantization, dtype),
        quantization=quantization,
        dtype=dtype,
    )


def load_tokenizer(folder: Path, template: str | None) -> Any:
    """The tokenizer, with `template` laid over its own. BadValue when there is no chat template at all."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if template is not None:
        tokenizer.chat_template = template
    if tokenizer.chat_template is None:
        raise BadValue(f"{folder} has no chat template; name one (chatml, llama, zephyr, or a file)")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _nf4(dtype: torch.dtype) -> Any:
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def place_base(quantization: str, sharding: Sharding) -> dict[str, Any]:
    """Where the base goes: this process's own GPU, or a share of it in each process."""
    if sharding == "zero3" and not torch.cuda.is_available():
        raise BadValue("sharding zero3 needs CUDA: on a CPU DeepSpeed is not counted as several processes")
    if sharding == "fsdp2":
        if quantization == "nf4":
            raise BadValue("sharding fsdp2 cannot split 4-bit weights; choose quantization none")
        if not is_initialized():
            PartialState(cpu=not torch.cuda.is_available())  # the launcher's processes find each other
        return {"distributed_config": DistributedConfig(fsdp_size=get_world_size())}
    if not torch.cuda.is_available() or sharding != "none":
        return {"device_map": None}
    return {"device_map": {"": int(os.environ.get("LOCAL_RANK", "0"))}}


def forbid_cpu_repacking(model: torch.nn.Module) -> None:
    """Keep 4-bit weights as they are on CPUs with AVX512-BF16.

    bitsandbytes 0.50 repacks them in the first eval-mode forward, and the packed kernel has no backward: from
    then on the gradients of earlier layers are wrong, with no error (first loss of DPO 0.593 instead of 0.570
    after 8 steps).
    """
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


def lora_config(settings: TrainerSettings) -> Any:
    """A new adapter's shape. Dropout is off: the reference has none, and two runs must be equal."""
    modules = settings.target_modules
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=0.0,
        use_rslora=settings.adapter == "rslora",
        target_modules=modules if isinstance(modules, str) else list(modules),
        task_type="CAUSAL_LM",
    )


def start_policy(
    base_model: Any, settings: TrainerSettings, live_adapter: Path | None, weights: Weights | None = None
) -> PolicyStart:
    """What training starts from and is compared with. `weights` continue a training of this very round.

    While the base is live there is no previous adapter: previous then means the base, which is the same
    policy.
    """
    if live_adapter is None or settings.start == "fresh":
        return PolicyStart(base_model, lora_config(settings), weights)
    weights = weights or load_peft_weights(str(live_adapter), device="cpu")
    if settings.reference == "previous":
        model = PeftModel.from_pretrained(base_model, str(live_adapter), is_trainable=True)
        return PolicyStart(model, None, weights)
    config = PeftConfig.from_pretrained(str(live_adapter))
    config.inference_mode = False
    return PolicyStart(base_model, config, weights)


def settle_weights(model: Any, weights: Weights | None) -> None:
    """Undo what the library trainer did to the adapter's precision; call it before the optimizer exists."""
    upcast_trainable(model)
    if weights is not None:
        restore_weights(model, weights)


def upcast_trainable(model: torch.nn.Module) -> None:
    """Train the adapter in float32. The library casts QLoRA adapters to bfloat16, where at a learning rate of
    5e-6 only 3.4 % of lora_A ever moved."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def restore_weights(model: Any, weights: Weights) -> None:
    """Lay exact weights over the adapter: the cast rounded them, the reference copy stayed exact, and a
    policy that should equal its reference would not start at a loss of ln 2."""
    result = set_peft_model_state_dict(model, dict(weights))
    if result.unexpected_keys:
        raise BadValue(f"the adapter has weights this policy has no place for: {result.unexpected_keys[:3]}")


def read_weights(model: Any) -> Weights:
    """A copy of the trained adapter's weights, under the names they are saved with."""
    return {name: tensor.detach().clone() for name, tensor in get_peft_model_state_dict(model).items()}
