"""What each event of the chat page does and shows; every handler checks the role and calls `annotate.chat`.

The browser is never asked what was said: handlers read the conversation from the store, and a thumb names an
answer only by its position in it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from annotate import chat
from annotate.auth import require
from annotate.pages.faults import explain
from annotate.pages.showing import reveal
from annotate.pages.text import plain, safe_md
from annotate.pages.top_bar import write_account, write_links
from annotate.services import Services
from store.completions import new_conversation_id, read_conversation, read_conversations
from store.errors import BadValue, NotFound
from store.policies import live_version
from store.records import Message, Person, Sampling, Turn

Update = Any  # a dict of component to new value; Gradio has no types of its own for it

FRAME_S = 0.06  # the whole conversation is sent with every frame, so not one frame a token
FRESH = "new"  # ?c=new: an empty conversation, also after a reload

THUMBS = {1: "Like", -1: "Dislike", 0: None}
ENDINGS = {"cancelled": " · stopped", "length": " · cut at the length limit", "stop": ""}


@dataclass(frozen=True)
class Parts:
    """Every component that a handler reads or writes."""

    links: Any
    account: Any
    conversations: Any
    chatbot: Any
    says: Any
    what_was_wrong: Any
    reasons: Any
    comment: Any
    message: Any
    send: Any
    stop: Any
    conversation: Any
    rated: Any

    def all(self) -> list[Any]:
        """The components in the order of their declaration, as Gradio wants its outputs."""
        return [getattr(self, part.name) for part in fields(self)]


class Handlers:
    """One call into `annotate.chat` each, and what the person sees when it fails."""

    def __init__(self, services: Services, parts: Parts) -> None:
        self._services = services
        self._parts = parts

    def open(self, request: gr.Request) -> Update:
        """Fill the top bar and bring back the conversation of the address, or the newest one."""
        try:
            person = require(request.request, "tester")
            wanted = dict(request.query_params).get("c", "")
            bar = {
                self._parts.links: write_links("Chat", person.role),
                self._parts.account: write_account(person, live_version(self._services.store)),
            }
            return bar | self._show(person, "" if wanted == FRESH else wanted or self._newest(person))
        except Exception as error:
            return self._refuse(error, "open this page")

    def choose(self, conversation_id: str | None, request: gr.Request) -> Update:
        """Another conversation of this person."""
        try:
            return self._show(require(request.request, "tester"), conversation_id or "")
        except Exception as error:
            return self._refuse(error, "open this conversation")

    def start_anew(self, request: gr.Request) -> Update:
        """An empty conversation; it gets its id with the first message."""
        try:
            return self._show(require(request.request, "tester"), "")
        except Exception as error:
            return self._refuse(error, "start a new conversation")

    def send_starter(
        self, conversation_id: str, starter: gr.SelectData, request: gr.Request
    ) -> Iterator[Update]:
        """Send one of the starter prompts."""
        text = starter.value.get("text") if isinstance(starter.value, dict) else None
        yield from self.send(text if isinstance(text, str) else "", conversation_id, request)

    def send(self, text: str, conversation_id: str, request: gr.Request) -> Iterator[Update]:
        """Ask, and show the answer as it grows. When it fails the text goes back into the box."""
        try:
            person = require(request.request, "tester")
            turns = self._read(person, conversation_id)
            if not turns:  # a new chat, or an id that is not theirs
                conversation_id = new_conversation_id()
            if not text.strip():
                yield {self._parts.says: _note("Write a message first.")}
                return
            yield self._waiting(turns, text, conversation_id)
            answers = chat.answer(
                self._services, person, "live", write_context(turns, text), self._sampling(), conversation_id
            )
            with closing(answers):
                yield from self._stream(turns, text, answers)
            yield self._finished(person, conversation_id)
        except Exception as error:
            yield self._idle() | self._refuse(error, "answer") | {self._parts.message: text}

    def stop(self, request: gr.Request) -> Update:
        """Free the controls; cancelling the event has stopped the engine and saved what was written."""
        try:
            require(request.request, "tester")
        except Exception as error:
            return self._refuse(error, "stop")
        return self._idle() | {self._parts.says: _note("Stopped. A stopped answer cannot be rated.")}

    def rate(self, conversation_id: str, thumb: gr.LikeData, request: gr.Request) -> Update:
        """Save a thumb; the same thumb again takes it back."""
        try:
            person = require(request.request, "tester")
            turns = self._read(person, conversation_id)
            completion_id = find_answer(turns, thumb.index)
            value = read_thumb(thumb.liked)
            chat.rate(self._services, person, completion_id, value)
        except Exception as error:
            return self._refuse(error, "save this rating") | self._restore(conversation_id, request)
        says = {1: "Saved: good answer.", -1: "Saved: bad answer.", 0: "Rating taken back."}[value]
        return self._restore(conversation_id, request) | {
            self._parts.says: _note(says),
            self._parts.rated: completion_id,
            self._parts.reasons: [],
            self._parts.comment: "",
            self._parts.what_was_wrong: reveal(value < 0),
        }

    def add_reasons(
        self, completion_id: str, reasons: list[str], comment: str, request: gr.Request
    ) -> Update:
        """Say more about the bad answer that was just rated."""
        try:
            person = require(request.request, "tester")
            chat.rate(self._services, person, completion_id, -1, reasons, comment or "")
        except Exception as error:
            return self._refuse(error, "save these reasons")
        return {
            self._parts.says: _note("Saved, thank you."),
            self._parts.what_was_wrong: reveal(False),
        }

    def _stream(
        self, turns: Sequence[Turn], text: str, answers: Generator[chat.Answer, None, None]
    ) -> Iterator[Update]:
        shown_at = 0.0
        for answer in answers:
            now = time.monotonic()
            if answer.finish_reason is None and now - shown_at < FRAME_S:
                continue
            shown_at = now
            yield {self._parts.chatbot: _show_turns(turns, [*_ask(text), _say(answer.text, answer.version)])}

    def _sampling(self) -> Sampling:
        settings = self._services.settings
        return Sampling(settings.temperature, settings.top_p, settings.max_tokens, secrets.randbelow(2**31))

    def _read(self, person: Person, conversation_id: str) -> list[Turn]:
        """The turns so far; none for a new chat, an unanswered one, or one of somebody else."""
        try:
            return (
                read_conversation(self._services.store, conversation_id, person.person_id)
                if conversation_id
                else []
            )
        except NotFound:
            return []

    def _newest(self, person: Person) -> str:
        conversations = read_conversations(self._services.store, person.person_id)
        return conversations[0].conversation_id if conversations else ""

    def _show(self, person: Person, conversation_id: str) -> Update:
        turns = self._read(person, conversation_id)
        shown = conversation_id if turns else ""
        return self._idle() | {
            self._parts.chatbot: _show_turns(turns),
            self._parts.conversation: shown,
            self._parts.conversations: self._list_conversations(person, shown),
            self._parts.says: "",
        }

    def _list_conversations(self, person: Person, shown: str) -> Any:
        known = read_conversations(self._services.store, person.person_id)
        choices = [(plain_title(summary.title), summary.conversation_id) for summary in known]
        return gr.update(
            choices=[*choices, *([] if shown else [("New conversation", FRESH)])], value=shown or FRESH
        )

    def _waiting(self, turns: Sequence[Turn], text: str, conversation_id: str) -> Update:
        return {
            self._parts.chatbot: _show_turns(turns, [*_ask(text), {"role": "assistant", "content": "…"}]),
            self._parts.conversation: conversation_id,
            self._parts.message: "",
            self._parts.says: "",
            self._parts.what_was_wrong: reveal(False),
            self._parts.send: gr.update(visible="hidden"),
            self._parts.stop: gr.update(visible=True),
        }

    def _finished(self, person: Person, conversation_id: str) -> Update:
        return self._show(person, conversation_id) | {
            self._parts.account: write_account(person, live_version(self._services.store))
        }

    def _idle(self) -> dict[Any, Any]:
        return {self._parts.send: gr.update(visible=True), self._parts.stop: gr.update(visible="hidden")}

    def _restore(self, conversation_id: str, request: Any) -> dict[Any, Any]:
        """The thumbs as the store has them: the browser forgets or invents them with every change."""
        try:
            person = require(request.request, "tester")
            turns = self._read(person, conversation_id)
        except Exception as error:
            return self._refuse(error, "read this conversation")
        return {self._parts.chatbot: _show_turns(turns)} if turns else {}

    def _refuse(self, error: Exception, act: str) -> dict[Any, Any]:
        return {self._parts.says: f'<p role="alert">{plain(explain(error, act))}</p>'}


def write_context(turns: Sequence[Turn], text: str) -> list[Message]:
    """The whole conversation as the model gets it, ending with the new message."""
    if not turns:
        return [{"role": "user", "content": text}]
    last = turns[-1].completion
    return [*last.messages, {"role": "assistant", "content": last.text}, {"role": "user", "content": text}]


def find_answer(turns: Sequence[Turn], index: object) -> str:
    """The completion id at a position of the conversation on screen; NotFound when there is no answer."""
    if (
        not isinstance(index, int)
        or isinstance(index, bool)
        or index % 2 == 0
        or not 0 < index < 2 * len(turns)
    ):
        raise NotFound("there is no finished answer at that place; reload the page")
    return turns[index // 2].completion.completion_id


def read_thumb(liked: object) -> int:
    """1, -1, or 0 when the thumb that was set is clicked again; BadValue for anything else."""
    if liked is True or liked is False:
        return 1 if liked else -1
    if liked == "":
        return 0
    raise BadValue(f"a thumb is up, down or taken back, not {liked!r}")


def plain_title(title: str) -> str:
    """A conversation's name in the list: one line, not too long. The list escapes it itself."""
    line = " ".join(title.split())
    return line if len(line) <= 60 else line[:59] + "…"


def _show_turns(turns: Sequence[Turn], more: Sequence[dict[str, str]] = ()) -> Any:
    shown: list[dict[str, str]] = []
    for turn in turns:
        completion = turn.completion
        shown += _ask(completion.messages[-1]["content"])
        shown.append(_say(completion.text, completion.version, ENDINGS[completion.finish_reason]))
    thumbs = [THUMBS[turn.rating] for turn in turns] + ([None] if more else [])
    return gr.update(value=[*shown, *more], feedback_value=thumbs)


def _ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": safe_md(text)}]


def _say(text: str, version: str, ending: str = "") -> dict[str, str]:
    # On top, where nothing that the model wrote can swallow it (an open code block would).
    caption = f'<span class="written-by">{plain(version)}{ending}</span>\n\n'
    return {"role": "assistant", "content": caption + safe_md(text)}


def _note(text: str) -> str:
    return f'<p class="quiet-note">{plain(text)}</p>'
