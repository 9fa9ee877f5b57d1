"""Calling a page's handlers the way Gradio does, without a server or a browser."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar

import gradio as gr
from starlette.requests import Request

from annotate.auth import Identity, remember_identity
from annotate.services import Services
from store.records import Person

Built = TypeVar("Built")


def inside_a_loop(build: Callable[[], Built]) -> Built:
    """Built outside a running event loop, Gradio's blocks make loops of their own and never close them."""

    async def built() -> Built:
        return build()

    return asyncio.run(built())


def as_person(person: Person) -> Any:
    """A call of this person, as a handler gets it."""
    scope: dict[str, Any] = {"type": "http", "headers": [], "query_string": b""}
    remember_identity(scope, Identity(person, "session"))
    return SimpleNamespace(request=Request(scope), query_params={})


def lay_out(section: Callable[[Services], Built], services: Services) -> Built:
    """A part of a page in a page of its own."""

    def build() -> Built:
        with gr.Blocks():
            return section(services)

    return inside_a_loop(build)
