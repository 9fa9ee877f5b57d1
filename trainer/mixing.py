"""The order in which KTO sees its rows, and how much each of its two classes counts. Knows no model."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any, Protocol, TypeVar

# Eq. 8 of the KTO paper (arXiv 2402.01306): desirable weight x count over undesirable weight x count.
MAX_CLASS_RATIO = 4 / 3


class Labelled(Protocol):
    """What the order is made from."""

    @property
    def prompt_ids(self) -> Hashable: ...
    @property
    def desirable(self) -> bool: ...


Row = TypeVar("Row", bound=Labelled)


def mix_classes(rows: Sequence[Row], batch_size: int, seed: int) -> list[Row]:
    """Spread both classes evenly over the whole order, equal prompts in different batches where possible.

    The library reads KTO rows in stored order and would see all desirable ones first, and learn nothing. A
    class has less than one row more or fewer than its share of any run of rows: a batch lacks a class only
    where that class's share of it is below one row. No exchange of two rows of one class leaves fewer equal
    prompts in a batch.
    """
    rng = random.Random(seed)
    queues = {label: [row for row in rows if row.desirable is label] for label in (True, False)}
    for queue in queues.values():
        rng.shuffle(queue)
    places = [((i + 0.5) / len(queue), label) for label, queue in queues.items() for i in range(len(queue))]
    mixed: list[Row] = []
    for _, label in sorted(places):
        batch = mixed[len(mixed) - len(mixed) % batch_size :]
        mixed.append(_take_first_apart(queues[label], {row.prompt_ids for row in batch}))
    batches = _Batches(mixed, batch_size)
    batches.part_equal_prompts()
    return batches.rows


def _take_first_apart(queue: list[Row], prompts: set[Hashable]) -> Row:
    return queue.pop(next((i for i, row in enumerate(queue) if row.prompt_ids not in prompts), 0))


class _Batches:
    """Rows in batches, and how often each prompt is in each of them."""

    def __init__(self, rows: list[Any], batch_size: int) -> None:
        self.rows, self._size = rows, batch_size
        starts = range(0, len(rows), batch_size)
        self._counts = [Counter(row.prompt_ids for row in rows[at : at + batch_size]) for at in starts]
        self._num_batches_with = Counter(prompt for counts in self._counts for prompt in counts)

    def part_equal_prompts(self) -> None:
        """Exchange rows of one class between batches as long as that leaves fewer equal prompts in them."""
        moved = True
        while moved:
            # Each exchange lowers a count that is at least 0, so this ends.
            moved = sum(self._part(place) for place in range(len(self.rows))) > 0

    def _part(self, place: int) -> bool:
        row, here = self.rows[place], place // self._size
        everywhere = self._num_batches_with[row.prompt_ids] == len(self._counts)
        if self._counts[here][row.prompt_ids] < 2 or everywhere:
            return False
        for other, candidate in enumerate(self.rows):
            there = other // self._size
            if candidate.desirable is row.desirable and there != here and self._gain(place, other) > 0:
                self._exchange(place, other)
                return True
        return False

    def _gain(self, place: int, other: int) -> int:
        """How many equal prompts fewer there would be."""
        ours, theirs = self.rows[place].prompt_ids, self.rows[other].prompt_ids
        if ours == theirs:
            return 0
        here, there = self._counts[place // self._size], self._counts[other // self._size]
        gain_here = (here[ours] > 1) - (here[theirs] > 0)
        return gain_here + (there[theirs] > 1) - (there[ours] > 0)

    def _exchange(self, place: int, other: int) -> None:
        for at, new in ((place, other), (other, place)):
            counts, leaves, comes = self._counts[at // self._size], self.rows[at], self.rows[new]
            counts[leaves.prompt_ids] -= 1
            counts[comes.prompt_ids] += 1
            self._num_batches_with[leaves.prompt_ids] -= counts[leaves.prompt_ids] == 0
            self._num_batches_with[comes.prompt_ids] += counts[comes.prompt_ids] == 1
        self.rows[place], self.rows[other] = self.rows[other], self.rows[place]


def class_weights(num_desirable: float, num_undesirable: float) -> tuple[float, float]:
    """The weights of desirable and undesirable rows, each counted by its own weight. Only the rarer class is
    raised, to a ratio within 1..4/3."""
    if not num_desirable or not num_undesirable or 1.0 <= num_desirable / num_undesirable <= MAX_CLASS_RATIO:
        return 1.0, 1.0
    if num_desirable < num_undesirable:
        return num_undesirable / num_desirable, 1.0
    return 1.0, num_desirable / num_undesirable
