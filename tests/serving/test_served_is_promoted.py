"""Nothing is served but what was promoted: a real store, a real engine, and what happens to files between."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serving.adapters import BadAdapter, hash_files, publish
from serving.in_process import InProcessEngine
from serving.policies import PolicyBoard
from serving.settings import BaseSettings
from serving.watching import REHASH_S, FileWatch, read_stamp
from store.database import Store
from store.errors import StateConflict
from store.policies import add_policy, live_version, read_promotions
from store.proof import Proof, check_proof
from store.records import Sampling
from tests.serving.conftest import copy_as_trained, write_manifest
from tests.serving.fakes import ask
from trainer.proving import make_proof
from trainer.qlora import LoadedBase, load_base
from trainer.settings import BaseModel

WEIGHTS, CONFIG, MANIFEST = "adapter_model.safetensors", "adapter_config.json", "MANIFEST.json"
VERSIONS = ("v1", "v2", "v3")


@pytest.fixture(scope="module")
def trained(base_dir: Path, adapters: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three adapters with the manifests that a round writes."""
    base = load_base(BaseModel(str(base_dir), quantization="none", dtype="float32"))
    root = tmp_path_factory.mktemp("trained")
    for version in VERSIONS:
        shutil.copytree(adapters[version], root / version)
        write_manifest(root / version, **facts_of(base, root / version))
    return root


def facts_of(base: LoadedBase, adapter: Path) -> dict[str, object]:
    proof = make_proof(base, adapter)
    assert proof is not None
    precision = {"quantization": base.quantization, "double_quant": base.quantization == "nf4"}
    return {
        "proof": proof.as_json(),
        "base": {"fingerprint": base.fingerprint, "dtype": base.dtype, **precision},
    }


@pytest.fixture
def data(tmp_path: Path, trained: Path) -> Path:
    """A data folder: v1 and v2 were live, v3 is a candidate."""
    store = Store.open(tmp_path / "data")
    policies = tmp_path / "data" / "policies"
    for version in VERSIONS:
        sha256 = publish(trained / version, policies, version)
        add_policy(store, version, parent="v0", round_id=None, weights_sha256=sha256)
    store.close()
    return tmp_path / "data"


Boot = Callable[..., PolicyBoard]


@pytest.fixture
def boot(data: Path, base_dir: Path) -> Iterator[Boot]:
    """Start the service's serving half as `app.py` does; a second call is a restart."""
    open_parts: list[tuple[Store, InProcessEngine]] = []

    def close() -> None:
        for store, engine in open_parts:
            engine.close()
            store.close()
        open_parts.clear()

    def start(model: Path = base_dir) -> PolicyBoard:
        close()
        store = Store.open(data)
        engine = InProcessEngine(BaseSettings(str(model), quantization="none", dtype="float32"))
        open_parts.append((store, engine))
        board = PolicyBoard(store, engine, data / "policies", base_name=model.name)
        board.start()
        return board

    yield start
    close()


@pytest.fixture
def promoted(boot: Boot) -> PolicyBoard:
    """v1, then v2 was promoted."""
    board = boot()
    board.promote("v1", "ada", "")
    board.promote("v2", "ada", "")
    return board


def answer(board: PolicyBoard, name: str = "live") -> tuple[str, tuple[int, ...]]:
    last = list(board.sample(name, ask("the fox"), Sampling(temperature=0, max_tokens=16)))[-1]
    return last.version, last.token_ids


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def overwrite(path: Path, source: Path) -> None:
    """The same length at the same place, as a careless copy does it."""
    path.write_bytes(source.read_bytes())


def test_the_rounds_proof_holds_after_load_swap_rollback_and_restart(
    promoted: PolicyBoard, boot: Boot
) -> None:
    of_v2 = answer(promoted)
    promoted.roll_back("ada")
    assert answer(promoted)[0] == "v1"
    promoted.roll_back("ada", "v0")
    promoted.promote("v2", "ada", "")
    assert promoted.problems() == ()
    again = boot()
    assert (again.live, again.problems(), answer(again)) == ("v2", (), of_v2)


