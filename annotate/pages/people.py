"""The admin page's part about people and prompts: accounts, secrets shown once, what is to be answered."""

from __future__ import annotations

from typing import Any, get_args

import gradio as gr

from annotate.auth import require
from annotate.pages.faults import explain
from annotate.pages.panels import say, write_people, write_secrets
from annotate.services import Services
from store.errors import BadValue
from store.judgements import count_judgements
from store.people import add_person, read_people, set_active
from store.prompts import NewPrompt, add_prompts, count_prompts
from store.records import Role

ROLES: tuple[Role, ...] = get_args(Role)


class PeopleSection:
    """Lays itself out where it is made; `read` gives what changes by itself."""

    def __init__(self, services: Services) -> None:
        self._services = services
        with gr.Column(elem_classes=["card"]):
            gr.HTML("<h2>People</h2>", js_on_load=None)
            self._table = gr.HTML("", js_on_load=None, elem_id="people")
            with gr.Row(elem_classes=["buttons"]):
                self._name = gr.Textbox(label="Name", max_length=80, elem_id="person-name")
                self._role = gr.Radio(list(ROLES), value="annotator", label="Role", elem_id="person-role")
                self._create = gr.Button("Create person", size="md", elem_id="person-create")
            self._secret = gr.HTML("", js_on_load=None, elem_id="person-secret")
            with gr.Row(elem_classes=["buttons"]):
                self._pick = gr.Dropdown([], label="Account", elem_id="person-pick", filterable=False)
                self._deactivate = gr.Button("Deactivate", size="md", elem_id="person-deactivate")
                self._reactivate = gr.Button("Reactivate", size="md", elem_id="person-reactivate")
            self._says = gr.HTML("", js_on_load=None, elem_id="people-says")
        with gr.Column(elem_classes=["card"]):
            gr.HTML("<h2>Prompts</h2>", js_on_load=None)
            self._count = gr.HTML("", js_on_load=None, elem_id="prompt-count")
            self._prompts = gr.Textbox(
                label="One prompt per line", lines=4, max_lines=12, max_length=200_000, elem_id="prompts-text"
            )
            with gr.Row(elem_classes=["buttons"]):
                self._add = gr.Button("Add prompts", size="md", elem_id="prompts-add")
            self._prompts_say = gr.HTML("", js_on_load=None, elem_id="prompts-says")
        self.listed = gr.Textbox(visible="hidden", elem_id="people-listed", label="People listed")
        self.outputs = [self._table, self._pick, self._count, self.listed]

    def wire(self, quietly: dict[str, Any]) -> None:
        """Bind the buttons."""
        self._create.click(
            self.create,
            [self._name, self._role],
            [self._secret, self._name, self._says, *self.outputs],
            **quietly,
        )
        told = [self._says, *self.outputs]
        self._deactivate.click(self.deactivate, [self._pick], told, **quietly)
        self._reactivate.click(self.reactivate, [self._pick], told, **quietly)
        self._add.click(self.add, [self._prompts], [self._prompts_say, self._prompts, self._count], **quietly)

    def read(self, listed: str = "") -> dict[Any, Any]:
        """Accounts and prompts as they are now; the list to pick from only when it is not yet `listed`."""
        store = self._services.store
        people = read_people(store)
        update: dict[Any, Any] = {
            self._table: write_people(
                [(person, count_judgements(store, person.person_id)) for person in people]
            ),
            self._count: self._write_count(),
        }
        signature = ",".join(person.person_id for person in people)
        if signature != listed:
            choices = [(person.name, person.person_id) for person in people]
            update |= {self._pick: gr.update(choices=choices), self.listed: signature}
        return update

    def create(self, name: str, role: str, request: gr.Request) -> dict[Any, Any]:
        """Make an account; its secrets are on the page until the next one is made or the page is left."""
        try:
            require(request.request, "admin")
            made = add_person(self._services.store, name.strip(), _check_role(role))
            secrets = write_secrets(made.person.name, made.password, made.token)
            return self.read() | {self._secret: secrets, self._name: "", self._says: ""}
        except Exception as error:
            return {self._says: say(explain(error, "create this person"), is_bad=True), self._secret: ""}

    def deactivate(self, person_id: str | None, request: gr.Request) -> dict[Any, Any]:
        """End this person's sessions and free what they hold; what they judged stays."""
        return self._set_active(person_id, False, request)

    def reactivate(self, person_id: str | None, request: gr.Request) -> dict[Any, Any]:
        """Let this person sign in again."""
        return self._set_active(person_id, True, request)

    def add(self, text: str, request: gr.Request) -> dict[Any, Any]:
        """Add one prompt a line; those already known are counted, not doubled."""
        try:
            require(request.request, "admin")
            added = add_prompts(self._services.store, _split_prompts(text), source="admin page")
        except Exception as error:
            return {self._prompts_say: say(explain(error, "add these prompts"), is_bad=True)}
        told = say(f"{added.added} added, {added.known} already known.")
        return {self._prompts_say: told, self._prompts: "", self._count: self._write_count()}

    def _set_active(self, person_id: str | None, active: bool, request: Any) -> dict[Any, Any]:
        try:
            admin = require(request.request, "admin")
            if not person_id:
                raise BadValue("pick an account first")
            if person_id == admin.person_id:
                raise BadValue("this is your own account; ask another admin to change it")
            person = set_active(self._services.store, person_id, active, admin.name)
            told = say(f"{person.name} is {'active' if person.active else 'deactivated'}.")
            return self.read() | {self._says: told}
        except Exception as error:
            return {self._says: say(explain(error, "change this account"), is_bad=True)}

    def _write_count(self) -> str:
        known = count_prompts(self._services.store)
        if known:
            return f'<p class="nothing">{known} {"prompt" if known == 1 else "prompts"} in the store.</p>'
        return '<p class="nothing">No prompts yet: add some here, and pairs to judge are made from them.</p>'


def _check_role(role: str) -> Role:
    known = next((each for each in ROLES if each == role), None)
    if known is None:
        raise BadValue(f"role {role!r} is unknown; choose one of {', '.join(ROLES)}")
    return known


def _split_prompts(text: str) -> list[NewPrompt]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise BadValue("write at least one prompt, each on its own line")
    return [NewPrompt(messages=({"role": "user", "content": line},), tags=()) for line in lines]
