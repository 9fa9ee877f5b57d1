"""A vLLM server of our own: started from its own Python environment, watched, restarted, taken down whole.

Its environment is another because vLLM wants other versions of what Heed is built on. Its output goes to a
log file, whose end is quoted when it cannot be started.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import torch

from serving.base_text import BaseText
from serving.settings import VllmSettings
from store.errors import BadValue, HeedError

logger = logging.getLogger(__name__)

BASE_NAME = "heed-base"
# vLLM 0.32 on a CPU dies of prompt log-probs while it keeps room for LoRA on the output layer.
OUTPUT_LAYER = "lm_head"
LEASH = Path(__file__).with_name("vllm_leash.py")
START_LIMIT_S = 1800.0  # a large model from a slow disk
TOLD_EVERY_S = 15.0
POLL_S = 0.25
STOP_LIMIT_S = 30.0
TAIL_LINES = 12
LONGEST_PAUSE_S = 60.0


class VllmServer:
    """Starts when built and returns once it answers. HeedError, with the end of the log, when it does not."""

    def __init__(
        self, text: BaseText, settings: VllmSettings, slots: int, layers: Sequence[str], log_file: Path
    ) -> None:
        python = settings.python
        if python is None or not os.access(python, os.X_OK) or python.is_dir():
            raise BadValue(f"vllm_python {python} is no program; give the python of vLLM's own environment")
        self.log_file = log_file
        self._port = _free_port()
        self._command = make_command(text, settings, slots, layers, self._port)
        self._closing = threading.Event()
        self._swapping = threading.Lock()  # `close` and a restart must not pass each other
        self._process = self._start()
        try:
            self._wait_until_healthy()
        except BaseException:
            self.close()
            raise
        self._watcher = threading.Thread(target=self._watch, name="vllm-watch", daemon=True)
        self._watcher.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The leader of the server's process group."""
        return self._process.pid

    def close(self) -> None:
        """End the server and everything it started."""
        with self._swapping:
            self._closing.set()
        self._let_go()
        try:
            self._process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            logger.error("vLLM does not end; killing its process group %d", self._process.pid)
            os.killpg(self._process.pid, 9)
            self._process.wait()

    def _let_go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()  # the leash takes the group down

    def _start(self) -> subprocess.Popen[bytes]:
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        logger.info("starting vLLM at %s; its log is %s", self.url, self.log_file)
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, str(LEASH), *self._command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=make_environment(),
                start_new_session=True,
            )

    def _wait_until_healthy(self) -> None:
        started, told = time.monotonic(), time.monotonic()
        while not self._closing.is_set() and not self._is_healthy():
            now = time.monotonic()
            if self._process.poll() is not None:
                raise HeedError(f"vLLM ended before it answered; the end of {self.log_file}:\n{self._tail()}")
            if now - started > START_LIMIT_S:
                raise HeedError(f"vLLM did not answer within {START_LIMIT_S:.0f} s; see {self.log_file}")
            if now - told > TOLD_EVERY_S:
                told = now
                logger.info("vLLM is starting, %.0f s so far: %s", now - started, self._tail(1))
            self._closing.wait(POLL_S)
        logger.info("vLLM answers at %s after %.1f s", self.url, time.monotonic() - started)

    def _is_healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5.0).status_code == 200
        except httpx.HTTPError:
            return False  # not listening yet

    def _watch(self) -> None:
        """Start it again when it ends, at growing intervals while it keeps failing."""
        pause_s = 1.0
        while not self._closing.is_set():
            self._process.wait()
            if self._closing.is_set():
                return
            logger.error("vLLM ended by itself; starting it again in %.0f s:\n%s", pause_s, self._tail())
            if self._closing.wait(pause_s):
                return
            pause_s = min(LONGEST_PAUSE_S, pause_s * 2)
            with self._swapping:
                if self._closing.is_set():
                    return
                self._let_go()
                self._process = self._start()
            try:
                self._wait_until_healthy()
            except HeedError as error:
                logger.error("%s", error)
            else:
                pause_s = 1.0

    def _tail(self, lines: int = TAIL_LINES) -> str:
        written = self.log_file.read_text("utf-8", errors="replace").splitlines()
        return "\n".join([line for line in written if line.strip()][-lines:])


def make_command(
    text: BaseText, settings: VllmSettings, slots: int, layers: Sequence[str], port: int
) -> list[str]:
    """The server's command line: raw log-probs, LoRA on `layers`, people before background work."""
    return [
        str(settings.python),
        *("-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(text.folder.resolve()), "--served-model-name", BASE_NAME),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", text.dtype, "--generation-config", "vllm"),
        *("--enable-lora", "--max-loras", str(settings.max_loras)),
        *("--max-lora-rank", str(settings.max_lora_rank)),
        *("--max-cpu-loras", str(4 * settings.max_loras), "--lora-target-modules", *layers),
        *("--max-num-seqs", str(slots), "--scheduling-policy", "priority"),
        *("--logprobs-mode", "raw_logprobs", "--max-logprobs", "20"),
        "--disable-uvicorn-access-log",
        *(() if torch.cuda.is_available() else ("--enforce-eager",)),
        *settings.arguments,
    ]


def make_environment() -> dict[str, str]:
    """Ours, without what would lead it to our packages and without our secrets."""
    mine = ("HEED_", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
    kept.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB; without it vLLM takes most of the memory
    fixed = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    return kept | fixed


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
