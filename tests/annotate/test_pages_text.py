"""What a rater reads is what the model wrote: nothing alive but Markdown, nothing hidden."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.pages.text import mark_invisible, plain, safe_md

JOINER = "\u2060"
ALIVE = re.compile(r"<[A-Za-z/!?]|&#?\w+;|!\[")

# Each was tried in a browser with the real renderer: none made an element or sent a request.
PAYLOADS = [
    '<img src=x onerror="alert(1)">',
    "<script>alert(1)</script>",
    "<form action=https://evil.example><input></form>",
    "<style>*{display:none}</style>",
    "<!-- hidden -->text",
    "<details><summary>s</summary>hidden</details>",
    "![beacon](https://evil.example/x.png)",
    "![a][r]\n\n[r]: https://evil.example/y.png",
    "&lt;b&gt; &amp; &#60;",
    "a ``` <img src=x>",
    "` x\n y `<img src=x>` z",
    "\\`<img src=x>\\`",
    "- a\n  ```\n<img src=x>",
    " ```\n```\n<img src=x>\n```",
    "> ```\n> <img src=x>\n\n<img src=y>",
    "$$\n```\n$$\n<img src=x>",
]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_payload_is_shown_letter_by_letter_and_does_nothing(payload: str) -> None:
    shown = safe_md(payload)
    assert not ALIVE.search(shown)
    assert shown.replace(JOINER, "") == payload


def test_fenced_code_is_left_as_it_is_so_that_a_copy_of_it_runs() -> None:
    code = "```html\n<b>x</b> &lt;\n```"
    assert safe_md(code) == code


def test_what_follows_a_closed_fence_is_text_again() -> None:
    shown = safe_md("~~~\n<b>\n~~~ \n<img src=x>")
    assert "<b>" in shown
    assert "<img" not in shown


def test_a_shorter_fence_does_not_close_a_longer_one() -> None:
    text = "````\n```\n<b>\n````"
    assert safe_md(text) == text


@pytest.mark.parametrize("fence", ["```", "~~~", " ```"])
def test_a_diagram_is_shown_as_its_text(fence: str) -> None:
    assert "mermaid" not in safe_md(f"{fence}mermaid\ngraph TD; A-->B\n{fence}")


def test_formulas_reach_the_renderer_unchanged() -> None:
    assert safe_md("so $$a<b \\& c$$ holds") == "so $$a<b \\& c$$ holds"


@pytest.mark.parametrize(
    "text", ["a & b < c", "5 > 3", "wow! [link](https://x.example)", "**bold** _it_ `code`"]
)
def test_ordinary_markdown_is_untouched(text: str) -> None:
    assert safe_md(text) == text


@pytest.mark.parametrize(
    ("hidden", "marker"),
    [("\u202e", "‹U+202E›"), ("\u200b", "‹U+200B›"), ("\u2060", "‹U+2060›"), ("\U000e0041", "‹U+E0041›")],
)
def test_an_invisible_character_is_shown_as_a_marker(hidden: str, marker: str) -> None:
    assert safe_md(f"a{hidden}b") == f"a{marker}b"
    assert plain(f"a{hidden}b") == f"a{marker}b"


def test_emoji_and_persian_keep_their_joiners() -> None:
    text = "👩\u200d🚀 می\u200cخواهم"
    assert mark_invisible(text) == text


def test_plain_text_is_escaped_for_our_own_html() -> None:
    assert plain("<b a='1'>\"&") == "&lt;b a=&#x27;1&#x27;&gt;&quot;&amp;"


@given(st.text(alphabet="ab<>&;!`~$[]( \n\u202e\x00#/", max_size=60))
def test_outside_fences_and_formulas_nothing_is_ever_alive(text: str) -> None:
    shown = safe_md(text)
    if "```" not in text and "~~~" not in text and "$$" not in text:
        assert not ALIVE.search(shown)
    assert shown.replace(JOINER, "") == mark_invisible(text)
