"""The part of the Quality tab about gold: list, promote what everybody judged alike, drop one."""

from __future__ import annotations

from typing import Any

import gradio as gr

from annotate.pages.admin.acting import QUIETLY, Update, acting, admin
from annotate.pages.admin.asking import Question
from annotate.pages.admin.panels.gold import write_gold
from annotate.pages.admin.panels.pieces import count, say
from annotate.services import Services
from store.errors import BadValue
from store.gold import drop_gold, promote_unanimous, propose_unanimous, read_gold
from store.shown import read_shown_tasks

MOST_SHOWN = 50


class GoldSection:
    """Lays itself out where it is made; both acts ask first."""

    is_polled = False

    def __init__(self, services: Services) -> None:
        self._services = services
        with gr.Column(elem_classes=["card"]):
            gr.HTML("<h2>Gold tasks</h2>", js_on_load=None)
            self._table = gr.HTML("", js_on_load=None, elem_id="gold")
            with gr.Row(elem_classes=["buttons"]):
                self._votes = gr.Number(
                    3, label="People who agreed, at least", minimum=2, precision=0, elem_id="gold-votes"
                )
                self._promote = gr.Button("Promote unanimous tasks…", size="md", elem_id="gold-promote")
                self._pick = gr.Dropdown([], label="Gold task", filterable=False, elem_id="gold-pick")
                self._drop = gr.Button("Drop…", size="md", elem_id="gold-drop")
            self._ask_promote = Question("gold-promote", "Promote")
            self._ask_drop = Question("gold-drop", "Drop")
            self.says = gr.HTML("", js_on_load=None, elem_id="gold-says")
        self.seen: list[Any] = []
        self.outputs = [self._table, self._pick]

    def wire(self) -> None:
        """Bind the buttons."""
        told = [self.says, *self.outputs, *self._ask_promote.outputs, *self._ask_drop.outputs]
        self._promote.click(self.ask_promote, [self._votes], told, **QUIETLY)
        self._drop.click(self.ask_drop, [self._pick], told, **QUIETLY)
        self._ask_promote.wire(self.promote, told)
        self._ask_drop.wire(self.drop, told)

    def read(self) -> Update:
        """The newest gold tasks."""
        gold = read_gold(self._services.store)[:MOST_SHOWN]
        tasks = read_shown_tasks(self._services.store, [each.task_id for each in gold])
        choices = [(f"{each.task_id[-8:]} · {each.source}", each.task_id) for each in gold]
        return {self._table: write_gold(gold, tasks), self._pick: gr.update(choices=choices)}

    @acting("look for unanimous tasks")
    def ask_promote(self, votes: float, request: gr.Request) -> Update:  # noqa: ARG002
        """Open the row that says how many there are."""
        least = int(votes)
        found = propose_unanimous(self._services.store, least)
        if not found:
            raise BadValue(f"no task was judged alike by {least} people; try fewer, or wait for more labels")
        sentence = (
            f"Make {count(len(found), 'task')} gold? At least {least} people judged each, all alike. They"
            " then measure people, and are trained on no more; you can drop them again."
        )
        return self._closed() | self._ask_promote.ask(sentence, str(least))

    @acting("promote these tasks")
    def promote(self, least: str, request: gr.Request) -> Update:  # noqa: ARG002
        """Make them gold."""
        made = promote_unanimous(self._services.store, int(least or 0))
        return self._closed() | self.read() | {self.says: say(f"{count(len(made), 'task')} made gold.")}

    @acting("drop this gold task")
    def ask_drop(self, task_id: str | None, request: gr.Request) -> Update:  # noqa: ARG002
        """Open the row that asks."""
        if not task_id:
            raise BadValue("pick a gold task first")
        sentence = "Forget the known answer? The task's labels are trained on again."
        return self._closed() | self._ask_drop.ask(sentence, task_id)

    @acting("drop this gold task")
    def drop(self, task_id: str, request: gr.Request) -> Update:
        """Make it a task like any other."""
        drop_gold(self._services.store, task_id, admin(request).name)
        told = say(f"Task {task_id[-8:]} is not gold any more.")
        return self._closed() | self.read() | {self.says: told}

    def _closed(self) -> Update:
        return self._ask_promote.close() | self._ask_drop.close()
