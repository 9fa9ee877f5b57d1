"""What the first loss must be, given what the policy starts from and what it is compared with.

A wrong reference costs no error, only the training: the library takes the adapter it is handed for the
reference, and rounds a policy that should equal it. So before the first step the loss is computed once more,
from log-probs of plain forward passes, and the two must agree.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from transformers import TrainerCallback
from trl.trainer.utils import use_adapter

from trainer.losses import PairLogps, pair_losses
from trainer.qlora import PolicyStart, read_weights
from trainer.rating_losses import RatingLogps, rating_losses
from trainer.settings import TrainerSettings

logger = logging.getLogger(__name__)

NUM_ROWS = 4  # each costs up to four plain forward passes; a wrong reference shows in any row
TOLERANCE = 1e-5
ROUGH_TOLERANCE = 0.05  # in bfloat16: an estimate, and so a reason to warn and not to stop
# Nats a token between policy and stored reference in bfloat16, measured on a CPU with 128 x 2 layers, NF4 or
# not: 0.0 for the right reference in the same batches, 0.0004 to 0.0008 in other batches, 0.0014 to 0.0038
# for weights that were rounded over NF4, 0.0036 and up for the base instead of an adapter of one small step.
STORED_TOLERANCE = 1e-3

_LOOK_AT = "check which adapters the model carries and that their weights were restored in float32"

Row = Mapping[str, Any]
Logp = Callable[[Sequence[int], Sequence[int]], float]  # of an answer after a prompt, in nats
Expect = Callable[[Sequence[Row], Logp, Logp], float]  # the mean loss under a policy and a reference


class WrongStart(RuntimeError):
    """The first loss is not what start and reference promise: something else is trained than was asked."""


class CheckStart(TrainerCallback):  # type: ignore[misc]
    """Before the first step: the loss is the one of a policy equal to its reference, or the one of the policy
    it starts from. Raises WrongStart in float32. In a coarser precision the loss is a reason to warn only,
    and a policy that should equal its reference must have the reference's stored log-probs.

    Make it before the trainer, which changes the weights of the model it is handed; then let it `watch`.
    """

    def __init__(self, start: PolicyStart, settings: TrainerSettings, expect: Expect) -> None:
        self._settings, self._expect = settings, expect
        self._trainer: Any = None
        self._at_reference = starts_at_reference(start, settings)
        compares_with_adapter = settings.reference == "previous" and start.peft_config is None
        self._reference = "ref" if compares_with_adapter else None

    def watch(self, trainer: Any) -> None:
        """Check this trainer when it begins."""
        self._trainer = trainer
        trainer.add_callback(self)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """A resumed training is past its start and is not checked."""
        if state.global_step > 0:
            return
        data = self._trainer.train_dataset
        rows = [data[i] for i in range(min(NUM_ROWS, len(data)))]
        with evaluating(self._trainer, self._settings):
            reference = self._plain(self._reference)
            policy = reference if self._at_reference else self._plain("default")
            # Row by row: the differences of several could cancel out in their mean.
            losses = [(self._loss(row), self._expect([row], policy, reference)) for row in rows]
            if self._at_reference and not _computes_in_float32(self._trainer):
                self._compare_with_stored(data)
        self._judge(*max(losses, key=lambda pair: abs(pair[0] - pair[1])))

    def _loss(self, row: Row) -> float:
        trainer = self._trainer
        batch = trainer._prepare_inputs(trainer.data_collator([row]))
        with torch.no_grad(), trainer.compute_loss_context_manager():
            return float(trainer.compute_loss(trainer.model, batch))

    def _plain(self, adapter: str | None) -> Logp:
        unwrap, own_reference = self._trainer.accelerator.unwrap_model, self._trainer.ref_model
        model = unwrap(own_reference or self._trainer.model)

        def logp(prompt: Sequence[int], answer: Sequence[int]) -> float:
            ids = torch.tensor([[*prompt, *answer]], device=model.device)
            settled = self._trainer.compute_loss_context_manager()
            worn = nullcontext() if own_reference is not None else use_adapter(model, adapter)
            with torch.no_grad(), worn, settled:
                outputs = model(input_ids=ids, use_cache=False, logits_to_keep=len(answer) + 1)
            logits = outputs.logits[0, :-1].float()  # (answer, vocabulary)
            chosen = logits.gather(1, ids[0, len(prompt) :, None])[:, 0]
            return float((chosen - logits.logsumexp(-1)).double().sum())

        return logp

    def _compare_with_stored(self, data: Any) -> None:
        """In a coarse precision the loss says little, but equal weights in equal batches are equally sure."""
        has_stored = {"ref_logps", "ref_chosen_logps"} & set(data.column_names)
        # DeepSpeed's own pass lays the rows out otherwise.
        if not has_stored or self._trainer.is_deepspeed_enabled:
            return
        apart = self._trainer.measure_difference()
        logger.info("the policy starts %.6f nats a token from the stored reference", apart)
        if not apart <= STORED_TOLERANCE:
            raise WrongStart(
                f"before the first step the policy's answers are {apart:.4f} nats a token (allowed"
                f" {STORED_TOLERANCE:g}) from the stored log-probs of the reference, which it should equal"
                f" (start {self._settings.start!r}, reference {self._settings.reference!r}); {_LOOK_AT}"
            )

    def _judge(self, found: float, expected: float) -> None:
        is_exact = _computes_in_float32(self._trainer)
        scale = max(1.0, abs(expected), self._settings.sft_weight, self._settings.kto_sft_weight)
        allowed = scale * (TOLERANCE if is_exact else ROUGH_TOLERANCE)
        if abs(found - expected) <= allowed:
            logger.info("the loss before the first step is %.6f, as start and reference promise", found)
            return
        compared = "previous adapter" if self._reference else "base"
        begins = "which it should equal" if self._at_reference else "from which it should differ as it does"
        what = (
            f"before the first step a row's loss is {found:.6f} instead of {expected:.6f}: the policy is not"
            f" compared with the {compared}, {begins} (start {self._settings.start!r}, reference"
            f" {self._settings.reference!r}); {_LOOK_AT}"
        )
        if is_exact:
            raise WrongStart(what)
        logger.warning("%s; in this precision a small difference is rounding", what)


def starts_at_reference(start: PolicyStart, settings: TrainerSettings) -> bool:
    """Whether the policy should equal its reference before the first step.

    A whole model equals the frozen copy of itself, and a new adapter adds nothing to the base. A continued
    one equals the adapter it was handed over as, unless weights of this very round were laid over it.
    """
    if start.reference_model is not None:
        return True
    if start.peft_config is not None:
        return start.weights is None
    if settings.reference != "previous":
        return False
    handed_over = read_weights(start.model)
    weights = start.weights or handed_over
    return all(torch.equal(handed_over[name].float(), weights[name].float()) for name in handed_over)


@contextmanager
def evaluating(trainer: Any, settings: TrainerSettings) -> Iterator[None]:
    """The model in eval mode, without WPO's weights, and nothing of it in the metrics afterwards."""
    has_wpo = settings.wpo and hasattr(trainer, "loss_settings")
    trainer.model.eval()
    if has_wpo:
        trainer.loss_settings = replace(settings, wpo=False)
    try:
        yield
    finally:
        trainer.model.train()
        trainer._metrics["eval"].clear()
        if has_wpo:
            trainer.loss_settings = settings


