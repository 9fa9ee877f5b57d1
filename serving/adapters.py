"""Adapter folders: refuses what PEFT would swallow, publishes what a round made. Knows nothing of "live".

PEFT loads an adapter with missing, extra or non-finite tensors without a word, and one whose config says
"pissa" rewrites the base under every version already served. So nothing reaches PEFT that has not passed
here.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors import SafetensorError, safe_open

from store.errors import BadValue, HeedError, StateConflict

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
MANIFEST = "MANIFEST.json"
FILES = frozenset({WEIGHTS, CONFIG, "README.md", MANIFEST})
MAX_HEADER_BYTES = 1 << 20
MAX_RANK = 1024
FLAGS = ("fan_in_fan_out", "use_rslora")
# Keys of the config that may differ between rounds; each is checked below or changes nothing at inference.
_FREE_KEYS = {"base_model_name_or_path", "inference_mode", "peft_version", "revision", "task_type"}
_CHECKED_KEYS = {"peft_type", "r", "lora_alpha", "lora_dropout", "target_modules", *FLAGS}


class BadAdapter(HeedError):
    """An adapter folder that must not be served; the message gives the one reason."""

    status = 409
    kind = "bad_adapter"


@dataclass(frozen=True, slots=True)
class AdapterBase:
    """What an adapter must fit: (inputs, outputs) of each layer it may wrap, and the base's fingerprint."""

    layers: dict[str, tuple[int, int]]
    fingerprint: str

    @classmethod
    def of(cls, model: torch.nn.Module, fingerprint: str) -> AdapterBase:
        sizes = {name: _find_sizes(module) for name, module in model.named_modules()}
        return cls({name: size for name, size in sizes.items() if size is not None}, fingerprint)


def check_adapter(folder: Path, base: AdapterBase) -> None:
    """Raise BadAdapter, with the reason, unless the folder is exactly an adapter that fits `base`."""
    _check_files(folder)
    _check_manifest(folder, base.fingerprint)
    _check_tensors(folder / WEIGHTS, _expect_shapes(_read_config(folder / CONFIG), base))


def weights_sha256(folder: Path) -> str:
    """The hex sha256 of an adapter's weights, the identity of a policy."""
    return _hash(folder / WEIGHTS)


def publish(candidate_dir: Path, policies_dir: Path, version: str) -> str:
    """Copy a candidate to `policies_dir/version`, visible whole or not at all; returns `weights_sha256`.

    Again with the same weights changes nothing; other weights under a taken name are a StateConflict.
    """
    if not re.fullmatch(r"v[1-9][0-9]*", version):
        raise BadValue(f"policy version {version!r} is not of the form v1, v2, ...")
    _check_files(candidate_dir)
    target = policies_dir / version
    if target.exists():
        if weights_sha256(target) != weights_sha256(candidate_dir):
            raise StateConflict(f"policy {version} is published already, with other weights")
        return weights_sha256(target)
    policies_dir.mkdir(parents=True, exist_ok=True)
    unfinished = policies_dir / f".tmp-{uuid.uuid4().hex}"
    unfinished.mkdir()
    for name in sorted(FILES):
        shutil.copyfile(candidate_dir / name, unfinished / name)
        _sync(unfinished / name)
    _sync(unfinished)
    unfinished.rename(target)
    _sync(policies_dir)
    return weights_sha256(target)


def sweep_unfinished(policies_dir: Path) -> list[str]:
    """Remove what a killed `publish` left behind; returns the names."""
    orphans = sorted(policies_dir.glob(".tmp-*"))
    for orphan in orphans:
        shutil.rmtree(orphan)
    return [orphan.name for orphan in orphans]


def _check_files(folder: Path) -> None:
    if not folder.is_dir():
        raise BadAdapter(f"adapter {folder.name} has no folder at {folder}")
    found = {path.name for path in folder.iterdir()}
    if found != FILES:
        missing, extra = sorted(FILES - found), sorted(found - FILES)
        raise BadAdapter(f"adapter {folder.name}: missing files {missing}, unexpected files {extra}")
    for name in FILES:
        if (folder / name).is_symlink() or not (folder / name).is_file():
            raise BadAdapter(f"adapter {folder.name}: {name} is not a plain file")


def _check_manifest(folder: Path, fingerprint: str) -> None:
    manifest = _read_json(folder / MANIFEST)
    listed = manifest.get("files")
    if not isinstance(listed, dict) or set(listed) != FILES - {MANIFEST}:
        raise BadAdapter(f"adapter {folder.name}: {MANIFEST} must list {sorted(FILES - {MANIFEST})}")
    for name, facts in listed.items():
        size = (folder / name).stat().st_size
        if facts.get("bytes", size) != size:
            raise BadAdapter(f"adapter {folder.name}: {name} has {size} bytes, not {facts['bytes']}")
        if facts.get("sha256") != _hash(folder / name):
            raise BadAdapter(f"adapter {folder.name}: the sha256 of {name} differs from the manifest's")
    trained_over = (manifest.get("base") or {}).get("fingerprint")
    if trained_over is not None and trained_over != fingerprint:
        raise BadAdapter(
            f"adapter {folder.name} was trained over base {trained_over:.12}, this one is {fingerprint:.12}"
        )


