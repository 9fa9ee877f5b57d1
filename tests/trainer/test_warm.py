"""The warm process and the rounds it forks, all of them real: what a fresh round process promises holds."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.trainer.conftest import pair_rows, rating_rows, write_snapshot
from tests.trainer.test_round import GATE, TRAINER, write_plan
from trainer.round_process import begin_round, signal_group, stop, warm_start
from trainer.round_settings import RoundSettings
from trainer.settings import BaseModel, RoundPlan
from trainer.stopping import STOPPED
from trainer.warm_start import LOST, WarmRound, WarmStart

# Trains for minutes in all, in processes of its own.
pytestmark = pytest.mark.slow


ROUNDS = RoundSettings(warm=True, nice=7)
GOODBYE = "stopped by SIGTERM; the round can go on from what is on disk\n"


@pytest.fixture(scope="module")
def shared(base_folder: Path) -> Iterator[WarmStart]:
    """One warm process for all tests that leave it alive: it takes seconds to load."""
    warm = warm_start(ROUNDS, str(base_folder))
    assert warm is not None
    wait_until(lambda: warm.is_ready)
    yield warm
    warm.close()


def wait_until(holds) -> None:
    deadline = time.monotonic() + 300
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def waiting_round(warm: WarmStart, folder: Path) -> WarmRound:
    """A round that reads its plan from a pipe into which nobody writes."""
    os.mkfifo(folder / "round.json")
    forked = warm.fork(folder)
    assert forked is not None
    wait_until(lambda: status(forked.pid, "SigCgt")[-4] in "4567cdef")  # bit 14: SIGTERM has its handler
    return forked


def status(pid: int, name: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line for line in lines if line.startswith(name + ":")).split()[1]


def read_log(folder: Path) -> str:
    return (folder / "log.txt").read_text()


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists() or status(pid, "State") == "Z"


def test_a_forked_round_reports_its_exit_code_and_writes_its_log(shared, tmp_path):
    forked = shared.fork(tmp_path)
    assert (forked.wait(60), forked.poll(), forked.returncode) == (1, 1, 1)
    assert f"{tmp_path / 'round.json'} is missing" in read_log(tmp_path).splitlines()[-1]


def test_a_forked_round_leads_its_own_session_politely_and_goes_first_when_memory_ends(shared, tmp_path):
    forked = waiting_round(shared, tmp_path)
    pid = forked.pid
    assert os.getsid(pid) == os.getpgid(pid) == pid
    assert os.getpriority(os.PRIO_PROCESS, pid) == 7
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "800\n"
    files = {fd.name: str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    log = str(tmp_path / "log.txt")
    assert [files[name] for name in "012"] == [os.devnull, log, log]
    assert not [name for name, file in files.items() if file.startswith("socket")]
    stop(forked, signal.SIGTERM, 10)


def test_sigterm_stops_a_forked_round_so_that_it_can_go_on(shared, tmp_path):
    forked = waiting_round(shared, tmp_path)
    with pytest.raises(subprocess.TimeoutExpired):
        forked.wait(0.05)
    signal_group(forked, signal.SIGTERM)
    assert forked.wait(60) == STOPPED
    assert read_log(tmp_path) == GOODBYE


def test_a_killed_round_is_told_by_its_signal_and_the_next_one_is_forked(shared, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        forked = waiting_round(shared, tmp_path / name)
        os.kill(forked.pid, signal.SIGKILL)
        assert forked.wait(60) == -signal.SIGKILL


def test_a_warm_process_still_loading_starts_the_round_cold_and_says_so(base_folder, tmp_path):
    warm = warm_start(ROUNDS, str(base_folder))
    with (tmp_path / "log.txt").open("ab") as log:
        process = begin_round(tmp_path, ROUNDS, warm, log)
    warm.close()
    assert isinstance(process, subprocess.Popen)
    assert process.wait(120) == 1
    first, *_, last = read_log(tmp_path).splitlines()
    assert first == "the warm process is gone or still loading: this round starts cold"
    assert "round.json is missing" in last


def test_without_the_setting_or_behind_a_launcher_nothing_is_kept_warm():
    assert warm_start(RoundSettings(), "nowhere") is None
    assert warm_start(RoundSettings(warm=True, launch=("torchrun",)), "nowhere") is None


@pytest.mark.slow
def test_a_warm_round_gives_the_same_tensors_as_a_cold_one(shared, base_folder, tmp_path):
    plan = RoundPlan("r1", "v1", "v0", BaseModel(str(base_folder)), trainer=TRAINER, gate=GATE)
    for name in ("warm", "cold"):
        snapshot = tmp_path / name / "snapshot"
        write_snapshot(snapshot, pair_rows(24), rating_rows(16, 16), holdout=pair_rows(12, seed=1))
        write_plan(tmp_path / name, plan)
    forked = shared.fork(tmp_path / "warm")
    assert forked.wait(400) == 0, read_log(tmp_path / "warm")
    with (tmp_path / "cold" / "log.txt").open("ab") as log:
        cold = begin_round(tmp_path / "cold", dataclasses.replace(ROUNDS, warm=False), None, log)
    assert cold.wait(400) == 0
    one, other = (
        load_file(tmp_path / n / "candidate" / "adapter_model.safetensors") for n in ("warm", "cold")
    )
    assert all((one[name] == other[name]).all() for name in other)


# The last two end the shared process.


def test_when_the_warm_process_dies_its_round_dies_and_the_next_starts_cold(shared, tmp_path):
    forked = waiting_round(shared, tmp_path)
    os.kill(shared.pid, signal.SIGKILL)
    assert forked.wait(60) == LOST
    wait_until(lambda: is_gone(forked.pid))
    assert shared.fork(tmp_path) is None


def test_when_the_service_goes_both_end(shared, tmp_path):
    shared.begin()
    wait_until(lambda: shared.is_ready)
    forked, warm = waiting_round(shared, tmp_path), shared.pid
    shared._channel.close()  # as the kernel does for a process that was killed
    wait_until(lambda: is_gone(forked.pid) and is_gone(warm))
    assert read_log(tmp_path) == GOODBYE
