"""The base as it is loaded, and what identifies it."""

from __future__ import annotations

import shutil
import subprocess
import sys

import bitsandbytes as bnb
import pytest
import torch

from store.chat_templates import CHAT_TEMPLATES, read_chat_template
from store.errors import BadValue
from store.fingerprint import base_fingerprint, resolve_precision
from trainer.qlora import (
    find_model_folder,
    load_base,
    load_tokenizer,
    lora_config,
    restore_weights,
    start_policy,
)
from trainer.settings import BaseModel, TrainerSettings

MESSAGES = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "ho"},
    {"role": "user", "content": "?"},
]


def test_auto_means_nf4_on_cuda_and_whole_weights_elsewhere():
    assert resolve_precision("auto", "auto", has_cuda=True) == ("nf4", "bfloat16")
    assert resolve_precision("auto", "auto", has_cuda=False) == ("none", "float32")
    assert resolve_precision("nf4", "float32", has_cuda=False) == ("nf4", "float32")


def test_nf4_is_loaded_on_request_even_on_a_cpu(nf4_base, base):
    assert (nf4_base.quantization, base.quantization) == ("nf4", "none")
    assert isinstance(nf4_base.model.model.layers[0].mlp.up_proj, bnb.nn.Linear4bit)
    assert type(base.model.model.layers[0].mlp.up_proj) is torch.nn.Linear


def test_fingerprint_tells_precision_template_and_files_apart(base_folder, tmp_path):
    first = base_fingerprint(base_folder, None, "none", "float32")
    assert first == base_fingerprint(base_folder, None, "none", "float32")
    others = {
        base_fingerprint(base_folder, None, "nf4", "float32"),
        base_fingerprint(base_folder, None, "none", "bfloat16"),
        base_fingerprint(base_folder, "another template", "none", "float32"),
    }
    changed = shutil.copytree(base_folder, tmp_path / "changed")
    (changed / "tokenizer_config.json").write_text("{}")
    others.add(base_fingerprint(changed, None, "none", "float32"))
    assert len({first, *others}) == 5


def test_fingerprint_is_of_the_model_and_not_of_its_place_or_readme(base_folder, tmp_path):
    moved = shutil.copytree(base_folder, tmp_path / "moved")
    (moved / "README.md").write_text("another card")
    assert base_fingerprint(moved, None, "none", "float32") == base_fingerprint(
        base_folder, None, "none", "float32"
    )


def test_an_unresolved_precision_has_no_fingerprint(base_folder):
    with pytest.raises(BadValue, match="must be resolved"):
        base_fingerprint(base_folder, None, "auto", "float32")


@pytest.mark.parametrize("name", sorted(CHAT_TEMPLATES))
def test_built_in_templates_render_turns_and_open_an_answer(base, name):
    tokenizer = base.tokenizer
    tokenizer.bos_token = "<bos>"
    tokenizer.chat_template = CHAT_TEMPLATES[name]
    text = tokenizer.apply_chat_template(MESSAGES, tokenize=False)
    opened = tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    assert opened.startswith(text)
    assert "assistant" in opened[len(text) :]
    assert text.index("hi") < text.index("ho") < text.index("?")


def test_chat_template_is_a_name_a_file_or_the_models_own(tmp_path):
    (tmp_path / "mine.jinja").write_text("{{ messages }}")
    assert read_chat_template(None) is None
    assert read_chat_template(str(tmp_path / "mine.jinja")) == "{{ messages }}"
    with pytest.raises(BadValue, match="'alpaca' is neither a file nor one of chatml, llama, zephyr"):
        read_chat_template("alpaca")


def test_a_model_without_a_template_is_refused_with_the_way_out(base_folder, tmp_path):
    bare = shutil.copytree(base_folder, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(BadValue, match="no chat template; name one"):
        load_tokenizer(bare, None)
    assert load_tokenizer(bare, CHAT_TEMPLATES["chatml"]).chat_template == CHAT_TEMPLATES["chatml"]


def test_a_model_that_is_not_there_is_named():
    with pytest.raises(BadValue, match="'no/such-model' is neither a folder nor a hub model at hand"):
        find_model_folder("no/such-model")


def test_previous_means_the_base_while_the_base_is_live(base):
    settings = TrainerSettings(start="previous", reference="previous")
    start = start_policy(base.model, settings, None)
    assert start.peft_config is not None
    assert start.weights is None


def test_a_fresh_adapter_cannot_have_the_previous_one_as_reference():
    with pytest.raises(BadValue, match="needs start 'previous'"):
        TrainerSettings(start="fresh", reference="previous")


def test_weights_of_another_shape_of_adapter_are_refused(base, settings):
    from peft import get_peft_model

    policy = get_peft_model(base.model, lora_config(settings))
    with pytest.raises(BadValue, match="no place for"):
        restore_weights(
            policy, {"base_model.model.model.layers.9.mlp.up_proj.lora_A.weight": torch.zeros(8, 128)}
        )


def test_settings_and_fingerprints_load_no_torch():
    code = (
        "import sys, trainer.settings, store.fingerprint, store.chat_templates; print('torch' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "False\n"
    )


def test_a_named_template_is_part_of_what_is_loaded(base_folder):
    loaded = load_base(BaseModel(str(base_folder), chat_template="zephyr", quantization="none"))
    own = load_base(BaseModel(str(base_folder), quantization="none"))
    assert loaded.tokenizer.chat_template == CHAT_TEMPLATES["zephyr"]
    assert loaded.fingerprint != own.fingerprint