def _read_config(path: Path) -> dict[str, Any]:
    """The adapter's config, every key of which is checked or at PEFT's own default."""
    config = _read_json(path)
    defaults = json.loads(json.dumps(LoraConfig().to_dict()))
    for key in sorted(set(config) - _FREE_KEYS - _CHECKED_KEYS):
        if key not in defaults:
            raise BadAdapter(f"adapter {path.parent.name}: config key {key!r} is unknown")
        if config[key] != defaults[key]:
            raise BadAdapter(f"adapter {path.parent.name}: config {key} {config[key]!r} is not allowed")
    for problem in _find_config_problems(config):
        raise BadAdapter(f"adapter {path.parent.name}: config {problem}")
    return config


def _find_config_problems(config: dict[str, Any]) -> Iterator[str]:
    rank, alpha, dropout = config.get("r"), config.get("lora_alpha"), config.get("lora_dropout", 0.0)
    targets = config.get("target_modules")
    if config.get("peft_type") != "LORA":
        yield f"peft_type {config.get('peft_type')!r} is not 'LORA'"
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        yield f"task_type {config['task_type']!r} is not 'CAUSAL_LM'"
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        yield f"r {rank!r} is not a rank of 1..{MAX_RANK}"
    if not isinstance(alpha, int | float) or not 0 < alpha < math.inf:
        yield f"lora_alpha {alpha!r} is not a positive number"
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        yield f"lora_dropout {dropout!r} is outside 0..1"
    # A string would be taken as a regular expression and match what nobody meant.
    if not targets or not isinstance(targets, list) or not all(isinstance(name, str) for name in targets):
        yield f"target_modules {targets!r} is not a list of layer names"
    for key in FLAGS:
        if not isinstance(config.get(key, False), bool):
            yield f"{key} {config[key]!r} is neither true nor false"


def _expect_shapes(config: dict[str, Any], base: AdapterBase) -> dict[str, tuple[int, int]]:
    """The tensors that this config lays over this base, by their name in the file."""
    expected = {}
    for target in config["target_modules"]:
        wrapped = [name for name in base.layers if name == target or name.endswith(f".{target}")]
        if not wrapped:
            raise BadAdapter(f"target module {target!r} is no linear layer of the base")
        for name in wrapped:
            inputs, outputs = base.layers[name]
            expected[f"base_model.model.{name}.lora_A.weight"] = (config["r"], inputs)
            expected[f"base_model.model.{name}.lora_B.weight"] = (outputs, config["r"])
    return expected


def _check_tensors(path: Path, expected: dict[str, tuple[int, int]]) -> None:
    name = path.parent.name
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
    if header_bytes > MAX_HEADER_BYTES:
        raise BadAdapter(f"adapter {name}: a header of {header_bytes} bytes is over {MAX_HEADER_BYTES}")
    try:
        with safe_open(path, framework="pt") as tensors:
            found = set(tensors.keys())
            if found != set(expected):
                raise BadAdapter(f"adapter {name}: {_tell_difference(found, set(expected))}")
            for key in sorted(found):
                _check_tensor(name, key, tensors.get_tensor(key), expected[key])
    except SafetensorError as error:
        raise BadAdapter(f"adapter {name}: {path.name} cannot be read: {error}") from error


def _check_tensor(name: str, key: str, tensor: torch.Tensor, shape: tuple[int, int]) -> None:
    if tuple(tensor.shape) != shape:
        raise BadAdapter(f"adapter {name}: {key} has shape {tuple(tensor.shape)}, not {shape}")
    if not tensor.is_floating_point() or tensor.element_size() < 2:
        raise BadAdapter(f"adapter {name}: {key} has dtype {tensor.dtype}, not a float of 16 or more bits")
    if not tensor.isfinite().all():
        raise BadAdapter(f"adapter {name}: {key} holds values that are not finite")


def _tell_difference(found: set[str], expected: set[str]) -> str:
    missing, extra = sorted(expected - found), sorted(found - expected)
    says = [f"{len(missing)} tensors are missing, first {missing[0]}"] if missing else []
    says += [f"{len(extra)} tensors are unexpected, first {extra[0]}"] if extra else []
    return "; ".join(says)


def _find_sizes(module: torch.nn.Module) -> tuple[int, int] | None:
    """(inputs, outputs) of a linear layer; GPT-2 style Conv1D counts as one."""
    if isinstance(module, torch.nn.Linear):
        return module.in_features, module.out_features
    if type(module).__name__ == "Conv1D":
        return int(module.nx), int(module.nf)  # type: ignore[arg-type]
    return None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise BadAdapter(f"adapter {path.parent.name}: {path.name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise BadAdapter(f"adapter {path.parent.name}: {path.name} is not a JSON object")
    return content


def _hash(path: Path) -> str:
    # Not `file_sha256`, which remembers by size and mtime: what is served is read anew each time.
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
