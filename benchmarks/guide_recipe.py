"""The guide's second recipe, iterated DPO as people copy it: the yardstick that our rounds are held against.

Plain TRL, nothing of ours: one LoRA adapter, trained again each round on that round's new pairs by the same
`PeftModel`. So from the second round on the reference is the adapter as it came in, nothing from earlier
rounds is seen again, and nothing is gated. The recipe's own numbers: rank 8, alpha 16, dropout 0.05,
attention and down projections, sigmoid loss, max_length 256, beta 0.1 + 0.05 a round, the learning rate
divided by the round's number. The rest is TRL's default (3 epochs, batches of 8, linear decay), but for what
the recipe leaves out on a CPU (bf16) and what changes memory only (checkpointing).

One difference cannot be avoided: it learns from the pairs our policy wrote and our annotators judged, since
the same labels are the point of the comparison.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.batch_answers import Answer, measure_drift, sample_in_batches
from benchmarks.metrics import Row
from store.records import Message

OWN_LEARNING_RATE = 5e-5  # what the recipe itself starts with


@dataclass(slots=True)
class GuideRecipe:
    """The recipe's model between its rounds. `learning_rate` is the first round's."""

    base_model: str
    learning_rate: float
    seed: int
    num_rounds: int = 0
    _model: Any = field(default=None, repr=False)
    _tokenizer: Any = field(default=None, repr=False)

    def train(self, pairs: Sequence[dict[str, Any]]) -> dict[str, float]:
        """One more round on `pairs` in TRL's format; returns the last rewards, raises what TRL raises."""
        from peft import LoraConfig
        from trl import DPOConfig, DPOTrainer

        self._load()
        place = self.num_rounds
        self.num_rounds += 1
        adapter = LoraConfig(
            r=8,
            lora_alpha=16,
            lora_dropout=0.05,
            target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "down_proj"],
            task_type="CAUSAL_LM",
        )
        with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(sys.stderr):
            settings = DPOConfig(
                output_dir=scratch,
                loss_type="sigmoid",
                beta=0.1 + 0.05 * place,
                learning_rate=self.learning_rate / (place + 1),
                max_length=256,
                seed=self.seed,
                bf16=False,
                activation_checkpointing=False,
                use_cpu=not torch.cuda.is_available(),
                report_to="none",
                disable_tqdm=True,
            )
            trainer = DPOTrainer(
                model=self._model,
                args=settings,
                train_dataset=_as_dataset(pairs),
                processing_class=self._tokenizer,
                peft_config=adapter if place == 0 else None,
            )
            trainer.train()
        self._model = trainer.model
        logged = [line for line in trainer.state.log_history if "rewards/chosen" in line]
        return {name: logged[-1][name] for name in ("rewards/chosen", "rewards/margins")} if logged else {}

    def answer(self, prompts: Sequence[Sequence[Message]], max_tokens: int) -> list[Row]:
        """One answer a prompt at temperature 1, sampled in large batches."""
        return [answer.row() for answer in self.sample(prompts, max_tokens)]

    def sample(
        self, prompts: Sequence[Sequence[Message]], max_tokens: int, temperature: float = 1.0, draw: int = 0
    ) -> list[Answer]:
        """The same answers with their ids; another `draw` gives other ones."""
        self._load()
        return sample_in_batches(
            self._model, self._tokenizer, prompts, max_tokens, self.seed + draw, temperature
        )

    def drift(self, answers: Sequence[Answer]) -> float:
        """Nats a token from the base, over answers of its own; 0 before the first round."""
        return measure_drift(self._model, answers) if self.num_rounds else 0.0

    def _load(self) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if self._model is None:
            torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))  # the service's share and ours
            self._model = AutoModelForCausalLM.from_pretrained(self.base_model, dtype=torch.float32)
            self._tokenizer = AutoTokenizer.from_pretrained(self.base_model)


def _as_dataset(pairs: Sequence[dict[str, Any]]) -> Any:
    from datasets import Dataset

    return Dataset.from_list(
        [{name: pair[name] for name in ("prompt", "chosen", "rejected")} for pair in pairs]
    )
