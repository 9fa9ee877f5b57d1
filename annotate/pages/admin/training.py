"""Whose labels are trained on: leave a person out, take them in again, or start a round without them.

The same card stands under People and under Quality; `name` keeps their parts apart.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from annotate.pages.admin.acting import QUIETLY, Update, acting, admin
from annotate.pages.admin.asking import Question
from annotate.pages.admin.panels.pieces import note, say
from annotate.services import Services
from store.errors import BadValue
from store.people import read_people, read_person, set_trained_on
from store.provenance import read_versions_trained_on
from store.records import Person

MEANING = "Labels that are left out stay in the store and can be taken in again. Nothing is deleted here."


class TrainingSection:
    """Lays itself out where it is made; what changes the next rounds asks first."""

    is_polled = False

    def __init__(self, services: Services, name: str) -> None:
        self._services = services
        with gr.Column(elem_classes=["card"]):
            gr.HTML(f"<h2>Training on somebody's labels</h2>{note(MEANING)}", js_on_load=None)
            with gr.Row(elem_classes=["buttons"]):
                self._pick = gr.Dropdown([], label="Person", elem_id=f"{name}-who", filterable=False)
                self._leave_out = gr.Button("Leave out…", size="md", elem_id=f"{name}-leave-out")
                self._take_in = gr.Button("Train on again", size="md", elem_id=f"{name}-take-in")
                self._without = gr.Button("Retrain without…", size="md", elem_id=f"{name}-without")
            self._ask_leave_out = Question(f"{name}-leave-out", "Leave out", extra=_reason(name))
            self._ask_without = Question(f"{name}-without", "Start a round", "Do not train now")
            self.says = gr.HTML("", js_on_load=None, elem_id=f"{name}-training-says")
        self._listed = gr.Textbox(visible="hidden", elem_id=f"{name}-who-listed", label="People listed")
        self.seen: list[Any] = [self._listed]
        self.outputs = [self._pick, self._listed]

    def wire(self) -> None:
        """Bind the buttons."""
        told = [
            self.says, *self.outputs, *self._ask_leave_out.outputs, *self._ask_without.outputs,
        ]  # fmt: skip
        self._leave_out.click(self.ask_leave_out, [self._pick], told, **QUIETLY)
        self._take_in.click(self.take_in, [self._pick], told, **QUIETLY)
        self._without.click(self.ask_without, [self._pick], told, **QUIETLY)
        self._ask_leave_out.wire(self.leave_out, told)
        self._ask_without.wire(self.retrain_without, told)

    def read(self, listed: str = "") -> Update:
        """The people to pick from, when they are not yet `listed`."""
        people = read_people(self._services.store)
        signature = ",".join(f"{person.person_id}{person.trained_on}" for person in people)
        if signature == listed:
            return {}
        choices = [
            (person.name if person.trained_on else f"{person.name} · left out", person.person_id)
            for person in people
        ]
        return {self._pick: gr.update(choices=choices), self._listed: signature}

    @acting("leave this person out")
    def ask_leave_out(self, person_id: str | None, request: gr.Request) -> Update:  # noqa: ARG002
        """Open the row that asks."""
        person = self._find(person_id)
        sentence = f"Leave the labels of {person.name} out of the next rounds? {self._name_versions(person)}"
        return self._closed() | self._ask_leave_out.ask(sentence, person.person_id)

    @acting("leave this person out")
    def leave_out(self, person_id: str | None, reason: str, request: gr.Request) -> Update:
        """Rounds from now on leave this person's labels out."""
        return self._set(person_id, False, reason, request)

    @acting("take this person in again")
    def take_in(self, person_id: str | None, request: gr.Request) -> Update:
        """Rounds from now on train on this person's labels again."""
        return self._set(person_id, True, "", request)

    @acting("start a round")
    def ask_without(self, person_id: str | None, request: gr.Request) -> Update:  # noqa: ARG002
        """Open the row that asks."""
        person = self._find(person_id)
        sentence = (
            f"Start a round now without the labels of {person.name}? Only this round does without them."
            f" {self._name_versions(person)}"
        )
        return self._closed() | self._ask_without.ask(sentence, person.person_id)

    @acting("start a round")
    def retrain_without(self, person_id: str | None, request: gr.Request) -> Update:
        """Start a round without this person's labels."""
        person = self._find(person_id)
        started = self._services.start_round(admin(request).name, [person.person_id])
        told = say(f"Round {started.round_id} started without {person.name}; watch it under Rounds.")
        return self._closed() | {self.says: told}

    def _set(self, person_id: str | None, trained_on: bool, reason: str, request: Any) -> Update:
        chosen = self._find(person_id)
        name = admin(request).name
        person = set_trained_on(self._services.store, chosen.person_id, trained_on, name, reason.strip())
        how = "is trained on again" if person.trained_on else "is left out of the next rounds"
        return self._closed() | self.read() | {self.says: say(f"{person.name} {how}.")}

    def _find(self, person_id: str | None) -> Person:
        if not person_id:
            raise BadValue("pick a person first")
        return read_person(self._services.store, person_id)

    def _name_versions(self, person: Person) -> str:
        trained = read_versions_trained_on(self._services.store, person.person_id)
        if not trained:
            return "No version was trained on them so far."
        named = ", ".join(f"{each.version} ({each.state})" for each in trained)
        return f"Trained on them so far, and not changed by this: {named}."

    def _closed(self) -> Update:
        return self._ask_leave_out.close() | self._ask_without.close()


def _reason(name: str) -> Any:
    return lambda: [gr.Textbox(label="Reason", max_length=500, elem_id=f"{name}-leave-out-reason")]
