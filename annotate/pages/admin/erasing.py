"""The part of the People tab about erasing somebody for good: how, their name typed, what it came to."""

from __future__ import annotations

from typing import Any, get_args

import gradio as gr

from annotate.pages.admin.acting import QUIETLY, Update, acting, admin
from annotate.pages.admin.asking import Question
from annotate.pages.admin.panels.erasures import MEANINGS, write_erasure
from annotate.pages.admin.panels.pieces import note, say
from annotate.pages.faults import explain
from annotate.services import Services
from store.erasure import erase_person
from store.errors import BadValue, HeedError
from store.people import read_people, read_person
from store.redaction import Mode

MODES: tuple[Mode, ...] = get_args(Mode)
WARNING = "This cannot be undone. To stop somebody, deactivate them; to train without them, leave them out."


class ErasingSection:
    """Lays itself out where it is made; nothing happens before the name is typed exactly."""

    is_polled = False

    def __init__(self, services: Services) -> None:
        self._services = services
        with gr.Column(elem_classes=["card"]):
            gr.HTML(f"<h2>Erase a person</h2>{note(WARNING)}", js_on_load=None)
            self._pick = gr.Dropdown([], label="Person", elem_id="erase-pick", filterable=False)
            self._mode = gr.Radio(
                [(f"{mode}: {meaning}", mode) for mode, meaning in MEANINGS.items()],
                value="delete", label="How", elem_id="erase-mode",
            )  # fmt: skip
            with gr.Row(elem_classes=["buttons"]):
                self._erase = gr.Button("Erase…", variant="stop", size="md", elem_id="erase")
            self._ask = Question("erase", "Erase for good", "Keep this person", extra=_typed)
            self.says = gr.HTML("", js_on_load=None, elem_id="erase-says")
        self._listed = gr.Textbox(visible="hidden", elem_id="erase-listed", label="People to erase listed")
        self.seen: list[Any] = [self._listed]
        self.outputs = [self._pick, self._listed]

    def wire(self) -> None:
        """Bind the buttons."""
        told = [self.says, *self._ask.outputs, *self.outputs]
        self._erase.click(self.ask, [self._pick, self._mode], told, **QUIETLY)
        self._ask.wire(self.erase, told, given=[self._mode])

    def read(self, listed: str = "") -> Update:
        """The people to pick from, when they are not yet `listed`."""
        people = read_people(self._services.store)
        signature = ",".join(person.person_id for person in people)
        if signature == listed:
            return {}
        choices = [(person.name, person.person_id) for person in people]
        return {self._pick: gr.update(choices=choices, value=None), self._listed: signature}

    @acting("erase this person")
    def ask(self, person_id: str | None, mode: str, request: gr.Request) -> Update:
        """Open the row that asks for the name."""
        if not person_id:
            raise BadValue("pick a person first")
        person = read_person(self._services.store, person_id)
        if person.person_id == admin(request).person_id:
            raise BadValue("this is your own account; ask another admin to erase it")
        sentence = f"Erase {person.name} for good ({MEANINGS[_check_mode(mode)]})? Type the name to confirm."
        return {self.says: ""} | self._ask.ask(sentence, person.person_id)

    @acting("erase this person")
    def erase(self, person_id: str, typed: str, also_backups: bool, mode: str, request: gr.Request) -> Update:
        """Erase them and say what that means for versions and backups."""
        actor = admin(request)
        try:
            erased = erase_person(
                self._services.store, person_id, _check_mode(mode), actor=actor.name, confirm=typed.strip(),
                actor_id=actor.person_id, backup_folder=self._services.backup_folder,
                also_backups=also_backups,
            )  # fmt: skip
        except HeedError as error:
            return {self._ask.says: say(explain(error, "erase this person"), is_bad=True)}
        return self._ask.close() | self.read() | {self.says: write_erasure(erased)}


def _typed() -> list[Any]:
    name = gr.Textbox(label="Type the name", max_length=200, elem_id="erase-name")
    backups = gr.Checkbox(False, label="Delete the backups made before, too", elem_id="erase-backups")
    return [name, backups]


def _check_mode(mode: str) -> Mode:
    known = next((each for each in MODES if each == mode), None)
    if known is None:
        raise BadValue(f"{mode!r} is no way to erase; choose one of {', '.join(MEANINGS)}")
    return known