@pytest.mark.parametrize(
    ("quantization", "dtype"),
    [("none", "float32"), ("none", "bfloat16"), ("nf4", "float32"), ("nf4", "bfloat16")],
)
def test_training_and_serving_agree_in_every_precision(
    quantization: str, dtype: str, base_dir: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    """PEFT over the trainer's base against our layers over serving's, NF4 with double quantization too."""
    base = load_base(BaseModel(str(base_dir), quantization=quantization, dtype=dtype))  # type: ignore[arg-type]
    proof = make_proof(base, adapters["v1"])
    assert proof is not None
    engine = InProcessEngine(BaseSettings(str(base_dir), quantization=quantization, dtype=dtype))  # type: ignore[arg-type]
    assert engine.base_fingerprint == base.fingerprint
    engine.load("v0", None)
    for version in ("v1", "v2"):
        folder = copy_as_trained(adapters[version], tmp_path / version, base_dir, quantization, dtype)
        engine.load(version, folder)
    assert check_proof(proof, score(engine, "v1", proof)) is None
    for other in ("v0", "v2"):
        assert "its log-probs differ from the recorded ones" in str(
            check_proof(proof, score(engine, other, proof))
        )
    engine.close()


def score(engine: InProcessEngine, version: str, proof: Proof) -> list[float]:
    return [engine.score(version, row.messages, [row.answer_ids])[0] for row in proof.rows]


def test_an_nf4_adapter_is_refused_over_whole_weights_and_the_other_way_round(
    base_dir: Path, trained: Path, tmp_path: Path
) -> None:
    nf4 = InProcessEngine(BaseSettings(str(base_dir), quantization="nf4", dtype="float32"))
    with pytest.raises(
        BadAdapter, match=r"over whole weights in float32, and the base is served as nf4 twice"
    ):
        nf4.load("v1", trained / "v1")
    facts = {
        "quantization": "nf4",
        "double_quant": True,
        "dtype": "float32",
        "fingerprint": nf4.base_fingerprint,
    }
    folder = shutil.copytree(trained / "v1", tmp_path / "v1")
    write_manifest(folder, base=facts)
    nf4.load("v1", folder)
    write_manifest(folder, base=facts | {"double_quant": False})
    with pytest.raises(
        BadAdapter, match=r"trained over nf4 computing in float32, and .* as nf4 twice quantized"
    ):
        nf4.load("v2", folder)
    nf4.close()
    whole = InProcessEngine(BaseSettings(str(base_dir), quantization="none", dtype="float32"))
    write_manifest(folder, base=facts)
    with pytest.raises(
        BadAdapter, match=r"over nf4 twice quantized computing in float32, .* whole weights in float32"
    ):
        whole.load("v1", folder)
    whole.close()


def test_right_weights_at_a_wrong_scale_are_found_by_the_log_probs(promoted: PolicyBoard, data: Path) -> None:
    """The registry knows the weights' hash only; alpha stands in the config."""
    folder = data / "policies" / "v3"
    manifest = json.loads((folder / "MANIFEST.json").read_text("utf-8"))
    config = json.loads((folder / CONFIG).read_text("utf-8"))
    (folder / CONFIG).write_text(json.dumps(config | {"lora_alpha": 9}), "utf-8")
    write_manifest(folder, proof=manifest["proof"], base=manifest["base"])
    before = answer(promoted)
    with pytest.raises(
        BadAdapter, match=r"policy v3: its log-probs differ .* nats a token \(allowed: 0.001\)"
    ):
        promoted.promote("v3", "ada", "")
    assert (promoted.live, answer(promoted), "v3" in promoted.loaded_versions()) == ("v2", before, False)
    assert promoted.problems()[0].startswith("v3 was refused: policy v3: its log-probs differ")
    promoted.roll_back("ada")
    assert promoted.problems() == ()


def test_what_a_round_made_needs_its_proof(promoted: PolicyBoard, data: Path) -> None:
    """Without numbers it cannot have passed the gate."""
    sha256 = publish(data / "policies" / "v3", data / "policies", "v4")
    add_policy(promoted._store, "v4", parent="v0", round_id="r1", weights_sha256=sha256)
    for version in ("v3", "v4"):
        write_manifest(data / "policies" / version, proof=None)
        with pytest.raises(BadAdapter, match=f"{version}: its round found that its log-probs are not numb"):
            promoted.promote(version, "ada", "")
        write_manifest(data / "policies" / version)
    with pytest.raises(BadAdapter, match=r"v4 has no proof, and its round recorded one.* or start a round"):
        promoted.promote("v4", "ada", "")
    assert promoted.live == "v2"
    promoted.promote("v3", "ada", "")  # no round made it: registered by hand
    assert promoted.live == "v3"


def test_an_adapter_of_a_release_before_proofs_is_served_after_an_update(
    promoted: PolicyBoard, data: Path
) -> None:
    sha256 = publish(data / "policies" / "v3", data / "policies", "v4")
    add_policy(promoted._store, "v4", parent="v0", round_id="r1", weights_sha256=sha256)
    base = json.loads((data / "policies" / "v4" / MANIFEST).read_text("utf-8"))["base"]
    del base["double_quant"]
    write_manifest(data / "policies" / "v4", base=base)
    promoted.promote("v4", "ada", "")
    assert (promoted.live, promoted.problems()) == ("v4", ())


def test_a_version_gone_bad_in_memory_is_left_by_itself(promoted: PolicyBoard) -> None:
    engine = promoted._engine
    assert isinstance(engine, InProcessEngine)
    for layer in engine._bank._layers.values():
        layer.pairs["v1"][1].mul_(1.5)
    with pytest.raises(BadAdapter, match=r"policy v1: its log-probs differ .*; v2 is live again"):
        promoted.roll_back("ada")
    assert (promoted.live, answer(promoted)[0]) == ("v2", "v2")
    assert [row.version for row in read_promotions(promoted._store)][:3] == ["v2", "v1", "v2"]
    assert promoted.problems()[0].startswith("v1 was refused")
    assert "v1" not in promoted.loaded_versions()
    assert answer(promoted, "v1")[0] == "v1"  # read anew from its files, it proves itself
    assert promoted.problems() == ()


def test_a_file_swapped_under_the_running_service_is_noticed_and_not_served(
    promoted: PolicyBoard, data: Path, trained: Path, boot: Boot
) -> None:
    before = answer(promoted)
    overwrite(data / "policies" / "v2" / WEIGHTS, trained / "v3" / WEIGHTS)
    promoted.look_at_files()
    (problem,) = promoted.problems()
    assert problem.startswith(f"the files of v2 changed on disk ({WEIGHTS}), noticed at 20")
    assert problem.endswith(
        "v2 still answers from memory; restore its files from a backup, or promote another version"
    )
    assert answer(promoted) == before
    promoted.roll_back("ada")  # v2 stays in memory, and must not come back
    with pytest.raises(BadAdapter, match=r"policy v2: the files of v2 changed on disk .* restore them"):
        promoted.promote("v2", "ada", "")
    assert promoted.live == "v1"
    overwrite(data / "policies" / "v2" / WEIGHTS, trained / "v2" / WEIGHTS)
    promoted.look_at_files()
    assert promoted.problems() == ()
    promoted.promote("v2", "ada", "")
    overwrite(data / "policies" / "v2" / WEIGHTS, trained / "v3" / WEIGHTS)
    again = boot()
    assert (again.live, answer(again)[0]) == ("v1", "v1")
    assert (
        "serving v1 instead of v2: v2: policy v2: its weights are not those registered" in again.problems()[0]
    )


def test_a_file_swapped_while_it_is_loaded_does_not_go_live(
    promoted: PolicyBoard, data: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = promoted._engine
    really = engine.load

    def swap_first(version: str, adapter: Path | None) -> None:
        shutil.rmtree(data / "policies" / "v3")
        shutil.copytree(trained / "v1", data / "policies" / "v3")
        really(version, adapter)

    monkeypatch.setattr(engine, "load", swap_first)
    with pytest.raises(BadAdapter, match="v3: its files changed while they were being loaded"):
        promoted.promote("v3", "ada", "")
    assert promoted.live == "v2"
    assert "v3" not in engine.versions()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: truncate(folder / WEIGHTS), "its weights are not those registered"),
        (lambda folder: (folder / CONFIG).write_text("{}"), "adapter_config.json has 2 bytes"),
        (shutil.rmtree, "policy v2 is not retained"),
        (lambda folder: (folder / MANIFEST).write_text("[" * 100_000), "MANIFEST.json is nested too deeply"),
        (lambda folder: write_manifest(folder, base="llama"), "does not say over which base it was trained"),
        (lambda folder: write_manifest(folder, parent_norms=[1.0]), "parent_norms is a list"),
    ],
)
def test_a_damaged_version_at_boot_gives_way_to_the_last_good_one(
    damage: Callable[[Path], object], reason: str, promoted: PolicyBoard, data: Path, boot: Boot
) -> None:
    of_v1 = answer(promoted, "v1")
    damage(data / "policies" / "v2")
    board = boot()
    assert (board.live, answer(board)) == ("v1", of_v1)
    assert live_version(board._store) == "v1"
    (problem,) = board.problems()
    assert problem.startswith("serving v1 instead of v2: v2: ")
    assert reason in problem


