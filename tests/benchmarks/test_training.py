"""The training benchmark's arithmetic and pairs; the trainings themselves take minutes."""

from __future__ import annotations

import json

import pytest

from benchmarks.training import CASES, format_case, summarise
from benchmarks.training_pairs import make_word_pairs, read_pairs, write_pairs

# Trains for minutes in all, in processes of its own.
pytestmark = pytest.mark.slow


def found(ours: float, difference: float) -> dict[str, object]:
    times = {"guide": 400.0, "stock": 200.0, "tuned": 150.0, "ours": ours, "floor": 40.0}
    return {
        way: {"ms_per_pair": ms, "ms_low": ms, "ms_high": ms, "first_loss": 0.6931}
        for way, ms in times.items()
    } | {"loss_difference": difference}


def test_ratios_are_ours_over_theirs_and_only_equal_maths_counts_as_equal_losses() -> None:
    told = summarise({"h256_fp32": found(80, 1e-6), "h256_bf16": found(90, 3e-3)})
    assert told["ratio_to_stock"] == {"h256_fp32": 0.4, "h256_bf16": 0.45}
    assert told["ratio_to_tuned"]["h256_fp32"] == pytest.approx(80 / 150, abs=1e-3)
    assert told["ratio_to_floor"]["h256_fp32"] == 2.0
    assert told["max_loss_difference"] == 1e-6
    assert json.loads(json.dumps(told))["loss_differences"]["h256_bf16"] == 3e-3


def test_a_table_has_a_line_a_way_and_every_ratio() -> None:
    lines = format_case("h256_fp32", found(80, 1e-6)).splitlines()
    assert len({line.count("|") for line in lines[:7]}) == 1
    assert lines[5].startswith("| ours | 80.0 |")
    assert lines[5].endswith("| 80.0-80.0 | 0.40 | 0.53 | 2.00 |")


def test_every_way_reads_the_same_pairs_again(tmp_path) -> None:
    pairs = make_word_pairs(6)
    assert read_pairs(write_pairs(tmp_path / "pairs.jsonl", pairs)) == pairs == make_word_pairs(6)
    assert make_word_pairs(6, seed=1) != pairs


def test_the_cases_are_those_the_figures_are_named_after() -> None:
    assert list(CASES) == ["starter_fp32", "h256_fp32", "h256_bf16", "h256_nf4"]
