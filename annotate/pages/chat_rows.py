"""A path through a conversation as the rows of the chat: captions, pagers, thumbs. Knows no store.

Buttons inside a message are told apart by their class alone: the renderer's sanitiser keeps nothing else of
them. `act-sample-2-0` means: at step 2, go to answer 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import gradio as gr

from annotate.branches import Step, changes_of_version
from annotate.pages.text import plain, safe_md
from store.errors import BadValue, NotFound
from store.records import Message

Deed = Literal["sample", "question", "edit", "ask"]

THUMBS = {1: "Like", -1: "Dislike", 0: None}
ENDINGS = {"cancelled": "stopped", "length": "cut at the length limit", "stop": ""}
WAITING = '<span class="dots">Waiting for the model<i>.</i><i>.</i><i>.</i></span>'
_ACT = re.compile(r"(sample|question|edit|ask)-(\d{1,4})-(\d{1,4})")


@dataclass(frozen=True, slots=True)
class Act:
    """A press on a button inside a message: what, at which step, and which one (of a pager)."""

    deed: str
    step: int
    which: int


def show_path(path: Sequence[Step], more: Sequence[dict[str, str]] = ()) -> Any:
    """The path as an update of the chatbot; `more` are the rows of an exchange still being written."""
    rows = [*_show_earlier(path)]
    thumbs: list[str | None] = [None for row in rows if row["role"] == "assistant"]
    for number, (step, is_new) in enumerate(zip(path, changes_of_version(path), strict=True)):
        rows.append(ask(step.question, _question_bar(step, number)))
        rows.append(_bot(_caption(step, number, is_new), step.sample.text))
        thumbs.append(read_shown_thumb(step))
    thumbs += [None for row in more if row["role"] == "assistant"]
    return gr.update(value=[*rows, *more], feedback_value=thumbs)


def find_step(path: Sequence[Step], index: object) -> Step:
    """The step whose answer is the chatbot's row `index`; NotFound when there is no finished answer."""
    first = len(_show_earlier(path))
    if isinstance(index, int) and not isinstance(index, bool):
        place, is_answer = divmod(index - first, 2)
        if is_answer and 0 <= place < len(path):
            return path[place]
    raise NotFound("there is no finished answer at that place; reload the page")


def read_act(text: object) -> Act:
    """The button inside a message whose class ended like that; BadValue for anything else."""
    found = _ACT.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise BadValue("that button is unknown here; reload the page")
    return Act(found[1], int(found[2]), int(found[3]))


def read_thumb(liked: object) -> int:
    """1, -1, or 0 when the thumb that was set is clicked again; BadValue for anything else."""
    if liked is True or liked is False:
        return 1 if liked else -1
    if liked == "":
        return 0
    raise BadValue(f"a thumb is up, down or taken back, not {liked!r}")


def read_shown_thumb(step: Step) -> str | None:
    """The thumb to show as pressed; it is about what the model wrote, so an edited text shows none."""
    rating = step.sample.rating
    return None if rating is None or step.sample.is_edited else THUMBS[rating.value]


def ask(text: str, bar: str = "") -> dict[str, str]:
    """The row of a question."""
    return {"role": "user", "content": safe_md(text) if not bar else f"{bar}\n\n{safe_md(text)}"}


def say(text: str, version: str) -> dict[str, str]:
    """The row of an answer that is still growing."""
    return _bot(f'<span class="written-by">{plain(version)}</span>', text)


def wait(place: int | None = None) -> dict[str, str]:
    """The row of an answer that has not begun; `place` is where it stands in the queue, 1 being next."""
    if place is None:
        return {"role": "assistant", "content": WAITING}
    who = "Next" if place == 1 else _ordinal(place)
    return {"role": "assistant", "content": WAITING.replace("Waiting for the model", f"{who} in line")}


def plain_title(title: str) -> str:
    """A conversation's name in the list: one line, not too long. The list escapes it itself."""
    line = " ".join(title.split())
    return line if len(line) <= 60 else line[:59] + "…"


def say_left_out(count: int) -> str:
    """What the model did not read, in plain words; nothing when it read everything."""
    if not count:
        return ""
    messages, were = ("message", "was") if count == 1 else (f"{count} messages", "were")
    return f"The oldest {messages} did not fit the model's memory (context) and {were} not read."


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _show_earlier(path: Sequence[Step]) -> list[dict[str, str]]:
    """What a client sent as said before the first answer we gave; nobody can act on it here."""
    before: Sequence[Message] = path[0].sample.completion.messages[:-1] if path else ()
    return [
        {"role": message["role"], "content": safe_md(message["content"])}
        for message in before
        if message["role"] != "system"
    ]


def _bot(caption: str, text: str) -> dict[str, str]:
    # On top, where nothing that the model wrote can swallow it (an open code block would).
    return {"role": "assistant", "content": f"{caption}\n\n{safe_md(text)}"}


def _caption(step: Step, number: int, is_new_version: bool) -> str:
    sample = step.sample
    version = plain(sample.completion.version)
    who = "edited by you" if sample.is_edited else version
    said = [who, ENDINGS[sample.completion.finish_reason], *_said_of(step)]
    line = " · ".join(part for part in said if part)
    divider = f'<span class="now-version">now {version}</span>' if is_new_version else ""
    pager = _pager("sample", "answer", number, step.which_sample, len(step.samples))
    edit = "" if sample.completion.finish_reason == "cancelled" else _button("edit", number, 0, "Edit")
    left_out = say_left_out(sample.completion.num_left_out)
    # A paragraph of its own, which the style sheet moves below the answer.
    notice = f'\n\n<span class="left-out">{left_out}</span>' if left_out else ""
    return f'{divider}<span class="written-by">{line} {pager} {edit}</span>{notice}'


def _said_of(step: Step) -> list[str]:
    """The reasons and the comment that stand, so that they are still there after a reload."""
    rating = step.sample.rating
    if rating is None or step.sample.is_edited or not rating.value:
        return []
    comment = f"“{plain(' '.join(rating.comment.split()))}”" if rating.comment.strip() else ""
    return [*(plain(reason) for reason in rating.reasons), comment]


def _question_bar(step: Step, number: int) -> str:
    pager = _pager("question", "question", number, step.which_question, len(step.questions))
    return f'<span class="asked-by">{pager} {_button("ask", number, 0, "Edit")}</span>'


def _pager(deed: Deed, what: str, number: int, shown: int, total: int) -> str:
    if total < 2:
        return ""
    back = _button(deed, number, shown - 1, f"‹<b>Previous {what}</b>") if shown else ""
    on = _button(deed, number, shown + 1, f"›<b>Next {what}</b>") if shown + 1 < total else ""
    return f'<span class="pager">{back}{shown + 1} of {total}{on}</span>'


def _button(deed: Deed, number: int, which: int, label: str) -> str:
    return f'<button type="button" class="turn-act act-{deed}-{number}-{which}">{label}</button>'
