"""The zoo of adapters that PEFT would swallow: each is refused with its own reason; what is served stays."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from serving.adapters import BadAdapter, publish, sweep_unfinished, weights_sha256
from serving.in_process import InProcessEngine
from store.errors import BadValue, StateConflict
from store.records import Sampling
from tests.serving.conftest import Reference, write_manifest
from tests.serving.fakes import ask

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def set_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / CONFIG).read_text("utf-8"))
    (folder / CONFIG).write_text(json.dumps(config | changes), "utf-8")


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def first(tensors: dict[str, torch.Tensor]) -> str:
    return min(tensors)


def put_nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors[first(tensors)][0, 0] = float("nan")


def lose(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[first(tensors)]


def widen(tensors: dict[str, torch.Tensor]) -> None:
    tensors[first(tensors)] = torch.zeros(5, 7)


def to_integers(tensors: dict[str, torch.Tensor]) -> None:
    tensors[first(tensors)] = tensors[first(tensors)].int()


def truncate(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


# What is done to a good adapter before its manifest is written anew, and the reason that must come back.
ZOO: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (truncate, "cannot be read"),
    "empty": (lambda f: (f / WEIGHTS).write_bytes(b""), "cannot be read"),
    "huge header": (lambda f: (f / WEIGHTS).write_bytes(b"\xff" * 4096), "header of .* bytes is over"),
    "nan": (lambda f: change_tensors(f, put_nan), "values that are not finite"),
    "wrong shape": (lambda f: change_tensors(f, widen), r"has shape \(5, 7\), not"),
    "wrong dtype": (lambda f: change_tensors(f, to_integers), "dtype torch.int32"),
    "missing key": (lambda f: change_tensors(f, lose), "1 tensors are missing"),
    "extra key": (
        lambda f: change_tensors(f, lambda t: t.update(x=torch.ones(1))),
        "1 tensors are unexpected",
    ),
    "wrong rank": (lambda f: set_config(f, r=8), "has shape"),
    "rank of text": (lambda f: set_config(f, r="8"), "r '8' is not a rank"),
    "pissa": (lambda f: set_config(f, init_lora_weights="pissa"), "init_lora_weights 'pissa' is not allowed"),
    "regex": (lambda f: set_config(f, target_modules=".*proj"), "is not a list of layer names"),
    "no such layer": (lambda f: set_config(f, target_modules=["c_attn"]), "'c_attn' is no linear layer"),
    "whole modules": (lambda f: set_config(f, modules_to_save=["lm_head"]), "modules_to_save"),
    "rank pattern": (lambda f: set_config(f, rank_pattern={"q_proj": 64}), "rank_pattern"),
    "import": (lambda f: set_config(f, megatron_core="os"), "megatron_core 'os' is not allowed"),
    "unknown key": (lambda f: set_config(f, surprise=1), "'surprise' is unknown"),
    "biases": (lambda f: set_config(f, bias="all"), "bias 'all' is not allowed"),
    "other method": (lambda f: set_config(f, peft_type="IA3"), "peft_type 'IA3'"),
    "endless scale": (lambda f: set_config(f, lora_alpha=float("inf")), "lora_alpha inf"),
    "broken config": (lambda f: (f / CONFIG).write_text("{"), "adapter_config.json is not JSON"),
    "list for config": (lambda f: (f / CONFIG).write_text("[]"), "is not a JSON object"),
    "pickle": (
        lambda f: (f / "adapter_model.bin").write_bytes(b"x"),
        r"unexpected files \['adapter_model.bin'\]",
    ),
    "no readme": (lambda f: (f / "README.md").unlink(), r"missing files \['README.md'\]"),
}


@pytest.fixture
def folder(tmp_path: Path, adapters: dict[str, Path]) -> Path:
    return Path(shutil.copytree(adapters["v1"], tmp_path / "v9"))


@pytest.mark.parametrize("kind", ZOO)
def test_a_bad_adapter_is_refused_and_served_versions_stay(
    kind: str, folder: Path, engine: InProcessEngine, adapters: dict[str, Path], greedy: Reference
) -> None:
    spoil, reason = ZOO[kind]
    engine.load("v2", adapters["v2"])
    spoil(folder)
    write_manifest(folder)
    with pytest.raises(BadAdapter, match=reason):
        engine.load("v9", folder)
    assert engine.versions() == ["v2"]
    chunks = list(engine.generate("v2", ask("the fox"), Sampling(temperature=0, max_tokens=24)))
    assert list(chunks[-1].token_ids) == greedy("v2", "the fox", 24)


def test_a_flipped_bit_is_found_by_its_hash(folder: Path, engine: InProcessEngine) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS).write_bytes(data)
    with pytest.raises(BadAdapter, match=f"sha256 of {WEIGHTS} differs"):
        engine.load("v9", folder)


def test_a_link_out_of_the_folder_is_refused(folder: Path, engine: InProcessEngine, tmp_path: Path) -> None:
    shutil.move(folder / "README.md", tmp_path / "README.md")
    (folder / "README.md").symlink_to(tmp_path / "README.md")
    with pytest.raises(BadAdapter, match=r"README.md is not a plain file"):
        engine.load("v9", folder)


def test_an_adapter_of_another_base_is_refused(folder: Path, engine: InProcessEngine) -> None:
    write_manifest(folder, base={"fingerprint": "f" * 64})
    with pytest.raises(BadAdapter, match=r"trained over base ffffffffffff, this one is [0-9a-f]{12}"):
        engine.load("v9", folder)
    write_manifest(folder, base={"fingerprint": engine.base.fingerprint})
    engine.load("v9", folder)


def test_what_was_served_before_is_bit_equal_after_a_refused_adapter(
    folder: Path, engine: InProcessEngine
) -> None:
    """A config saying "pissa" once rewrote the base under every version that shared it."""
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        before = engine.base.model(ids).logits
        set_config(folder, init_lora_weights="pissa")
        write_manifest(folder)
        with pytest.raises(BadAdapter):
            engine.load("v9", folder)
        assert torch.equal(engine.base.model(ids).logits, before)


def test_publishing_twice_changes_nothing_and_other_weights_are_refused(
    adapters: dict[str, Path], tmp_path: Path
) -> None:
    policies = tmp_path / "policies"
    sha256 = publish(adapters["v1"], policies, "v1")
    assert publish(adapters["v1"], policies, "v1") == sha256 == weights_sha256(policies / "v1")
    with pytest.raises(StateConflict, match="v1 is published already, with other weights"):
        publish(adapters["v2"], policies, "v1")
    assert [path.name for path in policies.iterdir()] == ["v1"]


def test_a_publish_that_dies_leaves_nothing_visible(
    adapters: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies = tmp_path / "policies"

    def die(_path: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("serving.adapters._sync", die)
    with pytest.raises(OSError, match="no space left"):
        publish(adapters["v1"], policies, "v1")
    assert not (policies / "v1").exists()
    assert len(sweep_unfinished(policies)) == 1
    assert list(policies.iterdir()) == []


@pytest.mark.parametrize("version", ["../v1", "v0", "v01", "V1", "v1/..", ""])
def test_no_other_text_than_a_version_becomes_a_path(
    version: str, adapters: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(BadValue, match="not of the form"):
        publish(adapters["v1"], tmp_path, version)
