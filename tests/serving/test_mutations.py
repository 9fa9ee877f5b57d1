"""What can be wrong with an adapter, one thing at a time: each is refused with its own reason, and the
version served meanwhile answers with the very same bits."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from serving.adapters import BadAdapter, publish, read_adapter
from serving.in_process import InProcessEngine
from serving.settings import BaseSettings
from store.errors import BadValue
from tests.serving.conftest import write_manifest
from tests.serving.fakes import ask

WEIGHTS, CONFIG, MANIFEST = "adapter_model.safetensors", "adapter_config.json", "MANIFEST.json"
ANSWER = [5, 6, 7, 8, 9]
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def engine(base_dir: Path, adapters: dict[str, Path]) -> Iterator[InProcessEngine]:
    """One engine for the whole list: what a refused adapter left behind would show in the next case."""
    engine = InProcessEngine(BaseSettings(str(base_dir), quantization="none", dtype="float32"))
    engine.load("v1", adapters["v1"])
    yield engine
    engine.close()


@pytest.fixture
def folder(tmp_path: Path, adapters: dict[str, Path]) -> Path:
    return Path(shutil.copytree(adapters["v2"], tmp_path / "v9"))


def set_config(**changes: object) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
        (folder / CONFIG).write_text(json.dumps(config | changes), "utf-8")

    return act


def change_tensors(change: Callable[[Tensors, str], object]) -> Callable[[Path], None]:
    """`change` gets all tensors and the name of one."""

    def act(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors, min(tensors))
        save_file(tensors, folder / WEIGHTS)

    return act


def put(value: float) -> Callable[[Path], None]:
    return change_tensors(lambda tensors, name: tensors[name][0].fill_(value))


def replace(make: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    return change_tensors(lambda tensors, name: tensors.update({name: make(tensors[name])}))


def set_manifest(**facts: object) -> Callable[[Path], None]:
    return lambda folder: write_manifest(folder, **facts)


def set_base(**changes: object) -> Callable[[Path], None]:
    """None takes a fact out."""

    def act(folder: Path) -> None:
        base = json.loads((folder / MANIFEST).read_text("utf-8"))["base"] | changes
        write_manifest(folder, base={key: value for key, value in base.items() if value is not None})

    return act


def set_norm(norm: object) -> Callable[[Path], None]:
    return lambda folder: write_manifest(folder, parent_norms={min(load_file(folder / WEIGHTS)): norm})


def nest(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text('{"a":' * 100_000)


def list_another_hash(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    manifest["files"][CONFIG]["sha256"] = "0" * 64
    (folder / MANIFEST).write_text(json.dumps(manifest), "utf-8")


def list_an_escape(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    manifest["files"]["../v1/" + WEIGHTS] = manifest["files"].pop(WEIGHTS)
    (folder / MANIFEST).write_text(json.dumps(manifest), "utf-8")


def flip_a_bit(folder: Path) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS).write_bytes(data)


def link_out(name: str) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        shutil.move(folder / name, folder.parent / name)
        (folder / name).symlink_to(folder.parent / name)

    return act


def link_the_folder(folder: Path) -> None:
    folder.rename(folder.parent / "elsewhere")
    folder.symlink_to(folder.parent / "elsewhere", target_is_directory=True)


def put_a_pipe(folder: Path) -> None:
    (folder / "README.md").unlink()
    os.mkfifo(folder / "README.md")


# Done to a good adapter before its manifest is written anew, and the reason that must come back.
CONTENT: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-100]), "cannot be read"),
    "empty": (lambda f: (f / WEIGHTS).write_bytes(b""), "the weights cannot be read"),
    "huge header": (
        lambda f: (f / WEIGHTS).write_bytes(b"\xff" * 4096),
        "header of .* bytes is over 1048576",
    ),
    "extra key": (
        change_tensors(lambda t, _: t.update(x=torch.ones(1))),
        "1 tensors are unexpected, first x",
    ),
    "missing key": (change_tensors(lambda t, name: t.pop(name)), "1 tensors are missing, first base_model"),
    "no key at all": (change_tensors(lambda t, _: t.clear()), "12 tensors are missing"),
    "wrong rank": (set_config(r=8), r"lora_A.weight has shape \(4, \d+\), not \(8, \d+\)"),
    "wrong shape": (
        replace(lambda _: torch.zeros(5, 7)),
        r"lora_A.weight has shape \(5, 7\), not \(4, 256\)",
    ),
    "wrong dtype": (replace(lambda t: t.int()), "lora_A.weight has dtype int32, not one of float32"),
    "too fine a dtype": (replace(lambda t: t.double()), "lora_A.weight has dtype float64"),
    "nan": (put(float("nan")), "down_proj.lora_A.weight holds values that are not finite"),
    "inf": (put(float("inf")), "down_proj.lora_A.weight holds values that are not finite"),
    "huge norm": (replace(lambda t: t * 100), r"lora_A.weight has norm .*, over 32 \(no parent is known\)"),
    "rank of text": (set_config(r="8"), "r '8' is not a rank"),
    "endless scale": (set_config(lora_alpha=float("inf")), "lora_alpha inf"),
    "scale over all floats": (set_config(lora_alpha=10**400), "lora_alpha 1000"),
    "nested config": (nest(CONFIG), "adapter_config.json is nested too deeply"),
    "pissa": (set_config(init_lora_weights="pissa"), "init_lora_weights 'pissa' is not allowed"),
    "megatron": (set_config(megatron_core="os"), "megatron_core 'os' is not allowed"),
    "regex": (set_config(target_modules=".*proj"), "target_modules '.*proj' is not a list of layer names"),
    "no such layer": (set_config(target_modules=["c_attn"]), "'c_attn' is no linear layer of the base"),
    "whole modules": (
        set_config(modules_to_save=["lm_head"]),
        r"modules_to_save \['lm_head'\] is not allowed",
    ),
    "auto mapping": (set_config(auto_mapping={"parent_library": "os"}), "auto_mapping .* is not allowed"),
    "rank pattern": (set_config(rank_pattern={"q_proj": 64}), "rank_pattern {'q_proj': 64} is not allowed"),
    "alpha pattern": (set_config(alpha_pattern={"q_proj": 64}), "alpha_pattern .* is not allowed"),
    "biases": (set_config(bias="all"), "bias 'all' is not allowed"),
    "dora": (set_config(use_dora=True), "use_dora True is not allowed"),
    "other method": (set_config(peft_type="IA3"), "peft_type 'IA3' is not 'LORA'"),
    "other task": (set_config(task_type="SEQ_CLS"), "task_type 'SEQ_CLS' is not 'CAUSAL_LM'"),
    "unknown key": (set_config(surprise=1), "config key 'surprise' is unknown"),
    "broken config": (lambda f: (f / CONFIG).write_text("{"), "adapter_config.json is not JSON"),
    "list for config": (lambda f: (f / CONFIG).write_text("[]"), "adapter_config.json is not a JSON object"),
    "endless card": (
        lambda f: (f / "README.md").write_bytes(b" " * (5 << 20)),
        "README.md has 5242880 bytes",
    ),
    "pickle": (
        lambda f: (f / "adapter_model.bin").write_bytes(b"x"),
        r"unexpected files \['adapter_model.bin'",
    ),
    "no card": (lambda f: (f / "README.md").unlink(), r"missing files \['README.md'\]"),
}
# Done after the manifest was written.
OUTSIDE: dict[str, tuple[Callable[[Path], object], str]] = {
    "bit flip": (flip_a_bit, f"sha256 of {WEIGHTS} differs from the manifest's"),
    "cut after": (
        lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-9]),
        r"has \d+ bytes, not",
    ),
    "no manifest": (lambda f: (f / MANIFEST).unlink(), r"missing files \['MANIFEST.json'\]"),
    "manifest of text": (lambda f: (f / MANIFEST).write_text("hello"), "MANIFEST.json is not JSON"),
    "empty manifest": (lambda f: (f / MANIFEST).write_text("{}"), "MANIFEST.json must list"),
    "another hash": (list_another_hash, "sha256 of adapter_config.json differs from the manifest's"),
    "escape": (list_an_escape, r"MANIFEST.json must list \['README.md'"),
    "link": (link_out("README.md"), "README.md is not a plain file"),
    "linked weights": (link_out(WEIGHTS), f"{WEIGHTS} is not a plain file"),
    "linked folder": (link_the_folder, "v9 has no folder of its own"),
    "pipe": (put_a_pipe, "README.md is not a plain file"),
    "no folder": (shutil.rmtree, "v9 has no folder of its own: No such file"),
    "nested manifest": (nest(MANIFEST), "MANIFEST.json is nested too deeply"),
    "no base": (set_manifest(base=None), "MANIFEST.json does not say over which base it was trained"),
    "base of text": (set_manifest(base="llama"), "does not say over which base it was trained"),
    "no fingerprint": (set_base(fingerprint=None), "base.fingerprint None is no sha256"),
    "number for fingerprint": (set_base(fingerprint=17), "base.fingerprint 17 is no sha256"),
    "no quantization": (set_base(quantization=None), "base.quantization None names no precision"),
    "list for quantization": (set_base(quantization=["nf4"]), r"base.quantization \['nf4'\] names no"),
    "no dtype": (set_base(dtype=None), "base.dtype None names no precision"),
    "text for a flag": (set_base(double_quant="no"), "base.double_quant 'no' is neither true nor false"),
    "list for norms": (set_manifest(parent_norms=[1.0]), "parent_norms is a list, not norms by name"),
    "norm of text": (set_norm("1"), r"the parent's norm '1' of 'base_model\..*' is no norm"),
    "norm not a number": (set_norm(float("nan")), "the parent's norm nan of"),
    "endless norm": (set_norm(float("inf")), "the parent's norm inf of"),
    "norm below zero": (set_norm(-1.0), r"the parent's norm -1\.0 of"),
    "norm over all floats": (set_norm(10**400), r"the parent's norm 1000\d+ of"),
    "wrong base": (
        set_base(fingerprint="f" * 64),
        "was trained over base ffffffffffff, this one is [0-9a-f]{12}",
    ),
    "other precision": (
        set_base(quantization="nf4", double_quant=True, dtype="bfloat16"),
        "over nf4 twice quantized computing in bfloat16, and the base is served as whole weights in float32",
    ),
    "other dtype": (
        set_base(dtype="bfloat16"),
        "trained over whole weights in bfloat16, and the base is served as whole weights in float32",
    ),
}


def spoil(folder: Path, kind: str) -> str:
    """Do it, and give the reason that must come back."""
    if kind in CONTENT:
        act, reason = CONTENT[kind]
        act(folder)
        if kind != "no card":
            write_manifest(folder)
        return reason
    act, reason = OUTSIDE[kind]
    act(folder)
    return reason


@pytest.mark.parametrize("kind", [*CONTENT, *OUTSIDE])
def test_a_bad_adapter_is_refused_and_what_is_served_stays_bit_equal(
    kind: str, folder: Path, engine: InProcessEngine
) -> None:
    before, served = engine.score("v1", ask("the fox"), [ANSWER]), engine.versions()
    base_before = forward(engine)
    reason = spoil(folder, kind)
    with pytest.raises(BadAdapter, match=reason):
        engine.load("v9", folder)
    assert engine.versions() == served == ["v1"]
    assert engine.score("v1", ask("the fox"), [ANSWER]) == before
    assert torch.equal(forward(engine), base_before)


@pytest.mark.parametrize("call", ["listdir", "fdopen"])
def test_a_disk_that_fails_is_a_reason_and_no_crash(
    call: str, folder: Path, engine: InProcessEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, call, fail)
        with pytest.raises(BadAdapter, match="v9 cannot be read from its disk: Input/output error"):
            engine.load("v9", folder)


def forward(engine: InProcessEngine) -> torch.Tensor:
    """The logits of v1, straight through the model."""
    engine._bank.route(["v1"])
    with torch.inference_mode():
        logits: torch.Tensor = engine.base.model(torch.tensor([ANSWER])).logits
    return logits


def test_every_refusal_has_words_of_its_own() -> None:
    reasons = [reason for _, reason in (CONTENT | OUTSIDE).values()]
    shared = {"values that are not finite", "is not a plain file", "cannot be read", "sha256 of"}
    assert len(set(reasons)) >= len(reasons) - len(shared)


def test_a_good_adapter_is_read_as_it_was_written(folder: Path, engine: InProcessEngine) -> None:
    set_config(use_rslora=True)(folder)
    write_manifest(folder)
    weights = read_adapter(folder, engine._adapter_base)
    written = load_file(folder / WEIGHTS)
    assert weights.scaling == 8 / 4**0.5
    assert set(weights.layers) == {
        name for name in engine._adapter_base.layers if name.split(".")[-1] in TARGETS
    }
    for name, (a, b) in weights.layers.items():
        assert torch.equal(a, written[f"base_model.model.{name}.lora_A.weight"])
        assert torch.equal(b, written[f"base_model.model.{name}.lora_B.weight"])


TARGETS = ("q_proj", "v_proj", "down_proj")


def test_a_tensor_may_grow_tenfold_over_its_parent_and_no_further(
    folder: Path, engine: InProcessEngine
) -> None:
    tensors = load_file(folder / WEIGHTS)
    name = min(tensors)
    norms = {key: float(tensor.norm()) for key, tensor in tensors.items()}
    write_manifest(folder, parent_norms=norms | {name: norms[name] / 9.9})
    read_adapter(folder, engine._adapter_base)
    write_manifest(folder, parent_norms=norms | {name: norms[name] / 10.1})
    with pytest.raises(BadAdapter, match=rf"{name} has norm .* \(its parent's is {norms[name] / 10.1:.3g}\)"):
        read_adapter(folder, engine._adapter_base)


def test_a_lora_b_that_hardly_moved_does_not_bind_the_next_round(
    folder: Path, engine: InProcessEngine
) -> None:
    """A first round of 20 steps left norms an eighth of those after 300: small is no measure of sane."""
    change_tensors(lambda t, _: [t.update({key: value * 0.1}) for key, value in t.items()])(folder)
    write_manifest(folder, parent_norms=dict.fromkeys(load_file(folder / WEIGHTS), 1e-6))
    read_adapter(folder, engine._adapter_base)


def test_a_file_swapped_between_two_reads_cannot_come_in(
    folder: Path, engine: InProcessEngine, adapters: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was hashed is what is parsed: the swap happens after the hash, before the tensors are read."""
    import serving.adapters as adapters_module

    expected = {key: tensor.clone() for key, tensor in load_file(folder / WEIGHTS).items()}
    really = adapters_module.read_tensors

    def swap_first(*arguments):  # type: ignore[no-untyped-def]
        shutil.copy(adapters["v3"] / WEIGHTS, folder / WEIGHTS)
        return really(*arguments)

    monkeypatch.setattr(adapters_module, "read_tensors", swap_first)
    layers = read_adapter(folder, engine._adapter_base).layers
    assert all(
        torch.equal(a, expected[f"base_model.model.{name}.lora_A.weight"]) for name, (a, _) in layers.items()
    )


@pytest.mark.parametrize("version", ["../v1", "v0", "v01", "V1", "v1/..", ""])
def test_no_other_text_than_a_version_becomes_a_path(
    version: str, adapters: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(BadValue, match="not of the form"):
        publish(adapters["v1"], tmp_path, version)
