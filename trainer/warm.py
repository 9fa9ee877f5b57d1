"""A process that has loaded the training libraries already and forks one round whenever it is asked to.

    python -m trainer.warm FILE_DESCRIPTOR

It loads no model, computes nothing and holds one thread, so what it forks begins where a fresh interpreter
would be after some seconds of imports. It ends when the service closes its end of the socket, however that
happens, and takes its round along.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from pathlib import Path

from trainer.round import PR_SET_PDEATHSIG, main, volunteer_for_oom_killer

# What run_round imports when it runs; the library trainers come with the stages.
PRELOADED = ("gate", "guarded", "labels", "probes", "progress", "proving", "publish", "qlora", "stages")


def preload() -> None:
    """Load what a round loads. RuntimeError when that started threads: a fork would leave them behind, with
    whatever lock they held."""
    for name in PRELOADED:
        importlib.import_module(f"trainer.{name}")
    # A collection in the child would otherwise walk every object of the libraries, and so copy their pages.
    gc.collect()
    gc.freeze()
    if (running := count_threads()) > 1:
        raise RuntimeError(f"the training libraries started {running - 1} threads; a fork is not safe")


def count_threads() -> int:
    """Threads of this process, as the kernel counts them."""
    return len(list(Path("/proc/self/task").iterdir()))


def serve(service: socket.socket) -> int:
    """Fork a round for each line that comes; each is answered with its process id and later its exit code.
    Returns the code to end with, in the child that of its round."""
    lines = service.makefile("r", encoding="utf-8")
    _tell(service, ready=True)
    while line := lines.readline():
        asked = json.loads(line)
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            lines.close()
            service.close()
            return become_round(Path(asked["directory"]), parent)
        _tell(service, pid=child)
        _wait(child, service)
    return 0


def become_round(directory: Path, parent: int) -> int:
    """In the child: what a fresh round process gets from whoever starts it, then the round itself."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died between the two lines
        return 1
    os.environ["ROUND_PARENT_PID"] = str(parent)
    _redirect(directory / "log.txt")
    try:
        return main([str(directory)])
    except BaseException:
        traceback.print_exc()
        return 1


def _redirect(log: Path) -> None:
    written, nothing = (
        os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644),
        os.open(os.devnull, os.O_RDONLY),
    )
    for source, target in ((nothing, 0), (written, 1), (written, 2)):
        os.dup2(source, target)


def _wait(child: int, service: socket.socket) -> None:
    """Until the round ends, which the service is told; or the service does, which the round is."""
    ended = os.pidfd_open(child)
    readable, _, _ = select.select([ended, service.fileno()], [], [])
    if ended not in readable:  # the service asks for nothing while a round runs: this is its end
        os.killpg(child, signal.SIGTERM)
    os.close(ended)
    _, status = os.waitpid(child, 0)
    _tell(service, code=os.waitstatus_to_exitcode(status))


def _tell(service: socket.socket, **what: int | bool) -> None:
    try:
        service.sendall(json.dumps(what).encode() + b"\n")
    except (BrokenPipeError, ConnectionResetError):
        return  # the service is gone; the next read says so and ends this process


def start() -> int:
    """The process."""
    service = socket.socket(fileno=int(sys.argv[1]))
    volunteer_for_oom_killer()
    preload()
    return serve(service)


if __name__ == "__main__":
    sys.exit(start())
