"""Hung, slow or well: what the signs of life of a round say."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from store.errors import StateConflict
from trainer.heartbeat import HEARTBEAT, Heartbeat, Pulse, hold_folder

FILES = ("progress.jsonl",)


def beat(folder: Path, beats: int, cpu_s: float) -> None:
    (folder / HEARTBEAT).write_text(json.dumps({"pid": 1, "beats": beats, "cpu_s": cpu_s}))


def test_a_process_that_runs_its_model_is_well_however_long_its_step(tmp_path: Path) -> None:
    pulse = Pulse(silence_limit_s=60, slow_limit_s=600)
    for second in range(0, 10_000, 50):
        beat(tmp_path, beats=second, cpu_s=0.0)  # it may compute elsewhere, on an accelerator
        assert pulse.read(tmp_path, FILES, float(second)) is None


def test_a_process_that_writes_its_heartbeat_and_does_nothing_is_hung(tmp_path: Path) -> None:
    pulse = Pulse(silence_limit_s=60, slow_limit_s=600)
    said = []
    for second in range(0, 80, 10):
        beat(tmp_path, beats=7, cpu_s=20 + 0.001 * second)  # what the thread that writes it costs
        said.append(pulse.read(tmp_path, FILES, float(second)))
    assert said[:7] == [None] * 7
    assert said[7] == "no progress for 60 s; the process was stopped"


def test_a_process_that_computes_is_slow_and_gets_more_time(tmp_path: Path) -> None:
    pulse = Pulse(silence_limit_s=60, slow_limit_s=600)
    said = {}
    for second in range(0, 620, 10):
        beat(tmp_path, beats=7, cpu_s=0.9 * second)
        said[second] = pulse.read(tmp_path, FILES, float(second))
    assert said[600] is None
    assert said[610] == "no step for 600 s, though it computed; the process was stopped"


def test_a_frozen_process_is_hung_and_a_line_of_progress_is_work(tmp_path: Path) -> None:
    pulse = Pulse(silence_limit_s=60, slow_limit_s=600)
    assert pulse.read(tmp_path, FILES, 0.0) is None
    (tmp_path / "progress.jsonl").write_text("{}\n")
    assert pulse.read(tmp_path, FILES, 59.0) is None
    assert pulse.read(tmp_path, FILES, 119.0) is None
    assert pulse.read(tmp_path, FILES, 120.0) is not None


def test_the_heartbeat_is_there_from_the_start(tmp_path: Path) -> None:
    with Heartbeat(tmp_path):
        signs = json.loads((tmp_path / HEARTBEAT).read_text())
    assert (signs["pid"], signs["beats"]) == (os.getpid(), 0)


def test_a_directory_has_one_process_at_a_time(tmp_path: Path) -> None:
    with (
        hold_folder(tmp_path, holds=True),
        pytest.raises(StateConflict, match="another process still works in"),
        hold_folder(tmp_path, holds=True, wait_s=0.0),
    ):
        pass
    with hold_folder(tmp_path, holds=True, wait_s=0.0), hold_folder(tmp_path, holds=False):
        pass
