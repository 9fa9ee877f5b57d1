"""Text that other people or the model wrote, made safe and honest to show. Knows no page and no Gradio.

A rater must see exactly what the model wrote: raw HTML, images and entities appear as the characters they
are, and characters that are invisible or reorder the line appear as markers. The renderer's sanitiser and
the Content-Security-Policy stand behind this; it is not the only guard.
"""

from __future__ import annotations

import html
import re

# Bidi controls, zero-width and tag characters, the soft hyphen, control characters but tab and newline.
# ZWNJ and ZWJ (200C, 200D) stay: Persian and emoji need them.
_INVISIBLE = re.compile(
    "[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_FORMULA = re.compile(r"\$\$[\s\S]+?\$\$")  # the renderer takes these out before it reads Markdown
_HELD = re.compile("\x00(\\d+)\x00")  # NUL is free: it was marked visible before
_FENCE_ANYWHERE = re.compile(r"```|~~~")
_OPENING_FENCE = re.compile(r"(`{3,})[^`]*|(~{3,}).*")
_DIAGRAM = re.compile(r"(`{3,}|~{3,})(\s*)mermaid", re.IGNORECASE)  # drawn in place of its text
_LIVE = re.compile(r"<(?=[A-Za-z/!?])|&(?=#|[A-Za-z])|!(?=\[)")  # starts a tag, an entity, an image
_JOINER = "\u2060"  # zero-width and not a letter: after it none of the three starts anything


def mark_invisible(text: str) -> str:
    """The same text with every invisible or reordering character replaced by ‹U+XXXX›."""
    return _INVISIBLE.sub(
        lambda found: f"‹U+{ord(found[0]):04X}›", text.replace("\r\n", "\n").replace("\r", "\n")
    )


def plain(text: str) -> str:
    """Text for our own HTML: escaped, with visible markers."""
    return html.escape(mark_invisible(text))


def safe_md(text: str) -> str:
    """Markdown in which nothing but Markdown, fenced code and $$formulas$$ is alive.

    Escaping as entities would show `&lt;` inside code spans, and telling code spans from text takes the
    renderer's own parser; so a zero-width joiner defuses every `<tag`, `&entity;` and `![image]` instead. It
    changes nothing to see. Plainly fenced code is left untouched, so that what is copied from it still runs.
    """
    formulas: list[str] = []

    def hold(found: re.Match[str]) -> str:
        formulas.append(found[0])
        return f"\x00{len(formulas) - 1}\x00"

    lines = _FORMULA.sub(hold, mark_invisible(text)).split("\n")
    shown = _defuse_outside_fences(lines) if _has_plain_fences(lines) else [_defuse(line) for line in lines]
    return _HELD.sub(lambda found: formulas[int(found[1])], "\n".join(shown))


def has_plain_fences(text: str) -> bool:
    """Whether every code fence stands at the start of its line, so that it ends where it seems to."""
    return _has_plain_fences(text.split("\n"))


def _has_plain_fences(lines: list[str]) -> bool:
    # An indented, quoted or listed fence ends in ways only a full parser knows: then nothing counts as code.
    return all(line.startswith(("```", "~~~")) for line in lines if _FENCE_ANYWHERE.search(line))


def _defuse(line: str) -> str:
    return _LIVE.sub(lambda found: found[0] + _JOINER, _DIAGRAM.sub(r"\1\2text", line))


def _defuse_outside_fences(lines: list[str]) -> list[str]:
    shown, fence = [], ""
    for line in lines:
        if fence:
            closes = set(line.rstrip()) == {fence[0]} and len(line.rstrip()) >= len(fence)
            fence = "" if closes else fence
            shown.append(line)
            continue
        opening = _OPENING_FENCE.fullmatch(line)
        fence = (opening[1] or opening[2]) if opening else ""
        shown.append(_defuse(line))
    return shown
