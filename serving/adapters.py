"""Adapter folders: reads one for serving, refuses what must not be served, publishes what a round made.

PEFT loads an adapter with missing, extra or non-finite tensors without a word. Here each file is read once,
and what was hashed is what is parsed, so that a file swapped in between cannot be served. Knows nothing of
"live".
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from serving.adapter_checks import (
    BadAdapter,
    check_config,
    check_norms,
    dtype_name,
    expect_shapes,
    find_scaling,
    read_tensors,
)
from serving.manifest import (
    MANIFEST,
    BaseFacts,
    check_listed,
    parse_json,
    read_base_facts,
    read_parent_norms,
)
from store.errors import BadValue, StateConflict

__all__ = ["AdapterBase", "AdapterWeights", "BadAdapter", "Precision", "check_adapter", "publish"]

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
FILES = frozenset({WEIGHTS, CONFIG, "README.md", MANIFEST})
MAX_TEXT_BYTES = 4 << 20  # of each other file; a model card has some kilobytes


@dataclass(frozen=True, slots=True)
class Precision:
    """How a base's weights are held; `double_quant` is False where nothing is quantized."""

    quantization: str
    double_quant: bool
    dtype: str

    def __str__(self) -> str:
        if self.quantization == "none":
            return f"whole weights in {self.dtype}"
        return (
            f"{self.quantization}{' twice quantized' if self.double_quant else ''} computing in {self.dtype}"
        )

    @classmethod
    def of(cls, model: torch.nn.Module) -> Precision:
        """As the layers really are, whatever the settings said."""
        layers: Iterable[Any] = model.modules()
        for layer in layers:
            if hasattr(layer, "quant_state") and hasattr(layer, "compute_dtype"):  # of bitsandbytes, 4-bit
                state = layer.weight.quant_state
                return cls(state.quant_type, bool(state.nested), dtype_name(layer.compute_dtype))
        return cls("none", False, dtype_name(next(model.parameters()).dtype))


@dataclass(frozen=True, slots=True)
class AdapterBase:
    """What an adapter must fit: (inputs, outputs) of each layer it may wrap, the base's fingerprint, and how
    its weights are held (None: the engine cannot tell, and only the fingerprint is compared)."""

    layers: dict[str, tuple[int, int]]
    fingerprint: str
    precision: Precision | None = None

    @classmethod
    def of(cls, model: torch.nn.Module, fingerprint: str) -> AdapterBase:
        sizes = {name: _find_sizes(module) for name, module in model.named_modules()}
        layers = {name: size for name, size in sizes.items() if size is not None}
        return cls(layers, fingerprint, Precision.of(model))


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """A checked adapter: `layers` holds A (r, inputs) and B (outputs, r) by the base's module name; a layer
    answers base(x) + scaling * B(A(x)). `sha256` is the weights file's."""

    sha256: str
    scaling: float
    layers: dict[str, tuple[Tensor, Tensor]]


def read_adapter(folder: Path, base: AdapterBase) -> AdapterWeights:
    """The weights of an adapter that fits `base`, each file read once. BadAdapter with the reason."""
    files = _read_files(folder)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    manifest = parse_json(folder.name, MANIFEST, files.pop(MANIFEST))
    check_listed(folder.name, manifest, {name: len(content) for name, content in files.items()}, hashes)
    _check_base(folder.name, read_base_facts(folder.name, manifest), base)
    config = parse_json(folder.name, CONFIG, files[CONFIG])
    check_config(folder.name, config)
    shapes = expect_shapes(folder.name, config, base.layers)
    layers = read_tensors(folder.name, files[WEIGHTS], shapes)
    check_norms(folder.name, layers, read_parent_norms(folder.name, manifest))
    return AdapterWeights(hashes[WEIGHTS], find_scaling(config), layers)


def check_adapter(folder: Path, base: AdapterBase) -> None:
    """Raise BadAdapter, with the reason, unless the folder is exactly an adapter that fits `base`."""
    read_adapter(folder, base)


def read_manifest(folder: Path) -> dict[str, Any]:
    """An adapter's manifest. BadAdapter when the folder's files are not what they must be."""
    return parse_json(folder.name, MANIFEST, _read_files(folder, {MANIFEST})[MANIFEST])


