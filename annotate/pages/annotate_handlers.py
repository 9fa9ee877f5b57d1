"""What each event of the annotate page does; every handler checks the role, then calls the session.

An item leaves the screen only after its judgement was saved; when that fails, it and everything typed stay.
Each handler gets what stands on the page, in the order of `Given`, and answers with updates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import gradio as gr

from annotate import session
from annotate.auth import require
from annotate.guidelines import must_read
from annotate.pages.acts import Act, Acts
from annotate.pages.annotate_parts import Given, Parts
from annotate.pages.annotate_text import write_decisions
from annotate.pages.annotate_view import View
from annotate.pages.desk import read_draft
from annotate.pages.faults import explain
from annotate.pages.text import plain
from annotate.pages.top_bar import write_account, write_links
from annotate.services import Services
from store.errors import BadValue, LeaseLost, StateConflict
from store.guidelines import accept_guidelines
from store.records import Person, TaskKind
from store.revision import read_decisions

Update = Any  # a dict of component to new value, or gr.skip(); Gradio has no types of its own for it

REASSIGNED = "This item was reassigned; nothing was saved."


class Handlers:
    """One call into `annotate.session` each, and what the person sees when it fails."""

    def __init__(self, services: Services, parts: Parts, acts: Acts) -> None:
        self.parts = parts
        self.acts = acts
        self._services = services
        self._view = View(services, parts, acts)

    def open(self, request: gr.Request, *values: Any) -> Update:
        """Fill the top bar and load the first item (or the one still held, after a reload)."""
        try:
            person = require(request.request, "annotator")
            bar = {
                self.parts.links: write_links("Annotate", person.role),
                self.parts.account: write_account(person, None),
            }
            guide = self._view.guide(is_new=False)
        except Exception as error:
            return self._refuse(error, "open this page")
        return bar | guide | self._advance(person, Given(*values))

    def load(self, request: gr.Request, *values: Any) -> Update:
        """The next item of the kind that is chosen."""
        try:
            person = require(request.request, "annotator")
        except Exception as error:
            return self._refuse(error, "load the next item")
        return self._advance(person, Given(*values))

    def load_other(self, request: gr.Request, *values: Any) -> Update:
        """The next item of the other kind, from an empty queue."""
        try:
            person = require(request.request, "annotator")
            other = "single" if _check_kind(Given(*values).kind) == "pair" else "pair"
        except Exception as error:
            return self._refuse(error, "load the next item")
        return {self.parts.kind: other} | self._advance(person, Given(*values), kind=other)

    def accept(self, request: gr.Request, *values: Any) -> Update:
        """Note that the guidelines on screen were read, and go on."""
        try:
            person, given = require(request.request, "annotator"), Given(*values)
            accept_guidelines(self._services.store, person.person_id, int(given.guide_version or 0))
            guide = self._view.guide(is_new=False)
        except StateConflict:  # another version was set meanwhile: it is shown now
            return self._advance(person, given)
        except Exception as error:
            return self._refuse(error, "save that you have read the guidelines")
        return guide | self._advance(person, given)

    def renew(self, request: gr.Request, *values: Any) -> Update:
        """Keep holding the item on screen; when it is lost, say so and show another."""
        try:
            person, given = require(request.request, "annotator"), Given(*values)
            if not given.task_id:
                return gr.skip()
            session.renew(self._services, person, given.task_id)
        except LeaseLost:
            return self._advance(person, given, REASSIGNED)
        except Exception as error:
            return self._refuse(error, "keep this item reserved for you")
        return gr.skip()

    def highlight(self, request: gr.Request, *values: Any) -> Update:
        """The same two answers with or without their differences marked."""
        try:
            person, given = require(request.request, "annotator"), Given(*values)
            if not given.task_id:
                return gr.skip()
            return self._view.answers(
                session.read_held(self._services, person, given.task_id), given.highlight
            )
        except LeaseLost:
            return self._advance(person, given, REASSIGNED)
        except Exception as error:
            return self._refuse(error, "compare the two answers")

    def judging(self, act: Act) -> Callable[..., Update]:
        """The handler of one button: it saves, or only selects while the detail panel is open."""

        def judge(request: gr.Request, *values: Any) -> Update:
            try:
                person, given = require(request.request, "annotator"), Given(*values)
            except Exception as error:
                return self._refuse(error, "save this judgement")
            if not given.task_id:
                return gr.skip()
            if given.is_detail_open and act.choice != "skip":
                return self._select(person, given, act)
            return self._judge(person, given, act)

        return judge

    def save(self, request: gr.Request, *values: Any) -> Update:
        """Save the choice that was selected, with everything in the detail panel."""
        return self._save_selected(request, Given(*values), "Choose an answer first, then save.")

    def retry(self, request: gr.Request, *values: Any) -> Update:
        """The choice that was not saved, once more; without one, the next item."""
        return self._save_selected(request, Given(*values), "")

    def restore(self, request: gr.Request, *values: Any) -> Update:
        """Put a draft that the browser kept back on its item."""
        try:
            person, given = require(request.request, "annotator"), Given(*values)
            draft = read_draft(given.draft, self._services.annotation.reasons)
            if draft is None or draft.task_id != given.task_id:
                return gr.skip()
            return self._view.restored(person, draft, self.acts.by_id.get(draft.choice))
        except Exception as error:
            return self._refuse(error, "bring back what you had typed")

    def undo(self, request: gr.Request, *values: Any) -> Update:
        """Bring the last item back with the same sides and what was said of it; again, the one before."""
        return self._take_back(request, Given(*values), None)

    def reopen(self, request: gr.Request, *values: Any) -> Update:
        """Bring one of the recent decisions back in the same way."""
        given = Given(*values)
        return self._take_back(request, given, given.reopened)

    def list_recent(self, request: gr.Request, *_values: Any) -> Update:
        """The last ten decisions of this person."""
        try:
            person = require(request.request, "annotator")
            decisions = read_decisions(self._services.store, person.person_id)
        except Exception as error:
            return self._refuse(error, "list your decisions")
        return {self.parts.recent: write_decisions(decisions, self.acts)}

    def _take_back(self, request: gr.Request, given: Given, judgement_id: str | None) -> Update:
        try:
            person = require(request.request, "annotator")
            view = session.undo(self._services, person, judgement_id)
            if view is None:
                return self._view.says(person, _check_kind(given.kind), "Nothing to undo.")
            return self._show(person, view, given, "")
        except StateConflict as conflict:
            return self._view.says(person, _check_kind(given.kind), explain(conflict, "undo"))
        except Exception as error:
            return self._refuse(error, "undo")

    def _save_selected(self, request: gr.Request, given: Given, says: str) -> Update:
        try:
            person = require(request.request, "annotator")
            act = self.acts.by_id.get(given.selected)
            if act is None and says:
                return self._view.says(person, _check_kind(given.kind), says)
        except Exception as error:
            return self._refuse(error, "save this judgement")
        return self._advance(person, given) if act is None else self._judge(person, given, act)

    def _select(self, person: Person, given: Given, act: Act) -> Update:
        try:
            view = session.read_held(self._services, person, given.task_id)
            return self._view.selected(person, view, act, given.correction)
        except LeaseLost:
            return self._advance(person, given, REASSIGNED, given.task_id)
        except Exception as error:
            return self._refuse(error, "select this answer")

    def _judge(self, person: Person, given: Given, act: Act) -> Update:
        reasons = [act.reason, *given.reasons] if act.reason else given.reasons
        try:
            session.judge(
                self._services,
                person,
                given.task_id,
                act.choice,
                strength=act.strength,
                reasons=reasons,
                comment=given.comment or "",
                correction=given.correction or None,
                active_ms=None if given.active_ms is None else int(given.active_ms),
                unsafe=given.unsafe,
            )
        except LeaseLost:
            return self._advance(person, given, REASSIGNED, given.task_id)
        except StateConflict as conflict:
            return self._advance(person, given, explain(conflict, "save this judgement"), given.task_id)
        except Exception as error:
            says = f"Not saved: {act.label}. {explain(error, 'save this judgement')}"
            return self._view.not_saved_choice(person, given.task_id, act, says)
        done = "Skipped." if act.choice == "skip" else f"Saved: {act.label}."
        return self._advance(person, given, done, given.task_id)

    def _advance(
        self, person: Person, given: Given, says: str = "", done: str = "", kind: str | None = None
    ) -> Update:
        """Show the next item. What came before is saved, so a failure here is only about the next one."""
        try:
            wanted = _check_kind(kind or given.kind)
            if must_read(self._services.store, person):
                return self._view.guidelines(person, wanted, done)
            view = session.next_task(self._services, person, wanted)
            if view is None:
                return self._view.empty(person, wanted, plain(says), done)
            return self._show(person, view, given, plain(says), done)
        except Exception as error:
            return self._refuse(error, "load the next item", says)

    def _show(
        self, person: Person, view: session.TaskView, given: Given, says: str, done: str = ""
    ) -> Update:
        earlier = session.read_earlier(self._services, person, view.task_id)
        return self._view.item(person, view, says, earlier, done, bool(given.highlight))

    def _refuse(self, error: Exception, act_name: str, says: str = "") -> Update:
        return self._view.not_saved(f"{says} {explain(error, act_name)}".strip())


def _check_kind(kind: str) -> TaskKind:
    if kind not in ("pair", "single"):
        raise BadValue(f"kind {kind!r} is unknown; choose pair or single")
    return cast(TaskKind, kind)
