"""What saying something of an answer does on the chat page: thumbs, reasons, edits, comparisons, paging."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import gradio as gr

from annotate import feedback
from annotate.branches import Step, address
from annotate.pages.chat_rows import find_step, read_act, read_thumb
from annotate.pages.chat_screen import Screen, Spot, Update, View, note, read_spot
from annotate.pages.showing import reveal
from store.comparisons import undo_comparison
from store.errors import BadValue, NotFound
from store.records import Person

SAYS = {1: "Saved: good answer.", -1: "Saved: bad answer.", 0: "Rating taken back."}
BETTER = {"new": "the new answer is better", "old": "the old answer is better", "same": "about the same"}


@dataclass(frozen=True)
class Vote:
    """One button of the side-by-side mode: what it says, what it means, its key."""

    elem_id: str
    label: str
    choice: str
    strength: int
    key: str


VOTES = (
    Vote("vote-1", "A much better", "left", 2, "1"),
    Vote("vote-2", "A slightly better", "left", 1, "2"),
    Vote("vote-3", "About the same", "tie", 1, "3"),
    Vote("vote-4", "B slightly better", "right", 1, "4"),
    Vote("vote-5", "B much better", "right", 2, "5"),
    Vote("vote-0", "Both bad", "both_bad", 1, "0"),
)


class Labels(Screen):
    """One call into `annotate.feedback` each; the screen shows what the store has afterwards."""

    def rate(
        self, conversation_id: str, at: str, mode: str, thumb: gr.LikeData, request: gr.Request
    ) -> Update:
        """Save a thumb; the same thumb again takes it back."""
        spot = read_spot(conversation_id, at, mode)

        def do(person: Person) -> Update:
            step = find_step(self.read(person, spot).path, thumb.index)
            return self._set_thumb(person, spot, step, read_thumb(thumb.liked))

        return self._or_as_it_was("save this rating", spot, request, do)

    def rating_last(self, value: int) -> Callable[..., Update]:
        """The handler of a key: thumb on the last answer; the same again takes it back."""

        def rate_last(conversation_id: str, at: str, mode: str, request: gr.Request) -> Update:
            spot = read_spot(conversation_id, at, mode)

            def do(person: Person) -> Update:
                step = self.read(person, spot).last
                standing = step.sample.rating.value if step.sample.rating else 0
                return self._set_thumb(person, spot, step, 0 if standing == value else value)

            return self.guarded("save this rating", request, do)

        return rate_last

    def add_reasons(
        self,
        completion_id: str,
        reasons: list[str],
        comment: str,
        conversation_id: str,
        at: str,
        mode: str,
        request: gr.Request,
    ) -> Update:
        """Say more about the answer that was just rated."""
        spot = read_spot(conversation_id, at, mode)

        def do(person: Person) -> Update:
            feedback.explain_thumb(self._services, person, completion_id, reasons, comment or "")
            return self.show(person, spot, "Saved, thank you.")

        return self.guarded("save these reasons", request, do)

    def act(
        self, conversation_id: str, at: str, mode: str, pressed: gr.EventData, request: gr.Request
    ) -> Update:
        """A button inside a message: page to another answer or question, or open the editor."""
        spot = read_spot(conversation_id, at, mode)

        def do(person: Person) -> Update:
            act = read_act(pressed._data)
            view = self.read(person, spot)
            if act.step >= len(view.path):
                raise NotFound("that message is no longer on screen; reload the page")
            step = view.path[act.step]
            if act.deed in ("edit", "ask"):
                return self._open_editor(step, act.step, act.deed == "edit")
            keys = [s.key for s in step.samples] if act.deed == "sample" else list(step.questions)
            if act.which >= len(keys):
                raise NotFound("that answer is not in this conversation; reload the page")
            return self.show(person, replace(spot, at=address(view.path[: act.step], keys[act.which])))

        return self.guarded("go there", request, do)

    def save_edit(
        self, text: str, editing: str, conversation_id: str, at: str, mode: str, request: gr.Request
    ) -> Update:
        """Keep what the model should have said; the conversation goes on from there."""
        spot = read_spot(conversation_id, at, mode)

        def do(person: Person) -> Update:
            feedback.edit_answer(self._services, person, editing, text)
            at = self._find_edited(person, spot, editing, text)
            return self.show(person, replace(spot, at=at), "Saved. The conversation goes on from your text.")

        return self.guarded("save this edit", request, do)

    def close_editor(self, request: gr.Request) -> Update:
        """Leave the answer or the question as it is."""
        return self.guarded("close this", request, lambda _: {self._parts.editor: reveal(False)})

    def better(self, which: str) -> Callable[..., Update]:
        """The handler of new, old or same; what was said before is taken back when it is pressed again."""

        def compare(pair: str, conversation_id: str, at: str, mode: str, request: gr.Request) -> Update:
            spot = read_spot(conversation_id, at, mode)

            def do(person: Person) -> Update:
                old_id, new_id = _read_pair(pair)
                if self._said_before(person, spot, (old_id, new_id)) == which:
                    undo_comparison(self._services.store, person.person_id, old_id, new_id)
                    return self.show(person, spot, "Comparison taken back.")
                choice: feedback.ComparedAs = (
                    "first" if which == "old" else "second" if which == "new" else "tie"
                )
                feedback.compare(self._services, person, old_id, new_id, choice)
                goes_on = self._beside(person, spot, {"old": old_id, "new": new_id}.get(which))
                return self.show(person, goes_on, f"Saved: {BETTER[which]}.")

            return self.guarded("save this comparison", request, do)

        return compare

    def voting(self, vote: Vote) -> Callable[..., Update]:
        """The handler of one button of the side-by-side mode; the winner goes on, else the left one."""

        def cast(
            pair: str, conversation_id: str, at: str, mode: str, active_ms: float | None, request: gr.Request
        ) -> Update:
            spot = read_spot(conversation_id, at, mode)

            def do(person: Person) -> Update:
                left_id, right_id = _read_pair(pair)
                choice: feedback.ComparedAs = (
                    "first" if vote.choice == "left" else "second" if vote.choice == "right" else "tie"
                )
                feedback.compare(
                    self._services,
                    person,
                    left_id,
                    right_id,
                    "both_bad" if vote.choice == "both_bad" else choice,
                    strength=vote.strength,
                    left_id=left_id,
                    active_ms=None if active_ms is None else int(active_ms),
                )
                goes_on = right_id if vote.choice == "right" else left_id
                return self.show(person, self._beside(person, spot, goes_on))

            return self.guarded("save this vote", request, do)

        return cast

    def undo_vote(self, pair: str, conversation_id: str, at: str, mode: str, request: gr.Request) -> Update:
        """Show the two answers again, as if nothing had been said."""
        spot = read_spot(conversation_id, at, mode)

        def do(person: Person) -> Update:
            undone = undo_comparison(self._services.store, person.person_id, *_read_pair(pair))
            return self.show(
                person, spot, "Vote taken back." if undone else "There was no vote to take back."
            )

        return self.guarded("take this vote back", request, do)

    def _set_thumb(self, person: Person, spot: Spot, step: Step, value: int) -> Update:
        if step.sample.is_edited:
            raise BadValue("you wrote this text; page back to what the model wrote to rate it")
        completion_id = step.sample.completion.completion_id
        feedback.set_thumb(self._services, person, completion_id, value)
        return self.show(person, spot, SAYS[value]) | {
            self._parts.rated: completion_id,
            self._parts.reasons: [],
            self._parts.comment: "",
            self._parts.what_was_wrong: reveal(value < 0),
        }

    def _open_editor(self, step: Step, number: int, is_answer: bool) -> Update:
        if is_answer:
            says = "What the model should have said. Your text is learned from and goes on in its place."
        else:
            says = "Ask something else here. What came after the old question stays on its own branch."
        return {
            self._parts.editor: reveal(True, "of-answer" if is_answer else "of-question"),
            self._parts.editor_says: note(says),
            self._parts.edited: step.sample.text if is_answer else step.question,
            self._parts.editing: step.sample.completion.completion_id if is_answer else str(number),
            self._parts.what_was_wrong: reveal(False),
        }

    def _find_edited(self, person: Person, spot: Spot, completion_id: str, text: str) -> str:
        """Where the conversation goes on with that text in place of the answer."""
        path = self.read(person, spot).path
        for number, step in enumerate(path):
            for sample in step.samples:
                if sample.completion.completion_id == completion_id and sample.text == text:
                    return address(path[:number], sample.key)
        return completion_id

    def _beside(self, person: Person, spot: Spot, key: str | None) -> Spot:
        """The same path with another answer at its end; None leaves it."""
        path = self.read(person, spot).path
        return replace(spot, at=address(path[:-1], key)) if key else spot

    def _said_before(self, person: Person, spot: Spot, ids: tuple[str, str]) -> str:
        pair = self.read(person, spot).pair
        if pair is None or pair.verdict is None or pair.verdict.completion_ids != set(ids):
            return ""
        if pair.verdict.judgement.choice != "prefer":
            return "same"
        return "new" if pair.verdict.judgement.chosen_id == pair.new.completion_id else "old"

    def _or_as_it_was(
        self, act: str, spot: Spot, request: gr.Request, do: Callable[[Person], Update]
    ) -> Update:
        """Like `guarded`; when it fails the thumbs are shown as the store has them, not as guessed."""

        def restored(person: Person) -> Update:
            try:
                return do(person)
            except Exception as error:
                view: View = self.read(person, spot)
                return (self.show(person, spot) if view.path else {}) | self.refuse(error, act)

        return self.guarded(act, request, restored)


def _read_pair(text: str) -> tuple[str, str]:
    ids = text.split()
    if len(ids) != 2:
        raise NotFound("there are no two answers to compare; reload the page")
    return ids[0], ids[1]
