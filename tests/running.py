"""A real service in its own process: started as a person would, stopped or killed by a test."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent
ADMIN_TOKEN = "an-automation-token-for-tests-only"
START_LIMIT_S = 120.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class RunningService:
    """`app.py serve` on a data folder. `start` returns when /readyz says so; `output` is what it printed."""

    data: Path
    flags: tuple[str, ...] = ()
    command: tuple[str, ...] = (sys.executable, "app.py", "serve")
    cwd: Path = ROOT
    port: int = field(default_factory=free_port)
    output: list[str] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, environment: dict[str, str] | None = None) -> RunningService:
        secret = {"HEED_ADMIN_TOKEN": ADMIN_TOKEN, "PYTHONUNBUFFERED": "1"}
        command = [*self.command, "--data", str(self.data), "--port", str(self.port), *self.flags]
        self.process = subprocess.Popen(
            command,
            cwd=self.cwd,
            env=os.environ | secret | (environment or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._drain, args=(self.process,), daemon=True).start()
        self._wait_until_ready()
        return self

    def _drain(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self.output.append(line.rstrip("\n"))

    def _wait_until_ready(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError("the service ended at its start:\n" + "\n".join(self.output[-40:]))
            try:
                if httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise AssertionError("the service was not ready in time:\n" + "\n".join(self.output[-40:]))

    def admin_link(self) -> str:
        """The newest one-time sign-in link that the service printed."""
        links = [m.group(0) for line in self.output if (m := re.search(r"http://\S+/login\?token=\S+", line))]
        assert links, "no sign-in link was printed:\n" + "\n".join(self.output[-40:])
        return links[-1]

    def client(self, token: str = ADMIN_TOKEN) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=60)

    def stop(self) -> int:
        """SIGTERM and wait; the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(60)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)
