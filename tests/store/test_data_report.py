"""Each check of the data report finds what it is for, and leaves sound data alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from store.completions import save_completion
from store.data_checks import Finding, LabelledRow
from store.data_report import (
    MOST_COMPARED,
    MOST_POINTS,
    DataReport,
    from_outside,
    report_on,
    report_on_store,
    similarity_of,
)
from store.database import Store
from store.importing import import_file
from store.judgements import save_judgement
from store.ratings import save_rating
from store.report_table import show_report
from tests.store import samples

FIXTURES = Path(__file__).parent / "formats" / "fixtures"


def sound(count: int = 200) -> list[LabelledRow]:
    """Pairs nobody could complain about."""
    answers = "Thing {} is a plain and honest thing.", "Thing {} might be whatever you want it to be."
    return [
        LabelledRow(
            samples.ask(f"What is thing {number}?"),
            answers[number % 2].format(number),
            answers[number % 2 - 1].format(number),
            None,
            (f"a_{number % 4}",),
            samples.AT + timedelta(hours=number),
            "holdout" if number % 10 == 0 else "train",
        )
        for number in range(count)
    ]


def thumbs(up: int, down: int) -> list[LabelledRow]:
    return [replace(row, rejected=None, desirable=number < up) for number, row in enumerate(sound(up + down))]


def find(report: DataReport, name: str) -> Finding:
    return next(finding for finding in report.findings if finding.name == name)


def verdict(rows: list[LabelledRow], name: str) -> str:
    return find(report_on(rows), name).verdict


def test_sound_data_has_nothing_to_look_at() -> None:
    report = report_on(sound())
    assert {finding.name: finding.verdict for finding in report.findings if finding.verdict != "ok"} == {}
    assert (report.verdict, report.num_pairs, report.num_ratings) == ("ok", 200, 0)


def every(changes: dict[str, Any], step: int = 1) -> list[LabelledRow]:
    return [replace(row, **changes) if number % step == 0 else row for number, row in enumerate(sound())]


CASES: list[tuple[str, list[LabelledRow], str]] = [
    ("length ratio", every({"chosen": "word " * 40 + "."}), "bad"),
    ("length ratio", every({"rejected": "word " * 40 + "."}), "bad"),
    ("chosen is longer", every({"chosen": "This one has a few more words than the other one has."}), "bad"),
    ("repeated prompts", every({"messages": samples.ask("The same?")}), "look"),
    ("identical pairs", every({"chosen": "Same. ", "rejected": "Same."}, step=100), "bad"),
    ("duplicate pairs", sound(100) + sound(100), "bad"),
    (
        "nearly equal pairs",
        every({"chosen": "One two three four.", "rejected": "One two three four."}),
        "bad",
    ),
    ("wholly different pairs", every({"chosen": "One two three.", "rejected": "Alpha beta gamma."}), "look"),
    ("empty better answers", every({"chosen": " "}, step=100), "bad"),
    ("short answers", every({"chosen": "4", "rejected": "5"}), "bad"),
    ("unsafe better answers", every({"is_unsafe": True}, step=100), "bad"),
    ("identity leaks", every({"chosen": "As an AI language model, I cannot."}, step=100), "look"),
    ("identity leaks", every({"chosen": "I'm ChatGPT and was happy to help."}, step=10), "bad"),
    ("identity leaks", every({"chosen": "I was trained by OpenAI to be helpful."}, step=10), "bad"),
    ("unfinished answers", every({"is_finished": False}, step=3), "look"),
    ("unfinished answers", [replace(row, is_finished=False) for row in sound()], "bad"),
    ("unfinished answers", every({"chosen": "This is an answer that goes on for a while and then"}), "look"),
    ("prompts in both splits", every({"messages": samples.ask("The same?")}), "bad"),
    ("largest annotator's share", every({"annotators": ("a_1",)}, step=2), "look"),
    ("largest annotator's share", every({"annotators": ("only",)}), "look"),
]


@pytest.mark.parametrize(("name", "rows", "expected"), CASES)
def test_a_fault_is_found(name: str, rows: list[LabelledRow], expected: str) -> None:
    assert verdict(rows, name) == expected


def test_a_pair_judged_both_ways_is_a_conflict() -> None:
    rows = sound(100)
    swapped = [replace(row, chosen=row.rejected or "", rejected=row.chosen) for row in rows[:30]]
    found = find(report_on(rows + swapped), "label conflicts")
    assert (found.value, found.verdict) == (0.3, "bad")
    assert "30 of 100 different pairs" in found.says


def test_several_people_on_one_pair_are_no_duplicates() -> None:
    second = [replace(row, annotators=("another",)) for row in sound(100)]
    assert verdict(sound(100) + second, "duplicate pairs") == "ok"


def test_a_prompt_that_differs_in_a_full_stop_is_on_both_sides() -> None:
    rows = sound()
    rows[1] = replace(rows[1], messages=samples.ask("what is  THING 0 !"))
    found = find(report_on(rows), "prompts in both splits")
    assert (found.value, found.verdict) == (1 / 20, "look")


@pytest.mark.parametrize(
    ("up", "down", "expected", "words"),
    [
        (60, 50, "ok", "60 desirable to 50"),
        (200, 50, "look", "undesirable_weight between 3.00 and 4.00"),
        (50, 100, "look", "desirable_weight between 2.00 and 2.67"),
        (100, 5, "bad", "at least 16 of each"),
    ],
)
def test_ratings_should_be_balanced(up: int, down: int, expected: str, words: str) -> None:
    found = find(report_on(thumbs(up, down)), "class balance for KTO")
    assert found.verdict == expected
    assert words in found.says


def test_the_recommended_weight_is_one_trl_does_not_warn_about() -> None:
    found = find(report_on(thumbs(200, 50)), "class balance for KTO")
    low, high = (float(word) for word in found.says.split("between ")[1].split(" and "))
    assert 1 <= 200 / (low * 50) <= 4 / 3 + 1e-9
    assert 1 <= 200 / (high * 50) <= 4 / 3 + 1e-9


def test_figures_for_plots_are_bounded_and_complete() -> None:
    rows = sound(MOST_POINTS + 500)
    report = report_on(rows)
    assert len(report.lengths) == MOST_POINTS
    assert sum(report.similarity) == MOST_COMPARED
    assert sum(count for _, count in report.labels_per_day) == len(rows)
    assert list(report.labels_per_day) == sorted(report.labels_per_day)
    assert "show 1000 of 1500 pairs" in report.notes[0]


def test_similarity_does_not_collapse_for_long_texts() -> None:
    text = "the quick brown fox jumps over the lazy dog and runs " * 30
    row = replace(sound(1)[0], chosen=text, rejected=text.replace("fox", "cat"))
    assert 0.8 < similarity_of(row) < 1.0


def test_nothing_to_report_on_is_bad() -> None:
    report = report_on([])
    assert (report.verdict, report.num_pairs, report.lengths) == ("bad", 0, ())
    assert "labels" in show_report(report)


def test_the_store_knows_which_answers_were_cut_off_or_flagged(store: Store) -> None:
    ann, bob = (samples.person(store).person_id for _ in range(2))
    task = samples.task(store, wanted=2)
    chosen, rejected = task.completion_ids
    preferred = {"choice": "prefer", "chosen_id": chosen, "rejected_id": rejected, "strength": 1}
    for person, unsafe in ((ann, (chosen,)), (bob, ())):  # flagged by half of them, so it is still trained on
        samples.lease(store, person)
        save_judgement(store, task.task_id, person, **preferred, unsafe_ids=unsafe)
    cut = save_completion(store, samples.answer("cut o", "Say it all.", finish_reason="length"))
    save_rating(store, cut.completion_id, ann, 1)
    report = report_on_store(store)
    assert find(report, "unsafe better answers").value == 1
    unfinished = find(report, "unfinished answers")
    assert (unfinished.value, "guessed" in unfinished.says) == (0.5, False)
    import_file(store, FIXTURES / "shp.jsonl")
    assert report_on_store(store).num_pairs == 3
    assert "guessed" in find(report_on_store(store), "unfinished answers").says


def test_the_table_has_a_line_for_every_check() -> None:
    report = report_on([*sound(20), *thumbs(3, 2)])
    shown = show_report(report)
    assert shown.startswith("20 pairs, 5 ratings: bad\n")
    starts = [line.split("  ")[0].strip() for line in shown.splitlines() if line[:1].isalpha()]
    assert len([word for word in starts if word in ("ok", "look", "bad")]) == len(report.findings)
    assert max(len(line) for line in shown.splitlines()) <= 120


def test_a_label_of_a_file_is_split_as_a_snapshot_would() -> None:
    from store.importing import read_labels

    rows = [from_outside(label) for label in read_labels(FIXTURES / "oasst1.jsonl")]
    assert {row.split for row in rows} <= {"train", "holdout"}
    assert all(row.is_finished is None for row in rows)
