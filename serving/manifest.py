"""What an adapter's manifest must say: its files, the base under it, its parent's norms, its proof.

A manifest is a file that anybody may have written, so a value of the wrong kind is a reason to refuse the
adapter and never an error of ours. Knows no files.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving.adapter_checks import BadAdapter
from store.errors import BadValue
from store.proof import Proof

MANIFEST = "MANIFEST.json"

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_WORD = re.compile(r"[a-z0-9_]{1,32}")


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """The base an adapter was trained over; `dtype` is what 4-bit weights compute in."""

    fingerprint: str
    quantization: str
    double_quant: bool
    dtype: str


def parse_json(adapter: str, name: str, content: bytes) -> dict[str, Any]:
    """The JSON object that a file of an adapter holds. BadAdapter when it is anything else."""
    try:
        parsed = json.loads(content)
    except ValueError as error:
        raise BadAdapter(f"adapter {adapter}: {name} is not JSON: {error}") from error
    except RecursionError as error:
        raise BadAdapter(f"adapter {adapter}: {name} is nested too deeply") from error
    if not isinstance(parsed, dict):
        raise BadAdapter(f"adapter {adapter}: {name} is not a JSON object")
    return parsed


def check_listed(
    adapter: str, manifest: Mapping[str, Any], sizes: Mapping[str, int], hashes: Mapping[str, str]
) -> None:
    """Raise BadAdapter unless the manifest lists exactly these files, with these sizes (bytes) and hashes."""
    listed = manifest.get("files")
    if not isinstance(listed, dict) or set(listed) != set(sizes):
        raise BadAdapter(f"adapter {adapter}: {MANIFEST} must list {sorted(sizes)}")
    for name, facts in listed.items():
        if not isinstance(facts, dict):
            raise BadAdapter(f"adapter {adapter}: {MANIFEST} says nothing of {name}")
        if facts.get("bytes", sizes[name]) != sizes[name]:
            raise BadAdapter(f"adapter {adapter}: {name} has {sizes[name]} bytes, not {facts['bytes']!r}")
        if facts.get("sha256") != hashes[name]:
            raise BadAdapter(f"adapter {adapter}: the sha256 of {name} differs from the manifest's")


def read_base_facts(adapter: str, manifest: Mapping[str, Any]) -> BaseFacts:
    """The base that the manifest names. BadAdapter when a fact is missing or of the wrong kind.

    Every release wrote all of them but `double_quant`, and earlier ones trained with double quantization.
    """
    facts = manifest.get("base")
    if not isinstance(facts, dict):
        raise BadAdapter(f"adapter {adapter}: {MANIFEST} does not say over which base it was trained")
    fingerprint, quantization, dtype = (facts.get(key) for key in ("fingerprint", "quantization", "dtype"))
    if not isinstance(fingerprint, str) or not _FINGERPRINT.fullmatch(fingerprint):
        raise BadAdapter(f"adapter {adapter}: base.fingerprint {fingerprint!r} is no sha256")
    for key, value in (("quantization", quantization), ("dtype", dtype)):
        if not isinstance(value, str) or not _WORD.fullmatch(value):
            raise BadAdapter(f"adapter {adapter}: base.{key} {value!r} names no precision")
    double_quant = facts.get("double_quant", quantization != "none")
    if not isinstance(double_quant, bool):
        raise BadAdapter(f"adapter {adapter}: base.double_quant {double_quant!r} is neither true nor false")
    return BaseFacts(fingerprint, str(quantization), double_quant, str(dtype))


def read_parent_norms(adapter: str, manifest: Mapping[str, Any]) -> dict[str, float] | None:
    """The norm of each tensor of the parent, None where that was the base. BadAdapter: not such norms.

    Nothing but zeros is a norm as well: what a parent's round did not move. It loosens nothing.
    """
    norms = manifest.get("parent_norms")
    if norms is None:
        return None
    if not isinstance(norms, dict):
        raise BadAdapter(f"adapter {adapter}: parent_norms is a {type(norms).__name__}, not norms by name")
    for name, norm in norms.items():
        # Of a NaN every comparison is false; a whole number may be too large for a float.
        if type(norm) not in (int, float) or not 0 <= norm <= sys.float_info.max:
            raise BadAdapter(f"adapter {adapter}: the parent's norm {norm!r:.40} of {name!r} is no norm")
    return norms


def is_before_proofs(manifest: Mapping[str, Any]) -> bool:
    """Whether a release before 0.3 wrote it: such manifests have none of the facts that came with proofs."""
    facts = manifest.get("base")
    return not ({"proof", "parent_norms"} & set(manifest)) and "double_quant" not in (facts or {})


def read_proof(adapter: str, manifest: Mapping[str, Any]) -> Proof | None:
    """What the round recorded; None where the manifest does not speak of a proof. BadAdapter: unusable."""
    if "proof" not in manifest:
        return None
    if manifest["proof"] is None:
        raise BadAdapter(f"adapter {adapter}: its round found that its log-probs are not numbers")
    try:
        return Proof.from_json(manifest["proof"])
    except BadValue as error:
        raise BadAdapter(f"adapter {adapter}: {error}") from error
