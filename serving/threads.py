"""How many threads a decoding step should use on a CPU: measured, because more is not always faster.

A small model's step is hundreds of products of a few microseconds each, and waking a second thread for each
costs more than it saves; a large one wants every core. On two cores, eight rows: the starter 2,223 tokens/s
with one thread and 1,166 with two, a 135 M model in float32 the other way round.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import torch

logger = logging.getLogger(__name__)

ROWS = 8
TURNS = 9
LONG_STEP_S = 0.25  # a step of this length keeps every core busy, and there is nothing to find out
GAIN = 0.9  # another doubling must save a tenth: cores that save nothing are better left to a round


def choose_threads(model: Any) -> int:
    """The number of torch threads to decode with, at most as many as now; it is set when this returns."""
    most = torch.get_num_threads()
    if model.device.type != "cpu" or most == 1 or _time_step(model) > LONG_STEP_S:
        return most
    numbers = [number for number in (1 << power for power in range(8)) if number < most] + [most]
    best = dict.fromkeys(numbers, float("inf"))
    for _ in range(TURNS):  # in turns, so that a busy moment is bad luck for all of them
        for number in numbers:
            torch.set_num_threads(number)
            best[number] = min(best[number], _time_step(model))
    chosen = numbers[0]
    for number in numbers[1:]:
        if best[number] < GAIN * best[chosen]:
            chosen = number
    torch.set_num_threads(chosen)
    told = ", ".join(f"{number}: {seconds * 1000:.1f} ms" for number, seconds in best.items())
    logger.info("a step of %d rows takes, by threads, %s; using %d", ROWS, told, chosen)
    return chosen


@torch.inference_mode()
def _time_step(model: Any) -> float:
    ids = torch.ones((ROWS, 1), dtype=torch.long)
    began = time.perf_counter()
    model(input_ids=ids, use_cache=False)
    return time.perf_counter() - began
