"""Two orders at equal labels: what is run, what is kept, and what a program that was stopped does next."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import orders
from settings import ServeSettings
from tests.benchmarks.fakes import TinyHeed, serve

SMALL = ("--seeds", "2", "--rounds", "2", "--labels", "4", "--annotators", "2", "--eval-prompts", "3")


class Services:
    """A tiny service for each run; remembers what each was told, and breaks where it shall."""

    def __init__(self) -> None:
        self.told: list[dict[str, str]] = []
        self.broken_runs: set[int] = set()

    @contextmanager
    def open(self, _folder: Path, told: dict[str, str]) -> Iterator[tuple[str, str]]:
        self.told.append(told)
        if len(self.told) in self.broken_runs:
            raise RuntimeError("the service ended with code 1")
        with serve(TinyHeed().answer) as url:
            yield url, "admin"


def orders_told(services: Services) -> list[str]:
    return [told["HEED_ROLLOUT__ORDER"] for told in services.told]


def test_every_seed_is_run_in_both_orders_and_the_difference_is_paired(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    services, out = Services(), tmp_path / "runs.jsonl"
    assert orders.main([*SMALL, "--out", str(out)], services.open) == 0
    assert orders_told(services) == ["random", "uncertain", "uncertain", "random"]
    assert {told["HEED_ROLLOUT__READY_PAIRS"] for told in services.told} == {"8"}
    known = {f"HEED_{name.upper()}" for name in ServeSettings.model_fields}
    assert {name.partition("__")[0] for told in services.told for name in told} <= known
    runs = [json.loads(line)["settings"] for line in out.read_text().splitlines()]
    assert [(run["seed"], run["order"]) for run in runs] == [
        (0, "random"),
        (0, "uncertain"),
        (1, "uncertain"),
        (1, "random"),
    ]
    printed = capsys.readouterr().out
    assert "2 seeds in both orders: 0, 1" in printed
    assert "| 2 | win_rate | 1.000 ± 0.000 | 1.000 ± 0.000 | 0.000 ± 0.000 |" in printed


@pytest.mark.slow
def test_a_stopped_program_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    services, out = Services(), tmp_path / "runs.jsonl"
    services.broken_runs = {2}
    assert orders.main([*SMALL, "--out", str(out)], services.open) == 1
    assert len(out.read_text().splitlines()) == 3
    with out.open("a") as file:
        file.write('{"settings": {"se')  # killed while writing
    again = Services()
    assert orders.main([*SMALL, "--out", str(out)], again.open) == 0
    assert orders_told(again) == ["uncertain"]
    assert orders.main([*SMALL, "--out", str(out)], Services().open) == 0


@pytest.mark.slow
def test_runs_with_other_settings_are_not_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "runs.jsonl"
    assert orders.main([*SMALL, "--out", str(out)], Services().open) == 0
    other = Services()
    assert orders.main([*SMALL, "--out", str(out), "--labels", "6"], other.open) == 0
    assert len(other.told) == 4
    assert "4 runs in" in capsys.readouterr().err


def test_the_spread_is_the_standard_error_of_the_seeds() -> None:
    assert orders.describe_mean([0.7, 0.8, 0.9]) == "0.800 ± 0.058"
    assert orders.describe_mean([0.7]) == "0.700 (one seed)"
    assert orders.describe([]) == "no seed has been run in both orders yet"
