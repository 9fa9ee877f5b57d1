"""The tab about guidelines: write the next version with a preview, see all of them and who accepted which."""

from __future__ import annotations

from typing import Any

import gradio as gr

from annotate.guidelines import read_guidelines
from annotate.pages.admin.acting import QUIETLY, Update, acting, admin
from annotate.pages.admin.asking import Question
from annotate.pages.admin.panels.guidelines import write_acceptances, write_versions
from annotate.pages.admin.panels.pieces import note, say
from annotate.pages.text import safe_md
from annotate.services import Services
from store.errors import BadValue
from store.guidelines import MOST_CHARS, read_acceptances, read_versions, set_guidelines
from store.people import read_people

MEANING = "Markdown. Annotators read and accept a new version once, before their next task."


class GuidelineSection:
    """Lays itself out where it is made; saving asks first, since everybody has to read it then."""

    is_polled = False

    def __init__(self, services: Services) -> None:
        self._services = services
        with gr.Row(elem_classes=["two"]):
            with gr.Column(elem_classes=["card"]):
                gr.HTML(f"<h2>Guidelines</h2>{note(MEANING)}", js_on_load=None)
                self._text = gr.Textbox(
                    label="Text", lines=18, max_lines=30, max_length=MOST_CHARS, elem_id="guidelines-text"
                )
                with gr.Row(elem_classes=["buttons"]):
                    self._save = gr.Button(
                        "Save as the next version…", variant="primary", size="md", elem_id="guidelines-save"
                    )
                self._ask = Question("guidelines", "Save", "Go on writing")
                self.says = gr.HTML("", js_on_load=None, elem_id="guidelines-says")
            with gr.Column(elem_classes=["card"]):
                gr.HTML("<h2>Preview</h2>", js_on_load=None)
                self._preview = gr.Markdown("", elem_id="guidelines-preview")
        with gr.Column(elem_classes=["card"]):
            gr.HTML("<h2>Who has accepted</h2>", js_on_load=None)
            self._acceptances = gr.HTML("", js_on_load=None, elem_id="guidelines-accepted")
        with gr.Column(elem_classes=["card"]):
            gr.HTML("<h2>Versions</h2>", js_on_load=None)
            self._versions = gr.HTML("", js_on_load=None, elem_id="guidelines-versions")
        self._loaded = gr.Textbox(
            visible="hidden", elem_id="guidelines-loaded", label="Version in the editor"
        )
        self.seen: list[Any] = [self._loaded]
        self.outputs = [self._text, self._preview, self._acceptances, self._versions, self._loaded]

    def wire(self) -> None:
        """Bind the editor and the two steps of saving."""
        typing = QUIETLY | {"trigger_mode": "always_last"}
        self._text.change(self.preview, [self._text], [self._preview, self.says], **typing)
        asked = [self.says, *self._ask.outputs]
        self._save.click(self.ask, [self._text], asked, **QUIETLY)
        self._ask.wire(self.save, [*asked, *self.outputs], given=[self._text])

    def read(self, loaded: str = "") -> Update:
        """Versions and acceptances; the text only when another version than the one `loaded` holds."""
        store = self._services.store
        version, text = read_guidelines(store)
        update: Update = {
            self._acceptances: write_acceptances(read_people(store), read_acceptances(store), version),
            self._versions: write_versions(read_versions(store)),
        }
        if loaded != str(version):
            update |= {self._text: text, self._preview: safe_md(text), self._loaded: str(version)}
        return update

    @acting("show this text")
    def preview(self, text: str, request: gr.Request) -> Update:  # noqa: ARG002
        """The text as annotators will see it."""
        return {self._preview: safe_md(text), self.says: ""}

    @acting("save these guidelines")
    def ask(self, text: str, request: gr.Request) -> Update:  # noqa: ARG002
        """Open the row that asks."""
        version, holding = read_guidelines(self._services.store)
        if text.strip() == holding.strip():
            raise BadValue("this is the text that holds already; change it first")
        sentence = f"Save as version {version + 1}? Every annotator must accept it before their next task."
        return {self.says: ""} | self._ask.ask(sentence, str(version))

    @acting("save these guidelines")
    def save(self, loaded: str, text: str, request: gr.Request) -> Update:
        """Make the text the version that holds, unless somebody else has saved one meanwhile."""
        version, _ = read_guidelines(self._services.store)
        if loaded != str(version):
            raise BadValue(f"version {version} was saved meanwhile; copy your text, then reload the page")
        saved = set_guidelines(self._services.store, text, admin(request).name)
        told = say(f"Version {saved.version} holds from now on.")
        return self._ask.close() | self.read() | {self.says: told}
