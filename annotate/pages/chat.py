"""The chat page: talk to the live policy and rate what it says. Wiring only; `annotate.chat` knows what a thumb means.

The browser is never asked what was said: every handler reads the conversation from the store, and a thumb names an
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
from annotate.pages.hotkeys import hotkeys
from annotate.pages.text import plain, safe_md
from annotate.pages.top_bar import top_bar, write_account, write_links
from annotate.services import Services
from store.completions import new_conversation_id, read_conversation, read_conversations
from store.errors import BadValue, NotFound
from store.policies import live_version
from store.records import Message, Person, Sampling, Turn

Update = Any  # a dict of component to new value; Gradio has no types of its own for it

FRAME_S = 0.06  # the whole conversation is sent with every frame, so not one frame a token
FRESH = "new"  # ?c=new: an empty conversation, also after a reload

STARTERS = (
    "Explain recursion to a child.",
    "Write a short thank-you note to a colleague.",
    "What should I check before I buy a used bicycle?",
    "Summarise why the sky is blue in two sentences.",
)
REASONS = (
    ("Incorrect", "incorrect"),
    ("Unsafe", "unsafe"),
    ("Ignored my request", "ignored_request"),
    ("Refused needlessly", "refused"),
    ("Too long", "too_long"),
    ("Other", "other"),
)
THUMBS = {1: "Like", -1: "Dislike", 0: None}
ENDINGS = {"cancelled": " · stopped", "length": " · cut at the length limit", "stop": ""}

_KEEP_URL = f"""(id) => {{ const url = new URL(location); url.searchParams.set('c', id || '{FRESH}');
  history.replaceState(history.state, '', url); }}"""
_KEYS = {"n": ["new-chat"], "/": ["focus-message"]}
_FOCUS = "() => document.querySelector('#message textarea')?.focus()"


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


def build_page(services: Services) -> Any:
    """The page as gr.Blocks; every handler checks the role first."""
    with gr.Blocks(title="Chat · Heed", analytics_enabled=False) as page:
        links, account = top_bar("Chat")
        with gr.Column(elem_id="chat-page"):
            parts, buttons = _lay_out(links, account)
        hotkeys(_KEYS)
        _wire(page, services, parts, buttons)
    return page


def _lay_out(links: Any, account: Any) -> tuple[Parts, dict[str, Any]]:
    buttons: dict[str, Any] = {}
    with gr.Row(elem_id="chat-tools"):
        conversations = gr.Dropdown(
            [], label="Conversations", show_label=False, container=False, elem_id="conversations", filterable=False
        )
        buttons["new"] = gr.Button("New chat", elem_id="new-chat", size="sm")
        buttons["focus"] = gr.Button("Write", elem_id="focus-message", elem_classes=["unseen"])
    chatbot = gr.Chatbot(
        elem_id="chatbot",
        show_label=False,
        label="Conversation",
        buttons=[],
        height=None,
        examples=[{"text": starter} for starter in STARTERS],
        placeholder="### What would you like to ask?\nRate the answers with the thumbs below them.",
    )
    says = gr.HTML("", js_on_load="element.setAttribute('role', 'status')", elem_id="chat-says")
    with gr.Column(elem_id="what-was-wrong", visible="hidden") as what_was_wrong:
        reasons = gr.CheckboxGroup(list(REASONS), label="What went wrong? (optional)", elem_id="rating-reasons")
        with gr.Row():
            comment = gr.Textbox(
                placeholder="Comment", label="Comment", show_label=False, container=False, max_length=4000,
                elem_id="rating-comment",
            )  # fmt: skip
            buttons["save"] = gr.Button("Save", elem_id="save-reasons", size="sm")
    with gr.Row(elem_id="composer"):
        message = gr.Textbox(
            label="Message", show_label=False, container=False, lines=1, max_lines=8, autofocus=True,
            placeholder="Message the model (Enter sends, Shift+Enter for a new line)", elem_id="message",
        )  # fmt: skip
        send = gr.Button("Send", variant="primary", elem_id="send")
        stop = gr.Button("Stop", variant="stop", elem_id="stop", visible="hidden")
    gr.HTML("Ratings train the next version. Do not enter personal data.", js_on_load=None, elem_id="chat-note")
    parts = Parts(
        links=links,
        account=account,
        conversations=conversations,
        chatbot=chatbot,
        says=says,
        what_was_wrong=what_was_wrong,
        reasons=reasons,
        comment=comment,
        message=message,
        send=send,
        stop=stop,
        conversation=gr.Textbox(visible="hidden", elem_id="conversation", label="Conversation id"),
        rated=gr.Textbox(visible="hidden", elem_id="rated", label="Rated answer"),
    )
    return parts, buttons


def _wire(page: Any, services: Services, parts: Parts, buttons: dict[str, Any]) -> None:
    handlers = Handlers(services, parts)
    outputs = parts.all()
    quietly = {"outputs": outputs, "queue": False, "show_progress": "hidden", "api_visibility": "private"}
    # Generation is batched by the engine and one at a time per person, so the queue sets no limit of its own.
    streaming = {
        "outputs": outputs, "concurrency_limit": None, "show_progress": "hidden", "api_visibility": "private"
    }  # fmt: skip
    page.load(handlers.open, None, **quietly)
    parts.conversations.input(handlers.choose, [parts.conversations], **quietly)
    buttons["new"].click(handlers.start_anew, None, **quietly).then(None, None, None, js=_FOCUS)
    buttons["focus"].click(None, None, None, js=_FOCUS)
    sending = [
        gr.on(
            [parts.message.submit, parts.send.click],
            handlers.send,
            [parts.message, parts.conversation],
            **streaming,
        ),
        parts.chatbot.example_select(handlers.send_starter, [parts.conversation], **streaming),
    ]
    parts.stop.click(handlers.stop, None, cancels=sending, **quietly)
    parts.chatbot.like(handlers.rate, [parts.conversation], **quietly)
    buttons["save"].click(handlers.add_reasons, [parts.rated, parts.reasons, parts.comment], **quietly)
    parts.conversation.change(None, [parts.conversation], None, js=_KEEP_URL)


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

    def send_starter(self, conversation_id: str, starter: gr.SelectData, request: gr.Request) -> Iterator[Update]:
        """Send one of the starter prompts."""
        text = starter.value.get("text") if isinstance(starter.value, dict) else None
        yield from self.send(text if isinstance(text, str) else "", conversation_id, request)

    def send(self, text: str, conversation_id: str, request: gr.Request) -> Iterator[Update]:
        """Ask, and show the answer as it grows. When it fails the text goes back into the box."""
        try:
            person = require(request.request, "tester")
            turns = read_conversation(self._services.store, conversation_id, person.person_id)
            if not turns:  # also an id that is not theirs
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
            turns = read_conversation(self._services.store, conversation_id, person.person_id)
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
            self._parts.what_was_wrong: gr.update(visible=True if value < 0 else "hidden"),
        }

    def add_reasons(self, completion_id: str, reasons: list[str], comment: str, request: gr.Request) -> Update:
        """Say more about the bad answer that was just rated."""
        try:
            person = require(request.request, "tester")
            chat.rate(self._services, person, completion_id, -1, reasons, comment or "")
        except Exception as error:
            return self._refuse(error, "save these reasons")
        return {
            self._parts.says: _note("Saved, thank you."),
            self._parts.what_was_wrong: gr.update(visible="hidden"),
        }

    def _stream(self, turns: Sequence[Turn], text: str, answers: Generator[chat.Answer, None, None]) -> Iterator[Update]:
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

    def _newest(self, person: Person) -> str:
        conversations = read_conversations(self._services.store, person.person_id)
        return conversations[0].conversation_id if conversations else ""

    def _show(self, person: Person, conversation_id: str) -> Update:
        turns = read_conversation(self._services.store, conversation_id, person.person_id) if conversation_id else []
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
        return gr.update(choices=[*choices, *([] if shown else [("New conversation", FRESH)])], value=shown or FRESH)

    def _waiting(self, turns: Sequence[Turn], text: str, conversation_id: str) -> Update:
        return {
            self._parts.chatbot: _show_turns(turns, [*_ask(text), {"role": "assistant", "content": "…"}]),
            self._parts.conversation: conversation_id,
            self._parts.message: "",
            self._parts.says: "",
            self._parts.what_was_wrong: gr.update(visible="hidden"),
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
            turns = read_conversation(self._services.store, conversation_id, person.person_id)
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
    if not isinstance(index, int) or isinstance(index, bool) or index % 2 == 0 or not 0 < index < 2 * len(turns):
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
