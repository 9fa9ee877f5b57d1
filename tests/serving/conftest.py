"""A chat model small enough to be made on the spot, adapters for it, and engines over it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from serving.in_process import InProcessEngine
from serving.settings import BaseSettings
from store.fingerprint import base_fingerprint
from tests.serving.real_vllm import RealVllm

TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
TARGETS = ["q_proj", "v_proj", "down_proj"]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama whose sizes 4-bit layers can take (multiples of 64), with a byte-level tokenizer."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.15,  # far from uniform answers, so that two versions cannot agree by chance
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_tokenizer() -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<pad>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(["the quick brown fox jumps over the lazy dog"] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|end|>", pad_token="<pad>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def write_adapter(folder: Path, base_dir: Path, seed: int, **manifest: Any) -> Path:
    """An adapter with large random weights: it answers unlike the base and unlike every other seed."""
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base_dir),
        LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, task_type="CAUSAL_LM"),
    )
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(folder, save_embedding_layers=False)
    write_manifest(folder, **{"base": base_facts(base_dir)} | manifest)
    return folder


def base_facts(base_dir: Path, quantization: str = "none", dtype: str = "float32") -> dict[str, Any]:
    """What a manifest says of the base that its adapter was trained over."""
    fingerprint = base_fingerprint(base_dir, None, quantization, dtype)
    precision = {"quantization": quantization, "double_quant": quantization == "nf4", "dtype": dtype}
    return {"fingerprint": fingerprint, **precision}


def copy_as_trained(adapter: Path, to: Path, base_dir: Path, quantization: str, dtype: str) -> Path:
    """The same weights, with a manifest that says they were trained over the base in another precision."""
    folder = Path(shutil.copytree(adapter, to))
    write_manifest(folder, base=base_facts(base_dir, quantization, dtype))
    return folder


def write_manifest(folder: Path, **manifest: Any) -> None:
    """Say what the files are now. The base stays the one that was named before, unless another is given."""
    if "base" not in manifest and (folder / "MANIFEST.json").is_file():
        manifest["base"] = json.loads((folder / "MANIFEST.json").read_text("utf-8"))["base"]
    files = {
        path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
        for path in folder.iterdir()
        if path.name != "MANIFEST.json"
    }
    (folder / "MANIFEST.json").write_text(json.dumps({"files": files, **manifest}), "utf-8")


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory, base_dir: Path) -> dict[str, Path]:
    """Five different adapters over the base, as a round would leave them: v1 to v5."""
    root = tmp_path_factory.mktemp("adapters")
    return {f"v{seed}": write_adapter(root / f"v{seed}", base_dir, seed) for seed in range(1, 6)}


@pytest.fixture
def engine(base_dir: Path) -> Iterator[InProcessEngine]:
    engine = InProcessEngine(BaseSettings(str(base_dir), quantization="none", dtype="float32"))
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def vllm_server(base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealVllm]:
    """A real vLLM over the base; only tests marked `vllm` may ask for it."""
    server = RealVllm(base_dir, tmp_path_factory.mktemp("vllm") / "log").launch().wait()
    yield server
    server.kill()


Reference = Callable[[str, str, int], list[int]]


@pytest.fixture(scope="session")
def greedy(base_dir: Path, adapters: dict[str, Path]) -> Reference:
    """What `generate` of a freshly loaded model answers: `greedy(version, text, max_tokens)` as token ids."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base_dir)
    models: dict[str, Any] = {}
    known: dict[tuple[str, str, int], list[int]] = {}

    def answer(version: str, text: str, max_tokens: int) -> list[int]:
        if version not in models:
            model = AutoModelForCausalLM.from_pretrained(base_dir)
            models[version] = (
                model if version == "v0" else PeftModel.from_pretrained(model, adapters[version])
            )
        key = (version, text, max_tokens)
        if key not in known:
            known[key] = generate_greedily(models[version], tokenizer, text, max_tokens)
        return known[key]

    return answer


def generate_greedily(model: Any, tokenizer: Any, text: str, max_tokens: int) -> list[int]:
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False
    )
    inputs = tokenizer(rendered, add_special_tokens=False, return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        ids = model.generate(**inputs, do_sample=False, max_new_tokens=max_tokens)
    return list(ids[0, inputs["input_ids"].shape[1] :].tolist())
