"""The number of threads is the one whose step was fastest, and fewer where more gain little."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from serving import threads
from serving.threads import choose_threads

MODEL = SimpleNamespace(device=torch.device("cpu"))


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("steps", "chosen"),
    [
        ({1: 0.002, 2: 0.004, 4: 0.005}, 1),
        ({1: 0.100, 2: 0.052, 4: 0.030}, 4),
        ({1: 0.100, 2: 0.060, 4: 0.058}, 2),
        ({1: 0.100, 2: 0.095, 4: 0.020}, 4),
        ({1: 0.900, 2: 0.900, 4: 0.900}, 4),  # so long that nothing is tried
    ],
)
def test_the_fastest_number_is_taken(
    monkeypatch: pytest.MonkeyPatch, steps: dict[int, float], chosen: int
) -> None:
    monkeypatch.setattr(threads, "_time_step", lambda _: steps[torch.get_num_threads()])
    assert choose_threads(MODEL) == chosen == torch.get_num_threads()


def test_a_model_elsewhere_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_time_step", lambda _: pytest.fail("no step is timed"))
    assert choose_threads(SimpleNamespace(device=torch.device("meta"))) == 4
