"""What makes two loaded base models the same one: a hash over the model's files and how they are loaded.

An adapter is only right over the base it was trained on, so the trainer writes this into its manifest and
serving compares. Needs no model and no torch: the files are hashed, once per (size, mtime).
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

from store.errors import BadValue

# Everything that decides the weights or the tokens of a prompt; a README may change.
_FILES = (
    "config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "vocab.*",
    "merges.txt",
    "chat_template.jinja",
    "*.safetensors",
)


def base_fingerprint(folder: Path, chat_template: str | None, quantization: str, dtype: str) -> str:
    """The sha256 of a base model as it is loaded: its files, the template text laid over it (None: its own),
    `none` or `nf4`, and the compute dtype. "auto" must have been resolved before."""
    if "auto" in (quantization, dtype):
        raise BadValue(
            f"quantization {quantization!r} and dtype {dtype!r} must be resolved before a fingerprint"
        )
    files = {path.name: file_sha256(path) for pattern in _FILES for path in folder.glob(pattern)}
    if "config.json" not in files:
        raise BadValue(f"{folder} holds no config.json, so it is not a model folder")
    facts = {"files": files, "chat_template": chat_template, "quantization": quantization, "dtype": dtype}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def resolve_precision(quantization: str, dtype: str, has_cuda: bool) -> tuple[str, str]:
    """What "auto" stands for: NF4 in bfloat16 on CUDA; whole weights in float32 on a CPU."""
    return (
        ("nf4" if has_cuda else "none") if quantization == "auto" else quantization,
        ("bfloat16" if has_cuda else "float32") if dtype == "auto" else dtype,
    )


def file_sha256(path: Path) -> str:
    """The hex sha256 of a file, remembered until its size or mtime changes."""
    stat = path.stat()
    return _hash_file(path.resolve(), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _hash_file(path: Path, _size: int, _mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
