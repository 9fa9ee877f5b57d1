"""A round as its own process: a directory with a plan and a snapshot in, a candidate with a verdict out."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from store.errors import BadValue
from store.proof import QUESTIONS, Proof
from tests.trainer.conftest import pair_rows, rating_rows, write_snapshot
from trainer.limits import GateSettings
from trainer.proving import make_proof, measure_norms
from trainer.qlora import load_base
from trainer.round import check_live_adapter, reach_verdict
from trainer.settings import BaseModel, RoundPlan, TrainerSettings, read_plan

REPOSITORY = Path(__file__).parents[2]
TRAINER = TrainerSettings(
    learning_rate=1e-3, kto_learning_rate=1e-3, beta=0.5, max_length=256, rank=8, alpha=16
)
GATE = GateSettings(num_prompts=8, max_tokens=16)


@pytest.fixture
def plan(base_folder):
    return RoundPlan("r1", "v1", "v0", BaseModel(str(base_folder)), trainer=TRAINER, gate=GATE)


@pytest.fixture
def folder(tmp_path):
    """A round's directory that lacks only its plan."""
    write_snapshot(tmp_path / "snapshot", pair_rows(48), rating_rows(20, 20), holdout=pair_rows(12, seed=1))
    return tmp_path


def write_plan(folder, plan, **changes):
    (folder / "round.json").write_text(json.dumps(asdict(plan) | changes))


def start(folder):
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "trainer.round", str(folder)]
    return subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def read_lines(folder):
    return [json.loads(line) for line in (folder / "progress.jsonl").read_text().splitlines()]


def test_a_round_leaves_a_candidate_a_verdict_and_its_progress(folder, plan):
    write_plan(folder, plan)
    process = start(folder)
    _, log = process.communicate(timeout=120)
    assert process.returncode == 0, log

    verdict = json.loads((folder / "gate.json").read_text())
    assert verdict["decision"] == "promote", verdict["reason"]
    assert {"name", "value", "live", "threshold", "noise_floor", "passed", "says"} <= set(
        verdict["checks"][0]
    )

    manifest = json.loads((folder / "candidate" / "MANIFEST.json").read_text())
    assert (manifest["version"], manifest["parent"], manifest["round_id"]) == ("v1", "v0", "r1")
    assert manifest["base"]["fingerprint"] == load_base(plan.base).fingerprint
    assert set(manifest["files"]) == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    for name, facts in manifest["files"].items():
        content = (folder / "candidate" / name).read_bytes()
        assert facts == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}

    assert (
        manifest["base"] | {"quantization": "none", "double_quant": False, "dtype": "float32"}
        == manifest["base"]
    )
    assert manifest["parent_norms"] is None
    proof = Proof.from_json(manifest["proof"])
    assert (proof.dtype, len(proof.rows)) == ("float32", len(QUESTIONS))
    assert make_proof(load_base(plan.base), folder / "candidate") == proof

    lines = read_lines(folder)
    assert [line["stage"] for line in lines if line.get("event") == "start"] == [
        "prepare",
        "kto",
        "dpo",
        "evaluate",
    ]
    assert {line["stage"] for line in lines if "step" in line} == {"dpo", "kto", "evaluate"}
    assert "torch" in read_plan(folder).packages
    card = (folder / "candidate" / "README.md").read_text()
    assert "48 pairs" in card
    assert "40 ratings, 20 of them desirable" in card
    assert not (folder / "candidate.tmp").exists()


@pytest.mark.slow
def test_a_second_round_over_a_live_adapter_says_the_same_twice(tmp_path, plan):
    """Once by its absolute path, once as seen from the round's directory."""
    folders = [tmp_path / name for name in ("first", "one", "other")]
    for folder in folders:
        write_snapshot(folder / "snapshot", pair_rows(24), holdout=pair_rows(12, seed=1))
    write_plan(folders[0], plan)
    assert reach_verdict(folders[0]) == 0
    for folder, live in zip(folders[1:], (str(folders[0] / "candidate"), "../first/candidate"), strict=True):
        write_plan(folder, plan, live_adapter=live, parent="v1", version="v2")
        assert reach_verdict(folder) == 0
    one, other = (load_file(folder / "candidate" / "adapter_model.safetensors") for folder in folders[1:])
    assert all(torch.equal(one[name], other[name]) for name in one)
    for folder in folders[1:]:
        manifest = json.loads((folder / "candidate" / "MANIFEST.json").read_text())
        assert manifest["parent_norms"] == measure_norms(folders[0] / "candidate")
    assert json.loads((folders[1] / "gate.json").read_text()) == json.loads(
        (folders[2] / "gate.json").read_text()
    )


