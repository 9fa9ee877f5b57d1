"""What every handler does around its own act: the role is checked first, errors become a sentence."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Protocol

from annotate.auth import require
from annotate.pages.admin.panels.pieces import say
from annotate.pages.faults import explain
from store.records import Person

# Events of the page: not in Gradio's queue, no veil over the page while they run, not in its API.
QUIETLY: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
SLOWLY: dict[str, Any] = QUIETLY | {"show_progress": "minimal"}  # for what can take seconds
Update = dict[Any, Any]


class Section(Protocol):
    """A part of a tab. It lays itself out where it is made; `is_polled` when it changes while one looks."""

    is_polled: bool
    seen: list[Any]  # hidden boxes that name what the browser has already
    outputs: list[Any]

    def wire(self) -> None:
        """Bind its buttons."""

    def read(self, *args: Any, **kwargs: Any) -> Update:
        """What is shown, as it is now, given the values of `seen`."""


def acting(act: str) -> Callable[[Callable[..., Update]], Callable[..., Update]]:
    """Around a method of a section with a `says`: admins only; what goes wrong is said there.

    `act` ends the sentence "could not …". One of the handler's parameters is called `request`.
    """

    def wrap(method: Callable[..., Update]) -> Callable[..., Update]:
        place = list(inspect.signature(method).parameters).index("request") - 1  # after `self`

        @functools.wraps(method)
        def handler(self: Any, *inputs: Any) -> Update:
            try:
                admin(inputs[place])
                return method(self, *inputs)
            except Exception as error:
                return {self.says: say(explain(error, act), is_bad=True)}

        return handler

    return wrap


def admin(request: Any) -> Person:
    """Who is asking; NotAllowed when they are no admin."""
    return require(request.request, "admin")
