"""Turns a trained adapter into a candidate's folder: files, model card, manifest, and a rename at the very
end.

Whoever sees `candidate/` sees it whole: everything is written beside it and fsynced first.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from store.fingerprint import file_sha256
from store.proof import Proof
from trainer.gate import Verdict
from trainer.proving import measure_norms
from trainer.qlora import LoadedBase
from trainer.settings import RoundPlan

_PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets")


@dataclass(frozen=True, slots=True)
class Training:
    """What a round did to get its adapter: what each stage trained on, or why it was left out."""

    stages: Mapping[str, str]
    data_sha256: str
    packages: Mapping[str, str]


def read_packages() -> dict[str, str]:
    """The versions a round runs with."""
    found = {"python": python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def save_adapter(model: Any, folder: Path) -> None:
    """The "default" adapter's files into a new folder; a frozen reference copy is not saved."""
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, selected_adapters=["default"])


def publish_candidate(
    draft: Path,
    candidate: Path,
    plan: RoundPlan,
    base: LoadedBase,
    training: Training,
    verdict: Verdict,
    proof: Proof | None,
) -> None:
    """Complete the draft with card and manifest, and make it the candidate."""
    (draft / "README.md").write_text(write_card(plan, base, training, verdict), "utf-8")
    manifest = write_manifest(draft, plan, base, proof, plan.find_live_adapter(candidate.parent))
    (draft / "MANIFEST.json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", "utf-8")
    for path in draft.iterdir():
        _fsync(path)
    _fsync(draft)
    draft.rename(candidate)
    _fsync(candidate.parent)


def write_json(path: Path, value: object) -> None:
    """A JSON file that is there whole or not at all."""
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(value, indent=2) + "\n", "utf-8")
    _fsync(draft)
    draft.rename(path)
    _fsync(path.parent)


def write_manifest(
    folder: Path, plan: RoundPlan, base: LoadedBase, proof: Proof | None, live: Path | None
) -> dict[str, object]:
    """What the files are, what they may be served over, and what proves that they are what is served.

    `live` is the parent's folder. `dtype` is what 4-bit weights compute in. A `proof` of None says that the
    log-probs were not numbers.
    """
    quantized = getattr(base.model.config, "quantization_config", None)
    files = sorted(path for path in folder.iterdir() if path.name != "MANIFEST.json")
    return {
        "files": {path.name: {"sha256": file_sha256(path), "bytes": path.stat().st_size} for path in files},
        "version": plan.version,
        "parent": plan.parent,
        "round_id": plan.round_id,
        "base": {
            "model": base.name,
            "fingerprint": base.fingerprint,
            "quantization": base.quantization,
            "double_quant": bool(quantized and quantized.bnb_4bit_use_double_quant),
            "dtype": base.dtype,
        },
        "proof": proof and proof.as_json(),
        "parent_norms": measure_norms(live) if live is not None else None,
        "settings": asdict(plan.trainer),
    }


def write_card(plan: RoundPlan, base: LoadedBase, training: Training, verdict: Verdict) -> str:
    """The model card: how this adapter came to be, and what the gate saw."""
    settings = plan.trainer
    lines = [
        "---",
        f"base_model: {base.name}",
        "library_name: peft",
        "tags: [dpo, lora, heed]",
        "---",
        f"# Policy {plan.version}",
        "",
        f"A LoRA adapter on `{base.name}` ({base.quantization}, {base.dtype}), trained by round"
        f" `{plan.round_id}` while {plan.parent} was live. Start: {settings.start}; reference:"
        f" {settings.reference}.",
        "",
        "| Stage | Trained on |",
        "| --- | --- |",
        *(f"| {stage} | {says} |" for stage, says in training.stages.items()),
        "",
        f"Data sha256 `{training.data_sha256}`, base fingerprint `{base.fingerprint}`.",
        "",
        f"## Gate: {verdict.decision}",
        "",
        "| Check | Passed | What it says |",
        "| --- | --- | --- |",
        *(f"| {check.name} | {'yes' if check.passed else 'no'} | {check.says} |" for check in verdict.checks),
        "",
        "## Settings",
        "",
        *(f"- {name}: {value}" for name, value in asdict(settings).items()),
        "",
        "Packages: " + ", ".join(f"{name} {number}" for name, number in training.packages.items()),
        "",
    ]
    return "\n".join(lines)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
