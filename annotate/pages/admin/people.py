"""The part of the People tab about accounts: invitations, roles, who may sign in."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, get_args

import gradio as gr

from annotate.pages.admin.acting import QUIETLY, SLOWLY, Update, acting, admin
from annotate.pages.admin.asking import Question
from annotate.pages.admin.panels.people import write_link, write_people, write_secrets
from annotate.pages.admin.panels.pieces import note, say
from annotate.pages.faults import explain
from annotate.services import Services
from store.activity import count_by_person
from store.errors import BadValue, HeedError
from store.people import add_person, read_people, read_person, set_active, set_role
from store.records import Person, Role
from store.sessions import make_sign_in_link

ROLES: tuple[Role, ...] = get_args(Role)
MEANING = "annotator: the Annotate page · tester: the Chat page · admin: everything"

_COPY_JS = r"""
element.addEventListener('click', e => {
  const button = e.target.closest('[data-copy]');
  if (!button) return;
  const selected = () => { getSelection().selectAllChildren(button.previousElementSibling); };
  if (!navigator.clipboard) { selected(); return; }
  navigator.clipboard.writeText(button.dataset.copy)
    .then(() => { button.textContent = 'Copied'; }).catch(selected);
});
"""


class PeopleSection:
    """Lays itself out where it is made; what can do harm asks first."""

    is_polled = True

    def __init__(self, services: Services) -> None:
        self._services = services
        with gr.Column(elem_classes=["card"]):
            gr.HTML("<h2>People</h2>", js_on_load=None)
            self._table = gr.HTML("", js_on_load=None, elem_id="people")
        with gr.Column(elem_classes=["card"]):
            gr.HTML(f"<h2>Invite</h2>{note(MEANING)}", js_on_load=None)
            with gr.Row(elem_classes=["buttons"]):
                self._name = gr.Textbox(label="Name", max_length=80, elem_id="person-name")
                self._role = gr.Radio(list(ROLES), value="annotator", label="Role", elem_id="person-role")
                self._create = gr.Button("Invite", variant="primary", size="md", elem_id="person-create")
            self._secret = gr.HTML("", js_on_load=_COPY_JS, elem_id="person-secret")
            self._invite_says = gr.HTML("", js_on_load=None, elem_id="invite-says")
        self._lay_out_account()
        self._listed = gr.Textbox(visible="hidden", elem_id="people-listed", label="People listed")
        self.seen = [self._listed]
        self.outputs = [self._table, self._pick, self._listed]

    def _lay_out_account(self) -> None:
        with gr.Column(elem_classes=["card"]):
            gr.HTML("<h2>One account</h2>", js_on_load=None)
            with gr.Row(elem_classes=["buttons"]):
                self._pick = gr.Dropdown([], label="Account", elem_id="person-pick", filterable=False)
                self._link = gr.Button("New sign-in link", size="md", elem_id="person-link")
                self._deactivate = gr.Button("Deactivate…", size="md", elem_id="person-deactivate")
                self._reactivate = gr.Button("Reactivate", size="md", elem_id="person-reactivate")
            with gr.Row(elem_classes=["buttons"]):
                self._new_role = gr.Radio(list(ROLES), label="Role", elem_id="person-new-role")
                self._set_role = gr.Button("Change role", size="md", elem_id="person-set-role")
            self._ask_deactivate = Question("deactivate", "Deactivate")
            self.says = gr.HTML("", js_on_load=_COPY_JS, elem_id="people-says")

    def wire(self) -> None:
        """Bind the buttons."""
        made = [self._secret, self._name, self.says, self._invite_says, *self.outputs]
        self._create.click(self.create, [self._name, self._role], made, **SLOWLY)
        told = [self.says, *self.outputs, *self._ask_deactivate.outputs]
        picked = [self._pick]
        self._link.click(self.make_link, picked, told, **QUIETLY)
        self._deactivate.click(self.ask_deactivate, picked, told, **QUIETLY)
        self._reactivate.click(self.reactivate, picked, told, **QUIETLY)
        self._set_role.click(self.change_role, [self._pick, self._new_role], told, **QUIETLY)
        self._ask_deactivate.wire(self.deactivate, told)

    def read(self, listed: str = "") -> Update:
        """Accounts as they are now; the list to pick from only when it is not yet `listed`."""
        people = read_people(self._services.store)
        midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        update: Update = {self._table: write_people(people, count_by_person(self._services.store, midnight))}
        signature = ",".join(person.person_id for person in people)
        if signature != listed:
            choices = [(person.name, person.person_id) for person in people]
            update |= {self._pick: gr.update(choices=choices), self._listed: signature}
        return update

    @acting("invite this person")
    def create(self, name: str, role: str, request: gr.Request) -> Update:
        """Make an account; its secrets are on the page until the next one is made or the page is left."""
        try:
            made = add_person(self._services.store, name.strip(), _check_role(role))
        except HeedError as error:
            return {self._invite_says: say(explain(error, "invite"), is_bad=True), self._secret: ""}
        link = self._make_link(made.person, request)
        secrets = write_secrets(made.person.name, link, made.password, made.token)
        return self.read() | {self._secret: secrets, self._name: "", self.says: "", self._invite_says: ""}

    @acting("make a sign-in link")
    def make_link(self, person_id: str | None, request: gr.Request) -> Update:
        """A one-time link for somebody who has no password or forgot it."""
        person = self._find(person_id)
        return {self.says: write_link(person.name, self._make_link(person, request))}

    @acting("deactivate this person")
    def ask_deactivate(self, person_id: str | None, request: gr.Request) -> Update:
        """Open the row that asks."""
        person = self._find_other(person_id, request)
        sentence = f"Deactivate {person.name}? They are signed out and cannot sign in; their labels stay."
        return self._ask_deactivate.ask(sentence, person.person_id)

    @acting("deactivate this person")
    def deactivate(self, person_id: str | None, request: gr.Request) -> Update:
        """End this person's sessions and free what they hold; what they judged stays."""
        return self._set_active(person_id, False, request)

    @acting("reactivate this person")
    def reactivate(self, person_id: str | None, request: gr.Request) -> Update:
        """Let this person sign in again."""
        return self._set_active(person_id, True, request)

    @acting("change this role")
    def change_role(self, person_id: str | None, role: str, request: gr.Request) -> Update:
        """Give this person another role; their open pages refuse them at the next click."""
        person = self._find_other(person_id, request)
        changed = set_role(self._services.store, person.person_id, _check_role(role), admin(request).name)
        return self.read() | {self.says: say(f"{changed.name} is now {changed.role}.")}

    def _set_active(self, person_id: str | None, active: bool, request: Any) -> Update:
        chosen = self._find_other(person_id, request)
        person = set_active(self._services.store, chosen.person_id, active, admin(request).name)
        told = say(f"{person.name} is {'active' if person.active else 'deactivated'}.")
        return self._ask_deactivate.close() | self.read() | {self.says: told}

    def _make_link(self, person: Person, request: Any) -> str:
        token = make_sign_in_link(self._services.store, person.person_id)
        scheme = (
            "https" if self._services.settings.public_https else request.request.scope.get("scheme", "http")
        )
        return f"{scheme}://{request.request.headers.get('host', 'localhost')}/login?token={token}"

    def _find(self, person_id: str | None) -> Person:
        if not person_id:
            raise BadValue("pick an account first")
        return read_person(self._services.store, person_id)

    def _find_other(self, person_id: str | None, request: Any) -> Person:
        person = self._find(person_id)
        if person.person_id == admin(request).person_id:
            raise BadValue("this is your own account; ask another admin to change it")
        return person


def _check_role(role: str) -> Role:
    known = next((each for each in ROLES if each == role), None)
    if known is None:
        raise BadValue(f"role {role!r} is unknown; choose one of {', '.join(ROLES)}")
    return known
