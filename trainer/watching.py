"""How a policy in training stands on answers it does not train on: held-out loss, collapse and drift.

Every number comes from summed log-probs of whole answers, under the policy, its reference and the base. Which
loss is watched depends on the stage: early stopping goes by what the stage trains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from trl.trainer.utils import use_adapter

from trainer.losses import PairLogps, pair_losses
from trainer.preferences import TrainingPair
from trainer.settings import TrainerSettings

BATCH = 16  # answers at once
WatchedLoss = Callable[[PairLogps], torch.Tensor]  # each watched pair's loss: (pairs,)


@dataclass(frozen=True, slots=True)
class Standing:
    """Means over the watched pairs: the stage's loss, accuracy as a share, the others in nats a token.

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
    loss: WatchedLoss
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
        lengths = torch.tensor([[len(pair.chosen_ids), len(pair.rejected_ids)] for pair in self.pairs])
        logps = PairLogps(*policy.unbind(1), *reference.unbind(1), *lengths.unbind(1))
        gap = logps.logratio_gap
        return Standing(
            loss=self.loss(logps).mean().item(),
            accuracy=((gap > 0).double() + 0.5 * (gap == 0).double()).mean().item(),
            chosen_gain=(logps.chosen_logratios / logps.chosen_tokens).mean().item(),
            drift=((policy - base)[:, 0] / logps.chosen_tokens).abs().mean().item(),
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


def watched_loss(stage: str, settings: TrainerSettings) -> WatchedLoss:
    """What early stopping goes by in a stage: the loss that it trains, where that can be had from pairs.

    DPO's is that of `settings.loss`; KTO, whose loss is one of ratings, is watched by cDPO with its beta; SFT
    by the chosen answers' negative log-likelihood in nats a token. Every label is doubted as much as
    `label_smoothing` says, and none weighs more: a doubt that was measured makes some losses infinite.
    """
    if stage == "sft":
        return lambda pairs: -pairs.chosen / pairs.chosen_tokens
    told = settings if stage == "dpo" else replace(settings, loss="cdpo")

    def loss(pairs: PairLogps) -> torch.Tensor:
        flip = torch.full_like(pairs.chosen, settings.label_smoothing)
        return pair_losses(pairs, flip, torch.ones_like(flip), told)

    return loss


def choose_watched(
    holdout: Sequence[TrainingPair], training: Sequence[TrainingPair], least: int, most: int
) -> tuple[Sequence[TrainingPair], bool]:
    """Held-out pairs when there are enough, else training pairs; and whether what was chosen is held out."""
    return (holdout[:most], True) if len(holdout) >= least else (training[:least], False)
