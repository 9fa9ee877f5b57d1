"""Which engine answers: the one in this process or vLLM. Nothing heavy is imported until one is chosen."""

from __future__ import annotations

from pathlib import Path

from serving.engine import Engine
from serving.settings import BaseSettings, BatchSettings, VllmSettings


def open_engine(
    base: BaseSettings, batch: BatchSettings, vllm: VllmSettings | None, log_file: Path
) -> Engine:
    """The engine in this process, or where `vllm` is given that; `log_file` is for a server started here."""
    if vllm is None:
        from serving.in_process import InProcessEngine

        return InProcessEngine(base, batch)
    from serving.vllm_engine import VllmEngine

    return VllmEngine(base, batch, vllm, log_file)
