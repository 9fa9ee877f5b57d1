"""Loads the frozen base model and its tokenizer; knows nothing of adapters and versions.

Any causal language model of the Hugging Face layout, from a folder or from the hub. Training must see the
same weights and the same tokens, so precision, chat template and fingerprint come from functions in the store
that both rooms share.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from huggingface_hub import snapshot_download
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from serving.settings import BaseSettings
from store.chat_templates import CHAT_TEMPLATES, read_chat_template
from store.errors import BadValue
from store.fingerprint import base_fingerprint, resolve_precision

logger = logging.getLogger(__name__)

# How the built-in templates and the common models end a turn: such a token ends an answer as eos does.
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>")

MODEL_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


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
    template = read_chat_template(settings.chat_template)
    folder = find_model_folder(settings.model)
    has_cuda = torch.cuda.is_available()
    quantization, dtype = resolve_precision(settings.quantization, settings.dtype, has_cuda)
    tokenizer = _load_tokenizer(folder, template)
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=getattr(torch, dtype),
        quantization_config=nf4_config(getattr(torch, dtype)) if quantization == "nf4" else None,
        device_map={"": "cuda" if has_cuda else "cpu"},
    ).eval()
    keep_weights_unpacked(model)
    model.requires_grad_(False)
    _refuse_recurrent(model)
    fingerprint = base_fingerprint(folder, template, quantization, dtype)
    logger.info("base %s: %s, %s, fingerprint %.12s", folder, quantization, dtype, fingerprint)
    return BaseModel(
        model=model,
        tokenizer=tokenizer,
        fingerprint=fingerprint,
        quantization=quantization,
        dtype=dtype,
        end_ids=_find_end_ids(model, tokenizer),
        context_length=_find_context_length(model, tokenizer),
    )


def find_model_folder(model: str) -> Path:
    """A local folder as it is; a hub name becomes its snapshot folder, downloaded when it is not there."""
    if Path(model).is_dir():
        return Path(model)
    try:
        return Path(snapshot_download(model, allow_patterns=MODEL_FILES))
    except (OSError, ValueError) as error:
        raise BadValue(f"model {model!r} is neither a folder nor a model the hub gave us: {error}") from error


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
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _load_tokenizer(folder: Path, template: str | None) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if template is not None:
        tokenizer.chat_template = template
    if tokenizer.chat_template is None:
        names = ", ".join(CHAT_TEMPLATES)
        raise BadValue(f"model {folder.name!r} has no chat template; give --chat-template {names} or a file")
    return tokenizer


def _refuse_recurrent(model: Any) -> None:
    kinds = set(getattr(model.config.get_text_config(decoder=True), "layer_types", None) or ())
    strange = sorted(kind for kind in kinds if not kind.endswith("_attention") or kind.startswith("linear"))
    if strange:
        kinds_text = ", ".join(strange)
        raise BadValue(f"layers of kind {kinds_text} cannot be batched here; choose an attention-only model")


def _find_end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    configured = model.generation_config.eos_token_id
    ids = set(configured if isinstance(configured, list) else [configured]) | {tokenizer.eos_token_id}
    vocabulary = tokenizer.get_vocab()
    template = str(tokenizer.chat_template)
    ids |= {vocabulary[end] for end in TURN_ENDS if end in template and end in vocabulary}
    return frozenset(ids - {None})


def _find_context_length(model: Any, tokenizer: Any) -> int:
    longest = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    return int(longest or min(tokenizer.model_max_length, 1 << 20))
