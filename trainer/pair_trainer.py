"""The library's DPO trainer over shared prompts, with per-pair weights and flips and raw token ids.

With `flip` 0 and `weight` 1 its losses are the library's of the same name to five decimals.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl import DPOTrainer
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import use_adapter

from trainer.answer_head import score_answers
from trainer.losses import PairLogps, implicit_rewards, pair_losses, wpo_weights
from trainer.pair_layout import CHOSEN, PADDING, REJECTED
from trainer.settings import REFERENCE_FREE, TrainerSettings

# Forward passes keep no activations, so the reference is scored in batches up to this many times larger.
REFERENCE_BATCH = 4


def pair_lengths(rows: Any) -> list[int]:
    """Tokens of each pair, the prompt once."""
    columns = (rows[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids"))
    return [len(p) + len(c) + len(r) for p, c, r in zip(*columns, strict=True)]


def reference_batches(rows: Any, batch_size: int, shares: int, is_capped: bool) -> list[list[int]]:
    """The rows' places in order of length, in batches to score under the reference; `shares` processes take
    a part of each.

    `is_capped` where all logits of a batch are held at once, as on a CPU: then none has more answer tokens
    than the largest step of training can have, so that the pass never needs more memory than a step.
    """
    lengths = pair_lengths(rows)
    answers = [len(c) + len(r) for c, r in zip(rows["chosen_ids"], rows["rejected_ids"], strict=True)]
    most_rows = REFERENCE_BATCH * batch_size * shares
    most_tokens = sum(sorted(answers)[-batch_size * shares :])
    batches: list[list[int]] = []
    num_tokens = 0
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        is_full = not batches or len(batches[-1]) == most_rows
        if is_full or (is_capped and num_tokens + answers[place] > most_tokens):
            batches.append([])
            num_tokens = 0
        batches[-1].append(place)
        num_tokens += answers[place]
    return batches


class PairTrainer(DPOTrainer):  # type: ignore[misc]
    """The library's DPO trainer over shared sequences. Rows carry ids, so its tokenising step has nothing to
    do."""

    loss_settings = TrainerSettings()

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        return dataset

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Pairs of like length in one batch; the library's own grouping fails once columns are dropped."""
        lengths = pair_lengths(self.train_dataset if train_dataset is None else train_dataset)
        generator = torch.Generator().manual_seed(self.args.data_seed)
        # A step's rows, dealt out to the processes in turn, are the same however many processes there are.
        rows_a_step = self.args.train_batch_size * self.args.world_size
        return LengthGroupedSampler(rows_a_step, lengths=lengths, generator=generator)

    def _forward(self, model: Any, batch: dict[str, torch.Tensor]) -> tuple[Any, torch.Tensor, torch.Tensor]:
        """What the head says of each token, and which positions predict chosen and rejected ones.

        All are (batch, seq - 1).
        """
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids")}
        labels, segments = batch["labels"], batch["segments"][:, 1:]
        if labels.is_cuda:  # there the library's head skips the prompt too, and never holds all logits
            outputs = model(**inputs, labels=labels, use_cache=False, fused_lm_head=True)
        else:
            head = self.accelerator.unwrap_model(model).get_output_embeddings()
            outputs = score_answers(model, head, inputs, labels, squares=self.loss_settings.wpo)
        is_answer = labels[:, 1:] != -100
        return outputs, is_answer & (segments == CHOSEN), is_answer & (segments == REJECTED)

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        """The rows with their reference log-probs, each process scoring its share.

        In order of length and with larger batches than training has, there being no activations to keep; the
        library goes through the rows as they come and through a cache file of a folder nobody sweeps.
        """
        if self.is_deepspeed_enabled:  # it wants an engine around the model, which the library knows to build
            return super()._precompute_ref_logps(dataset, name, batch_size)
        logps = torch.zeros(2, len(dataset), device=self.accelerator.device)
        for mine, rows in self._reference_batches(dataset, batch_size):
            batch = self._prepare_inputs(self.data_collator(rows))
            scores = torch.stack(self.compute_ref_log_probs(self.ref_model or self.model, batch))
            logps[:, mine] = scores[:, : len(mine)].to(logps.dtype)
        chosen, rejected = self.accelerator.reduce(logps).tolist()
        return dataset.add_column("ref_chosen_logps", chosen).add_column("ref_rejected_logps", rejected)

    def _reference_batches(self, dataset: Any, batch_size: int) -> Iterator[tuple[list[int], list[Any]]]:
        """This process's share of each batch: its rows' places, and the rows."""
        shares, is_capped = self.accelerator.num_processes, self.accelerator.device.type != "cuda"
        for places in reference_batches(dataset, batch_size, shares, is_capped=is_capped):
            # A share may be empty at the end; a sharded model still wants every process to call it.
            mine = places[self.accelerator.process_index :: shares]
            yield mine, [dataset[place] for place in mine or places[:1]]

    def measure_difference(self) -> float:
        """Nats a token between the policy and the stored reference: the mean over the answers of the first
        batch that was scored for the reference, laid out as it was then."""
        batches = self._reference_batches(self.train_dataset, self.args.per_device_train_batch_size)
        batch = self._prepare_inputs(self.data_collator(next(batches)[1]))
        with torch.no_grad(), self.accelerator.autocast():
            outputs, chosen, rejected = self._forward(self.model, batch)
        stored = batch["ref_chosen_logps"], batch["ref_rejected_logps"]
        apart = [
            ((outputs.log_probs * answer).sum(1) - before).abs() / answer.sum(1)
            for answer, before in zip((chosen, rejected), stored, strict=True)
        ]
        return float(torch.cat(apart).mean())

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
        settings, flip, weight = self.loss_settings, inputs["flip"], inputs["weight"]
        outputs, chosen, rejected = self._forward(model, inputs)
        pairs = self._read_logps(outputs, chosen, rejected, inputs)
        losses = pair_losses(pairs, flip, weight, settings)  # (batch,)
        self._remember_preference(losses)  # before anything is added: cdpo starts at ln 2
        # Keeps the chosen answers likely while the margin grows (arXiv 2404.19733, eq. 2): nats a token.
        losses = losses - settings.sft_weight * pairs.chosen / pairs.chosen_tokens
        rewards = implicit_rewards(pairs, settings)
        self._remember("logps", pairs.chosen, pairs.rejected)
        self._remember("rewards", *rewards)
        self._remember("lengths", pairs.chosen_tokens.float(), pairs.rejected_tokens.float())
        self._remember_margins(*rewards)
        self._remember_tokens(outputs, chosen, rejected, inputs["segments"])
        if settings.wpo:
            weight = weight * self._wpo(outputs, chosen, rejected, weight)
        # Weights average 1 over the set and not over a batch: a heavy pair is heavy wherever it falls. Rows
        # of a short last batch count more, as in the library: the mean is over those that are there.
        loss: torch.Tensor = (losses * weight).mean()
        return loss

    def _read_logps(
        self, outputs: Any, chosen: torch.Tensor, rejected: torch.Tensor, inputs: dict[str, torch.Tensor]
    ) -> PairLogps:
        chosen_logps = (outputs.log_probs * chosen).sum(1)  # (batch,)
        rejected_logps = (outputs.log_probs * rejected).sum(1)
        none = torch.zeros_like(chosen_logps)
        has_reference = self.loss_settings.loss not in REFERENCE_FREE
        return PairLogps(
            chosen=chosen_logps,
            rejected=rejected_logps,
            ref_chosen=inputs["ref_chosen_logps"] if has_reference else none,
            ref_rejected=inputs["ref_rejected_logps"] if has_reference else none,
            chosen_tokens=chosen.sum(1),
            rejected_tokens=rejected.sum(1),
        )

    def _wpo(
        self, outputs: Any, chosen: torch.Tensor, rejected: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        """WPO's weights, scaled over all processes' batches so that the pairs weigh as much as without."""
        aligned = (outputs.log_probs - outputs.log_sum_sq_probs).detach()
        weights = wpo_weights(*((aligned * where).sum(1) / where.sum(1) for where in (chosen, rejected)))
        sums = torch.stack([weight.sum(), (weight * weights).sum()])
        before, after = self.accelerator.gather(sums[None]).sum(0)
        scaled: torch.Tensor = weights * before / after
        return scaled

    @property
    def _journal(self) -> Any:
        return self._metrics["train" if self.model.training else "eval"]

    def _remember(self, name: str, chosen: torch.Tensor, rejected: torch.Tensor) -> None:
        for side, values in (("chosen", chosen), ("rejected", rejected)):
            self._journal[f"{name}/{side}"].append(self.accelerator.gather(values.detach()).mean().item())

    def _remember_preference(self, losses: torch.Tensor) -> None:
        self._journal["loss/preference"].append(self.accelerator.gather(losses.detach()).mean().item())

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
