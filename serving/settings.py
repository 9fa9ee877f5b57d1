"""What engines are made with. No torch, so that the command line can read it in no time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from store.errors import BadValue

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM takes as its largest rank


@dataclass(frozen=True, slots=True)
class BaseSettings:
    """The model under every version. `threads` 0 means as many as are fastest, measured at the start. Where a
    round runs beside, OpenMP must not spin (OMP_WAIT_POLICY=PASSIVE, as app.py sets it): two spinning pools
    on the same cores cost a factor of ten."""

    model: str
    chat_template: str | None = None
    quantization: Literal["none", "nf4", "auto"] = "auto"
    dtype: Literal["float32", "bfloat16", "auto"] = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        if self.quantization not in ("none", "nf4", "auto"):
            raise BadValue(f"quantization {self.quantization!r} is not one of none, nf4, auto")
        if self.dtype not in ("float32", "bfloat16", "auto"):
            raise BadValue(f"dtype {self.dtype!r} is not one of float32, bfloat16, auto")
        if self.threads < 0:
            raise BadValue(f"threads {self.threads} must be 0 (torch's choice) or more")


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """Slots decode together; background work (rollouts) holds at most `background_slots` of them, and only
    `background_beside` while people are being answered.

    `max_waiting` bounds each queue; `cache_tokens` bounds the columns of cache that running answers may come
    to need. `prefill_tokens` is how much prompt and `score_tokens` how much scored text may hold up the
    running rows in one turn, and `stream_s` is the shortest time between two chunks of an answer.
    """

    slots: int = 32
    background_slots: int = 24
    background_beside: int = 4
    max_waiting: int = 256
    cache_tokens: int = 65_536
    prefill_tokens: int = 256
    score_tokens: int = 1024
    stream_s: float = 0.02

    def __post_init__(self) -> None:
        names = ("slots", "background_slots", "max_waiting", "cache_tokens", "prefill_tokens", "score_tokens")
        for name in names:
            if getattr(self, name) < 1:
                raise BadValue(f"{name} {getattr(self, name)} must be at least 1")
        if self.background_beside < 0:
            raise BadValue(f"background_beside {self.background_beside} must not be negative")
        if not 0.0 <= self.stream_s <= 1.0:
            raise BadValue(f"stream_s {self.stream_s} is outside 0..1")


@dataclass(frozen=True, slots=True)
class VllmSettings:
    """Where vLLM answers (`urls`), or the Python that starts one here (`python`).

    A server started here batches `max_loras` adapters at once, of at most `max_lora_rank`, and is given
    `arguments` after our own.
    """

    urls: tuple[str, ...] = ()
    python: Path | None = None
    arguments: tuple[str, ...] = ()
    max_loras: int = 4
    max_lora_rank: int = 64

    def __post_init__(self) -> None:
        if bool(self.urls) == bool(self.python):
            raise BadValue("engine vllm needs either --vllm-url or --vllm-python, and not both")
        for url in self.urls:
            if not url.startswith(("http://", "https://")):
                raise BadValue(f"vllm_url {url!r} does not begin with http:// or https://")
        if self.max_loras < 1:
            raise BadValue(f"max_loras {self.max_loras} must be at least 1")
        if self.max_lora_rank not in LORA_RANKS:
            raise BadValue(f"max_lora_rank {self.max_lora_rank} is none of vLLM's: {LORA_RANKS}")
