"""The chat page's components and how a conversation is put into them. What a click does is not known here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import gradio as gr

from annotate.auth import require
from annotate.branches import Branches, Pair, Step, address
from annotate.pages.chat_rows import ask, plain_title, say_left_out, show_path
from annotate.pages.faults import explain
from annotate.pages.showing import reveal
from annotate.pages.text import plain, safe_md
from annotate.services import Services
from store.completions import read_conversations
from store.conversations import Conversation, read_whole_conversation
from store.errors import NotFound
from store.records import Person

Update = Any  # a dict of component to new value; Gradio has no types of its own for it

FRESH = "new"  # ?c=new: an empty conversation, also after a reload
CHAT, SIDE_BY_SIDE = "Chat", "Side by side"


@dataclass(frozen=True)
class Parts:
    """Every component that a handler reads or writes."""

    links: Any
    account: Any
    conversations: Any
    mode: Any
    chatbot: Any
    starters: Any
    says: Any
    duel: Any
    left: Any
    right: Any
    votes: Any
    voted: Any
    voted_says: Any
    better: Any
    better_new: Any
    better_old: Any
    better_same: Any
    reply_keys: Any
    what_was_wrong: Any
    reasons: Any
    comment: Any
    editor: Any
    editor_says: Any
    edited: Any
    message: Any
    send: Any
    stop: Any
    conversation: Any
    at: Any
    rated: Any
    editing: Any
    pair: Any

    def all(self) -> list[Any]:
        """The components in the order of their declaration, as Gradio wants its outputs."""
        return [getattr(self, part.name) for part in fields(self)]


@dataclass(frozen=True, slots=True)
class Spot:
    """Where the page stands: the conversation, the answer its path goes through, the mode."""

    conversation_id: str = ""
    at: str = ""
    mode: str = CHAT

    @property
    def is_side_by_side(self) -> bool:
        """Whether one message gets two answers."""
        return self.mode == SIDE_BY_SIDE


@dataclass(frozen=True, slots=True)
class View:
    """What is to be shown: the path, and the two answers at its end that can be compared."""

    path: list[Step]
    pair: Pair | None

    @property
    def last(self) -> Step:
        """The step that the keys are about; NotFound in an empty conversation."""
        if not self.path:
            raise NotFound("there is no answer yet; write a message first")
        return self.path[-1]


class Screen:
    """Reads a conversation and shows it; every handler goes through `guarded`."""

    def __init__(self, services: Services, parts: Parts) -> None:
        self._services = services
        self._parts = parts

    def guarded(self, act: str, request: gr.Request, do: Callable[[Person], Update]) -> Update:
        """What `do` shows to the person, or why they may not or it failed; `act` as in "save this rating"."""
        try:
            return do(require(request.request, "tester"))
        except Exception as error:
            return self.refuse(error, act)

    def refuse(self, error: Exception, act: str) -> dict[Any, Any]:
        """Say what failed and change nothing else."""
        return {self._parts.says: f'<p role="alert">{plain(explain(error, act))}</p>'}

    def read(self, person: Person, spot: Spot) -> View:
        """The path and the pair at a spot; empty for a new chat, or one of somebody else."""
        branches = Branches(self._read_conversation(person, spot.conversation_id))
        path = branches.walk(spot.at)
        return View(path, branches.find_pair(path[-1]) if path else None)

    def show(self, person: Person, spot: Spot, says: str = "") -> dict[Any, Any]:
        """The whole conversation at a spot, with every panel as the facts want it."""
        view = self.read(person, spot)
        shown = spot.conversation_id if view.path else ""
        is_duel = spot.is_side_by_side and view.pair is not None and view.pair.verdict is None
        return {
            **self.idle(),
            self._parts.says: note(says) if says else "",
            **(self._show_duel(person, view) if is_duel else self._show_reply(view, spot)),
            self._parts.conversation: shown,
            self._parts.conversations: self._list_conversations(person, shown),
            self._parts.mode: spot.mode,
            self._parts.what_was_wrong: reveal(False),
            self._parts.editor: reveal(False),
        }

    def idle(self) -> dict[Any, Any]:
        """The controls of somebody for whom nothing is being written."""
        return {self._parts.send: gr.update(visible=True), self._parts.stop: gr.update(visible="hidden")}

    def _show_duel(self, person: Person, view: View) -> dict[Any, Any]:
        """Two answers, nobody knows whose, and the votes."""
        assert view.pair is not None
        left, right = view.pair.old, view.pair.new
        if draw_left(left.completion_id, right.completion_id, person) != left.completion_id:
            left, right = right, left
        left_out = say_left_out(max(left.num_left_out, right.num_left_out))
        return {
            **({self._parts.says: note(left_out)} if left_out else {}),
            self._parts.chatbot: show_path(view.path[:-1], [ask(view.last.question)]),
            self._parts.at: address(view.path[:-1], left.completion_id),
            self._parts.pair: f"{left.completion_id} {right.completion_id}",
            self._parts.left: safe_md(left.text),
            self._parts.right: safe_md(right.text),
            self._parts.duel: reveal(True),
            self._parts.starters: reveal(False),
            self._parts.votes: reveal(True, "duel-votes"),
            self._parts.voted: reveal(False),
            self._parts.better: reveal(False),
            self._parts.reply_keys: reveal(False),
        }

    def _show_reply(self, view: View, spot: Spot) -> dict[Any, Any]:
        """The path with its thumbs; below it whichever question the last answer raises."""
        pair, path = view.pair, view.path
        asks_better = pair is not None and not spot.is_side_by_side
        return {
            self._parts.chatbot: show_path(path),
            self._parts.starters: reveal(not path),
            self._parts.at: address(path[:-1], path[-1].sample.key) if path else "",
            self._parts.pair: f"{pair.old.completion_id} {pair.new.completion_id}" if pair else "",
            self._parts.left: "",
            self._parts.right: "",
            self._parts.duel: reveal(False),
            self._parts.votes: reveal(False, "duel-votes"),
            self._parts.voted: reveal(pair is not None and spot.is_side_by_side),
            self._parts.voted_says: write_verdict(pair, path) if pair and spot.is_side_by_side else "",
            self._parts.better: reveal(asks_better),
            **self._mark_better(pair),
            self._parts.reply_keys: reveal(bool(path)),
        }

    def _mark_better(self, pair: Pair | None) -> dict[Any, Any]:
        """Which of new, old and same was said before; pressing that one again takes it back."""
        judgement = pair.verdict.judgement if pair and pair.verdict else None
        said = {
            self._parts.better_new: judgement is not None and judgement.chosen_id == pair_id(pair, "new"),
            self._parts.better_old: judgement is not None and judgement.chosen_id == pair_id(pair, "old"),
            self._parts.better_same: judgement is not None and judgement.choice != "prefer",
        }
        return {
            part: gr.update(variant="primary" if is_said else "secondary") for part, is_said in said.items()
        }

    def _list_conversations(self, person: Person, shown: str) -> Any:
        known = read_conversations(self._services.store, person.person_id)
        choices = [(plain_title(summary.title), summary.conversation_id) for summary in known]
        return gr.update(
            choices=[*choices, *([] if shown else [("New conversation", FRESH)])], value=shown or FRESH
        )

    def _read_conversation(self, person: Person, conversation_id: str) -> Conversation:
        try:
            return read_whole_conversation(self._services.store, conversation_id, person.person_id)
        except NotFound:
            return Conversation()


def draw_left(first_id: str, second_id: str, person: Person) -> str:
    """The id of the answer on the left: stable for a person and two answers in any order, fair over many."""
    ids = sorted((first_id, second_id))
    text = "\n".join((*ids, person.person_id))
    return ids[hashlib.sha256(text.encode()).digest()[0] % 2]


def pair_id(pair: Pair | None, which: str) -> str:
    """The completion id of the new or the old one; nothing without a pair."""
    if pair is None:
        return ""
    return pair.new.completion_id if which == "new" else pair.old.completion_id


def write_verdict(pair: Pair, path: Sequence[Step]) -> str:
    """What was said of two answers, by the letters they stood under and the number the pager gives them."""
    if pair.verdict is None:
        return ""
    judgement = pair.verdict.judgement
    if judgement.choice != "prefer":
        said = "both bad" if judgement.choice == "both_bad" else "about the same"
        return note(f"You said: {said}. The one shown goes on; page to the other to go on from that.")
    letter = "" if judgement.left_id is None else "A " if judgement.left_id == judgement.chosen_id else "B "
    strength = "slightly better" if judgement.strength == 1 else "much better"
    number = [sample.key for sample in path[-1].samples].index(judgement.chosen_id or "") + 1
    return note(f"You said: {letter}{strength}. It is answer {number} of {len(path[-1].samples)} here.")


def note(text: str) -> str:
    """A quiet line for the page."""
    return f'<p class="quiet-note">{plain(text)}</p>'


def read_spot(conversation_id: str, at: str, mode: str) -> Spot:
    """The page's hidden fields as they come from the browser: an unknown mode is the plain one."""
    spot = Spot(conversation_id or "", at or "")
    return replace(spot, mode=SIDE_BY_SIDE) if mode == SIDE_BY_SIDE else spot