def test_a_version_whose_files_are_gone_cannot_be_returned_to(promoted: PolicyBoard, data: Path) -> None:
    """Not even from memory: a restart could not serve it."""
    shutil.rmtree(data / "policies" / "v1")
    with pytest.raises(StateConflict, match="v1 is not retained"):
        promoted.roll_back("ada")
    promoted.roll_back("ada", "v0")
    assert promoted.live == "v0"


@pytest.mark.usefixtures("promoted")
def test_another_base_is_served_but_said_and_its_adapters_are_refused(
    base_dir: Path, data: Path, boot: Boot, tmp_path: Path
) -> None:
    """Somebody swaps a tokenizer file, or starts with another --model on the same data."""
    other = shutil.copytree(base_dir, tmp_path / "other")
    settings = json.loads((other / "tokenizer_config.json").read_text("utf-8"))
    (other / "tokenizer_config.json").write_text(json.dumps(settings | {"padding_side": "left"}), "utf-8")
    board = boot(other)
    base, start = board.problems()
    assert base.startswith("the base model is not the one this data folder began with: then base")
    assert "now other (" in base
    assert "delete policies/base.json and restart" in base
    assert start.startswith("serving v0 instead of v2: v2: adapter v2 was trained over base")
    assert answer(board)[0] == "v0"
    with pytest.raises(BadAdapter, match="v1 was trained over base"):
        board.promote("v1", "ada", "")
    assert boot().problems() == ()  # the old base again: v0 is live, and nothing is wrong
    boot(other)
    (data / "policies" / "base.json").unlink()
    assert boot(other).problems() == ()


