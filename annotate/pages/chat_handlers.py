"""What asking does on the chat page: sending, retrying, asking anew, stopping, and how answers grow.

The browser is never asked what was said: handlers read the conversation from the store, and whatever comes
from the page names a place in it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import gradio as gr

from annotate import chat
from annotate.auth import require
from annotate.branches import Step, address, write_context
from annotate.pages.chat_rows import ask, say, show_path, wait
from annotate.pages.chat_screen import FRESH, SIDE_BY_SIDE, Screen, Spot, Update, draw_left, note, read_spot
from annotate.pages.showing import reveal
from annotate.pages.text import safe_md
from annotate.pages.top_bar import write_account, write_links
from annotate.writing import Answer, follow
from store.completions import new_conversation_id, read_conversations
from store.errors import BadValue
from store.policies import live_version
from store.records import Message, Person, Sampling

FRAME_S = 0.06  # the whole conversation is sent with every frame, so not one frame a token
STOP_WAIT_S = 10.0  # the engine gives up between two tokens; longer than that and the page shows it later


class Handlers(Screen):
    """One call into `annotate.chat` each, and what the person sees when it fails."""

    def open(self, request: gr.Request) -> Update:
        """Fill the top bar and bring back the conversation of the address, or the newest one."""

        def do(person: Person) -> Update:
            asked = dict(request.query_params)
            wanted = asked.get("c", "")
            mode = SIDE_BY_SIDE if asked.get("m") == "2" else ""
            spot = read_spot(
                "" if wanted == FRESH else wanted or self._newest(person), asked.get("at", ""), mode
            )
            bar = {
                self._parts.links: write_links("Chat", person.role),
                self._parts.account: write_account(person, live_version(self._services.store)),
            }
            return bar | self.show(person, spot)

        return self.guarded("open this page", request, do)

    def choose(self, conversation_id: str | None, mode: str, request: gr.Request) -> Update:
        """Another conversation of this person."""
        spot = read_spot(conversation_id or "", "", mode)
        return self.guarded("open this conversation", request, lambda person: self.show(person, spot))

    def start_anew(self, mode: str, request: gr.Request) -> Update:
        """An empty conversation; it gets its id with the first message."""
        return self.choose("", mode, request)

    def look(self, conversation_id: str, at: str, mode: str, request: gr.Request) -> Update:
        """The same spot again, in the mode that was chosen."""
        spot = read_spot(conversation_id, at, mode)
        return self.guarded("show this conversation", request, lambda person: self.show(person, spot))

    def sending(self, starter: str) -> Callable[..., Iterator[Update]]:
        """The handler of one starter prompt's button."""

        def send(conversation_id: str, at: str, mode: str, request: gr.Request) -> Iterator[Update]:
            yield from self.send(starter, conversation_id, at, mode, request)

        return send

    def send(
        self, text: str, conversation_id: str, at: str, mode: str, request: gr.Request
    ) -> Iterator[Update]:
        """Ask, and show the answer as it grows. When nothing comes the text goes back into the box."""
        spot = read_spot(conversation_id, at, mode)
        back = {self._parts.message: text}
        try:
            person = require(request.request, "tester")
            if not text.strip():
                yield {self._parts.says: note("Write a message first.")}
                return
            path = self.read(person, spot).path
            yield {self._parts.message: ""}
        except Exception as error:
            yield self.refuse(error, "send this message") | back
            return
        yield from self._ask(person, spot, path, write_context(path, text), back)

    def retry(self, conversation_id: str, at: str, mode: str, request: gr.Request) -> Iterator[Update]:
        """One more answer to the last question; the earlier ones stay."""
        spot = read_spot(conversation_id, at, mode)
        try:
            person = require(request.request, "tester")
            view = self.read(person, spot)
            messages = view.last.sample.completion.messages
        except Exception as error:
            yield self.refuse(error, "try again")
            return
        yield from self._ask(person, spot, view.path[:-1], messages, {}, is_one=True)

    def ask_anew(
        self, text: str, editing: str, conversation_id: str, at: str, mode: str, request: gr.Request
    ) -> Iterator[Update]:
        """Ask an earlier question in other words; what came after it stays on its own branch."""
        spot = read_spot(conversation_id, at, mode)
        back = {self._parts.editor: reveal(True), self._parts.edited: text}
        try:
            person = require(request.request, "tester")
            path = self.read(person, spot).path
            number = int(editing) if editing.isdecimal() else len(path)
            if number >= len(path):
                raise BadValue("that question is no longer on screen; reload the page")
            *before, old = path[number].sample.completion.messages
            if text.strip() == old["content"].strip():
                raise BadValue("the question is the same; change it, or retry the answer")
        except Exception as error:
            yield self.refuse(error, "ask this") | back
            return
        messages = [*before, Message(role="user", content=text)]
        yield from self._ask(person, spot, path[:number], messages, back)

    def stop(self, request: gr.Request) -> Update:
        """Free the controls; cancelling the event stops the engine and saves what was written."""
        return self.guarded("stop", request, lambda _: self.idle())

    def settle(self, conversation_id: str, at: str, mode: str, request: gr.Request) -> Update:
        """After a stop: what was written by then, as it was saved."""
        spot = read_spot(conversation_id, at, mode)

        def do(person: Person) -> Update:
            if not self._services.slots.wait_until_free(person.person_id, STOP_WAIT_S):
                return {self._parts.says: note("Still stopping; reload the page in a moment.")}
            return self.show(person, spot, "Stopped. A stopped answer cannot be rated; R tries again.")

        return self.guarded("stop", request, do)

    def _ask(
        self,
        person: Person,
        spot: Spot,
        path: Sequence[Step],
        messages: Sequence[Message],
        back: dict[Any, Any],
        is_one: bool = False,
    ) -> Iterator[Update]:
        """Stream one answer or two, then show the conversation. `back` is shown when no word came."""
        conversation_id = spot.conversation_id
        growing = [""]  # the answer that the page shows once it is written
        try:
            if not self.read(person, spot).path:  # a new chat, or one of somebody else
                conversation_id = new_conversation_id()
            yield self._waiting(path, messages[-1]["content"], conversation_id)
            streaming = self._stream_one if is_one or not spot.is_side_by_side else self._stream_two
            yield from streaming(person, path, messages, conversation_id, growing)
            yield self._finished(person, Spot(conversation_id, growing[0], spot.mode))
        except Exception as error:
            reached = Spot(conversation_id, growing[0], spot.mode)
            kept = any(
                step.sample.key == growing[0].partition(",")[0] for step in self.read(person, reached).path
            )
            shown = self.show(person, reached if kept else spot)
            yield shown | self.refuse(error, "answer") | ({} if kept else back)

    def _stream_one(
        self,
        person: Person,
        path: Sequence[Step],
        messages: Sequence[Message],
        conversation_id: str,
        growing: list[str],
    ) -> Iterator[Update]:
        question = ask(messages[-1]["content"])
        writing = chat.answer(self._services, person, "live", messages, self._sampling(), conversation_id)
        with closing(follow([writing])) as grown:
            for (answer,) in paced(grown):
                growing[0] = address(path, answer.completion_id)
                rows = [question, say(answer.text, answer.version) if answer.text else wait(answer.place)]
                yield {self._parts.chatbot: show_path(path, rows), self._parts.at: growing[0]}

    def _stream_two(
        self,
        person: Person,
        path: Sequence[Step],
        messages: Sequence[Message],
        conversation_id: str,
        growing: list[str],
    ) -> Iterator[Update]:
        """Both at once, without a version, on the sides where they will be when they are finished."""
        samplings = (self._sampling(), self._sampling())
        writings = chat.answer_all(self._services, person, "live", messages, samplings, conversation_id)
        question = ask(messages[-1]["content"])
        yield {self._parts.duel: reveal(True)}
        with closing(follow(writings)) as grown:
            for one, other in paced(grown):
                left_id = draw_left(one.completion_id, other.completion_id, person)
                left, right = (one, other) if left_id == one.completion_id else (other, one)
                growing[0] = address(path, left_id)
                place = max(answer.place or 0 for answer in (one, other))
                rows = [question] if one.text or other.text else [question, wait(place or None)]
                yield {
                    self._parts.chatbot: show_path(path, rows),
                    self._parts.left: safe_md(left.text),
                    self._parts.right: safe_md(right.text),
                    self._parts.at: growing[0],
                }

    def _sampling(self) -> Sampling:
        settings = self._services.settings
        return Sampling(settings.temperature, settings.top_p, settings.max_tokens, secrets.randbelow(2**31))

    def _newest(self, person: Person) -> str:
        conversations = read_conversations(self._services.store, person.person_id)
        return conversations[0].conversation_id if conversations else ""

    def _waiting(self, path: Sequence[Step], question: str, conversation_id: str) -> Update:
        return {
            self._parts.chatbot: show_path(path, [ask(question), wait()]),
            self._parts.conversation: conversation_id,
            self._parts.says: "",
            **{
                part: reveal(False)
                for part in (
                    self._parts.what_was_wrong,
                    self._parts.editor,
                    self._parts.better,
                    self._parts.voted,
                    self._parts.duel,
                    self._parts.reply_keys,
                    self._parts.starters,
                )
            },
            self._parts.votes: reveal(False, "duel-votes"),
            self._parts.left: "",
            self._parts.right: "",
            self._parts.send: gr.update(visible="hidden"),
            self._parts.stop: gr.update(visible=True),
        }

    def _finished(self, person: Person, spot: Spot) -> Update:
        return self.show(person, spot) | {
            self._parts.account: write_account(person, live_version(self._services.store))
        }


def paced(
    grown: Iterator[tuple[Answer, ...]], clock: Callable[[], float] = time.monotonic
) -> Iterator[tuple[Answer, ...]]:
    """At most one state a frame, and the last one always."""
    shown_at = float("-inf")
    for answers in grown:
        is_last = all(answer.finish_reason is not None for answer in answers)
        if is_last or clock() - shown_at >= FRAME_S:
            shown_at = clock()
            yield answers