def test_sigterm_ends_a_round_promptly_with_75_and_no_candidate(folder, plan):
    write_plan(folder, replace(plan, trainer=replace(TRAINER, epochs=500)))
    process = start(folder)
    deadline = time.monotonic() + 90
    while "dpo" not in _stages(folder) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "stopped by SIGTERM at step" in log.splitlines()[-1]
    assert not (folder / "candidate").exists()


def _stages(folder):
    return (
        {line["stage"] for line in read_lines(folder) if "step" in line} if _has_progress(folder) else set()
    )


def _has_progress(folder):
    return (folder / "progress.jsonl").exists()


def test_a_round_without_labels_ends_with_the_reason_in_its_last_line(tmp_path, plan, caplog):
    write_snapshot(tmp_path / "snapshot", pair_rows(3), rating_rows(30, 2))
    write_plan(tmp_path, plan)
    assert reach_verdict(tmp_path) == 1
    assert caplog.records[-1].getMessage() == (
        "no verdict: BadValue: nothing to train on: 30 desirable, 2 undesirable ratings of 16 each needed;"
        " 3 pairs of 8 needed"
    )
    assert not (tmp_path / "candidate").exists()


def test_a_round_on_ratings_alone_says_that_accuracy_is_not_decided(tmp_path, plan):
    write_snapshot(tmp_path / "snapshot", [], rating_rows(40, 40))
    write_plan(tmp_path, plan)
    assert reach_verdict(tmp_path) == 0
    verdict = json.loads((tmp_path / "gate.json").read_text())
    assert "not enough held-out pairs (0 of 10)" in verdict["reason"]
    assert "skipped: 0 pairs of 8 needed" in (tmp_path / "candidate" / "README.md").read_text()


def test_a_directory_is_used_once(folder, plan, caplog):
    write_plan(folder, plan)
    (folder / "candidate").mkdir()
    (folder / "candidate" / "kept").write_text("")
    assert reach_verdict(folder) == 1
    assert "a round's directory is used once" in caplog.records[-1].getMessage()
    assert (folder / "candidate" / "kept").exists()


def test_an_unknown_setting_stops_the_round_and_is_named(folder, plan, caplog):
    write_plan(folder, plan, trainer=asdict(TRAINER) | {"betta": 1.0})
    assert reach_verdict(folder) == 1
    assert "trainer.betta: Unexpected keyword argument" in caplog.records[-1].getMessage()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"beta": 0.0}, "beta 0.0 must be greater than 0"),
        ({"label_smoothing": 0.5}, "label_smoothing 0.5 is outside"),
        ({"kto_batch_size": 1}, "kto_batch_size 1 must be at least 2"),
        ({"sft_weight": -1.0}, "trainer sft_weight -1.0 cannot be negative"),
        ({"kto_sft_weight": -1.0}, "trainer kto_sft_weight -1.0 cannot be negative"),
        ({"warmup": 1.0}, "warmup 1.0 is outside"),
    ],
)
def test_an_impossible_setting_is_refused_in_words(changes, says):
    with pytest.raises(BadValue, match=says):
        replace(TRAINER, **changes)


def test_an_impossible_gate_is_refused_in_words():
    with pytest.raises(BadValue, match=r"min_entropy_ratio 1\.2 .* must enclose 1"):
        GateSettings(min_entropy_ratio=1.2)


def test_a_missing_plan_says_who_writes_it(tmp_path):
    with pytest.raises(BadValue, match="the supervisor writes it"):
        read_plan(tmp_path)


def test_a_live_adapter_of_another_base_stops_the_round(tmp_path, plan):
    (tmp_path / "MANIFEST.json").write_text(json.dumps({"base": {"fingerprint": "a" * 64}}))
    with pytest.raises(BadValue, match="trained on base aaaaaaaaaaaa, but the base now is bbbbbbbbbbbb"):
        check_live_adapter(replace(plan, live_adapter=str(tmp_path), parent="v3"), "b" * 64, tmp_path)


def test_the_start_of_the_process_loads_no_torch():
    code = "import sys, trainer.round; print('torch' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert run.stdout == "False\n"
