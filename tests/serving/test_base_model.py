"""How a base model is loaded: precision, chat template, and what cannot be served."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from serving.base_model import load_base
from serving.settings import BaseSettings
from store.chat_templates import CHAT_TEMPLATES
from store.errors import BadValue
from tests.serving.fakes import ask


@pytest.fixture
def bare(base_dir: Path, tmp_path: Path) -> Path:
    """The base without a chat template."""
    folder = Path(shutil.copytree(base_dir, tmp_path / "bare"))
    (folder / "chat_template.jinja").unlink()
    return folder


def test_the_fingerprint_is_the_same_after_a_reload_and_differs_by_precision(base_dir: Path) -> None:
    first, again = (
        load_base(BaseSettings(str(base_dir), quantization="none", dtype="float32")) for _ in range(2)
    )
    other = load_base(BaseSettings(str(base_dir), quantization="none", dtype="bfloat16"))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert other.model.dtype == torch.bfloat16
    assert (first.quantization, first.dtype) == ("none", "float32")


def test_a_four_bit_base_is_never_repacked(base_dir: Path) -> None:
    base = load_base(BaseSettings(str(base_dir), quantization="nf4"))
    layer = base.model.model.layers[0].self_attn.q_proj
    before = layer.weight.data_ptr(), layer.weight.clone()
    with torch.inference_mode():
        base.model(torch.tensor([[1, 2, 3]]))
    assert layer.weight.data_ptr() == before[0]
    assert torch.equal(layer.weight, before[1])
    assert layer.weight.quant_type == "nf4"
    assert layer.weight.quant_state.nested


def test_a_model_without_template_asks_for_one(bare: Path) -> None:
    with pytest.raises(
        BadValue, match="'bare' has no chat template; give --chat-template chatml, llama, zephyr or a file"
    ):
        load_base(BaseSettings(str(bare)))


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_a_built_in_template_ends_with_the_assistants_turn(name: str, bare: Path) -> None:
    tokenizer = load_base(BaseSettings(str(bare), chat_template=name)).tokenizer
    tokenizer.bos_token = "<|user|>"
    text = tokenizer.apply_chat_template(ask("Hello?"), add_generation_prompt=True, tokenize=False)
    assert "Hello?" in text
    assert text.rindex("assistant") > text.index("Hello?")


def test_a_template_may_be_a_file_and_a_wrong_name_is_refused(bare: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text("{{ messages[-1]['content'] }}!", "utf-8")
    tokenizer = load_base(BaseSettings(str(bare), chat_template=str(tmp_path / "mine.jinja"))).tokenizer
    assert tokenizer.apply_chat_template(ask("Hi"), tokenize=False) == "Hi!"
    with pytest.raises(BadValue, match="'chatlm' is neither a file nor one of chatml, llama, zephyr"):
        load_base(BaseSettings(str(bare), chat_template="chatlm"))


def test_the_end_of_a_turn_ends_an_answer(base_dir: Path, bare: Path) -> None:
    """Many chat models name another eos in their generation config than the one their template writes."""
    config = json.loads((bare / "tokenizer_config.json").read_text("utf-8"))
    tokenizer = load_base(BaseSettings(str(base_dir))).tokenizer
    tokenizer.add_tokens(["<|im_end|>"], special_tokens=True)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(bare)
    assert config["eos_token"] == "<|end|>"
    base = load_base(BaseSettings(str(bare), chat_template="chatml"))
    assert base.end_ids == {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")}


def test_a_model_that_is_nowhere_is_refused() -> None:
    with pytest.raises(BadValue, match="model 'no/such-model' is neither a folder nor"):
        load_base(BaseSettings("no/such-model"))


def test_a_recurrent_model_is_refused(bare: Path) -> None:
    config = json.loads((bare / "config.json").read_text("utf-8"))
    config |= {"layer_types": ["linear_attention", "full_attention"]}
    (bare / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(BadValue, match="linear_attention cannot be batched here"):
        load_base(BaseSettings(str(bare), chat_template="zephyr"))


@pytest.mark.parametrize("wrong", [{"quantization": "int3"}, {"dtype": "float8"}, {"threads": -1}])
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BadValue, match=next(iter(wrong))):
        BaseSettings("x", **wrong)  # type: ignore[arg-type]
