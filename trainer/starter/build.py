"""Builds the starter policy from nothing: dialogue, tokenizer, training, measurement, card and prompt pool.

Run `python -m trainer.starter.build --out serving/starter`. Everything follows from the seed; nothing is
downloaded.
"""

import argparse
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.sft import SftExample, SftReport, SftSettings, train_sft
from trainer.starter.card import BuildFacts, write_card
from trainer.starter.dialogue import Dialogue, Mixture, write_corpus
from trainer.starter.measure import SpeechReport, measure_speech, sample_answers
from trainer.starter.world import heldout_prompts, train_prompts

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

logger = logging.getLogger(__name__)

VOCABULARY_SIZE = 2048
END, PAD, USER, ASSISTANT, SYSTEM = "<|end|>", "<|pad|>", "<|user|>", "<|assistant|>", "<|system|>"

# A system message is left out: the policy has never seen one and would answer it with noise.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}<|user|>{{ message['content'] }}<|end|>"
    "{%- elif message['role'] == 'assistant' -%}<|assistant|>{{ message['content'] }}<|end|>"
    "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """What the build is made of: numbers of dialogues, sampled answers and prompts, and the one seed."""

    seed: int = 7
    num_dialogues: int = 80_000
    num_measured: int = 2_000
    num_pool_prompts: int = 2_000
    batch_size: int = 16
    learning_rate: float = 1.5e-3


def build_starter(out: Path, settings: BuildSettings) -> SpeechReport:
    """Builds the policy, moves its files to `out` each in one step, and returns what was measured."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="starter-") as scratch:
        staging = Path(scratch) / "starter"
        corpus = list(write_corpus(settings.num_dialogues, settings.seed, Mixture()))
        logger.info("wrote %d dialogues", len(corpus))
        tokenizer = train_tokenizer(corpus)
        model = create_model(tokenizer, settings.seed)
        logger.info("created a model of %d parameters", model.num_parameters())
        trained = _train(model, tokenizer, corpus, settings, Path(scratch))
        speech = _measure(model, tokenizer, corpus, settings)
        _save(model, tokenizer, staging)
        write_pool(staging / "prompts.jsonl", settings)
        facts = _collect_facts(settings, corpus, model.num_parameters(), trained, started)
        write_card(staging / "README.md", facts, speech)
        _move_into_place(staging, out)
    logger.info("built %s in %.0f s", out, time.monotonic() - started)
    return speech


def train_tokenizer(corpus: Sequence[Dialogue]) -> "PreTrainedTokenizerFast":
    """A byte-level BPE tokenizer of `VOCABULARY_SIZE` tokens, with the chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[PAD, END, USER, ASSISTANT, SYSTEM],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator((text for d in corpus for text in (*d.prompt.turns, d.answer)), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT, SYSTEM],
        model_max_length=1024,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def create_model(tokenizer: "PreTrainedTokenizerFast", seed: int) -> "LlamaForCausalLM":
    """An untrained Llama of about 2.9 M parameters: few layers, since decoding on a CPU pays for each."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = LlamaConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        **ends,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, **ends)
    return model


def write_pool(path: Path, settings: BuildSettings) -> None:
    """The prompts the service asks annotators about, one JSON object a line."""
    prompts = train_prompts(settings.num_pool_prompts, settings.seed)
    lines = (json.dumps({"messages": prompt.messages, "tags": prompt.tags}) for prompt in prompts)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _train(
    model: "LlamaForCausalLM",
    tokenizer: "PreTrainedTokenizerFast",
    corpus: Sequence[Dialogue],
    settings: BuildSettings,
    scratch: Path,
) -> SftReport:
    examples = [SftExample(dialogue.prompt.messages, dialogue.answer) for dialogue in corpus]
    sft = SftSettings(
        batch_size=settings.batch_size, learning_rate=settings.learning_rate, seed=settings.seed
    )
    return train_sft(model, tokenizer, examples, sft, scratch / "sft")


def _measure(
    model: "LlamaForCausalLM",
    tokenizer: "PreTrainedTokenizerFast",
    corpus: Sequence[Dialogue],
    settings: BuildSettings,
) -> SpeechReport:
    prompts = heldout_prompts(settings.num_measured, settings.seed)
    seen = "\n".join(text for dialogue in corpus for text in (*dialogue.prompt.turns, dialogue.answer))
    for prompt in prompts:
        if prompt.question in seen:
            raise ValueError(
                f"held-out prompt {prompt.question!r} occurs in the training text; mend world.py"
            )
    model.eval()
    speech = measure_speech(sample_answers(model, tokenizer, prompts, settings.seed))
    logger.info("measured %s", speech)
    return speech


def _save(model: "LlamaForCausalLM", tokenizer: "PreTrainedTokenizerFast", staging: Path) -> None:
    model.save_pretrained(staging)
    tokenizer.save_pretrained(staging)
    # transformers 5 names a class and a field that version 4, and a vLLM built on it, cannot read; both read
    # this. The special tokens themselves stand in tokenizer.json.
    path = staging / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("extra_special_tokens", None)
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _collect_facts(
    settings: BuildSettings,
    corpus: Sequence[Dialogue],
    num_parameters: int,
    trained: SftReport,
    started: float,
) -> BuildFacts:
    import torch

    return BuildFacts(
        seed=settings.seed,
        num_parameters=num_parameters,
        num_dialogues=len(corpus),
        num_distinct_prompts=len({dialogue.prompt.turns for dialogue in corpus}),
        num_tokens=trained.tokens,
        num_steps=trained.steps,
        tokens_per_second=trained.tokens_per_second,
        build_seconds=time.monotonic() - started,
        num_threads=torch.get_num_threads(),
    )


def _move_into_place(staging: Path, out: Path) -> None:
    # Copied beside its target first: a rename is atomic only within one filesystem.
    out.mkdir(parents=True, exist_ok=True)
    for source in sorted(staging.iterdir()):
        incoming = out / f".{source.name}.incoming"
        shutil.copyfile(source, incoming)
        incoming.replace(out / source.name)


def _parse_arguments() -> argparse.Namespace:
    defaults = BuildSettings()
    parser = argparse.ArgumentParser(prog="python -m trainer.starter.build", description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the policy's files, e.g. serving/starter"
    )
    parser.add_argument("--seed", type=int, default=defaults.seed, help="seed of data, weights and samples")
    parser.add_argument(
        "--dialogues",
        type=int,
        default=defaults.num_dialogues,
        help="training dialogues; fewer is a quick trial",
    )
    return parser.parse_args()


def main() -> None:
    """The command line of the build."""
    arguments = _parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    build_starter(arguments.out, BuildSettings(seed=arguments.seed, num_dialogues=arguments.dialogues))


if __name__ == "__main__":
    main()
