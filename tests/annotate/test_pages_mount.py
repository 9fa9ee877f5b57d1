"""The three pages as they are mounted: who gets in, which functions answer whom, what they may be sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from gradio.helpers import EventData, special_args
from starlette.routing import Mount

from annotate.pages import mount_pages
from annotate.services import Services
from annotate.web import build_app
from store.database import Store
from store.people import add_person
from store.records import Person
from tests.annotate.conftest import BASE_URL, OWN, ROLES, sign_in
from tests.annotate.pages import as_person, inside_a_loop
from tests.fakes import make_services

PAGES = {"/annotate": "annotator", "/chat": "tester", "/admin": "admin"}
WRONG_ROLES = [("/annotate", "tester"), ("/chat", "annotator"), ("/admin", "annotator"), ("/admin", "tester")]
TAKEN_FROM_THE_BROWSER = (gr.Textbox, gr.Number, gr.Radio, gr.Checkbox, gr.CheckboxGroup, gr.Dropdown)


def pages_of(app: FastAPI) -> dict[str, Any]:
    """The gr.Blocks of each mount path."""
    mounts = [route for route in app.routes if isinstance(route, Mount)]
    return {mount.path: mount.app.get_blocks() for mount in mounts}  # type: ignore[attr-defined]


@dataclass(frozen=True)
class House:
    """A web process with its pages, and one person of each role; shared, since mounting takes a second."""

    services: Services
    people: dict[str, Person]
    app: FastAPI

    @property
    def pages(self) -> dict[str, Any]:
        return pages_of(self.app)

    def visit(self, role: str) -> TestClient:
        """A browser in which this role has signed in."""
        client = TestClient(self.app, base_url=BASE_URL, follow_redirects=False)
        sign_in(client, role)
        return client


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    store = Store.in_memory()
    people: dict[str, Person] = {
        role: add_person(store, role, role, f"{role}-password").person for role in ROLES
    }
    services = make_services(store)
    yield House(services, people, inside_a_loop(lambda: build_app(services)))
    store.close()


def call(function: Any, request: Any) -> str:
    """Everything the function answers, as text; every input is "x" and every event a made-up one."""
    event = EventData(None, {"index": 1, "value": "x", "liked": True})
    inputs, *_ = special_args(function.fn, ["x"] * len(function.inputs), request, event)
    answer = function.fn(*inputs)
    return str(list(answer)) if hasattr(answer, "__next__") else str(answer)


def python_functions(page: Any) -> list[Any]:
    return [function for function in page.fns.values() if function.fn is not None]


def test_three_pages_are_mounted(house: House) -> None:
    assert sorted(house.pages) == sorted(PAGES)


def test_a_mounted_page_counts_as_launched_so_that_file_paths_are_checked(house: House) -> None:
    assert all(page.has_launched for page in house.pages.values())


def test_nothing_of_gradios_own_extras_is_on(house: House) -> None:
    for page in house.pages.values():
        assert page.footer_links == []
        extras = (page.run_history, page.enable_monitoring, page.show_error, page.analytics_enabled)
        assert not any(extras)


def test_no_page_keeps_state_in_gradio_or_takes_a_file_or_a_chat_history(house: House) -> None:
    for page in house.pages.values():
        assert not [block for block in page.blocks.values() if isinstance(block, gr.State)]
        for function in page.fns.values():
            assert all(isinstance(block, TAKEN_FROM_THE_BROWSER) for block in function.inputs), function.name


@pytest.mark.parametrize(("path", "role"), WRONG_ROLES)
def test_every_function_of_a_page_refuses_the_wrong_role(house: House, path: str, role: str) -> None:
    request = as_person(house.people[role])
    functions = python_functions(house.pages[path])
    assert len(functions) >= 5
    for function in functions:
        assert f"needs the role {PAGES[path]}" in call(function, request).lower(), function.name


@pytest.mark.parametrize(("path", "role"), WRONG_ROLES)
@pytest.mark.parametrize("route", ["queue/join", "run/predict", "call/open", "api/judge"])
def test_no_route_of_a_page_runs_a_function_for_the_wrong_role(
    house: House, path: str, role: str, route: str
) -> None:
    visitor = house.visit(role)
    for number in house.pages[path].fns:
        body = {"fn_index": number, "data": [], "session_hash": "of-my-own"}
        reply = visitor.post(f"{path}/gradio_api/{route}", json=body, headers=OWN)
        assert reply.status_code == 403, (route, number, reply.text)


def test_without_the_guard_the_pages_still_let_nobody_in(house: House) -> None:
    unguarded = TestClient(inside_a_loop(lambda: mount_pages(FastAPI(), house.services)))
    body = {"fn_index": 0, "data": [], "session_hash": "mine"}
    for path in PAGES:
        assert unguarded.get(f"{path}/config").status_code == 401
        assert unguarded.post(f"{path}/gradio_api/queue/join", json=body).status_code == 401


@pytest.mark.parametrize(("path", "role"), PAGES.items())
def test_the_right_role_gets_its_page(house: House, path: str, role: str) -> None:
    assert house.visit(role).get(f"{path}/").status_code == 200


def test_an_admin_gets_every_page(house: House) -> None:
    visitor = house.visit("admin")
    assert [visitor.get(f"{path}/").status_code for path in PAGES] == [200, 200, 200]
