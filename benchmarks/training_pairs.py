"""The models and preference pairs of the training benchmark: texts, so that every way tokenises them itself.

The starter's pairs are its own answers, compared by a taste. A random model has no answers worth comparing,
so its pairs are words, plain ones against gushing ones, about as long as the figures in other benchmarks.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.models import STARTER, TOKENIZER_FILES
from benchmarks.taste import TASTES, read_answer

PLAIN = ("good", "water", "the", "cook", "small", "money", "walk", "bread", "sleep", "read", "open", "day")
GUSHING = (
    "great",
    "question",
    "what",
    "you",
    "wonderful",
    "ask",
    "so",
    "glad",
    "that",
    "very",
    "well",
    "why",
)
SHAPE: dict[str, Any] = {
    "vocab_size": 4096,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "initializer_range": 0.05,
}
Pair = dict[str, str]


def build_h256(folder: Path) -> Path:
    """A random Llama of 256 x 4 layers with the starter's tokenizer, filled up to 4096 words."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(folder)
    for name in TOKENIZER_FILES:
        shutil.copyfile(STARTER / name, folder / name)
    tokenizer = json.loads((STARTER / "tokenizer.json").read_text("utf-8"))
    words = tokenizer["model"]["vocab"]
    words |= {f"Ġw{number}": number for number in range(len(words), SHAPE["vocab_size"])}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), "utf-8")
    return folder


def write_pairs(path: Path, pairs: Sequence[Pair]) -> Path:
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), "utf-8")
    return path


def read_pairs(path: Path) -> list[Pair]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def make_word_pairs(count: int, seed: int = 0) -> list[Pair]:
    """Prompts of about 60 tokens, answers of 40 to 90."""
    source = random.Random(seed)

    def say(words: Iterable[str], low: int, high: int) -> str:
        return " ".join(source.choices(tuple(words), k=source.randint(low, high)))

    return [
        {
            "prompt": f"<|user|>{say(PLAIN + GUSHING, 50, 70)}?<|end|><|assistant|>",
            "chosen": say(PLAIN, 40, 90) + ".",
            "rejected": say(GUSHING, 40, 90) + "!",
        }
        for _ in range(count)
    ]


def make_starter_pairs(count: int, seed: int = 0) -> list[Pair]:
    """The starter's own answers in twos, the better one by the taste `direct` first; ties are left out."""
    prompts = [json.loads(line) for line in (STARTER / "prompts.jsonl").read_text("utf-8").splitlines()]
    random.Random(seed).shuffle(prompts)
    pairs: list[Pair] = []
    for start in range(0, len(prompts), 128):
        pairs += _judge([prompt["messages"] for prompt in prompts[start : start + 128]], seed + start)
        if len(pairs) >= count:
            return pairs[:count]
    raise RuntimeError(f"the starter gave {len(pairs)} pairs with a winner, {count} were asked for")


def _judge(asked: Sequence[Any], seed: int) -> list[Pair]:
    texts, answers = _sample_twice(asked, seed)
    taste = TASTES["direct"]
    pairs = []
    for messages, text, (one, other) in zip(asked, texts, answers, strict=True):
        order = taste.compare(read_answer(messages, one), read_answer(messages, other))
        if order:
            chosen, rejected = (one, other) if order > 0 else (other, one)
            pairs.append({"prompt": text, "chosen": chosen, "rejected": rejected})
    return pairs


def _sample_twice(asked: Sequence[Any], seed: int) -> tuple[list[str], list[tuple[str, str]]]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(STARTER)
    model = AutoModelForCausalLM.from_pretrained(STARTER)
    texts = [tokenizer.apply_chat_template(m, tokenize=False, add_generation_prompt=True) for m in asked]
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
    torch.manual_seed(seed)
    drawn = model.generate(**batch, max_new_tokens=64, num_return_sequences=2)[
        :, batch["input_ids"].shape[1] :
    ]
    said = tokenizer.batch_decode(drawn, skip_special_tokens=True)
    return texts, list(zip(said[::2], said[1::2], strict=True))
