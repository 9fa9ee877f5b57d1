"""The queue benchmark in miniature: a real service, a crowd, and some who vanish."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.queue import parse_arguments, run_part_1


@pytest.mark.slow
def test_every_task_gets_its_three_judgements_though_some_vanish(tmp_path: Path) -> None:
    flags = ["--clients", "20", "--tasks", "40", "--lease-s", "2", "--vanish", "0.2"]
    # In a thread of its own: Playwright keeps an event loop running in this one once a browser test has run.
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(run_part_1, parse_arguments(flags), tmp_path).result()
    assert (found["exact_tasks"], found["lost"], found["vanished"]) == (40, 0, 4)
    assert found["judgements"] == 120
