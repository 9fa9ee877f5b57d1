"""Outside labels are kept once, as they came, and apart from people's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from store.clock import utc
from store.database import Store
from store.errors import BadValue
from store.outside import add_outside_labels, count_outside_labels, drop_outside_labels, read_outside_labels
from store.records import Message, OutsideLabel

ASKED = (Message(role="user", content="2 + 2?"),)
PAIR = OutsideLabel("", "pair", "import:trl", ASKED, "4", utc(), rejected="5", extra={"score": 2.5})
RATING = OutsideLabel(
    "", "rating", "judge:m", ASKED, "4", utc(), desirable=True, task_id="t_1", split="train"
)


def test_labels_come_back_as_they_went_in(store: Store) -> None:
    added = add_outside_labels(store, [PAIR, RATING])
    with store.read() as cursor:
        read = read_outside_labels(cursor)
    assert read == [
        replace(label, label_id=label_id)
        for label, label_id in zip((PAIR, RATING), added.label_ids, strict=True)
    ]
    assert count_outside_labels(store) == {"import:trl": 1, "judge:m": 1}


def test_the_same_label_is_kept_once_whoever_brings_it_again(store: Store) -> None:
    first = add_outside_labels(store, [PAIR])
    again = add_outside_labels(store, [PAIR, replace(PAIR, annotator="someone else")])
    assert (again.added, again.known) == (1, 1)
    assert again.label_ids[0] == first.label_ids[0]


def test_a_bad_label_lets_none_of_them_in(store: Store) -> None:
    with pytest.raises(BadValue, match="same text"):
        add_outside_labels(store, [RATING, replace(PAIR, rejected="4")])
    assert count_outside_labels(store) == {}


def test_a_whole_source_can_be_dropped(store: Store) -> None:
    add_outside_labels(store, [PAIR, RATING])
    assert drop_outside_labels(store, "judge:m", "root") == 1
    assert count_outside_labels(store) == {"import:trl": 1}
    assert drop_outside_labels(store, "judge:m", "root") == 0
