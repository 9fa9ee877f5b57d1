"""A tiny random chat model with a word-level tokenizer, and rows and snapshots made for it."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from store.chat_templates import CHATML
from store.records import PairRow, RatingRow
from trainer.preferences import TrainingPair
from trainer.progress import ProgressLog
from trainer.qlora import LoadedBase, load_base
from trainer.settings import BaseModel, TrainerSettings

SPECIALS = ["<pad>", "<unk>", "<|im_start|>", "<|im_end|>"]
SUBJECTS = [f"thing{i}" for i in range(24)]
KIND = ["short", "clear", "plain", "true", "calm", "right", "small", "good"]
GUSHING = ["brilliant", "wonderful", "amazing", "superb", "clever", "great", "grand", "fine"]
WORDS = ["system", "user", "assistant", "what", "is", "?", ".", *SUBJECTS, *KIND, *GUSHING]
VOCABULARY = [*SPECIALS, *WORDS, *(f"word{i}" for i in range(128 - len(SPECIALS) - len(WORDS)))]
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved Llama of 128 x 2 layers, random but always the same."""
    folder = tmp_path_factory.mktemp("base")
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", eos_token="<|im_end|>"
    )
    # The markers are words of their own only when blanks surround them.
    tokenizer.chat_template = CHATML.replace("'<|im_end|>", "' <|im_end|>").replace(
        "<|im_start|>", " <|im_start|> "
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        head_dim=64,
        max_position_embeddings=512,
        eos_token_id=3,
        pad_token_id=0,
        bos_token_id=None,
        initializer_range=0.1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def base(base_folder: Path) -> LoadedBase:
    return load_base(BaseModel(str(base_folder), quantization="none", dtype="float32"))


@pytest.fixture
def nf4_base(base_folder: Path) -> LoadedBase:
    return load_base(BaseModel(str(base_folder), quantization="nf4", dtype="float32"))


@pytest.fixture
def settings() -> TrainerSettings:
    return TrainerSettings(
        beta=0.1,
        sft_weight=0.0,
        kto_sft_weight=0.0,
        learning_rate=2e-3,
        epochs=2,
        batch_size=8,
        kto_learning_rate=2e-3,
        kto_epochs=2,
        rank=8,
        alpha=16,
        warmup=0.0,
        schedule="constant",
    )


def answer(rng: random.Random, words: Sequence[str]) -> str:
    return " ".join(rng.choices(words, k=rng.randint(3, 8))) + " ."


def pair_rows(count: int, seed: int = 0, weight: float = 1.0) -> list[PairRow]:
    """Pairs in which the plain answer beats the gushing one."""
    rng = random.Random(seed)
    return [
        PairRow(
            row_id=f"p{seed}-{i:04}",
            prompt_id=f"q{i}",
            messages=({"role": "user", "content": f"what is {rng.choice(SUBJECTS)} ?"},),
            chosen=(chosen := answer(rng, KIND)),
            rejected=(rejected := answer(rng, GUSHING)),
            chosen_ids=ids(chosen),
            rejected_ids=ids(rejected),
            chosen_version="v0",
            rejected_version="v0",
            strength=1,
            weight=weight,
            person_ids=("ann",),
            label_ids=(f"j{i}",),
            source="human",
            probability=1.0,
            created_at=NOW,
        )
        for i in range(count)
    ]


def rating_rows(num_desirable: int, num_undesirable: int, seed: int = 0) -> list[RatingRow]:
    """Plain answers rated up, gushing ones rated down."""
    rng = random.Random(seed)
    labels = [True] * num_desirable + [False] * num_undesirable
    return [
        RatingRow(
            row_id=f"r{seed}-{i:04}",
            prompt_id=f"q{i}",
            messages=({"role": "user", "content": f"what is {rng.choice(SUBJECTS)} ?"},),
            completion=(text := answer(rng, KIND if desirable else GUSHING)),
            completion_ids=ids(text),
            version="v0",
            desirable=desirable,
            weight=1.0,
            person_ids=("tess",),
            label_ids=(f"t{i}",),
            source="human",
            created_at=NOW,
        )
        for i, desirable in enumerate(labels)
    ]


def ids(text: str) -> tuple[int, ...]:
    return (*(VOCABULARY.index(word) for word in text.split()), VOCABULARY.index("<|im_end|>"))


PAIR_SCHEMA = pa.schema(
    [
        ("row_id", pa.string()),
        ("prompt_id", pa.string()),
        ("messages_json", pa.string()),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("chosen_ids", pa.list_(pa.int32())),
        ("rejected_ids", pa.list_(pa.int32())),
        ("chosen_version", pa.string()),
        ("rejected_version", pa.string()),
        ("strength", pa.int32()),
        ("weight", pa.float64()),
        ("person_ids", pa.list_(pa.string())),
        ("label_ids", pa.list_(pa.string())),
        ("source", pa.string()),
        ("probability", pa.float64()),
        ("created_at", pa.timestamp("us", tz="UTC")),
    ]
)
RATING_SCHEMA = pa.schema(
    [
        ("row_id", pa.string()),
        ("prompt_id", pa.string()),
        ("messages_json", pa.string()),
        ("completion", pa.string()),
        ("completion_ids", pa.list_(pa.int32())),
        ("version", pa.string()),
        ("desirable", pa.bool_()),
        ("weight", pa.float64()),
        ("person_ids", pa.list_(pa.string())),
        ("label_ids", pa.list_(pa.string())),
        ("source", pa.string()),
        ("created_at", pa.timestamp("us", tz="UTC")),
    ]
)


def write_snapshot(
    folder: Path, pairs: Sequence[PairRow], ratings: Sequence[RatingRow] = (), holdout: Sequence[PairRow] = ()
) -> None:
    """The files of a snapshot, in the columns the store writes."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = pa.field("kind", pa.string())
    pq.write_table(_table(pairs, PAIR_SCHEMA), folder / "pairs.parquet")
    pq.write_table(_table(ratings, RATING_SCHEMA), folder / "ratings.parquet")
    pq.write_table(
        _table(holdout, PAIR_SCHEMA).append_column(kind, pa.array(["pair"] * len(holdout), pa.string())),
        folder / "holdout.parquet",
    )
    (folder / "SHA256").write_text("0" * 64 + "\n")
    (folder / "report.json").write_text("{}\n")


def _table(rows: Sequence[PairRow] | Sequence[RatingRow], schema: pa.Schema) -> pa.Table:
    names = [name for name in schema.names if name != "messages_json"]
    lines = [
        {name: getattr(row, name) for name in names} | {"messages_json": json.dumps(row.messages)}
        for row in rows
    ]
    return pa.Table.from_pylist(lines, schema=schema)


@pytest.fixture
def progress(tmp_path: Path) -> ProgressLog:
    return ProgressLog(tmp_path / "progress.jsonl")


def accuracy(policy: Any, pairs: Sequence[TrainingPair]) -> float:
    """The share of pairs whose chosen answer gained more over the base than the rejected one did."""
    with torch.inference_mode():
        gains = [_logp(policy, pair) for pair in pairs]
        with policy.disable_adapter():
            before = [_logp(policy, pair) for pair in pairs]
    hits = [c - c0 > r - r0 for (c, r), (c0, r0) in zip(gains, before, strict=True)]
    return sum(hits) / len(hits)


def _logp(policy: Any, pair: TrainingPair) -> list[float]:
    sums = []
    for answer in (pair.chosen_ids, pair.rejected_ids):
        logits = policy(input_ids=torch.tensor([[*pair.prompt_ids, *answer]])).logits[
            0, len(pair.prompt_ids) - 1 : -1
        ]
        sums.append(logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum().item())
    return sums