def _computes_in_float32(trainer: Any) -> bool:
    model = trainer.accelerator.unwrap_model(trainer.model)
    is_autocast = trainer.accelerator.mixed_precision != "no"
    return not is_autocast and model.get_input_embeddings().weight.dtype == torch.float32


def expected_pair_loss(settings: TrainerSettings) -> Expect:
    """The mean loss of rows of a pair dataset, from plain log-probs."""

    def expect(rows: Sequence[Row], policy: Logp, reference: Logp) -> float:
        def column(values: Sequence[float]) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.float64)

        def logps(of: Logp, side: str) -> torch.Tensor:
            return column([of(row["prompt_ids"], row[side]) for row in rows])

        pairs = PairLogps(
            chosen=logps(policy, "chosen_ids"),
            rejected=logps(policy, "rejected_ids"),
            ref_chosen=logps(reference, "chosen_ids"),
            ref_rejected=logps(reference, "rejected_ids"),
            chosen_tokens=column([len(row["chosen_ids"]) for row in rows]),
            rejected_tokens=column([len(row["rejected_ids"]) for row in rows]),
        )
        flip, weight = (column([row[name] for row in rows]) for name in ("flip", "weight"))
        losses = pair_losses(pairs, flip, weight, settings)
        losses = losses - settings.sft_weight * pairs.chosen / pairs.chosen_tokens
        return float((losses * weight).mean())

    return expect


def expected_rating_loss(settings: TrainerSettings, class_weights: tuple[float, float]) -> Expect:
    """The mean loss of rows of a rating dataset, from plain log-probs; weights of desirable, undesirable."""

    def expect(rows: Sequence[Row], policy: Logp, reference: Logp) -> float:
        def logps(of: Logp, answer: str) -> torch.Tensor:
            return torch.tensor([of(row["prompt_ids"], row[answer]) for row in rows], dtype=torch.float64)

        mismatched = "KL_completion_ids" if settings.rating_loss == "kto" else "completion_ids"
        values = RatingLogps(
            policy=logps(policy, "completion_ids"),
            reference=logps(reference, "completion_ids"),
            kl=logps(policy, mismatched),
            ref_kl=logps(reference, mismatched),
        )
        desirable = torch.tensor([row["label"] for row in rows])
        weights = [row["weight"] * class_weights[0 if row["label"] else 1] for row in rows]
        losses = rating_losses(values, desirable, settings)
        lengths = torch.tensor([len(row["completion_ids"]) for row in rows])
        losses = losses - settings.kto_sft_weight * desirable * values.policy / lengths
        return float((losses * torch.tensor(weights, dtype=torch.float64)).mean())

    return expect
