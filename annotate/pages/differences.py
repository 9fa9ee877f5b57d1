"""Marks the words in which two answers differ. Knows no page.

The marks are put around words of the raw text as two noncharacters, which `safe_md` carries through, and
become `<mark>` only afterwards: nothing that the model wrote can make a tag. Code, formulas, links and
everything else whose text means something to the renderer stay unmarked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from annotate.pages.text import has_plain_fences, safe_md

MOST_WORDS = 3_000  # the matcher is quadratic at worst; nobody compares longer answers by colour
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
_WORD = re.compile(r"\w+")
# Fences to their end, formulas, code spans, addresses, link targets, indented code, list numbers and rules.
_LEFT_ALONE = re.compile(
    r"^(?P<fence>`{3,}|~{3,}).*?(?:^(?P=fence)[`~]*[ \t]*$|\Z)|\$\$.*?\$\$|(?P<ticks>`+).*?(?P=ticks)"
    r"|https?://\S+|\]\([^)\n]*\)|^(?: {4}|\t)[^\n]*$|^\s*\d+[.)]|^\s*[-+*]\s",
    re.DOTALL | re.MULTILINE,
)

Span = tuple[int, int]


def likeness(left: str, right: str) -> float:
    """The share of equal words in two answers, 0 to 1; 0 when they are too long to compare."""
    left_words, right_words = _WORD.findall(left), _WORD.findall(right)
    if max(len(left_words), len(right_words)) > MOST_WORDS:
        return 0.0
    return SequenceMatcher(None, left_words, right_words, autojunk=False).ratio()


def mark_differences(left: str, right: str) -> tuple[str, str]:
    """Both answers as `safe_md` gives them, with <mark> around the words only one of them has there."""
    left_spans, right_spans = _find_words(left), _find_words(right)
    if max(len(left_spans), len(right_spans)) > MOST_WORDS:
        return safe_md(left), safe_md(right)
    left_words = [left[start:end] for start, end in left_spans]
    right_words = [right[start:end] for start, end in right_spans]
    only_left: list[Span] = []
    only_right: list[Span] = []
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, left_words, right_words, autojunk=False).get_opcodes():
        if tag != "equal":
            only_left += left_spans[i1:i2]
            only_right += right_spans[j1:j2]
    return _mark(left, only_left), _mark(right, only_right)


def _find_words(text: str) -> list[Span]:
    """Where the words are that may be marked; none when only a full parser could tell code from text."""
    if not has_plain_fences(text) or _OPEN in text or _CLOSE in text:
        return []
    found, at = [], 0
    for kept in _LEFT_ALONE.finditer(text):
        found += [word.span() for word in _WORD.finditer(text, at, kept.start())]
        at = kept.end()
    return found + [word.span() for word in _WORD.finditer(text, at)]


def _mark(text: str, spans: Sequence[Span]) -> str:
    pieces, at = [], 0
    for start, end in _join(text, spans):
        pieces += [text[at:start], _OPEN, text[start:end], _CLOSE]
        at = end
    marked = safe_md("".join([*pieces, text[at:]]))
    return marked.replace(_OPEN, "<mark>").replace(_CLOSE, "</mark>") if pieces else marked


def _join(text: str, spans: Sequence[Span]) -> list[Span]:
    """Neighbours with one blank between them become one mark."""
    joined: list[Span] = []
    for start, end in spans:
        if joined and text[joined[-1][1] : start] == " ":
            start = joined.pop()[0]
        joined.append((start, end))
    return joined
