"""What of the base model is text: tokenizer, chat template, ends of answers, identity. Loads no weights.

Every engine reads the same prompts the same way, whoever holds the weights.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from jinja2 import TemplateError
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from serving.settings import BaseSettings
from serving.streaming import HALF_CHARACTER
from store.chat_templates import CHAT_TEMPLATES, read_chat_template
from store.errors import BadValue
from store.fingerprint import base_fingerprint, resolve_precision
from store.records import Message

# How the built-in templates and the common models end a turn: such a token ends an answer as eos does.
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>")

MODEL_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


@dataclass(frozen=True, slots=True)
class BaseText:
    """A base without its weights; `fingerprint` and precision go into every adapter's manifest."""

    folder: Path
    template: str | None
    config: Any
    tokenizer: Any
    fingerprint: str
    quantization: str
    dtype: str
    end_ids: frozenset[int]
    context_length: int


def load_text(settings: BaseSettings) -> BaseText:
    """Read everything but the weights as `settings` say. BadValue when it cannot be served."""
    template = read_chat_template(settings.chat_template)
    folder = find_model_folder(settings.model)
    quantization, dtype = resolve_precision(settings.quantization, settings.dtype, torch.cuda.is_available())
    tokenizer = _load_tokenizer(folder, template)
    config = AutoConfig.from_pretrained(folder)
    return BaseText(
        folder=folder,
        template=template,
        config=config,
        tokenizer=tokenizer,
        fingerprint=base_fingerprint(folder, template, quantization, dtype),
        quantization=quantization,
        dtype=dtype,
        end_ids=_find_end_ids(folder, config, tokenizer),
        context_length=_find_context_length(config, tokenizer),
    )


def find_model_folder(model: str) -> Path:
    """A local folder as it is; a hub name becomes its snapshot folder, downloaded when it is not there."""
    if Path(model).is_dir():
        return Path(model)
    try:
        return Path(snapshot_download(model, allow_patterns=MODEL_FILES))
    except (OSError, ValueError) as error:
        raise BadValue(f"model {model!r} is neither a folder nor a model the hub gave us: {error}") from error


class ChatTokenizer:
    """Messages to token ids and token ids to text, from any thread."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # A Rust tokenizer refuses to be used while another thread changes its padding or truncation.
        self._lock = threading.Lock()

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """The prompt that asks for an answer. BadValue when the template cannot write these messages."""
        with self._lock:
            try:
                text = self._tokenizer.apply_chat_template(
                    [*messages], add_generation_prompt=True, tokenize=False
                )
            except TemplateError as error:
                raise BadValue(f"the model's chat template cannot write these messages: {error}") from error
            ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def encode_text(self, text: str) -> list[int]:
        """The tokens of plain text, nothing added."""
        with self._lock:
            ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of an answer's tokens, special ones left out."""
        with self._lock:
            text: str = self._tokenizer.decode(
                token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        return text.replace("\0", HALF_CHARACTER)  # the one character that no store can keep


def _load_tokenizer(folder: Path, template: str | None) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if template is not None:
        tokenizer.chat_template = template
    if tokenizer.chat_template is None:
        names = ", ".join(CHAT_TEMPLATES)
        raise BadValue(f"model {folder.name!r} has no chat template; give --chat-template {names} or a file")
    return tokenizer


def _find_end_ids(folder: Path, config: Any, tokenizer: Any) -> frozenset[int]:
    try:
        configured = GenerationConfig.from_pretrained(folder).eos_token_id
    except OSError:  # a model without the file, as `from_pretrained` of the model itself sees it
        configured = GenerationConfig.from_model_config(config).eos_token_id
    ids = set(configured if isinstance(configured, list) else [configured]) | {tokenizer.eos_token_id}
    vocabulary = tokenizer.get_vocab()
    template = str(tokenizer.chat_template)
    ids |= {vocabulary[end] for end in TURN_ENDS if end in template and end in vocabulary}
    return frozenset(ids - {None})


def _find_context_length(config: Any, tokenizer: Any) -> int:
    longest = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    return int(longest or min(tokenizer.model_max_length, 1 << 20))
