"""How a policy in training stands on answers it does not train on: held-out loss, collapse and drift.

Every number comes from summed log-probs of whole answers, under the policy, its reference and the base. Knows
no library trainer's loss, so that DPO and KTO are watched alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812 - its usual name
from trl.trainer.utils import use_adapter

from trainer.preferences import TrainingPair

BATCH = 16  # answers at once


@dataclass(frozen=True, slots=True)
class Standing:
    """Means over the watched pairs: loss in nats, accuracy as a share, the others in nats a token.

    `chosen_gain` is how much likelier the chosen answers are than under the reference; `drift` is how far
    they lie from the base, up or down.
    """

    loss: float
    accuracy: float
    chosen_gain: float
    drift: float

    @property
    def is_finite(self) -> bool:
        """Whether all of it are numbers."""
        return all(map(math.isfinite, (self.loss, self.chosen_gain, self.drift)))


@dataclass(slots=True)
class Watched:
    """Some pairs, and what base and reference find of them: two sums a pair, chosen and rejected."""

    pairs: Sequence[TrainingPair]
    pad_id: int
    beta: float
    label_smoothing: float
    base: list[list[float]] = field(default_factory=list)
    reference: list[list[float]] = field(default_factory=list)

    def remember_start(self, model: Any) -> None:
        """Score base and reference, once; without adapters both are the model as it is now."""
        if self.base:
            return
        adapters = getattr(model, "peft_config", None)
        self.base = self._score(model, None if adapters is not None else "")
        has_copy = adapters is not None and "ref" in adapters
        self.reference = self._score(model, "ref") if has_copy else self.base

    def measure(self, model: Any) -> Standing:
        """Where the policy stands now. Leaves the model as it was, and draws no random number."""
        policy = torch.tensor(self._score(model, ""), dtype=torch.float64)  # (pairs, 2)
        reference, base = (torch.tensor(t, dtype=torch.float64) for t in (self.reference, self.base))
        lengths = torch.tensor([len(pair.chosen_ids) for pair in self.pairs])
        gains = policy - reference
        margins = self.beta * (gains[:, 0] - gains[:, 1])
        eps = self.label_smoothing
        losses = -(1 - eps) * F.logsigmoid(margins) - eps * F.logsigmoid(-margins)
        return Standing(
            loss=losses.mean().item(),
            accuracy=((margins > 0).double() + 0.5 * (margins == 0).double()).mean().item(),
            chosen_gain=(gains[:, 0] / lengths).mean().item(),
            drift=((policy - base)[:, 0] / lengths).abs().mean().item(),
        )

    def _score(self, model: Any, adapter: str | None) -> list[list[float]]:
        """Log-prob sums under an adapter; None is the base and an empty name the policy itself."""
        was_training = model.training
        model.eval()
        policy: AbstractContextManager[None] = nullcontext() if adapter == "" else use_adapter(model, adapter)
        answers = [(p.prompt_ids, ids) for p in self.pairs for ids in (p.chosen_ids, p.rejected_ids)]
        # Like lengths together waste no padding; the order is the same every time.
        order = sorted(range(len(answers)), key=lambda i: len(answers[i][0]) + len(answers[i][1]))
        sums = [0.0] * len(answers)
        try:
            with torch.no_grad(), policy:
                for start in range(0, len(order), BATCH):
                    some = order[start : start + BATCH]
                    for i, value in zip(
                        some, self._score_batch(model, [answers[i] for i in some]), strict=True
                    ):
                        sums[i] = value
        finally:
            model.train(was_training)
        return [sums[i : i + 2] for i in range(0, len(sums), 2)]

    def _score_batch(
        self, model: Any, answers: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]
    ) -> list[float]:
        shape = (len(answers), max(len(prompt) + len(answer) for prompt, answer in answers))
        input_ids = torch.full(shape, self.pad_id)
        attention, labels = torch.zeros(shape, dtype=torch.long), torch.full(shape, -100)
        for i, (prompt, answer) in enumerate(answers):
            end = len(prompt) + len(answer)
            input_ids[i, :end] = torch.tensor([*prompt, *answer])
            attention[i, :end] = 1
            labels[i, len(prompt) : end] = torch.tensor(answer)
        device = model.device
        outputs = model(
            input_ids=input_ids.to(device),
            attention_mask=attention.to(device),
            labels=labels.to(device),
            use_cache=False,
            fused_lm_head=True,  # both library trainers have given the model one: logits are never built
        )
        sums: list[float] = outputs.log_probs.double().sum(1).tolist()
        return sums


def choose_watched(
    holdout: Sequence[TrainingPair], training: Sequence[TrainingPair], least: int, most: int
) -> tuple[Sequence[TrainingPair], bool]:
    """Held-out pairs when there are enough, else training pairs; and whether what was chosen is held out."""
    return (holdout[:most], True) if len(holdout) >= least else (training[:least], False)
