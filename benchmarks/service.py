"""A service of the benchmark's own: started as a person would start it, in a fresh data folder, and stopped.

It knows the command line and the environment of `app.py serve`, nothing of what is inside.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.client import HeedClient

ROOT = Path(__file__).resolve().parent.parent
READY_S = 180.0
STOP_S = 40.0
# The benchmark starts every round itself; a round by the clock or by count would come in between.
ONLY_BY_HAND = {"HEED_MIN_NEW_LABELS": "100000", "HEED_MAX_WAIT_HOURS": "0"}
# It counts judgements as labels: what measures people and teaches nothing must not be among them.
LABELS_ONLY = {"HEED_QUEUE__GOLD_SHARE": "0", "HEED_QUEUE__REPEAT_SHARE": "0"}


@contextmanager
def run_service(data: Path, told: Mapping[str, str] | None = None) -> Iterator[tuple[str, str]]:
    """Serve `data` on a free port; yields the address and an admin's token. `told` are `HEED_` variables.

    Other `HEED_` variables of the environment reach the service, so a run can try other settings.
    """
    port, token = _find_free_port(), secrets.token_urlsafe(32)
    data.mkdir(parents=True, exist_ok=True)
    log = data / "service.log"
    command = [sys.executable, "app.py", "serve", "--data", str(data.resolve()), "--port", str(port)]
    environment = os.environ | ONLY_BY_HAND | LABELS_ONLY | dict(told or {}) | {"HEED_ADMIN_TOKEN": token}
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            _wait_until_ready(process, url, token, log)
            yield url, token
        finally:
            _stop(process)


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, token: str, log: Path) -> None:
    deadline = time.monotonic() + READY_S
    with HeedClient(url, token) as client:
        while not client.is_ready():
            if process.poll() is not None:
                raise RuntimeError(
                    f"the service ended with code {process.returncode}; its last words:\n{_tail(log)}"
                )
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"the service was not ready after {READY_S:.0f} s; its last words:\n{_tail(log)}"
                )
            time.sleep(0.2)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text("utf-8", errors="replace").splitlines()[-20:])
