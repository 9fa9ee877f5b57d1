"""vLLM on CPU, in its own environment, asked over HTTP the way its clients ask: streams of prompt token ids.

The HTTP is spoken by hand: a client library costs more time a token than it should on the same cores.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

START_S = 600.0
STOP_S = 30.0
# Without LoRA vLLM would compile the model; with LoRA its CPU platform turns compilation off by itself.
FLAGS = ("--enable-lora", "--max-loras", "2", "--max-lora-rank", "16", "--enforce-eager",
         "--max-model-len", "512", "--disable-uvicorn-access-log")  # fmt: skip
ENVIRONMENT = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


class VllmServer:
    """One server with one adapter loaded as "a"; `adapter` None serves the base alone, under its own name."""

    def __init__(
        self,
        python: Path,
        model: Path,
        adapter: Path | None,
        dtype: str,
        log: Path,
        flags: Sequence[str] = FLAGS,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._port = _find_free_port()
        self._name = "base" if adapter is None else "a"
        self._log = log
        command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
        command += ["--served-model-name", "base", "--dtype", dtype, "--port", str(self._port), *flags]
        command += [] if adapter is None else ["--lora-modules", f"a={adapter}"]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                env=ENVIRONMENT | os.environ | dict(environment or {}),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The server's first process; the one that computes is a child of it."""
        return self._process.pid

    def answer(self, prompts: Sequence[Mapping[str, Any]], num_tokens: int) -> list[list[float]]:
        """All prompts at once; for each the seconds from now at which text came."""
        return asyncio.run(self._answer_all(prompts, num_tokens))

    def pause(self) -> None:
        """Hold the server still while another way is measured: its scheduler may not sleep when idle."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self._process.pid, signal.SIGCONT)

    def load_adapter(self, name: str, folder: Path) -> float:
        """How many seconds `/v1/load_lora_adapter` takes."""
        began = time.perf_counter()
        body = {"lora_name": name, "lora_path": str(folder)}
        httpx.post(f"{self._url}/v1/load_lora_adapter", json=body, timeout=120).raise_for_status()
        return time.perf_counter() - began

    def close(self) -> None:
        """End the server and its children."""
        if self._process.poll() is None:
            self.resume()
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def _answer_all(self, prompts: Sequence[Mapping[str, Any]], num_tokens: int) -> list[list[float]]:
        began = time.perf_counter()
        return await asyncio.gather(*(self._answer(prompt["ids"], num_tokens, began) for prompt in prompts))

    async def _answer(self, ids: Sequence[int], num_tokens: int, began: float) -> list[float]:
        body = {
            "model": self._name, "prompt": ids, "max_tokens": num_tokens, "temperature": 0,
            "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True},
        }  # fmt: skip
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        content = json.dumps(body)
        writer.write(
            f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n{content}".encode()
        )
        times, usage = [], b""
        while line := await reader.readline():
            if line.startswith(b'data: {"id'):
                times.append(time.perf_counter() - began)
                usage = line
        writer.close()
        written = json.loads(usage.removeprefix(b"data: "))["usage"]["completion_tokens"] if usage else 0
        if written != num_tokens:
            raise RuntimeError(f"vLLM wrote {written} of {num_tokens} tokens; its log is {self._log}")
        return times[:-1]  # the last line only carries the usage

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while True:
            if self._process.poll() is not None:
                raise RuntimeError(f"vLLM ended with code {self._process.returncode}:\n{tail(self._log)}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"vLLM was not ready after {START_S:.0f} s:\n{tail(self._log)}")
            try:
                if httpx.get(f"{self._url}/health", timeout=5).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                time.sleep(0.3)


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tail(log: Path) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text("utf-8", errors="replace").splitlines()[-20:])
