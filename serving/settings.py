"""What the base model is loaded with. No torch, so that the command line can read it in no time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from store.errors import BadValue


@dataclass(frozen=True, slots=True)
class BaseSettings:
    """The model under every version. `threads` 0 leaves torch's own choice; where a round runs beside, give
    serving its share of the cores only: two spinning OpenMP pools on the same cores cost a factor of ten."""

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
