"""A whole model's training, as far as nothing is trained: what becomes of its rows is said."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from store.errors import BadValue
from tests.trainer.conftest import pair_rows, write_snapshot
from trainer.settings import BaseModel, TrainerSettings
from trainer.whole import train_whole


def test_rows_that_are_left_out_of_a_whole_training_are_counted_and_named(
    base_folder: Path, settings: TrainerSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    write_snapshot(tmp_path / "snapshot", pair_rows(3, weight=0.0), (), pair_rows(1, seed=1, weight=0.0))
    base = BaseModel(str(base_folder), quantization="none")
    with pytest.raises(BadValue, match="nothing to train on: 0 pairs"):
        train_whole(base, tmp_path / "snapshot", replace(settings, max_length=256), tmp_path / "whole")
    assert "pairs: 3 times left out: its weight is 0" in caplog.text
    assert "holdout: 1 times left out: its weight is 0" in caplog.text
    assert "pairs: row p0-0002 left out" in caplog.text
