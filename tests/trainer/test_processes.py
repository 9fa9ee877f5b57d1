"""One process, two processes and a base split over two give the same adapter; a whole round runs in two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from store.errors import BadValue
from tests.trainer.conftest import pair_rows, rating_rows, write_snapshot
from tests.trainer.processes_child import job, run
from trainer.library import shared_arguments
from trainer.limits import GateSettings
from trainer.qlora import load_base, place_base
from trainer.round_process import check_launch, round_command
from trainer.settings import BaseModel, RoundPlan, TrainerSettings

# Trains for minutes in all, in processes of its own.
pytestmark = pytest.mark.slow


REPOSITORY = Path(__file__).parents[2]
TWO = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
# Sums in another order differ in float32's last digits. Where a gradient is next to nothing AdamW makes much
# of that: a twentieth of one step at most, and a ten-thousandth of the whole adapter.
RATE = 2e-3
LOSS_NEAR, WEIGHTS_NEAR, ADAPTER_NEAR = 5e-6, RATE / 20, 1e-4


def run_python(arguments: list[str], launcher: tuple[str, ...] = (sys.executable,)) -> None:
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
        "TQDM_DISABLE": "1",
        "PYTHONPATH": str(REPOSITORY),
    }
    command = [*launcher, *arguments]
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def train(jobs: list[dict[str, Any]], folder: Path, launcher: tuple[str, ...]) -> None:
    (folder / "jobs.json").write_text(json.dumps(jobs), "utf-8")
    run_python(["-m", "tests.trainer.processes_child", str(folder / "jobs.json"), str(folder)], launcher)


@pytest.fixture(scope="module")
def trained(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The same 24 weighted pairs and 24 ratings in one process and in two, three steps an epoch each."""
    settings = TrainerSettings(
        label_smoothing=0.1,
        sft_weight=0.5,
        learning_rate=RATE,
        kto_learning_rate=RATE,
        epochs=2,
        kto_epochs=2,
        rank=8,
        alpha=16,
        warmup=0.0,
        schedule="constant",
    )
    two, folder = replace(settings, processes=2), tmp_path_factory.mktemp("processes")
    split = replace(two, sharding="fsdp2")
    for alone in [job("dpo", "dpo", base_folder, settings, 24), job("kto", "kto", base_folder, settings, 24)]:
        run(alone, folder)
    both = [
        job("time", "time", base_folder, two, 0),
        job("dpo2", "dpo", base_folder, two, 24),
        job("kto2", "kto", base_folder, two, 24),
        job("fsdp2", "dpo", base_folder, split, 24),
        job("kto_fsdp2", "kto", base_folder, split, 24),
    ]
    train(both, folder, TWO)
    return {path.stem: torch.load(path) for path in folder.glob("*.pt")}


@pytest.mark.parametrize(
    ("alone", "shared"), [("dpo", "dpo2"), ("dpo", "fsdp2"), ("kto", "kto2"), ("kto", "kto_fsdp2")]
)
def test_losses_and_adapter_do_not_depend_on_the_number_of_processes(trained, alone, shared):
    one, two = trained[alone], trained[shared]
    assert len(one["losses"]) == 6
    assert two["losses"] == pytest.approx(one["losses"], abs=LOSS_NEAR)
    differences = [(one["weights"][n] - two["weights"][n]).abs().max().item() for n in one["weights"]]
    assert max(differences) < WEIGHTS_NEAR
    parts = [name for name in one["weights"] if "lora_B" in name]  # they began at 0, so all of it was learned
    apart = sum((one["weights"][n] - two["weights"][n]).square().sum().item() for n in parts) ** 0.5
    learned = sum(one["weights"][n].square().sum().item() for n in parts) ** 0.5
    assert apart < ADAPTER_NEAR * learned


def test_when_the_time_of_one_process_is_over_all_of_them_skip_the_next_stage(trained):
    assert [trained[f"time{rank}"]["has_time"] for rank in (0, 1)] == [False, False]


