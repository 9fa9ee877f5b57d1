"""The boundary: what comes back byte for byte, and what is refused with a sentence."""

from __future__ import annotations

import dataclasses
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.boundary import check_messages, check_name, check_text
from store.clock import utc
from store.completions import read_completion, save_completion
from store.database import Store
from store.errors import BadValue
from store.judgements import read_judgements, save_judgement
from store.migrations import FACT_TABLES
from store.prompts import NewPrompt, add_prompts, read_prompt
from tests.store import samples

HOSTILE = (
    "'; DROP TABLE people; --",
    '" OR 1=1 --',
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "$name ?1 {0} %s \\u0000 \\",
    "\u202eright to left\u202c zero\u200bwidth e\u0301 \U0001f9d1\u200d\U0001f680",
    "line\r\none\ttwo\u2028three\x07",
    "x" * 2_000_000,
)


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:12]))
def test_every_text_comes_back_as_it_was(store: Store, text: str) -> None:
    added = add_prompts(store, [NewPrompt(samples.ask(text), [text])], source=text)
    prompt = read_prompt(store, added.prompt_ids[0])
    assert (prompt.messages, prompt.tags, prompt.source) == (samples.ask(text), (text,), text)
    saved = save_completion(store, samples.answer(text, messages=samples.ask(text)))
    assert read_completion(store, saved.completion_id) == saved
    annotator = samples.person(store)
    task = samples.task(store, "single")
    samples.lease(store, annotator.person_id, "single")
    given = {"reasons": (text,), "comment": text, "correction": text}
    save_judgement(store, task.task_id, annotator.person_id, choice="up", **given)
    judged = read_judgements(store)[0]
    assert (judged.reasons, judged.comment, judged.correction) == ((text,), text, text)
    with store.read() as cursor:
        tables = {name for (name,) in cursor.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    assert set(FACT_TABLES) <= tables


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
@settings(max_examples=200, deadline=None)
def test_any_text_without_nul_and_surrogates_is_itself(text: str) -> None:
    assert check_text("text", text) is text


@pytest.mark.parametrize(
    ("text", "says"), [("a\0b", "NUL character at position 1"), ("ab\ud800", "position 2")]
)
def test_text_that_could_not_be_given_back_is_refused(store: Store, text: str, says: str) -> None:
    with pytest.raises(BadValue, match=says):
        add_prompts(store, [NewPrompt(samples.ask(text))], source="test")
    with pytest.raises(BadValue, match=says):
        save_completion(store, samples.answer(text))


@pytest.mark.parametrize("name", ["", "   ", "a" * 81, "new\nline", "bell\x07", "\u202etlr"])
def test_a_name_that_cannot_be_read_aloud_is_refused(name: str) -> None:
    with pytest.raises(BadValue, match="1 to 80 printable characters"):
        check_name(name)


def test_a_name_is_trimmed_and_composed() -> None:
    assert check_name("  Zoe\u0308 ") == unicodedata.normalize("NFC", "Zoë")


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([], "at least one"),
        ("hello", "must be a list"),
        ([{"role": "user"}], "message 0 must have exactly a role and a content"),
        (
            [{"role": "root", "content": "x"}],
            "role of message 0 'root' is not one of system, user, assistant",
        ),
        ([{"role": "user", "content": 3}], "content of message 0 must be text, not int"),
        ([{"role": "assistant", "content": "x"}], "ends with the user"),
    ],
)
def test_a_malformed_message_list_is_refused(messages: list[object], says: str) -> None:
    with pytest.raises(BadValue, match=says):
        check_messages(messages)  # type: ignore[arg-type]


def test_a_log_probability_that_is_no_number_is_refused(store: Store) -> None:
    with pytest.raises(BadValue, match="not finite"):
        save_completion(store, dataclasses.replace(samples.answer(), logprob_sum=float("nan")))


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(BadValue, match="no time zone"):
        utc(samples.AT.replace(tzinfo=None))
