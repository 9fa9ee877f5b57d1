"""A round as a process: its command line and environment, how it is stopped, and why it ended."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from store.errors import BadValue
from trainer.warm_start import WarmRound, WarmStart

if TYPE_CHECKING:
    from trainer.round_settings import RoundSettings

logger = logging.getLogger(__name__)

RoundProcess = subprocess.Popen[bytes] | WarmRound


def check_launch(launch: Sequence[str], processes: int) -> None:
    """Raise BadValue when a launch prefix starts another number of processes than training is told of.

    Only what can be read off the prefix is judged here; the round itself counts again once it runs.
    """
    if "accelerate" in launch and "--cpu" in launch:
        raise BadValue(
            f"rounds launch {' '.join(launch)!r}: `accelerate launch --cpu` starts one process where two are"
            " asked for; use torchrun --nproc_per_node"
        )
    started = count_processes(launch)
    if started is not None and started != processes:
        prefix = f"rounds launch {' '.join(launch)!r}" if launch else "rounds launch is empty, which"
        raise BadValue(
            f"{prefix} starts {started} {'process' if started == 1 else 'processes'}, and trainer processes"
            f" is {processes}; make them equal"
        )


def count_processes(launch: Sequence[str]) -> int | None:
    """How many processes a launch prefix starts; None when it does not say so as torchrun would."""
    if not launch:
        return 1
    text = " ".join(launch)
    each = re.search(r"--nproc[-_]per[-_]node[= ](\d+)", text)
    nodes = re.search(r"--nnodes[= ](?:\d+:)?(\d+)", text)
    return int(each[1]) * (int(nodes[1]) if nodes else 1) if each else None


def round_command(directory: Path, launch: Sequence[str] = ()) -> list[str]:
    """The command line of a round process; behind a launch prefix it is a module for `torchrun` to run."""
    return (
        [*launch, "-m", "trainer.round", str(directory)]
        if launch
        else [sys.executable, "-m", "trainer.round", str(directory)]
    )


def library_environment() -> dict[str, str]:
    """What the libraries read when they are imported: no reports home, no bars in a log."""
    return {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TQDM_DISABLE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    }


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


def warm_start(rounds: RoundSettings, base_model: str) -> WarmStart | None:
    """The warm process, begun ahead of the first round, where the settings ask for one."""
    if not rounds.warm or rounds.launch:
        return None
    environment = round_environment(rounds.threads) | library_environment()
    environment["JE_ARROW_MALLOC_CONF"] = "background_thread:false"  # else pyarrow's import starts a thread
    if Path(
        base_model
    ).is_dir():  # the hub's client reads it at import, which a cold round does after its plan
        environment["HF_HUB_OFFLINE"] = "1"
    warm = WarmStart(environment, rounds.nice)
    warm.begin()
    return warm


def begin_round(
    directory: Path, rounds: RoundSettings, warm: WarmStart | None, log: IO[bytes]
) -> RoundProcess:
    """Start a round's process: a fork of the warm one where that is ready, else a fresh interpreter."""
    forked = warm and warm.fork(directory)
    if forked:
        return forked
    if warm is not None:
        says = "the warm process is gone or still loading: this round starts cold"
        logger.warning("%s: %s", directory.name, says)
        log.write(f"{says}\n".encode())
        log.flush()
        warm.begin()
    return subprocess.Popen(
        round_command(directory, rounds.launch),
        stdout=log,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env=round_environment(rounds.threads),
        start_new_session=True,  # a Ctrl-C in the service's terminal is for the service alone
    )


def stop(process: RoundProcess, number: int, grace_s: float) -> None:
    """Ask by a signal (SIGTERM: save first; SIGINT: at once), wait `grace_s` seconds, then kill."""
    signal_group(process, number)
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        signal_group(process, signal.SIGKILL)
        process.wait()


def signal_group(process: RoundProcess, number: int) -> None:
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
