"""The order KTO sees, over random mixes of classes, prompts and batch sizes."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.trainer.conftest import SUBJECTS, rating_rows
from trainer.mixing import MAX_CLASS_RATIO, mix_classes
from trainer.preferences import TrainingRating, prepare_ratings
from trainer.qlora import load_tokenizer

QUICK = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
ROWS = st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=40)
BATCH = st.integers(2, 9)


@pytest.fixture(scope="module")
def tokenizer(base_folder):
    return load_tokenizer(base_folder, None)


def to_ratings(drawn):
    return [
        TrainingRating(f"r{number:03}", (prompt,), (1,), desirable)
        for number, (prompt, desirable) in enumerate(drawn)
    ]


def batches(rows, size):
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def count_equal_prompts(rows, size):
    return sum(len(batch) - len({row.prompt_ids for row in batch}) for batch in batches(rows, size))


@QUICK
@given(drawn=ROWS, size=BATCH, seed=st.integers(0, 3))
def test_every_batch_has_its_share_of_each_class_to_less_than_a_row(drawn, size, seed):
    rows = to_ratings(drawn)
    mixed = mix_classes(rows, size, seed)
    assert sorted(mixed, key=lambda row: row.row_id) == rows
    share = sum(row.desirable for row in rows) / len(rows)
    for batch in batches(mixed, size):
        num_up = sum(row.desirable for row in batch)
        assert abs(num_up - share * len(batch)) < 1
        if len(batch) * min(share, 1 - share) >= 1:
            assert 0 < num_up < len(batch), "both classes have a row to give, so both are there"


@QUICK
@given(drawn=ROWS, size=BATCH)
def test_no_exchange_of_two_rows_would_part_equal_prompts(drawn, size):
    mixed = mix_classes(to_ratings(drawn), size, 0)
    now = count_equal_prompts(mixed, size)
    for one, other in itertools.combinations(range(len(mixed)), 2):
        if mixed[one].desirable is mixed[other].desirable and one // size != other // size:
            turned = list(mixed)
            turned[one], turned[other] = mixed[other], mixed[one]
            assert count_equal_prompts(turned, size) >= now


@QUICK
@given(num_prompts=st.integers(2, 9), num_each=st.integers(1, 5), seed=st.integers(0, 20))
def test_prompts_that_can_all_be_apart_are_apart(num_prompts, num_each, seed):
    """As many rows of each prompt as there are batches, and batches as large as there are prompts."""
    rows = to_ratings([(prompt, True) for prompt in range(num_prompts) for _ in range(num_each)])
    assert count_equal_prompts(mix_classes(rows, num_prompts, seed), num_prompts) == 0


@QUICK
@given(
    up=st.integers(0, 20),
    down=st.integers(0, 20),
    size=BATCH,
    weights=st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=40, max_size=40),
    max_length=st.sampled_from([14, 256]),
)
def test_what_kto_is_given_is_fit_for_it_and_every_other_row_is_named(
    tokenizer, up, down, size, weights, max_length
):
    rows = [replace(row, weight=w) for row, w in zip(rating_rows(up, down), weights, strict=False)]
    rows = [
        replace(row, messages=({"role": "user", "content": f"what is {SUBJECTS[n % 7]} ?"},))
        for n, row in enumerate(rows)
    ]
    given_to_kto = prepare_ratings(rows, tokenizer, max_length, size, 0)
    kept = {row.row_id for row in given_to_kto.rows}
    named = Counter(notice.row_id for notice in given_to_kto.notices if notice.why)
    assert len(given_to_kto.rows) % size != 1, "a batch of one has no neighbour to estimate the KL from"
    assert kept.isdisjoint(named)
    assert kept | set(named) == {row.row_id for row in rows}
    assert set(named.values()) <= {1}
    if not kept:
        return
    assert sum(row.weight for row in given_to_kto.rows) / len(kept) == pytest.approx(1.0)
    of_class = {
        label: sum(row.weight for row in given_to_kto.rows if row.desirable is label)
        for label in (True, False)
    }
    if all(of_class.values()):
        desirable = of_class[True] * given_to_kto.desirable_weight
        ratio = desirable / (of_class[False] * given_to_kto.undesirable_weight)
        assert 1.0 - 1e-9 <= ratio <= MAX_CLASS_RATIO + 1e-9


def test_the_first_library_batches_hold_both_classes_even_when_one_came_first():
    rows = to_ratings([(number, True) for number in range(16)] + [(number, False) for number in range(16)])
    assert all(sum(row.desirable for row in batch) == 4 for batch in batches(mix_classes(rows, 8, 0), 8))