def test_a_split_base_lies_in_halves(trained):
    assert trained["dpo2"]["held"] == trained["dpo"]["held"]
    assert trained["fsdp2"]["held"] < 0.6 * trained["dpo"]["held"] + trained["fsdp2"]["trainable"]


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["torchrun", "ray"])
def test_a_round_in_two_processes_leaves_one_candidate(base_folder, tmp_path, prefix):
    if prefix == "ray":
        pytest.importorskip("ray", reason="Ray is not among what Heed installs")
    settings = TrainerSettings(
        learning_rate=1e-3, batch_size=8, kto_batch_size=8, rank=4, alpha=8, processes=2, sft_weight=0.0
    )
    gate = GateSettings(num_prompts=4, max_tokens=8)
    base = BaseModel(str(base_folder), quantization="none", dtype="float32")
    plan = RoundPlan("r1", "v1", "v0", base, trainer=settings, gate=gate)
    write_snapshot(tmp_path / "snapshot", pair_rows(24), rating_rows(16, 16), pair_rows(10, seed=1))
    (tmp_path / "round.json").write_text(json.dumps(asdict(plan)))
    launcher = TWO if prefix == "torchrun" else (sys.executable, "-m", "trainer.ray_launch", "2")
    run_python(round_command(tmp_path, launcher)[len(launcher) :], launcher)
    assert json.loads((tmp_path / "gate.json").read_text())["checks"]
    assert (tmp_path / "candidate" / "adapter_model.safetensors").is_file()
    lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    steps = [(line["stage"], line["step"]) for line in lines if {"loss", "step"} <= line.keys()]
    assert steps == [*(("kto", n) for n in (1, 2, 3, 4)), *(("dpo", n) for n in (1, 2, 3))]  # by one process


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"processes": 3}, "batch_size 8 cannot be shared out to 3 processes"),
        ({"processes": 8}, "kto_batch_size 8 gives 8 processes no equal shares of 2 or more"),
        ({"sharding": "fsdp2"}, "sharding 'fsdp2' needs more than 1"),
        ({"adapter": "dora"}, "adapter 'dora' cannot be served"),
        ({"adapter": "ia3"}, "adapter 'ia3' is unknown; known: lora, rslora"),
        ({"optimizer": "adamw_8bits"}, "optimizer 'adamw_8bits' is unknown; known: adamw_torch,"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_words(changes, says):
    with pytest.raises(BadValue, match=says):
        replace(TrainerSettings(), **changes)


def test_a_4_bit_base_cannot_be_split():
    with pytest.raises(BadValue, match="fsdp2 cannot split 4-bit weights"):
        place_base("nf4", "fsdp2")


@pytest.mark.skipif(torch.cuda.is_available(), reason="it is refused where there is no GPU")
def test_zero3_without_a_gpu_is_refused(base_folder):
    with pytest.raises(BadValue, match="zero3 needs CUDA"):
        load_base(BaseModel(str(base_folder)), "zero3")


def test_zero3_names_a_configuration_that_is_shipped(settings, tmp_path):
    split = replace(settings, processes=2, sharding="zero3")
    shipped = json.loads(Path(shared_arguments(split, tmp_path, 1e-3, 1, 8)["deepspeed"]).read_text())
    assert shipped["zero_optimization"]["stage"] == 3


@pytest.mark.parametrize(
    ("launch", "processes"),
    [
        ("", 1),
        ("torchrun --nproc_per_node 2", 2),
        ("torchrun --nproc-per-node=4 --nnodes 2 --rdzv-backend c10d", 8),
        ("python -m torch.distributed.run --nnodes=1:1 --nproc_per_node=2", 2),
        ("torchrun --nproc_per_node gpu", 7),
        ("python -m trainer.ray_launch", 3),
    ],
)
def test_the_launch_prefix_and_the_number_of_processes_must_agree(launch, processes):
    check_launch(launch.split(), processes)


@pytest.mark.parametrize(
    ("launch", "processes", "says"),
    [
        ("torchrun --nproc_per_node 2", 1, "starts 2 processes, and trainer processes is 1"),
        ("", 2, "rounds launch is empty, which starts 1 process"),
        ("accelerate launch --cpu --num_processes 2", 2, "starts one process where two are asked for"),
    ],
)
def test_a_prefix_that_starts_another_number_is_refused(launch, processes, says):
    with pytest.raises(BadValue, match=says):
        check_launch(launch.split(), processes)
