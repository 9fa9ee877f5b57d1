"""Writes down what a trained adapter says of a few fixed answers, so that serving can prove itself."""

from __future__ import annotations

import math
from pathlib import Path

from safetensors.torch import load_file

from store.proof import QUESTIONS, Proof, ProofRow
from store.records import Message
from trainer.preferences import answer_ids, prompt_ids
from trainer.probes import Exchange, Policies
from trainer.qlora import LoadedBase


def make_proof(base: LoadedBase, adapter: Path) -> Proof | None:
    """The log-probs of the fixed answers under an adapter's files; None when they are not numbers."""
    asked: list[tuple[Message, ...]] = [({"role": "user", "content": question},) for question, _ in QUESTIONS]
    answers = [answer_ids((), text, base.tokenizer) for _, text in QUESTIONS]
    exchanges = [
        Exchange(prompt_ids(messages, base.tokenizer), ids)
        for messages, ids in zip(asked, answers, strict=True)
    ]
    policies = Policies(base, {"candidate": adapter}, batch_size=1)  # no padding: every row by itself
    try:
        sums = [score.logp for score in policies.score("candidate", exchanges)]
    finally:
        policies.unload()
    if not all(map(math.isfinite, sums)):
        return None
    rows = tuple(ProofRow(*row) for row in zip(asked, answers, sums, strict=True))
    return Proof("nf4" if base.quantization == "nf4" else base.dtype, rows)


def measure_norms(adapter: Path) -> dict[str, float]:
    """The norm of each tensor of an adapter: what the next one's are compared with."""
    weights = load_file(adapter / "adapter_model.safetensors")
    return {name: tensor.float().norm().item() for name, tensor in weights.items()}
