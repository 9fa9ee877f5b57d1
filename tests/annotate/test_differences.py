"""Marked differences: the words only one answer has, and never a tag that the model wrote."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.pages.differences import likeness, mark_differences
from annotate.pages.text import safe_md

MARKED = re.compile("<mark>(.*?)</mark>", re.DOTALL)
MARKDOWN = st.text(alphabet="ab <>&!*_`~$[]()#-|.\n\\'\"/1", max_size=80)


def words(text: str) -> list[str]:
    return MARKED.findall(text)


def without_marks(text: str) -> str:
    return text.replace("<mark>", "").replace("</mark>", "")


def test_only_the_words_that_differ_are_marked() -> None:
    left, right = mark_differences("It boils at 100 degrees.", "It boils at 90 degrees, mostly.")
    assert (words(left), words(right)) == (["100"], ["90", "mostly"])


def test_neighbours_share_a_mark_and_equal_answers_have_none() -> None:
    left, right = mark_differences("one two three four", "one four")
    assert (words(left), words(right)) == (["two three"], [])
    assert mark_differences("same *text*", "same *text*") == ("same *text*", "same *text*")


def test_emphasis_stays_outside_of_the_mark() -> None:
    assert mark_differences("a **bold** b", "a b")[0] == "a **<mark>bold</mark>** b"


@pytest.mark.parametrize(
    "kept",
    [
        "```python\nreturn 1\n```",
        "````\n```\nreturn 1\n````",
        "`return 1`",
        "$$x^2$$",
        "https://example.org/a",
        "[](there)",
        "    return 1",
        "1.",
    ],
)
def test_what_the_renderer_reads_is_left_alone(kept: str) -> None:
    marked = mark_differences(f"{kept}\n\nsame", "same")[0]
    assert words(marked) == []


def test_code_in_a_fence_that_only_a_parser_could_follow_is_not_marked() -> None:
    text = "- a\n  ```\n  return 1\n  ```\n"
    assert mark_differences(text, "same") == (safe_md(text), mark_differences(text, "same")[1])
    assert words(mark_differences(text, "same")[0]) == []


@pytest.mark.parametrize("hostile", ["<b onclick=x>", "</mark><script>", "&lt;b&gt;", "\ufdd0script\ufdd1"])
def test_a_tag_that_the_model_wrote_stays_text(hostile: str) -> None:
    marked = mark_differences(f"{hostile} and more", "something else")[0]
    assert not re.search(r"<(?!/?mark>)[A-Za-z/!?]|&#?\w+;", marked)


@given(MARKDOWN, MARKDOWN)
def test_marks_change_nothing_else_and_make_nothing_alive(left: str, right: str) -> None:
    joiner = "\u2060"
    for text, marked in zip((left, right), mark_differences(left, right), strict=True):
        assert without_marks(marked).replace(joiner, "") == safe_md(text).replace(joiner, "")
        assert marked.count("<mark>") == marked.count("</mark>")


def test_likeness_is_the_share_of_equal_words() -> None:
    assert likeness("a b c d", "a b c e") == 0.75
    assert likeness("a b", "c d") == 0.0
    assert likeness("word " * 4000, "word " * 4000) == 0.0