def hash_files(folder: Path) -> dict[str, str]:
    """The hex sha256 of each of an adapter's files, read anew. BadAdapter when a file is missing."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in _read_files(folder).items()}


def weights_sha256(folder: Path) -> str:
    """The hex sha256 of an adapter's weights, the identity of a policy."""
    return hashlib.sha256(_read_files(folder, {WEIGHTS})[WEIGHTS]).hexdigest()


def publish(candidate_dir: Path, policies_dir: Path, version: str) -> str:
    """Copy a candidate to `policies_dir/version`, visible whole or not at all; returns `weights_sha256`.

    Again with the same weights changes nothing; other weights under a taken name are a StateConflict.
    """
    if not re.fullmatch(r"v[1-9][0-9]*", version):
        raise BadValue(f"policy version {version!r} is not of the form v1, v2, ...")
    files = _read_files(candidate_dir)
    sha256 = hashlib.sha256(files[WEIGHTS]).hexdigest()
    target = policies_dir / version
    if target.exists():
        if weights_sha256(target) != sha256:
            raise StateConflict(f"policy {version} is published already, with other weights")
        return sha256
    policies_dir.mkdir(parents=True, exist_ok=True)
    unfinished = policies_dir / f".tmp-{uuid.uuid4().hex}"
    unfinished.mkdir()
    for name, content in sorted(files.items()):
        (unfinished / name).write_bytes(content)
        _sync(unfinished / name)
    _sync(unfinished)
    unfinished.rename(target)
    _sync(policies_dir)
    return sha256


def sweep_unfinished(policies_dir: Path) -> list[str]:
    """Remove what a killed `publish` left behind; returns the names."""
    orphans = sorted(policies_dir.glob(".tmp-*"))
    for orphan in orphans:
        shutil.rmtree(orphan)
    return [orphan.name for orphan in orphans]


def _read_files(folder: Path, wanted: frozenset[str] | set[str] = FILES) -> dict[str, bytes]:
    """The bytes of each wanted file, in a folder that holds exactly an adapter's files and no links."""
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise BadAdapter(f"adapter {folder.name} has no folder of its own: {error.strerror}") from error
    try:
        found = set(os.listdir(opened))  # noqa: PTH208 -- no path can stand for an open folder
        if found != FILES:
            missing, extra = sorted(FILES - found), sorted(found - FILES)
            raise BadAdapter(f"adapter {folder.name}: missing files {missing}, unexpected files {extra}")
        return {name: _read_file(opened, folder.name, name) for name in sorted(wanted)}
    except OSError as error:  # a disk that fails; what is not as it must be has said so already
        raise BadAdapter(f"adapter {folder.name} cannot be read from its disk: {error.strerror}") from error
    finally:
        os.close(opened)


def _read_file(folder: int, adapter: str, name: str) -> bytes:
    try:  # without O_NONBLOCK a named pipe would hold us here
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError as error:
        raise BadAdapter(f"adapter {adapter}: {name} is not a plain file: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise BadAdapter(f"adapter {adapter}: {name} is not a plain file")
        if name != WEIGHTS and facts.st_size > MAX_TEXT_BYTES:
            raise BadAdapter(f"adapter {adapter}: {name} has {facts.st_size} bytes, over {MAX_TEXT_BYTES}")
        return file.read()


def _check_base(adapter: str, facts: BaseFacts, base: AdapterBase) -> None:
    """The precision first: of two fingerprints nobody can see what differs."""
    trained = Precision(facts.quantization, facts.double_quant, facts.dtype)
    if base.precision is not None and trained != base.precision:
        raise BadAdapter(
            f"adapter {adapter} was trained over {trained}, and the base is served as {base.precision}"
        )
    if facts.fingerprint != base.fingerprint:
        raise BadAdapter(
            f"adapter {adapter} was trained over base {facts.fingerprint:.12}, this one is"
            f" {base.fingerprint:.12}"
        )


def _find_sizes(module: torch.nn.Module) -> tuple[int, int] | None:
    """(inputs, outputs) of a linear layer; GPT-2 style Conv1D counts as one."""
    if isinstance(module, torch.nn.Linear):
        return module.in_features, module.out_features
    if type(module).__name__ == "Conv1D":
        return int(module.nx), int(module.nf)  # type: ignore[arg-type]
    return None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
