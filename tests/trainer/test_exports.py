"""TRL's own trainers take our exports as they are: loaded by `datasets`, one step each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, extract_prompt

from store.database import Store
from store.exchange import export_labels
from store.export_files import write_by_kind, write_dataset, write_json_lines
from store.importing import import_file, read_labels
from tests.trainer.labelled import judge_pairs

FIXTURES = Path(__file__).parent.parent / "store" / "formats" / "fixtures"


@pytest.fixture
def store():
    opened = Store.in_memory()
    judge_pairs(opened, 3)
    for name in ("trl-unpaired.jsonl", "open-webui.json", "lmsys-arena.jsonl", "oasst1.jsonl"):
        import_file(opened, FIXTURES / name)
    yield opened
    opened.close()


def load(store: Store, folder: Path, format_: str, kind: str) -> Any:
    """The exported rows of a kind, as somebody else's training script would get them."""
    cache = str(folder / "cache")
    rows = list(export_labels(store, holdout_share=0.0))
    if format_ == "dataset":
        write_dataset(rows, folder / "set", None)
        return datasets.load_dataset(str(folder / "set"), kind, split="train", cache_dir=cache)
    if format_ == "json":
        path = folder / "labels.jsonl"
        write_json_lines((row for row in rows if row["format"] == kind), path)
    else:
        write_by_kind(rows, folder / "labels.parquet", "parquet")
        path = folder / f"labels-{kind}.parquet"
    return datasets.load_dataset(format_, data_files=str(path), split="train", cache_dir=cache)


def arguments(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder / "out"),
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "max_length": 64,
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "activation_checkpointing": False,  # TRL's own default still has the old name, which warns
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
    }


@pytest.mark.parametrize("format_", ["json", "parquet", "dataset"])
def test_the_dpo_trainer_takes_the_pairs_as_they_are(base, store, tmp_path, format_):
    rows = load(store, tmp_path, format_, "preference")
    assert len(rows) == 3 + 1 + 2 + 4
    trainer = DPOTrainer(
        model=base.model,
        args=DPOConfig(**arguments(tmp_path)),
        train_dataset=rows,
        processing_class=base.tokenizer,
    )
    assert trainer.train().training_loss > 0


@pytest.mark.parametrize("format_", ["json", "parquet", "dataset"])
def test_the_kto_trainer_takes_the_ratings_as_they_are(base, store, tmp_path, format_):
    rows = load(store, tmp_path, format_, "unpaired")
    assert len(rows) == 2 + 2 + 2
    config = KTOConfig(**arguments(tmp_path), train_sampling_strategy="sequential", undesirable_weight=0.5)
    trainer = KTOTrainer(model=base.model, args=config, train_dataset=rows, processing_class=base.tokenizer)
    assert trainer.train().training_loss > 0


def test_an_implicit_prompt_is_cut_where_trl_cuts_it():
    rows: list[dict[str, Any]] = [
        {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        {"chosen": "One two three", "rejected": "One twelve"},
    ]
    for row in rows:
        [label] = read_labels([row], "trl-preference")
        theirs = extract_prompt(dict(row))
        ours = {"prompt": label.messages[0]["content"], "chosen": label.chosen, "rejected": label.rejected}
        assert ours == {name: theirs[name] for name in ours}