@pytest.mark.usefixtures("promoted")
def test_the_same_base_files_that_answer_otherwise_are_said(data: Path, boot: Boot) -> None:
    record = json.loads((data / "policies" / "base.json").read_text("utf-8"))
    record["proof"]["rows"][0]["logprob_sum"] -= 5.0
    (data / "policies" / "base.json").write_text(json.dumps(record), "utf-8")
    board = boot()
    assert "the base model's files are the same but it answers differently" in board.problems()[0]
    assert board.live == "v2"


def test_a_rotten_file_is_found_within_the_hour_though_its_stamp_is_unchanged(
    trained: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(trained / "v1", tmp_path / "v1")
    now = [0.0]
    watch = FileWatch(clock=lambda: now[0])
    watch.begin("v1", folder, hash_files(folder), read_stamp(folder))
    stat = (folder / WEIGHTS).stat()
    overwrite(folder / WEIGHTS, trained / "v2" / WEIGHTS)
    os.utime(folder / WEIGHTS, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    watch.look()
    assert watch.problems() == {}
    now[0] = REHASH_S
    watch.look()
    assert set(watch.problems()) == {"v1"}


def test_a_file_that_was_only_touched_or_linked_is_no_problem(trained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(trained / "v1", tmp_path / "v1")
    watch = FileWatch()
    watch.begin("v1", folder, hash_files(folder), read_stamp(folder))
    (folder / WEIGHTS).touch()
    os.link(folder / WEIGHTS, tmp_path / "backup")
    watch.look()
    assert watch.problems() == {}
