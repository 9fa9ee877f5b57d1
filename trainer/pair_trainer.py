"""The library's DPO trainer over shared prompts, with per-pair weights and flips and raw token ids.

With `flip` 0 and `weight` 1 the loss is the library's sigmoid loss to five decimals.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl import DPOTrainer
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import use_adapter

from trainer.losses import cdpo_losses
from trainer.pair_layout import CHOSEN, PADDING, REJECTED


class PairTrainer(DPOTrainer):  # type: ignore[misc]
    """The library's DPO trainer over shared sequences. Rows carry ids, so its tokenising step has nothing to
    do."""

    sft_weight = 0.0

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        return dataset

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Pairs of like length in one batch; the library's own grouping fails once columns are dropped."""
        rows = self.train_dataset if train_dataset is None else train_dataset
        columns = (rows[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids"))
        lengths = [len(p) + len(c) + len(r) for p, c, r in zip(*columns, strict=True)]
        generator = torch.Generator().manual_seed(self.args.data_seed)
        # A step's rows, dealt out to the processes in turn, are the same however many processes there are.
        rows_a_step = self.args.train_batch_size * self.args.world_size
        return LengthGroupedSampler(rows_a_step, lengths=lengths, generator=generator)

    def _forward(self, model: Any, batch: dict[str, torch.Tensor]) -> tuple[Any, torch.Tensor, torch.Tensor]:
        """The head's per-token outputs, and which positions predict chosen and rejected tokens: (batch, seq -
        1)."""
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids", "labels")}
        outputs = model(**inputs, use_cache=False, fused_lm_head=True)
        is_answer = batch["labels"][:, 1:] != -100
        segments = batch["segments"][:, 1:]
        return outputs, is_answer & (segments == CHOSEN), is_answer & (segments == REJECTED)

    def compute_ref_log_probs(
        self, model: Any, inputs: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probs of chosen and rejected under the reference: a model of its own where the whole model
        trains, else the "ref" adapter if there is one, else the base."""
        policy = self.accelerator.unwrap_model(self.model)
        if self.ref_model is not None:
            reference: Any = nullcontext()
        else:
            reference = use_adapter(policy, "ref" if "ref" in policy.peft_config else None)
        unchecked = disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs)
        with torch.no_grad(), unchecked, reference, self.accelerator.autocast():
            outputs, chosen, rejected = self._forward(model, inputs)
        return (outputs.log_probs * chosen).sum(1), (outputs.log_probs * rejected).sum(1)

    def _compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool
    ) -> torch.Tensor:
        assert not return_outputs
        outputs, chosen, rejected = self._forward(model, inputs)
        chosen_logps = (outputs.log_probs * chosen).sum(1)  # (batch,)
        rejected_logps = (outputs.log_probs * rejected).sum(1)
        chosen_rewards = self.beta * (chosen_logps - inputs["ref_chosen_logps"])
        rejected_rewards = self.beta * (rejected_logps - inputs["ref_rejected_logps"])
        losses = cdpo_losses(chosen_rewards - rejected_rewards, inputs["flip"])
        # Keeps the chosen answers likely while the margin grows (arXiv 2404.19733, eq. 2): nats a token.
        losses = losses - self.sft_weight * chosen_logps / chosen.sum(1)
        self._remember("logps", chosen_logps, rejected_logps)
        self._remember("rewards", chosen_rewards, rejected_rewards)
        self._remember_margins(chosen_rewards, rejected_rewards)
        self._remember_tokens(outputs, chosen, rejected, inputs["segments"])
        # Weights average 1 over the set and not over a batch: a heavy pair is heavy wherever it falls.
        loss: torch.Tensor = (losses * inputs["weight"]).mean()
        return loss

    @property
    def _journal(self) -> Any:
        return self._metrics["train" if self.model.training else "eval"]

    def _remember(self, name: str, chosen: torch.Tensor, rejected: torch.Tensor) -> None:
        for side, values in (("chosen", chosen), ("rejected", rejected)):
            self._journal[f"{name}/{side}"].append(self.accelerator.gather(values.detach()).mean().item())

    def _remember_margins(self, chosen: torch.Tensor, rejected: torch.Tensor) -> None:
        margins = self.accelerator.gather((chosen - rejected).detach())
        self._journal["rewards/margins"].append(margins.mean().item())
        self._journal["rewards/accuracies"].append((margins > 0).float().mean().item())

    def _remember_tokens(
        self, outputs: Any, chosen: torch.Tensor, rejected: torch.Tensor, segments: torch.Tensor
    ) -> None:
        """The library's per-token metrics, over the same tokens."""
        if self.model.training:
            self._total_train_tokens += self.accelerator.gather((segments != PADDING).sum()).sum().item()
        self._journal["num_tokens"] = [self._total_train_tokens]
        for name, values, where in (
            ("entropy", outputs.entropy, chosen | rejected),
            ("logits/chosen", outputs.mean_logits, chosen),
            ("logits/rejected", outputs.mean_logits, rejected),
            ("mean_token_accuracy", outputs.is_top1, chosen),
        ):
            sums = torch.stack([(values.detach().float() * where).sum(), where.sum().float()])
            total, count = self.accelerator.gather(sums[None]).sum(0).tolist()
            self._journal[name].append(total / count if count else 0.0)
