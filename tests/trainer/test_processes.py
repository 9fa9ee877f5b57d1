"""One process, two processes and a base split over two give the same adapter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.processes_child import job

REPOSITORY = Path(__file__).parents[2]
LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
NEAR = 2e-6  # float32 sums in another order; weights move by some 1e-2


def run_jobs(jobs: list[dict[str, Any]], folder: Path, launcher: list[str]) -> dict[str, dict[str, Any]]:
    folder.mkdir()
    (folder / "jobs.json").write_text(json.dumps(jobs), "utf-8")
    command = [*launcher, "-m", "tests.trainer.processes_child", str(folder / "jobs.json"), str(folder)]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
        "TQDM_DISABLE": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "PYTHONPATH": str(REPOSITORY),
    }
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.stem: torch.load(path) for path in sorted(folder.glob("*.pt"))}


def test_proto(base_folder, settings, tmp_path):
    settings = replace(settings, label_smoothing=0.1, sft_weight=0.5)
    two = replace(settings, processes=2)
    one = run_jobs([job("ddp", "dpo", base_folder, settings, 32), job("kto", "kto", base_folder, settings, 32)], tmp_path / "one", [sys.executable])
    jobs = [
        job("ddp", "dpo", base_folder, two, 32),
        job("kto", "kto", base_folder, two, 32),
        job("fsdp2", "dpo", base_folder, replace(two, sharding="fsdp2"), 32),
    ]
    both = run_jobs(jobs, tmp_path / "two", LAUNCHER)
    for name, ref in (("ddp", "ddp"), ("kto", "kto"), ("fsdp2", "ddp")):
        print(name, one[ref]["losses"], both[name]["losses"], both[name]["held"], one[ref]["held"])
        w = one[ref]["weights"]
        print(max((w[n] - both[name]["weights"][n]).abs().max().item() for n in w), sum(t.norm()**2 for t in w.values())**.5)
