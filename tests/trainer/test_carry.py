"""A round carried to another place and back: over a real FTP server, with scripts and once the real round."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.errors import BadValue
from tests.running import free_port
from tests.trainer.conftest import pair_rows, rating_rows, write_snapshot
from tests.trainer.killing import (
    REPOSITORY,
    are_equal,
    events,
    reached,
    signal_at,
    spawn,
    start_round,
    tensors,
    wait,
)
from tests.trainer.killing import write_plan as write_real_plan
from trainer.carry import read_arguments
from trainer.limits import GateSettings, GuardSettings
from trainer.mirror import INDEX, Mirror, list_files
from trainer.settings import BaseModel, RoundPlan, TrainerSettings
from trainer.stopping import CANCELLED, STOPPED

VERDICT = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[-1])
plan = json.loads((folder / "round.json").read_text())
print("it works in", folder, flush=True)
(folder / "candidate").mkdir()
(folder / "candidate" / "weights").write_bytes(b"w" * 100_000)
(folder / "candidate" / "parent").write_text((folder / plan["live_adapter"] / "weights").read_text())
(folder / "half.tmp").write_text("never whole")
(folder / "gate.json").write_text((folder / "snapshot" / "rows").read_text())
(folder / "round.json").write_text(json.dumps(plan | {"packages": {"torch": "9"}}))
"""
FAR = {
    "verdict": VERDICT,
    "fail": "raise SystemExit('no memory left')",
    "killed": "import os, pathlib, sys\nf = pathlib.Path(sys.argv[-1]) / 'work'\nf.mkdir(exist_ok=True)\n"
    "if not (f / 'first').exists():\n    (f / 'first').write_text('x')\n    os.kill(os.getpid(), 9)\n"
    + VERDICT,
    "polite": "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
    "signal.signal(signal.SIGINT, lambda *_: sys.exit(130))\nprint('ready', flush=True)\ntime.sleep(600)",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an FTP server of its own process, over an empty folder."""
    port, folder = free_port(), tmp_path_factory.mktemp("ftp")
    command = [sys.executable, "-W", "ignore", "-m", "pyftpdlib", "-i", "127.0.0.1", "-w"]
    running = subprocess.Popen([*command, "-p", str(port), "-d", str(folder)], stderr=subprocess.DEVNULL)
    url = f"ftp://127.0.0.1:{port}/rounds"
    deadline = time.monotonic() + 30
    while True:
        try:
            Mirror(url).read(INDEX)
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    yield url
    running.kill()
    running.wait()


def make_folder(folder: Path) -> Path:
    """A round's directory as the supervisor leaves it, with a live adapter elsewhere."""
    live = folder.parent / "adapters" / "v1"
    live.mkdir(parents=True)
    (live / "weights").write_text("of v1")
    (folder / "snapshot").mkdir(parents=True)
    (folder / "snapshot" / "rows").write_text('{"decision": "promote"}')
    (folder / "round.json").write_text(json.dumps({"round_id": "r1", "live_adapter": str(live)}))
    return folder


def start(folder: Path, url: str, script: str, scratch: Path) -> subprocess.Popen[bytes]:
    """The near half as the supervisor starts it; the far half is a process of its own, with a scratch."""
    play = folder.parent / f"{script}.py"
    play.write_text(FAR[script])
    far = ["env", f"HEED_CARRIED={scratch}", sys.executable, "--", sys.executable, str(play)]
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "trainer.carry", url, *far, "-m", "trainer.round", str(folder)],
            stdout=log,
            stderr=log,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            start_new_session=True,
        )


def read_log(folder: Path) -> str:
    return (folder / "log.txt").read_text()


def test_plan_rows_and_live_adapter_go_there_and_the_candidate_comes_back(
    server: str, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path / "one")
    before = json.loads((folder / "round.json").read_text())
    assert start(folder, server, "verdict", tmp_path / "far").wait(60) == 0, read_log(folder)
    assert json.loads((folder / "gate.json").read_text()) == {"decision": "promote"}
    assert (folder / "candidate" / "weights").read_bytes() == b"w" * 100_000
    assert (folder / "candidate" / "parent").read_text() == "of v1"
    assert json.loads((folder / "round.json").read_text()) == before | {"packages": {"torch": "9"}}
    assert f"it works in {tmp_path / 'far'}" in read_log(folder)
    assert not (folder / "half.tmp").exists()
    assert not Mirror(f"{server}/one/there").read(INDEX)
    assert not list((tmp_path / "far").rglob("weights"))


def test_a_round_killed_over_there_says_so_and_goes_on_from_what_came_back(
    server: str, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path / "two")
    assert start(folder, server, "killed", tmp_path / "far").wait(60) == STOPPED
    assert "killed over there by signal 9" in read_log(folder)
    assert (folder / "work" / "first").exists()
    assert start(folder, server, "killed", tmp_path / "other machine").wait(60) == 0, read_log(folder)
    assert (folder / "gate.json").exists()


