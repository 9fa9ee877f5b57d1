"""Each format is recognised by its fields and gives the labels its makers meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from store.errors import BadValue
from store.formats import FORMATS
from store.importing import Preview, preview, read_labels
from store.records import Message, OutsideLabel

FIXTURES = Path(__file__).parent / "fixtures"
EXPECTED: list[tuple[str, str, dict[str, int], dict[str, int]]] = [
    (
        "trl-preference.jsonl",
        "trl-preference",
        {"pair": 4},
        {"the two answers are the same text": 1},
    ),
    ("trl-unpaired.jsonl", "trl-unpaired", {"desirable": 1, "undesirable": 1}, {}),
    ("hh-rlhf.jsonl", "hh-rlhf", {"pair": 2}, {"the two conversations part before the last answer": 1}),
    ("ultrafeedback-binarized.jsonl", "ultrafeedback-binarized", {"pair": 2}, {"a tie teaches nothing": 1}),
    ("ultrafeedback.jsonl", "ultrafeedback", {"pair": 1}, {"a tie teaches nothing": 1}),
    ("shp.jsonl", "shp", {"pair": 2}, {"score_ratio below 2": 1}),
    (
        "oasst1.jsonl",
        "oasst1",
        {"pair": 4},
        {
            "a message that is no answer": 2,
            "a deleted message": 1,
            "an answer whose conversation is not in this file": 1,
        },
    ),
    ("orca-dpo.jsonl", "orca-dpo", {"pair": 2}, {"a tie teaches nothing": 1}),
    (
        "argilla.json",
        "argilla",
        {"pair": 2},
        {"a response that was not submitted": 1, "a record without a response": 1},
    ),
    ("open-webui.json", "open-webui", {"desirable": 1, "undesirable": 1, "pair": 1}, {}),
    (
        "lmsys-arena.jsonl",
        "lmsys-arena",
        {"pair": 2, "undesirable": 2},
        {"a tie teaches nothing": 1, "the two conversations part before the last answer": 1},
    ),
    (
        "lmsys-55k.csv",
        "lmsys-55k",
        {"pair": 1},
        {
            "a conversation of several turns": 1,
            "a tie teaches nothing": 1,
            "an answer that is missing": 1,
        },
    ),
    (
        "label-studio.json",
        "label-studio",
        {"pair": 2},
        {"an annotation that was cancelled": 1, "a task without an annotation": 1},
    ),
    ("potato.jsonl", "potato", {"pair": 2}, {"a tie teaches nothing": 1}),
    ("prompts.txt", "prompts", {"prompt": 2}, {}),
    ("prompts.json", "prompts", {"prompt": 3}, {}),
]


def labels(name: str) -> list[OutsideLabel]:
    return read_labels(FIXTURES / name)


def user(text: str) -> Message:
    return Message(role="user", content=text)


@pytest.mark.parametrize(("name", "format_", "counts", "skipped"), EXPECTED)
def test_a_fixture_is_recognised_and_read_in_full(
    name: str, format_: str, counts: dict[str, int], skipped: dict[str, int]
) -> None:
    found: Preview = preview(FIXTURES / name)
    assert (found.format, found.counts, found.skipped, found.problems) == (format_, counts, skipped, ())
    assert found.reason.startswith(f"{sum(1 for _ in _rows(name))} of the first")


def test_every_format_has_a_fixture() -> None:
    tested = {format_ for _, format_, _, _ in EXPECTED}
    assert {format_.name for format_ in FORMATS} - tested == {"heed"}  # ours is tested by the round trip


@pytest.mark.parametrize("name", [name for name, *_ in EXPECTED])
def test_no_two_formats_claim_the_same_row(name: str) -> None:
    for row in _rows(name):
        assert len([format_.name for format_ in FORMATS if format_.detect(row)]) == 1, row


def test_trl_answers_are_read_from_text_and_from_messages() -> None:
    plain, conversational, implicit, cut = labels("trl-preference.jsonl")
    assert (plain.messages, plain.chosen) == ((user("What colour is the sky?"),), "Blue on a clear day.")
    assert (conversational.chosen, conversational.rejected) == ("Hello!", "Bye.")
    assert conversational.extra == {"origin": "demo"}
    assert implicit.messages == (Message(role="system", content="Be brief."), user("2 + 2?"))
    assert (cut.messages[0]["content"], cut.chosen) == ("The capital of France is", " Paris.")
    _, down = labels("trl-unpaired.jsonl")
    assert (down.desirable, down.chosen, down.extra) == (False, "1, 2, 4", {"score": 0.25})


def test_hh_dialogues_share_their_prompt() -> None:
    _, longer = labels("hh-rlhf.jsonl")
    assert [message["role"] for message in longer.messages] == ["user", "assistant", "user"]
    assert (longer.chosen, longer.rejected) == ("Oak: a tree with acorns.", "A trout.")


def test_a_score_gap_becomes_the_strength() -> None:
    assert [label.strength for label in labels("ultrafeedback-binarized.jsonl")] == [1, 3]
    assert [label.strength for label in labels("shp.jsonl")] == [1, 3]
    assert [label.strength for label in labels("orca-dpo.jsonl")] == [1, 3]
    assert [label.strength for label in labels("potato.jsonl")] == [1, 3]


def test_ultrafeedback_pits_the_best_against_a_worse_one_and_keeps_both_models() -> None:
    [label] = labels("ultrafeedback.jsonl")
    assert label.chosen.startswith("The Earth pulls")
    chosen, rejected = label.extra["chosen"], label.extra["rejected"]
    assert isinstance(chosen, dict)
    assert isinstance(rejected, dict)
    assert chosen["model"] == "gpt-4"
    assert rejected["overall_score"] < chosen["overall_score"]


def test_the_label_of_shp_says_which_comment_won() -> None:
    first, second = labels("shp.jsonl")
    assert first.chosen == "Rinse it first."
    assert second.chosen == "A serrated one."


def test_oasst_siblings_become_pairs_with_the_conversation_above_them() -> None:
    found = {(label.chosen, label.rejected): label for label in labels("oasst1.jsonl")}
    best, middle, worst = (
        "A market where one buyer faces many sellers.",
        "It is a market with one buyer.",
        "I do not know.",
    )
    assert set(found) == {
        (best, middle),
        (best, worst),
        (middle, worst),
        ("A mine that is the only employer of a town.", "Shops."),
    }
    assert found[best, worst].strength == 2
    deep = found["A mine that is the only employer of a town.", "Shops."]
    assert [message["content"] for message in deep.messages] == [
        "What is a monopsony?",
        best,
        "Give an example.",
    ]
    assert deep.created_at.year == 2023


def test_a_tree_that_bites_its_tail_is_refused() -> None:
    rows = [
        {"message_id": "a", "parent_id": "b", "text": "x", "role": "assistant", "rank": 0},
        {"message_id": "b", "parent_id": "a", "text": "y", "role": "assistant", "rank": 0},
    ]
    with pytest.raises(BadValue, match="leads in a circle"):
        read_labels(rows, "oasst1")


def test_orca_puts_its_system_message_first() -> None:
    first, second = labels("orca-dpo.jsonl")
    assert first.messages[0] == Message(role="system", content="You are an assistant.")
    assert second.messages == (user("Add 2 and 3."),)


def test_argilla_takes_only_what_was_submitted_by_whom() -> None:
    choice, ranking = labels("argilla.json")
    assert (choice.chosen, choice.annotator) == ("They weigh the same.", "b1e1")
    assert choice.extra["fields"] == {"context": "a riddle"}
    assert (ranking.chosen, ranking.annotator) == ("Robin.", "b1e2")


def test_argilla_fields_can_have_any_name() -> None:
    record = {
        "fields": {"ask": "Which?", "uno": "one", "due": "two"},
        "responses": {"q": [{"value": "due", "user_id": "x"}], "other": [{"value": 3, "user_id": "x"}]},
    }
    with pytest.raises(BadValue, match=r"answers several questions \(q, other\); choose with question=NAME"):
        read_labels([record])
    with pytest.raises(BadValue, match="name them with first=NAME,second=NAME, of ask, due, uno"):
        read_labels([record], names={"question": "q"})
    names = {"prompt": "ask", "first": "uno", "second": "due", "question": "q"}
    [label] = read_labels([record], names=names)
    assert (label.messages, label.chosen) == ((user("Which?"),), "two")


def test_a_thumb_in_open_webui_rates_and_beats_its_sibling() -> None:
    up, beats, down = labels("open-webui.json")
    assert (up.kind, up.desirable, up.chosen) == ("rating", True, "56")
    assert (beats.chosen, beats.rejected) == ("56", "54")
    assert [message["content"] for message in down.messages] == ["What is 7 x 8?", "56", "And 7 x 9?"]
    assert (down.desirable, down.annotator) == (False, "11111111-2222-3333-4444-555555555555")
    assert "it is 63" in str(down.extra)


def test_both_bad_in_the_arena_is_two_undesirable_answers() -> None:
    bad = [label for label in labels("lmsys-arena.jsonl") if label.kind == "rating"]
    assert [(label.chosen, label.desirable) for label in bad] == [("Bacon.", False), ("Marlowe.", False)]
    assert labels("lmsys-arena.jsonl")[1].chosen == "4"
    assert bad[0].annotator == "arena_user_1"


def test_a_quoted_cell_may_hold_line_ends_and_quotes() -> None:
    [label] = labels("lmsys-55k.csv")
    assert label.chosen == 'It depends, "mostly" not.\nA lie harms.'


def test_label_studio_names_nobody_by_mail() -> None:
    left, right = labels("label-studio.json")
    assert (left.chosen, left.annotator) == ("Rain all day.", "10")
    assert right.chosen == "Iron."
    assert "@" not in str(left.extra)
    assert left.extra["data"] == {"topic": "weather"}


def test_a_potato_scale_is_negative_for_the_left_item() -> None:
    selected, scaled = labels("potato.jsonl")
    assert (selected.chosen, selected.annotator) == ("July.", "ann")
    assert scaled.chosen == "c-a-t"


def _rows(name: str) -> list[dict[str, Any]]:
    from store.formats.files import read_rows
    from store.formats.lines import SourceRow

    return [dict(row.fields) for row in read_rows(FIXTURES / name) if isinstance(row, SourceRow)]
