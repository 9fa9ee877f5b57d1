"""A round as a process of its own that is killed at a chosen moment and started again."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file

from trainer.round import main
from trainer.settings import RoundPlan

REPOSITORY = Path(__file__).parents[2]
LIMIT_S = 300
Moment = Callable[[Path], bool]


def write_plan(folder: Path, plan: RoundPlan) -> None:
    (folder / "round.json").write_text(json.dumps(asdict(plan)))


def fork_round(folder: Path) -> int:
    """A round's process without the seconds that loading the libraries takes; its pid."""
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            log = os.open(folder / "log.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.stderr = os.fdopen(2, "w")
            logging.root.handlers.clear()  # those of the tests
            code = main([str(folder)])
            sys.stderr.flush()
        finally:
            os._exit(code)
    return pid


def start_round(folder: Path) -> int:
    """A round's process as the service starts it; its pid."""
    return spawn([sys.executable, "-m", "trainer.round", str(folder)], folder)


def spawn(command: list[str], folder: Path) -> int:
    """A process that writes the round's log; its pid."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}
    with (folder / "log.txt").open("ab") as log:
        into = [(os.POSIX_SPAWN_DUP2, log.fileno(), stream) for stream in (1, 2)]
        # No Popen: it would complain that nobody waits for it, and the tests wait for its pid.
        return os.posix_spawn(command[0], command, environment, file_actions=into)


def signal_at(pid: int, folder: Path, moment: Moment, number: int = signal.SIGKILL) -> int:
    """Send a signal when the moment has come; the exit code (negative: died of that signal)."""
    ends_at = time.monotonic() + LIMIT_S
    while time.monotonic() < ends_at:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if moment(folder):
            os.kill(pid, number)
            break
        time.sleep(0.0005)
    else:
        os.kill(pid, signal.SIGKILL)
    return wait(pid)


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def read_lines(folder: Path) -> list[dict[str, object]]:
    path = folder / "progress.jsonl"
    whole = path.read_text("utf-8").rpartition("\n")[0] if path.exists() else ""
    return [json.loads(line) for line in whole.splitlines()]


def events(folder: Path, name: str) -> list[dict[str, object]]:
    return [line for line in read_lines(folder) if line.get("event") == name]


def reached(stage: str, step: int) -> Moment:
    """When the stage has logged that step; step 0 is its start."""
    return lambda folder: any(
        line.get("stage") == stage and (step == 0 or int(str(line.get("step", 0))) >= step)
        for line in read_lines(folder)
    )


def exists(pattern: str) -> Moment:
    return lambda folder: any(folder.glob(pattern))


def after(seconds: float) -> Moment:
    ends_at = time.monotonic() + seconds
    return lambda _folder: time.monotonic() >= ends_at


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / "candidate" / "adapter_model.safetensors")
    return found


def are_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
