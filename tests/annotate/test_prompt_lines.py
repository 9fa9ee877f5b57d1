"""Prompts from JSON lines: what is read, and what the person reads about a line that is none."""

from __future__ import annotations

import json

import pytest

from annotate.prompt_lines import read_prompt_lines


def problem(line: str | bytes) -> str:
    data = line if isinstance(line, bytes) else line.encode()
    prompts, bad = read_prompt_lines([data])
    assert not prompts
    assert len(bad) == 1
    return bad[0].problem


def test_text_and_message_lists_both_become_prompts() -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    lines = [
        b'\xef\xbb\xbf{"prompt": "Why?"}\r\n',
        b"\n",
        json.dumps({"prompt": chat, "tags": ["a"]}).encode(),
    ]
    prompts, bad = read_prompt_lines(lines)
    assert not bad
    assert prompts[0].messages == ({"role": "user", "content": "Why?"},)
    assert prompts[1].messages == tuple(chat)
    assert prompts[1].tags == ("a",)


def test_a_bad_line_is_named_by_its_number() -> None:
    lines = [b'{"prompt": "x"}\n'] * 500 + [b'{"prompt": }\n'] + [b'{"prompt": "y"}\n'] * 499
    prompts, bad = read_prompt_lines(lines)
    assert len(prompts) == 999
    assert [(line.line, line.problem) for line in bad] == [(501, "column 12 is not JSON: Expecting value")]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"prompt": NaN}', "NaN is not a JSON value"),
        ('{"prompt": "a", "prompt": "b"}', "a field is given twice"),
        ('["a"]', "a line must be a JSON object"),
        ('{"question": "a"}', "'prompt' must be text or a list of messages"),
        ('{"prompt": [{"role": "user"}]}', "a message must have a role and a text content"),
        ('{"prompt": [{"role": "boss", "content": "a"}]}', "role 'boss' is not"),
        ('{"prompt": [{"role": "assistant", "content": "a"}]}', "the last message must be from the user"),
        ('{"prompt": "  "}', "not empty"),
        ('{"prompt": "a\\u0000"}', "character 2 is U+0000"),
        ('{"prompt": "a", "tags": "x"}', "'tags' must be a list"),
        ('{"prompt": "a", "tags": [1]}', "tag 1 is not text"),
        ('{"prompt": "a", "chosen": "b", "rejected": "c"}', "only prompts can be imported so far"),
        (b'{"prompt": "\xff"}', "byte 13 is not UTF-8"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_wrong_is_said(line: str | bytes, words: str) -> None:
    assert words in problem(line)
