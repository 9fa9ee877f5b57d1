"""Loads the frozen base model and its tokenizer; knows nothing of adapters and versions.

Any causal language model of the Hugging Face layout, from a folder or from the hub. Training must see the
same weights and the same tokens, so precision, chat template and fingerprint come from functions in the store
that both rooms share.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from serving.base_text import load_text
from serving.cpu_products import widen_products
from serving.settings import BaseSettings
from store.errors import BadValue

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A loaded base: `fingerprint` and the resolved precision go into every adapter's manifest."""

    model: Any
    tokenizer: Any
    fingerprint: str
    quantization: str
    dtype: str
    end_ids: frozenset[int]
    context_length: int


def load_base(settings: BaseSettings) -> BaseModel:
    """Load model and tokenizer as `settings` say, in eval mode. BadValue when they cannot be served."""
    text = load_text(settings)
    dtype = getattr(torch, text.dtype)
    model = AutoModelForCausalLM.from_pretrained(
        text.folder,
        dtype=dtype,
        quantization_config=nf4_config(dtype) if text.quantization == "nf4" else None,
        device_map={"": "cuda" if torch.cuda.is_available() else "cpu"},
    ).eval()
    if text.quantization == "nf4":
        keep_weights_unpacked(model)
    lay_weights_for_few_rows(model)
    widen_products(model)
    model.requires_grad_(False)
    _refuse_recurrent(model)
    logger.info(
        "base %s: %s, %s, fingerprint %.12s", text.folder, text.quantization, text.dtype, text.fingerprint
    )
    return BaseModel(
        model=model,
        tokenizer=text.tokenizer,
        fingerprint=text.fingerprint,
        quantization=text.quantization,
        dtype=text.dtype,
        end_ids=text.end_ids,
        context_length=text.context_length,
    )


def nf4_config(compute_dtype: torch.dtype) -> BitsAndBytesConfig:
    """4-bit NormalFloat with double quantization, as in QLoRA."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
    )


def keep_weights_unpacked(model: torch.nn.Module) -> None:
    """Stop bitsandbytes from repacking 4-bit weights in place on AVX512-BF16 CPUs.

    The packed form answers differently from the one training saw (mean KL 2e-6 against 0), and the first
    forward pass would change tensors that every version shares.
    """
    from bitsandbytes.nn import Linear4bit  # here, for the seconds its import takes

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def lay_weights_for_few_rows(model: torch.nn.Module) -> None:
    """Store float32 weights on a CPU by input instead of by output; shapes and values stay as they are.

    A decoding step multiplies a handful of rows, and for those MKL is 1.3 to 2.4 times as fast in this layout
    (8 rows, five sizes from 192 x 576 to 49,152 x 576), and never slower at 256 rows. bfloat16 is
    multiplied otherwise (serving/cpu_products.py, or oneDNN, which does not care).
    """
    linear = [module for module in model.modules() if type(module) is torch.nn.Linear]
    laid = [module.weight for module in linear if _is_whole_on_cpu(module.weight)]
    for weight in laid:
        weight.data = weight.data.t().contiguous().t()
    if laid:
        # One view into the mapped file keeps all of it in memory, the old layout of every weight too.
        for other in {*model.parameters()} - {*laid}:
            other.data = other.data.clone()


def _is_whole_on_cpu(weight: torch.Tensor) -> bool:
    return weight.dtype == torch.float32 and weight.device.type == "cpu"


def _refuse_recurrent(model: Any) -> None:
    kinds = set(getattr(model.config.get_text_config(decoder=True), "layer_types", None) or ())
    strange = sorted(kind for kind in kinds if not kind.endswith("_attention") or kind.startswith("linear"))
    if strange:
        kinds_text = ", ".join(strange)
        raise BadValue(f"layers of kind {kinds_text} cannot be batched here; choose an attention-only model")