def test_a_round_that_fails_over_there_fails_here_and_leaves_nothing_in_the_folder(
    server: str, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path / "three")
    assert start(folder, server, "fail", tmp_path / "far").wait(60) == 1
    assert "no memory left" in read_log(folder)
    assert Mirror(f"{server}/three/back").read(INDEX) is None


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, STOPPED), pytest.param(signal.SIGINT, CANCELLED, marks=pytest.mark.slow)],
)
def test_a_signal_is_passed_on_through_the_folder(
    server: str, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    folder = make_folder(tmp_path / f"four-{number}")
    near = start(folder, server, "polite", tmp_path / "far")
    deadline = time.monotonic() + 60
    while "ready" not in read_log(folder):
        assert time.monotonic() < deadline, read_log(folder)
        time.sleep(0.05)
    near.send_signal(number)
    assert near.wait(60) == code, read_log(folder)


def test_a_line_that_cannot_be_opened_leaves_a_round_that_can_go_on(server: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "five")
    command = [sys.executable, "-m", "trainer.carry", server, "false", "-m", "trainer.round", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == STOPPED
    assert "never said how it ended" in done.stderr


def test_a_verdict_that_nobody_fetched_is_fetched_without_another_round(server: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "six")
    (tmp_path / "gate.json").write_text('{"decision": "reject"}')
    Mirror(f"{server}/six/back").push({"gate.json": tmp_path / "gate.json"}, owner="before", code=0)
    command = [sys.executable, "-m", "trainer.carry", server, "false", "-m", "trainer.round", str(folder)]
    assert subprocess.run(command, check=False, cwd=REPOSITORY).returncode == 0
    assert json.loads((folder / "gate.json").read_text()) == {"decision": "reject"}


def test_only_what_changed_is_sent_and_what_is_torn_is_not_believed(server: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    (here / "a").write_text("one")
    (here / "b.tmp").write_text("half")
    (here / "log.txt").write_text("comes another way")
    url = f"{server}/seven"
    writer, reader = Mirror(url), Mirror(url)
    assert reader.pull(there) is None
    writer.push(list_files(here), code=None)
    assert reader.pull(there) == {"code": None}
    assert [path.name for path in there.iterdir()] == ["a"]
    Mirror(url).write("a", "torn")
    assert Mirror(url).pull(tmp_path / "third") is None
    (here / "a").unlink()
    (here / "c").write_text("two")
    writer.push(list_files(here), code=0)
    assert reader.pull(there) == {"code": 0}
    assert [path.name for path in there.iterdir()] == ["c"]


def test_a_name_that_leaves_the_directory_is_refused(server: str, tmp_path: Path) -> None:
    url = f"{server}/eight"
    Mirror(url).write(INDEX, json.dumps({"files": {"../outside": "0" * 64}}))
    with pytest.raises(BadValue, match="not inside"):
        Mirror(url).pull(tmp_path / "inside")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("s3://b -m trainer.round d", "usage"),
        ("s3://b ssh box python -m trainer.sweep d", "usage"),
        ("s3://b -- torchrun -m trainer.round d", "no command"),
    ],
)
def test_a_wrong_command_line_is_refused(line: str, says: str) -> None:
    with pytest.raises(BadValue, match=says):
        read_arguments(line.split())


def test_a_place_that_no_file_system_knows_is_refused() -> None:
    with pytest.raises(BadValue, match="nowhere://x"):
        Mirror("nowhere://x")


@pytest.mark.slow
def test_a_real_round_that_is_carried_and_killed_ends_with_the_same_tensors(
    server: str, tmp_path: Path, base_folder: Path
) -> None:
    # Long enough that it still trains when the signal has come across.
    trainer = TrainerSettings(learning_rate=1e-4, rank=8, alpha=16, epochs=40, batch_size=4, max_length=256)
    guards = GuardSettings(save_steps=20, save_minutes=0, min_holdout_pairs=10, patience=50)
    gate = GateSettings(num_prompts=2, max_tokens=8)
    plan = RoundPlan("r1", "v1", "v0", BaseModel(str(base_folder)), trainer=trainer, gate=gate, guards=guards)
    folders = [tmp_path / "carried", tmp_path / "at-home"]
    for folder in folders:
        write_snapshot(folder / "snapshot", pair_rows(24), rating_rows(20, 20), holdout=pair_rows(12, seed=1))
        write_real_plan(folder, plan)
    carried, at_home = folders
    assert wait(start_round(at_home)) == 0

    far = ["env", f"HEED_CARRIED={tmp_path / 'far'}", f"PYTHONPATH={REPOSITORY}", sys.executable]
    command = [sys.executable, "-m", "trainer.carry", server, *far, "-m", "trainer.round", str(carried)]
    near = spawn(command, carried)
    assert signal_at(near, carried, reached("dpo", 5), signal.SIGTERM) == STOPPED, read_log(carried)
    assert subprocess.run(command, cwd=REPOSITORY, check=False).returncode == 0
    assert events(carried, "resumed")
    assert are_equal(tensors(carried), tensors(at_home))
