"""A round as a process: its command line and environment, how it is stopped, and why it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def round_command(directory: Path, launch: Sequence[str] = ()) -> list[str]:
    """The command line of a round process; behind a launch prefix it is a module for `torchrun` to run."""
    return (
        [*launch, "-m", "trainer.round", str(directory)]
        if launch
        else [sys.executable, "-m", "trainer.round", str(directory)]
    )


def round_environment(threads: int) -> dict[str, str]:
    """Passive waiting and few threads: two spinning OpenMP pools on the same cores halve both."""
    return os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]),
        "ROUND_PARENT_PID": str(os.getpid()),
    }


def stop(process: subprocess.Popen[bytes], number: int, grace_s: float) -> None:
    """Ask by a signal (SIGTERM: save first; SIGINT: at once), wait `grace_s` seconds, then kill."""
    signal_group(process, number)
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        signal_group(process, signal.SIGKILL)
        process.wait()


def signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    """To the process and its children: a launch prefix such as torchrun starts some."""
    with contextlib.suppress(ProcessLookupError):  # it ended by itself in the meantime
        os.killpg(process.pid, number)


def explain_exit(code: int, log: Sequence[str]) -> str:
    """A sentence for a round that reached no verdict: the signal or exit code, and its last line."""
    if code < 0:
        cause = f"the round process was killed by signal {-code} ({signal.Signals(-code).name})"
    elif code == 0:
        cause = "the round process ended without a verdict"
    else:
        cause = f"the round process ended with exit code {code}"
    last = next((line.strip() for line in reversed(log) if line.strip()), "")
    return f"{cause}; last log line: {last}" if last else f"{cause}; it wrote no log"
