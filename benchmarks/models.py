"""The models the serving benchmarks answer with: the starter, and a random Llama of 135 M parameters.

Random weights answer nonsense as fast as trained ones answer sense. Adapters are random too, of rank 16 on
all seven linear layers, in a folder as a round leaves it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STARTER = Path(__file__).resolve().parent.parent / "serving" / "starter"
MODELS = ("starter", "135m")
RANK = 16
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# The shape of SmolLM2-135M.
SHAPE: dict[str, Any] = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
TOKENIZER_FILES = ("tokenizer_config.json", "chat_template.jinja", "generation_config.json")


@dataclass(frozen=True, slots=True)
class Model:
    """A base model's folder and one adapter over it."""

    name: str
    folder: Path
    adapter: Path


def build_model(name: str, root: Path) -> Model:
    """The model of that name with an adapter; what has to be built is put under `root`."""
    folder = STARTER if name == "starter" else build_135m(root / "135m")
    return Model(name, folder, write_adapter(root / f"{name}-adapter", folder, seed=1))


def build_135m(folder: Path) -> Path:
    """A random Llama with the starter's tokenizer, filled up to its vocabulary."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(folder)
    for name in TOKENIZER_FILES:
        shutil.copyfile(STARTER / name, folder / name)
    tokenizer = json.loads((STARTER / "tokenizer.json").read_text("utf-8"))
    words = tokenizer["model"]["vocab"]
    words |= {f"Ġw{number}": number for number in range(len(words), SHAPE["vocab_size"])}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), "utf-8")
    return folder


def write_adapter(folder: Path, model_folder: Path, seed: int, size: float = 0.02) -> Path:
    """A random adapter; `size` is the standard deviation of its weights: the larger, the further from the
    base."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS, task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(model_folder), config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = size * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(folder, save_embedding_layers=False)
    name_base(folder, model_folder)
    return folder


def name_base(adapter: Path, model_folder: Path, dtype: str = "float32", **more: object) -> None:
    """Write the manifest anew: what the files are, and that whole weights in `dtype` are under them."""
    from store.fingerprint import base_fingerprint

    facts = {
        path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
        for path in adapter.iterdir()
        if path.name != "MANIFEST.json"
    }
    fingerprint = base_fingerprint(model_folder, None, "none", dtype)
    base = {"fingerprint": fingerprint, "quantization": "none", "double_quant": False, "dtype": dtype}
    (adapter / "MANIFEST.json").write_text(json.dumps({"files": facts, "base": base, **more}), "utf-8")


def add_proofs(adapters: Iterable[Path], model_folder: Path) -> None:
    """Record in each manifest what the adapter says of the fixed answers, as the round that made it would."""
    from trainer.proving import make_proof
    from trainer.qlora import load_base
    from trainer.settings import BaseModel

    base = load_base(BaseModel(str(model_folder), quantization="none", dtype="float32"))
    for adapter in adapters:
        proof = make_proof(base, adapter)
        assert proof is not None, f"the random adapter {adapter.name} computes no numbers"
        name_base(adapter, model_folder, proof=proof.as_json())
