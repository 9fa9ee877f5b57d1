"""Lays preference pairs out as token sequences in which chosen and rejected share their prompt.

Sharing saves the prompt's second forward and backward (1.4 to 1.5 times the speed on a CPU).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from store.errors import BadValue

# Segments of a shared sequence. The last prompt token belongs to the answer it predicts.
PROMPT, CHOSEN, REJECTED, PADDING = range(4)
_FLOATS = ("weight", "flip", "ref_chosen_logps", "ref_rejected_logps")


def refuse_window(config: Any, max_length: int) -> None:
    """BadValue where a layer of the model sees fewer tokens back than a prompt and its answer may have: the
    library takes our mask as it is for every layer, so the model would train without its window."""
    config = config.get_text_config()
    window, layers = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
    is_used = getattr(config, "use_sliding_window", True) and (
        layers is None or "sliding_attention" in layers
    )
    if window and is_used and window < max_length:
        raise BadValue(
            f"this {config.model_type} model has layers that see {window} tokens back, and max_length is"
            f" {max_length}: pairs would be trained without that window; set --trainer.max-length to {window}"
            " or less, or choose a model without a sliding window"
        )


class SharedPromptCollator:
    """Lays a pair out as `prompt | chosen | last prompt token again | rejected`, rejected blind to chosen."""

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        length = max(len(r["prompt_ids"]) + len(r["chosen_ids"]) + 1 + len(r["rejected_ids"]) for r in rows)
        shape = (len(rows), length)
        batch = {
            "input_ids": torch.full(shape, self._pad_id),
            "position_ids": torch.zeros(shape, dtype=torch.long),
            "labels": torch.full(shape, -100),
            "segments": torch.full(shape, PADDING),
        }
        for i, row in enumerate(rows):
            _lay_out(row, {name: tensor[i] for name, tensor in batch.items()})
        batch["attention_mask"] = attention_mask(batch["segments"])
        return batch | {
            name: torch.tensor([float(r[name]) for r in rows]) for name in _FLOATS if name in rows[0]
        }


def _lay_out(row: dict[str, Any], line: dict[str, torch.Tensor]) -> None:
    """Fill one line of a batch in place; each tensor is (seq,)."""
    prompt, chosen, rejected = row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]
    start, middle = len(prompt), len(prompt) + len(chosen)
    end = middle + 1 + len(rejected)
    line["input_ids"][:end] = torch.tensor([*prompt, *chosen, prompt[-1], *rejected])
    line["position_ids"][:middle] = torch.arange(middle)
    line["position_ids"][middle:end] = torch.arange(start - 1, start + len(rejected))
    line["segments"][: start - 1] = PROMPT
    line["segments"][start - 1 : middle] = CHOSEN
    line["segments"][middle:end] = REJECTED
    for answer in (slice(start, middle), slice(middle + 1, end)):
        line["labels"][answer] = line["input_ids"][answer]


def attention_mask(segments: torch.Tensor) -> torch.Tensor:
    """Causal, and each segment sees only the prompt and itself. True is attend: (batch, 1, seq, seq)."""
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    seen, seer = segments[:, None, :], segments[:, :, None]
    return (causal & ((seen == PROMPT) | (seen == seer)))[:, None]
