"""Which tab reads the store, and when."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest

from annotate.pages.admin import frame
from annotate.services import Services
from store.database import Store
from store.people import Credentials
from tests.annotate.pages import as_person, inside_a_loop
from tests.fakes import make_services


class Counting:
    """A section that notes what it was read with."""

    def __init__(self, services: Services, is_polled: bool, num_seen: int) -> None:  # noqa: ARG002
        self.is_polled = is_polled
        self.seen = [gr.Textbox(visible="hidden") for _ in range(num_seen)]
        self.outputs: list[Any] = []
        self.reads: list[tuple[str, ...]] = []

    def wire(self) -> None:
        """No buttons."""

    def read(self, *seen: str) -> dict[Any, Any]:
        self.reads.append(seen)
        return {}


@pytest.fixture
def root(people: dict[str, Credentials]) -> Any:
    return as_person(people["admin"].person)


def build(store: Store) -> tuple[frame.Frame, dict[str, Counting]]:
    services = make_services(store)

    def lay_out() -> tuple[frame.Frame, dict[str, Counting]]:
        with gr.Blocks():
            parts = {
                "one": Counting(services, is_polled=True, num_seen=2),
                "two": Counting(services, is_polled=False, num_seen=1),
            }
            sections: Any = {name: [part] for name, part in parts.items()}
            made = frame.Frame(services, (gr.HTML(), gr.HTML()), gr.Textbox(), gr.HTML(), sections)
        return made, parts

    return inside_a_loop(lay_out)


def test_a_poll_reads_the_shown_tab_alone_and_tells_it_what_the_browser_has(store: Store, root: Any) -> None:
    made, parts = build(store)
    made.poll("one", root, "a", "b", "c")
    assert parts["one"].reads == [("a", "b")]
    assert parts["two"].reads == []


def test_a_tab_that_does_not_change_by_itself_is_read_only_when_opened(store: Store, root: Any) -> None:
    made, parts = build(store)
    made.show("two", root, "a", "b", "c")
    made.poll("two", root, "a", "b", "c")
    assert parts["two"].reads == [("c",)]


def test_an_unknown_tab_reads_nothing(store: Store, root: Any) -> None:
    made, parts = build(store)
    made.show("<none>", root)
    made.poll("<none>", root)
    assert [part.reads for part in parts.values()] == [[], []]
